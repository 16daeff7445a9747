"""Committed offsets: commit, fetch, delete."""

from __future__ import annotations

import uuid

from differential.scenario import scenario
from differential.scenarios.groups import member_of

UNKNOWN_ID = uuid.UUID("00000000-0000-4000-8000-00000000beef")


def commit(s, v, label, group, topics, *, generation=-1, member="", instance=None, record=True, **more):
    """`topics` is a list of (name, id, [(partition, offset, fields)])."""
    fields = {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member,
              "Topics": [{"Name": n, "TopicId": i, "Partitions": [
                  {"PartitionIndex": p, "CommittedOffset": o, **f} for p, o, f in parts]}
                  for n, i, parts in topics], **more}
    if instance is not None:
        fields["GroupInstanceId"] = instance
    if record:
        return s.step(label, "OffsetCommit", v, **fields)
    return s.do("OffsetCommit", v, **fields)


def fetch(s, v, label, groups, stable=False, member=None):
    """`groups` is a list of (group, topics), topics a list of (name, id, [partition]) or None."""
    if v >= 8:
        return s.step(label, "OffsetFetch", v, RequireStable=stable, Groups=[
            {"GroupId": g, **(member or {}), "Topics": topics if topics is None else [
                {"Name": n, "TopicId": i, "PartitionIndexes": parts} for n, i, parts in topics]}
            for g, topics in groups])
    (group, topics), = groups
    return s.step(label, "OffsetFetch", v, GroupId=group, **({"RequireStable": stable} if v >= 7 else {}),
                  Topics=topics if topics is None else [
                      {"Name": n, "PartitionIndexes": parts} for n, i, parts in topics])


@scenario("OffsetCommit")
def commit_without_members(s, v):
    t, g = s.topic(partitions=2), s.name("g")
    commit(s, v, "first", g, [(t.name, t.id, [(0, 5, {"CommittedMetadata": "note"}), (1, 7, {})])])
    commit(s, v, "null metadata", g, [(t.name, t.id, [(0, 6, {"CommittedMetadata": None})])])
    commit(s, v, "negative offset", g, [(t.name, t.id, [(1, -9, {})])])
    commit(s, v, "unknown partition", g, [(t.name, t.id, [(9, 1, {})])])
    commit(s, v, "negative partition", g, [(t.name, t.id, [(-1, 1, {})])])
    commit(s, v, "unknown topic", g, [(s.name("absent"), UNKNOWN_ID, [(0, 1, {})])])
    commit(s, v, "good and bad", g, [(t.name, t.id, [(0, 9, {}), (9, 1, {})]),
                                     (s.name("absent"), UNKNOWN_ID, [(0, 1, {})])])
    commit(s, v, "long metadata", g, [(t.name, t.id, [(0, 6, {"CommittedMetadata": "x" * 5000})])])
    commit(s, v, "metadata of 4096", g, [(t.name, t.id, [(1, 6, {"CommittedMetadata": "x" * 4096})])])
    commit(s, v, "no topics", g, [])
    commit(s, v, "no partitions", g, [(t.name, t.id, [])])
    commit(s, v, "generation 3 of no group", s.name("h"), [(t.name, t.id, [(0, 6, {})])], generation=3)
    commit(s, v, "member of no group", s.name("h"), [(t.name, t.id, [(0, 6, {})])], member="nobody")
    commit(s, v, "generation and member of no group", s.name("h"), [(t.name, t.id, [(0, 6, {})])],
           generation=3, member="nobody")
    commit(s, v, "empty group id", "", [(t.name, t.id, [(0, 6, {})])])
    fetch(s, 9, "what is there", [(g, [(t.name, t.id, [0, 1])])])


@scenario("OffsetCommit", range(6, 11))
def commit_leader_epochs(s, v):
    t, g = s.topic(), s.name("g")
    commit(s, v, "with epoch", g, [(t.name, t.id, [(0, 5, {"CommittedLeaderEpoch": t.epochs[0]})])])
    fetch(s, 9, "with epoch", [(g, [(t.name, t.id, [0])])])
    commit(s, v, "without", g, [(t.name, t.id, [(0, 5, {})])])
    fetch(s, 9, "without", [(g, [(t.name, t.id, [0])])])


@scenario("OffsetCommit", range(2, 5))
def commit_retention(s, v):
    t, g = s.topic(), s.name("g")
    commit(s, v, "retention", g, [(t.name, t.id, [(0, 5, {})])], RetentionTimeMs=3_600_000)
    fetch(s, 9, "what is there", [(g, [(t.name, t.id, [0])])])


@scenario("OffsetCommit")
def commit_of_members(s, v):
    t, g = s.topic(), s.name("g")
    first = member_of(s, g, instance="i1")
    here = [(t.name, t.id, [(0, 5, {})])]
    now, me = first["GenerationId"], first["MemberId"]
    commit(s, v, "member", g, here, generation=now, member=me)
    commit(s, v, "wrong generation", g, here, generation=now + 1, member=me)
    commit(s, v, "unknown member", g, here, generation=now, member="nobody")
    commit(s, v, "no member, group not empty", g, here)
    commit(s, v, "generation alone", g, here, generation=now)
    commit(s, v, "member alone", g, here, member=me)
    if v >= 7:
        commit(s, v, "instance", g, here, generation=now, member=me, instance="i1")
        commit(s, v, "unknown instance", g, here, generation=now, member=me, instance="i9")
        commit(s, v, "instance of another id", g, here, generation=now, member="other", instance="i1")


@scenario("OffsetFetch")
def fetch_offsets(s, v):
    t, u, g = s.topic(partitions=2), s.topic("u"), s.name("g")
    commit(s, 9, "", g, [(t.name, t.id, [(0, 5, {"CommittedMetadata": "note"})]), (u.name, u.id, [(0, 1, {})])],
           record=False)
    fetch(s, v, "there and not", [(g, [(t.name, t.id, [0, 1])])])
    fetch(s, v, "unknown partition", [(g, [(t.name, t.id, [9, -1])])])
    fetch(s, v, "unknown topic", [(g, [(s.name("absent"), UNKNOWN_ID, [0])])])
    fetch(s, v, "unknown group", [(s.name("absent"), [(t.name, t.id, [0])])])
    fetch(s, v, "empty group id", [("", [(t.name, t.id, [0])])])
    fetch(s, v, "no topics", [(g, [])])
    fetch(s, v, "no partitions", [(g, [(t.name, t.id, [])])])
    fetch(s, v, "twice", [(g, [(t.name, t.id, [0, 0])])])
    if v >= 2:
        fetch(s, v, "all", [(g, None)])
        fetch(s, v, "all of an unknown group", [(s.name("absent"), None)])
    if v >= 7:
        fetch(s, v, "stable", [(g, [(t.name, t.id, [0, 1])])], stable=True)
        fetch(s, v, "stable, all", [(g, None)], stable=True)
    if v >= 8:
        fetch(s, v, "two groups", [(g, [(t.name, t.id, [0])]), (s.name("absent"), [(t.name, t.id, [0])])])
        fetch(s, v, "one group twice", [(g, [(t.name, t.id, [0])]), (g, None)])
        fetch(s, v, "no groups", [])
    if v >= 9:
        fetch(s, v, "member of a classic group", [(g, [(t.name, t.id, [0])])],
              member={"MemberId": "nobody", "MemberEpoch": 3})


@scenario("OffsetDelete")
def delete_offsets(s, v):
    t, u, g = s.topic(partitions=2), s.topic("u"), s.name("g")
    commit(s, 9, "", g, [(t.name, t.id, [(0, 5, {}), (1, 6, {})]), (u.name, u.id, [(0, 1, {})])], record=False)

    def delete(label, group, topics):
        s.step(label, "OffsetDelete", v, GroupId=group, Topics=[
            {"Name": n, "Partitions": [{"PartitionIndex": p} for p in parts]} for n, parts in topics])
    delete("one", g, [(t.name, [0])])
    delete("again", g, [(t.name, [0])])
    delete("unknown partition", g, [(t.name, [9])])
    delete("unknown topic", g, [(s.name("absent"), [0])])
    delete("unknown group", s.name("absent"), [(t.name, [0])])
    delete("empty group id", "", [(t.name, [0])])
    delete("nothing", g, [])
    delete("twice", g, [(t.name, [1]), (t.name, [1])])
    fetch(s, 8, "what is left", [(g, None)])
    delete("the last", g, [(u.name, [0])])
    s.step("an empty group", "DescribeGroups", 6, Groups=[g])


@scenario("OffsetDelete")
def delete_offsets_in_use(s, v):
    t, u, g = s.topic(), s.topic("u"), s.name("g")
    from differential.scenarios.groups import subscription
    first = member_of(s, g, protocols=(("range", subscription(t.name)),))
    commit(s, 9, "", g, [(t.name, t.id, [(0, 5, {})]), (u.name, u.id, [(0, 5, {})])],
           generation=first["GenerationId"], member=first["MemberId"], record=False)
    s.step("subscribed and not", "OffsetDelete", v, GroupId=g, Topics=[
        {"Name": n, "Partitions": [{"PartitionIndex": 0}]} for n in (t.name, u.name)])
    h = s.name("h")
    other = member_of(s, h, kind="connect")
    s.step("not a consumer group", "OffsetDelete", v, GroupId=h, Topics=[
        {"Name": t.name, "Partitions": [{"PartitionIndex": 0}]}])
    assert other
