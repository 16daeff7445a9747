"""Streams groups (KIP-1071): what becomes of a topology, of its internal topics and of its tasks."""

from __future__ import annotations

import uuid

from differential.scenario import scenario

MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
OTHER = "AAAAAAAAAAAAAAAAAAAAAg"


def beat(s, v, label, group, member=MEMBER, epoch=0, **more):
    return s.step(label, "StreamsGroupHeartbeat", v, GroupId=group, MemberId=member, MemberEpoch=epoch, **more)


def joining(source, **more):
    """What a member sends when it joins; it reads one topic unless `more` says otherwise."""
    return {"RebalanceTimeoutMs": 45_000, "Topology": of(part(0, [source])), **owning(), "ProcessId": "process-1",
            "ClientTags": [], **more}


def at_once(s, group):
    """The group assigns whenever it can: waiting is not what is compared. Kafka's coordinator learns of
    it a moment later: make topics after it."""
    answer = s.do("IncrementalAlterConfigs", ValidateOnly=False, Resources=[
        {"ResourceType": 32, "ResourceName": group, "Configs": [
            {"Name": name, "ConfigOperation": 0, "Value": "0"}
            for name in ("streams.initial.rebalance.delay.ms", "streams.assignment.interval.ms")]}])
    assert answer["Responses"][0]["ErrorCode"] == 0, answer
    return group


def info(name, partitions=0, **configs):
    return {"Name": name, "Partitions": partitions, "ReplicationFactor": 0,
            "TopicConfigs": [{"Key": k, "Value": v} for k, v in configs.items()]}


def part(number, sources=(), sinks=(), repartition=(), changelogs=(), groups=()):
    return {"SubtopologyId": str(number), "SourceTopics": list(sources), "SourceTopicRegex": [],
            "StateChangelogTopics": list(changelogs), "RepartitionSinkTopics": list(sinks),
            "RepartitionSourceTopics": list(repartition),
            "CopartitionGroups": [{"SourceTopics": a, "SourceTopicRegex": [], "RepartitionSourceTopics": b}
                                  for a, b in groups]}


def of(*parts, epoch=0):
    return {"Epoch": epoch, "Subtopologies": list(parts)}


def counting(s, source, fixed=0):
    """Reads a topic, sends its records by key through another, and counts them."""
    return of(part(0, [source], sinks=[s.name("by-key")]),
              part(1, repartition=[info(s.name("by-key"), fixed)],
                   changelogs=[info(s.name("counts"), **{"cleanup.policy": "compact"})]))


def owning(*tasks):
    return {"ActiveTasks": [{"SubtopologyId": str(i), "Partitions": p} for i, p in tasks],
            "StandbyTasks": [], "WarmupTasks": []}


def ready(s, group, topology, member=MEMBER):
    """Joins until internal topics are there and tasks are given: the member's epoch."""
    state = {"epoch": 0}

    def call():
        more = joining("", Topology=topology) if state["epoch"] == 0 else {}
        got = s.do("StreamsGroupHeartbeat", GroupId=group, MemberId=member, MemberEpoch=state["epoch"], **more)
        assert got["ErrorCode"] == 0, got
        state["epoch"] = got["MemberEpoch"]
        return got["Status"] == [] and got["MemberEpoch"] > 0
    s.until("internal topics", call)
    return state["epoch"]


@scenario("StreamsGroupHeartbeat")
def internal_topics(s, v):
    g = at_once(s, s.name("g"))
    t = s.topic(partitions=2)
    beat(s, v, "they are missing", g, **joining("", Topology=counting(s, t.name)))
    ready(s, g, counting(s, t.name))
    made = [{"TopicId": uuid.UUID(int=0), "Name": s.name(name)} for name in ("by-key", "counts")]
    s.step("they are made", "Metadata", 12, Topics=made,
           keep=lambda a: dict(Topics=[{k: x[k] for k in ("ErrorCode", "Name")} | {"Count": len(x["Partitions"])}
                                       for x in sorted(a["Topics"], key=lambda x: x["Name"])]))
    s.step("described", "StreamsGroupDescribe", 0, GroupIds=[g], keep=lambda a: dict(a, Groups=[
        {k: x[k] for k in ("ErrorCode", "GroupState", "Topology")} for x in a["Groups"]]))


@scenario("StreamsGroupHeartbeat")
def tasks_move(s, v):
    g = at_once(s, s.name("g"))
    t = s.topic(partitions=2)
    topology = counting(s, t.name)
    epoch = ready(s, g, topology)
    again = beat(s, v, "joins again", g, **joining("", Topology=topology))
    assert again["MemberEpoch"] == epoch
    beat(s, v, "another", g, OTHER, **joining("", Topology=topology, ProcessId="process-2"))
    beat(s, v, "the first is to give up", g, epoch=epoch, **owning((0, [0, 1]), (1, [0, 1])))
    beat(s, v, "it has not", g, epoch=epoch)
    beat(s, v, "a task that is not there", g, epoch=epoch, **owning((0, [7])))
    beat(s, v, "a subtopology that is not there", g, epoch=epoch, **owning((9, [0])))
    moved = beat(s, v, "it has", g, epoch=epoch, **owning((0, [0]), (1, [0])))
    beat(s, v, "one list without the others", g, epoch=epoch, ActiveTasks=[])
    other = s.do("StreamsGroupHeartbeat", GroupId=g, MemberId=OTHER, MemberEpoch=moved["MemberEpoch"])
    s.record("the other gets it", "StreamsGroupHeartbeat", v, other)
    s.step("described", "StreamsGroupDescribe", 0, GroupIds=[g], keep=lambda a: dict(a, Groups=[
        dict(x, Members=sorted((dict(m, ClientHost="") for m in x["Members"]), key=lambda m: m["MemberId"]))
        for x in a["Groups"]]))
    beat(s, v, "the first leaves", g, epoch=-1)
    beat(s, v, "the other gets all", g, OTHER, moved["MemberEpoch"], **owning((0, [1]), (1, [1])))


@scenario("StreamsGroupHeartbeat")
def topics_in_the_way(s, v):
    groups = iter([at_once(s, s.name(f"g{number}")) for number in range(10)])
    two, three = s.topic("two", partitions=2), s.topic("three", partitions=3)

    def ask(label, topology):
        beat(s, v, label, next(groups), **joining("", Topology=topology))
    absent = [s.name(f"absent{i}") for i in range(5)]
    ask("sources are missing", of(part(0, absent)))
    ask("joined topics differ", of(part(0, [two.name, three.name], groups=[([0, 1], [])])))
    s.topic("counts-wrong", partitions=5)
    ask("a changelog differs", of(part(0, [two.name], changelogs=[info(s.name("counts-wrong"))])))
    mid = s.name("mid")
    ask("a fixed count differs", of(
        part(0, [three.name], sinks=[mid]),
        part(1, [two.name], repartition=[info(mid, 3)], groups=[([0], [0])])))
    ask("never written", of(part(0, [two.name], repartition=[info(mid)])))
    ask("loops", of(part(0, sinks=[mid], repartition=[info(mid)])))
    ask("no sources", of(part(0, changelogs=[info(s.name("x"))])))
    ask("kafkas own topics", of(part(0, ["__consumer_offsets"])))
    ask("not a name", of(part(0, ["a b"])))
    ask("a changelog with a count", of(part(0, [two.name], changelogs=[info(s.name("x"), 3)])))


@scenario("StreamsGroupHeartbeat")
def not_supported(s, v):
    t, g = s.topic(), s.name("g")
    beat(s, v, "static", g, **joining(t.name, InstanceId="i"))
    beat(s, v, "static for now", g, epoch=-2)
    beat(s, v, "empty instance", g, **joining(t.name, InstanceId=""))
    beat(s, v, "empty rack", g, **joining(t.name, RackId=""))
    beat(s, v, "warm-ups", g, **joining(t.name, WarmupTasks=[{"SubtopologyId": "0", "Partitions": [0]}]))
    beat(s, v, "offsets", g, **joining(t.name, TaskOffsets=[]))
    beat(s, v, "end offsets", g, **joining(t.name, TaskEndOffsets=[]))
    regex = of(dict(part(0, [t.name]), SourceTopicRegex=["a.*"]))
    beat(s, v, "patterns", g, **joining("", Topology=regex))


@scenario("StreamsGroupHeartbeat")
def topologies_stay(s, v):
    g = at_once(s, s.name("g"))
    t, u = s.topic(), s.topic("u")
    beat(s, v, "epoch 3", g, **joining("", Topology=of(part(0, [t.name]), epoch=3)))
    beat(s, v, "another with the same epoch", g, OTHER, **joining("", Topology=of(part(0, [u.name]), epoch=3)))
    beat(s, v, "a later one", g, OTHER, **joining("", Topology=of(part(0, [t.name]), epoch=4)))
    beat(s, v, "an earlier one", g, OTHER, **joining("", Topology=of(part(0, [t.name]), epoch=2)))
    beat(s, v, "shutdown", g, epoch=2, ShutdownApplication=True)
    beat(s, v, "told", g, OTHER, 3)


@scenario("StreamsGroupHeartbeat")
def offsets_and_kinds(s, v):
    g = at_once(s, s.name("g"))
    t = s.topic()
    epoch = beat(s, v, "join", g, **joining(t.name))["MemberEpoch"]

    def commit(label, version, member, member_epoch):
        s.step(label, "OffsetCommit", version, GroupId=g, MemberId=member, GenerationIdOrMemberEpoch=member_epoch,
               Topics=[{"Name": t.name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 5}]}])

    def fetch(label, member, member_epoch):
        s.step(label, "OffsetFetch", 9, Groups=[{"GroupId": g, "MemberId": member, "MemberEpoch": member_epoch,
               "Topics": [{"Name": t.name, "PartitionIndexes": [0]}]}])
    commit("commit", 9, MEMBER, epoch)
    commit("commit ahead", 9, MEMBER, epoch + 1)
    commit("commit long ago", 9, MEMBER, 0)
    commit("commit of nobody", 9, "", -1)
    commit("commit of another", 9, OTHER, epoch)
    commit("commit by an old client", 8, MEMBER, epoch)
    fetch("fetch", MEMBER, epoch)
    fetch("fetch behind", MEMBER, epoch - 1)
    fetch("fetch of another", OTHER, epoch)
    fetch("fetch of nobody", None, -1)
    s.step("join as classic", "JoinGroup", 9, GroupId=g, SessionTimeoutMs=30_000, RebalanceTimeoutMs=30_000,
           MemberId="", ProtocolType="consumer", Protocols=[{"Name": "range", "Metadata": b""}])
    s.step("forget", "OffsetDelete", 0, GroupId=g, Topics=[{"Name": t.name, "Partitions": [{"PartitionIndex": 0}]}])
    s.step("delete", "DeleteGroups", 2, GroupsNames=[g])
    beat(s, v, "leave", g, epoch=-1)
    s.step("delete when empty", "DeleteGroups", 2, GroupsNames=[g])
    s.step("listed no more", "ListGroups", 5, keep=lambda a: dict(a, Groups=[
        x for x in a["Groups"] if s.mine(x["GroupId"])]))


@scenario("StreamsGroupHeartbeat")
def an_empty_group_becomes_classic(s, v):
    g = at_once(s, s.name("g"))
    t = s.topic()
    beat(s, v, "join", g, **joining(t.name))
    beat(s, v, "leave", g, epoch=-1)
    s.step("join as classic", "JoinGroup", 4, GroupId=g, SessionTimeoutMs=30_000, RebalanceTimeoutMs=30_000,
           MemberId="", ProtocolType="consumer", Protocols=[{"Name": "range", "Metadata": b""}])
    s.step("a streams group no more", "StreamsGroupDescribe", 0, GroupIds=[g])
    beat(s, v, "join again", g, **joining(t.name))
