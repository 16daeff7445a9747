"""Share groups (KIP-932): membership, fetching and acknowledging, offsets."""

from __future__ import annotations

import itertools
import uuid

from differential.records import batch
from differential.scenario import scenario

UNKNOWN_ID = uuid.UUID("00000000-0000-4000-8000-00000000beef")
MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
OTHER = "AAAAAAAAAAAAAAAAAAAAAg"
GAP, ACCEPT, RELEASE, REJECT, RENEW = range(5)
GROUP, SET = 32, 0


def beat(s, v, label, group, member=MEMBER, epoch=0, topics=None, **more):
    return s.step(label, "ShareGroupHeartbeat", v, GroupId=group, MemberId=member, MemberEpoch=epoch,
                  SubscribedTopicNames=topics, **more)


def from_the_start(s, group):
    """The group reads what was there before it."""
    answer = s.do("IncrementalAlterConfigs", ValidateOnly=False, Resources=[
        {"ResourceType": GROUP, "ResourceName": group, "Configs": [
            {"Name": "share.auto.offset.reset", "ConfigOperation": SET, "Value": "earliest"}]}])
    assert answer["Responses"][0]["ErrorCode"] == 0, answer


def steady(s, group, topics, member=MEMBER, partitions=1):
    """A member with its partitions; not recorded. Its epoch."""
    state = {}

    def call():
        got = s.do("ShareGroupHeartbeat", GroupId=group, MemberId=member, MemberEpoch=state.get("epoch", 0),
                   SubscribedTopicNames=None if state else topics)
        assert got["ErrorCode"] == 0, got
        state["epoch"] = got["MemberEpoch"]
        state["assigned"] = got["Assignment"] or state.get("assigned")
        return state["assigned"] and sum(
            len(t["Partitions"]) for t in state["assigned"]["TopicPartitions"]) == partitions
    s.until("the member has its partitions", call)
    return state["epoch"]


@scenario("ShareGroupHeartbeat")
def share_heartbeats(s, v):
    t, g = s.topic(partitions=2), s.name("g")
    first = beat(s, v, "join", g, topics=[t.name])
    epoch = first["MemberEpoch"]
    beat(s, v, "older epoch", g, epoch=epoch - 1)
    beat(s, v, "newer epoch", g, epoch=epoch + 7)
    beat(s, v, "unknown member", g, OTHER, epoch)
    beat(s, v, "unknown group", s.name("absent"), epoch=epoch)
    beat(s, v, "leave", g, epoch=-1)
    beat(s, v, "leave again", g, epoch=-1)
    beat(s, v, "empty group", "", topics=[t.name])
    beat(s, v, "no member id", g, "", topics=[t.name])
    beat(s, v, "no topics", g, topics=None)
    beat(s, v, "empty topics", g, topics=[])
    beat(s, v, "epoch -3", g, epoch=-3)
    beat(s, v, "empty rack", g, topics=[t.name], RackId="")
    beat(s, v, "unknown topic", s.name("h"), topics=[s.name("absent")])


@scenario("ShareGroupDescribe")
def describe_share_groups(s, v):
    t, g = s.topic(partitions=2), s.name("g")
    steady(s, g, [t.name], partitions=2)

    def describe(label, groups, **more):
        s.step(label, "ShareGroupDescribe", v, GroupIds=groups, keep=lambda a: dict(a, Groups=[
            dict(x, Members=[dict(m, ClientHost="/" in m["ClientHost"]) for m in x["Members"]])
            for x in a["Groups"]]), **more)
    describe("stable", [g])
    describe("unknown", [s.name("absent")])
    describe("empty id", [""])
    describe("operations", [g], IncludeAuthorizedOperations=True)
    describe("none", [])
    s.step("as a classic group", "DescribeGroups", 6, Groups=[g])
    s.step("as a consumer group", "ConsumerGroupDescribe", 1, GroupIds=[g])
    s.step("listed", "ListGroups", 5, TypesFilter=["share"], keep=lambda a: dict(a, Groups=[
        x for x in a["Groups"] if s.mine(x["GroupId"])]))


def share_fetch(s, v, label, group, topics, *, member=MEMBER, epoch=0, on=None, record=True, forget=(), **more):
    """`topics` is a list of (id, [(partition, [acknowledgement])])."""
    fields = {"GroupId": group, "MemberId": member, "ShareSessionEpoch": epoch, "MaxWaitMs": 500, "MinBytes": 1,
              "MaxBytes": 1 << 20, "MaxRecords": 500, "BatchSize": 500, "Topics": [
                  {"TopicId": i, "Partitions": [
                      {"PartitionIndex": p, "AcknowledgementBatches": a} for p, a in parts]}
                  for i, parts in topics], "ForgottenTopicsData": [
                      {"TopicId": i, "Partitions": parts} for i, parts in forget], **more}
    if record:
        return s.step(label, "ShareFetch", v, on=on, **fields)
    return s.do("ShareFetch", v, on=on, **fields)


def ack(first, last, *kinds):
    return {"FirstOffset": first, "LastOffset": last, "AcknowledgeTypes": list(kinds)}


def acquired(answer):
    return sum(a["LastOffset"] - a["FirstOffset"] + 1 for t in answer["Responses"]
               for p in t["Partitions"] for a in p["AcquiredRecords"])


def ready(s, v, suffix="g", values=(b"a", b"b", b"c")):
    """A topic with records, a member of a group, and the records acquired. Topic, group, connection."""
    t, g = s.topic(f"{suffix}-t"), s.name(suffix)
    from_the_start(s, g)
    s.produce(t, batch(list(values)))
    steady(s, g, [t.name])
    connection = s.connect()
    # The partition is initialised while the first fetches wait.
    box = {"epoch": 0}

    def first():
        got = share_fetch(s, v, "", g, [(t.id, [(0, [])])] if box["epoch"] == 0 else [], epoch=box["epoch"],
                          on=connection, record=False)
        assert got["ErrorCode"] == 0, got
        box["epoch"] += 1
        box["answer"] = got
        return acquired(got) == len(values)
    s.until("the records are acquired", first)
    s.record("acquired", "ShareFetch", v, box["answer"])
    return t, g, connection, box["epoch"]


@scenario("ShareFetch")
def share_fetch_and_acknowledge(s, v):
    t, g, on, epoch = ready(s, v)
    share_fetch(s, v, "nothing more", g, [], epoch=epoch, on=on)
    share_fetch(s, v, "accept, release, reject", g, [(t.id, [(0, [
        ack(0, 0, ACCEPT), ack(1, 1, RELEASE), ack(2, 2, REJECT)])])], epoch=epoch + 1, on=on)
    share_fetch(s, v, "acknowledged already", g, [(t.id, [(0, [ack(0, 0, ACCEPT)])])], epoch=epoch + 2, on=on,
                MaxWaitMs=0)
    share_fetch(s, v, "wrong session epoch", g, [], epoch=epoch + 9, on=on)
    share_fetch(s, v, "end of session", g, [], epoch=-1, on=on)
    share_fetch(s, v, "session is gone", g, [], epoch=epoch + 4, on=on)


@scenario("ShareFetch")
def share_fetch_bad(s, v):
    t, g = s.topic(), s.name("g")
    steady(s, g, [t.name])
    share_fetch(s, v, "unknown session", g, [], epoch=5)
    share_fetch(s, v, "empty group", "", [(t.id, [(0, [])])])
    share_fetch(s, v, "empty member", g, [(t.id, [(0, [])])], member="")
    share_fetch(s, v, "unknown topic", g, [(UNKNOWN_ID, [(0, [])])], member=OTHER, MaxWaitMs=0)
    share_fetch(s, v, "acknowledgements first", g, [(t.id, [(0, [ack(0, 0, ACCEPT)])])],
                member="AAAAAAAAAAAAAAAAAAAAAw")
    share_fetch(s, v, "session not begun", g, [(t.id, [(0, [])])], epoch=-1, member="AAAAAAAAAAAAAAAAAAAABA")


@scenario("ShareAcknowledge")
def share_acknowledge(s, v):
    t, g, on, epoch = ready(s, v)

    def acknowledge(label, batches, at, partition=0, topic=t.id, group=g, member=MEMBER, **more):
        return s.step(label, "ShareAcknowledge", v, on=on, GroupId=group, MemberId=member, ShareSessionEpoch=at,
                      Topics=[{"TopicId": topic, "Partitions": [
                          {"PartitionIndex": partition, "AcknowledgementBatches": batches}]}], **more)
    acknowledge("accept one", [ack(0, 0, ACCEPT)], epoch)
    acknowledge("again", [ack(0, 0, ACCEPT)], epoch + 1)
    acknowledge("unknown partition", [ack(0, 0, ACCEPT)], epoch + 2, partition=7)
    acknowledge("unknown topic", [ack(0, 0, ACCEPT)], epoch + 3, topic=UNKNOWN_ID)
    acknowledge("beyond what is acquired", [ack(50, 60, ACCEPT)], epoch + 4)
    acknowledge("kind 9", [ack(1, 1, 9)], epoch + 5)
    acknowledge("backwards", [ack(2, 1, ACCEPT)], epoch + 6)
    acknowledge("kinds do not fit", [ack(1, 2, ACCEPT, ACCEPT, ACCEPT)], epoch + 7)
    acknowledge("kinds one by one", [ack(1, 2, RELEASE, ACCEPT)], epoch + 8)
    acknowledge("session epoch 0", [ack(1, 1, ACCEPT)], 0)
    acknowledge("unknown member", [ack(1, 1, ACCEPT)], 5, member=OTHER)
    # A member that no other scenario has: groups without a name are one.
    acknowledge("empty group", [ack(1, 1, ACCEPT)], 5, group="", member="AAAAAAAAAAAAAAAAAAAABg")


@scenario("DescribeShareGroupOffsets")
def describe_share_offsets(s, v):
    t, g, on, epoch = ready(s, 1)
    at = itertools.count(epoch)

    def moved():
        # Again if need be: Kafka's first acknowledgements may fail, while it makes the topic of their state.
        s.do("ShareAcknowledge", on=on, GroupId=g, MemberId=MEMBER, ShareSessionEpoch=next(at), Topics=[
            {"TopicId": t.id, "Partitions": [{"PartitionIndex": 0, "AcknowledgementBatches": [ack(0, 1, ACCEPT)]}]}])
        got = s.do("DescribeShareGroupOffsets", Groups=[{"GroupId": g, "Topics": [
            {"TopicName": t.name, "Partitions": [0]}]}])
        return got["Groups"][0]["Topics"][0]["Partitions"][0]["StartOffset"] == 2

    def describe(label, group, topics, keep=None):
        s.step(label, "DescribeShareGroupOffsets", v, keep=keep, Groups=[
            {"GroupId": group, "Topics": topics if topics is None else [
                {"TopicName": n, "Partitions": parts} for n, parts in topics]}])

    def no_epoch(answer):
        """Where there are no offsets the leader epoch is the number 0, which is no epoch: not for renaming."""
        return dict(answer, Groups=[dict(g, Topics=[dict(t, Partitions=[
            dict(p, LeaderEpoch="none" if p["LeaderEpoch"] == 0 else p["LeaderEpoch"]) for p in t["Partitions"]])
            for t in g["Topics"]]) for g in answer["Groups"]])
    s.until("the start has moved", moved, limit_s=60.0)
    describe("one", g, [(t.name, [0])])
    describe("all", g, None)
    describe("unknown partition", g, [(t.name, [7])], no_epoch)
    describe("unknown topic", g, [(s.name("absent"), [0])], no_epoch)
    describe("unknown group", s.name("absent"), [(t.name, [0])], no_epoch)
    describe("all of an unknown group", s.name("absent"), None)
    s.step("none", "DescribeShareGroupOffsets", v, Groups=[])


def emptied(s, group):
    s.do("ShareGroupHeartbeat", GroupId=group, MemberId=MEMBER, MemberEpoch=-1)


@scenario("AlterShareGroupOffsets")
def alter_share_offsets(s, v):
    t, g, _on, _epoch = ready(s, 1)

    def alter(label, group, topic, parts):
        s.step(label, "AlterShareGroupOffsets", v, GroupId=group, Topics=[
            {"TopicName": topic, "Partitions": [{"PartitionIndex": p, "StartOffset": o} for p, o in parts]}])
    alter("not empty", g, t.name, [(0, 1)])
    emptied(s, g)
    alter("empty", g, t.name, [(0, 1)])
    alter("unknown partition", g, t.name, [(9, 1)])
    alter("unknown topic", g, s.name("absent"), [(0, 1)])
    alter("unknown group", s.name("absent"), t.name, [(0, 1)])
    alter("empty group id", "", t.name, [(0, 1)])
    s.step("nothing", "AlterShareGroupOffsets", v, GroupId=g, Topics=[])
    s.step("altered", "DescribeShareGroupOffsets", 1, Groups=[{"GroupId": g, "Topics": None}])


@scenario("DeleteShareGroupOffsets")
def delete_share_offsets(s, v):
    t, g, _on, _epoch = ready(s, 1)

    def delete(label, group, topics):
        s.step(label, "DeleteShareGroupOffsets", v, GroupId=group, Topics=[{"TopicName": n} for n in topics])
    delete("not empty", g, [t.name])
    emptied(s, g)
    delete("unknown topic", g, [s.name("absent")])
    delete("good", g, [t.name])
    delete("again", g, [t.name])
    delete("unknown group", s.name("absent"), [t.name])
    delete("empty group id", "", [t.name])
    delete("nothing", g, [])
    s.step("deleted", "DescribeShareGroupOffsets", 1, Groups=[{"GroupId": g, "Topics": None}])
