"""Streams groups (KIP-1071)."""

from __future__ import annotations

from differential.scenario import scenario

MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
OTHER = "AAAAAAAAAAAAAAAAAAAAAg"


def topology(topic, epoch=0):
    return {"Epoch": epoch, "Subtopologies": [{"SubtopologyId": "0", "SourceTopics": [topic], "SourceTopicRegex": [],
                                               "StateChangelogTopics": [], "RepartitionSinkTopics": [],
                                               "RepartitionSourceTopics": [], "CopartitionGroups": []}]}


def joining(topic, **more):
    return {"RebalanceTimeoutMs": 45_000, "Topology": topology(topic), "ActiveTasks": [], "StandbyTasks": [],
            "WarmupTasks": [], "ProcessId": "process-1", "ClientTags": [], **more}


def beat(s, v, label, group, member=MEMBER, epoch=0, **more):
    return s.step(label, "StreamsGroupHeartbeat", v, GroupId=group, MemberId=member, MemberEpoch=epoch, **more)


def without_delay(s, group):
    """The group assigns at its first member: waiting for more is not what is compared."""
    answer = s.do("IncrementalAlterConfigs", ValidateOnly=False, Resources=[
        {"ResourceType": 32, "ResourceName": group, "Configs": [
            {"Name": "streams.initial.rebalance.delay.ms", "ConfigOperation": 0, "Value": "0"}]}])
    assert answer["Responses"][0]["ErrorCode"] == 0, answer


def steady(s, group, topic, tasks=1):
    without_delay(s, group)
    state = {"epoch": 0}

    def call():
        more = joining(topic) if state["epoch"] == 0 else {}
        got = s.do("StreamsGroupHeartbeat", GroupId=group, MemberId=MEMBER, MemberEpoch=state["epoch"], **more)
        assert got["ErrorCode"] == 0, got
        state["epoch"] = got["MemberEpoch"]
        state["active"] = got["ActiveTasks"] or state.get("active")
        return state["active"] and sum(len(t["Partitions"]) for t in state["active"]) == tasks
    s.until("the member has its tasks", call)
    return state["epoch"]


@scenario("StreamsGroupHeartbeat")
def streams_heartbeats(s, v):
    t, g = s.topic(partitions=2), s.name("g")
    without_delay(s, g)
    first = beat(s, v, "join", g, **joining(t.name))
    epoch = first["MemberEpoch"]
    beat(s, v, "newer epoch", g, epoch=epoch + 7)
    beat(s, v, "unknown member", g, OTHER, epoch + 1)
    beat(s, v, "unknown group", s.name("absent"), epoch=epoch + 1)
    beat(s, v, "leave", g, epoch=-1)
    beat(s, v, "leave again", g, epoch=-1)


@scenario("StreamsGroupHeartbeat")
def streams_heartbeats_bad(s, v):
    t, g = s.topic(), s.name("g")
    beat(s, v, "empty group", "", **joining(t.name))
    beat(s, v, "empty member", g, "", **joining(t.name))
    beat(s, v, "no topology", g, **joining(t.name, Topology=None))
    beat(s, v, "no rebalance timeout", g, **joining(t.name, RebalanceTimeoutMs=-1))
    beat(s, v, "no tasks", g, **joining(t.name, ActiveTasks=None))
    beat(s, v, "tasks while joining", g, **joining(t.name, ActiveTasks=[{"SubtopologyId": "0", "Partitions": [0]}]))
    beat(s, v, "no process", g, **joining(t.name, ProcessId=None))
    beat(s, v, "empty process", g, **joining(t.name, ProcessId=""))
    beat(s, v, "epoch -3", g, epoch=-3)
    beat(s, v, "topology while a member", g, epoch=5, Topology=topology(t.name))
    beat(s, v, "missing source topic", s.name("h"), **joining(s.name("absent")))


@scenario("StreamsGroupDescribe")
def describe_streams_groups(s, v):
    t, g = s.topic(partitions=2), s.name("g")
    steady(s, g, t.name, tasks=2)

    def describe(label, groups, **more):
        s.step(label, "StreamsGroupDescribe", v, GroupIds=groups, keep=lambda a: dict(a, Groups=[
            dict(x, Members=[dict(m, ClientHost="/" in m["ClientHost"]) for m in x["Members"]])
            for x in a["Groups"]]), **more)
    describe("stable", [g])
    describe("unknown", [s.name("absent")])
    describe("empty id", [""])
    describe("operations", [g], IncludeAuthorizedOperations=True)
    describe("none", [])
    s.step("as a classic group", "DescribeGroups", 6, Groups=[g])
    s.step("listed", "ListGroups", 5, TypesFilter=["streams"], keep=lambda a: dict(a, Groups=[
        x for x in a["Groups"] if s.mine(x["GroupId"])]))
