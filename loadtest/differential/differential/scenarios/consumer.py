"""Groups of the consumer protocol (KIP-848), alone and beside classic ones."""

from __future__ import annotations

from differential.scenario import scenario
from differential.scenarios.groups import join_fields, member_of, subscription

JOIN, LEAVE, LEAVE_STATIC = 0, -1, -2
MEMBER = "AAAAAAAAAAAAAAAAAAAAAQ"
OTHER = "AAAAAAAAAAAAAAAAAAAAAg"


def beat_fields(group, member="", epoch=JOIN, **more):
    return {"GroupId": group, "MemberId": member, "MemberEpoch": epoch, **more}


def join_more(topics, **more):
    return {"RebalanceTimeoutMs": 45_000, "SubscribedTopicNames": topics, "TopicPartitions": [], **more}


def beat(s, v, label, group, member="", epoch=JOIN, on=None, **more):
    return s.step(label, "ConsumerGroupHeartbeat", v, on=on, **beat_fields(group, member, epoch, **more))


def own(v, member=MEMBER):
    """From version 1 on the member makes its own id."""
    return member if v >= 1 else ""


def steady(s, v, group, topics, member=MEMBER, partitions=1, **more):
    """A member that has all its partitions; not recorded. Its id and epoch."""
    answer = s.do("ConsumerGroupHeartbeat", v, **beat_fields(group, own(v, member), JOIN, **join_more(topics, **more)))
    assert answer["ErrorCode"] == 0, answer
    state = {"id": answer["MemberId"], "epoch": answer["MemberEpoch"], "assigned": answer["Assignment"]}

    def full():
        got = s.do("ConsumerGroupHeartbeat", v, **beat_fields(group, state["id"], state["epoch"]))
        assert got["ErrorCode"] == 0, got
        state["epoch"] = got["MemberEpoch"]
        state["assigned"] = got["Assignment"] or state["assigned"]
        return state["assigned"] and sum(
            len(t["Partitions"]) for t in state["assigned"]["TopicPartitions"]) == partitions
    s.until("the member has its partitions", full)
    return state


@scenario("ConsumerGroupHeartbeat")
def heartbeat_one(s, v):
    t, g = s.topic(partitions=3), s.name("g")
    first = beat(s, v, "join", g, own(v), **join_more([t.name]))
    me, epoch = first["MemberId"], first["MemberEpoch"]
    same = beat(s, v, "heartbeat", g, me, epoch)
    beat(s, v, "with what it owns", g, me, epoch, TopicPartitions=(
        first["Assignment"] or same["Assignment"] or {"TopicPartitions": []})["TopicPartitions"])
    beat(s, v, "newer epoch", g, me, epoch + 7)
    beat(s, v, "unknown member", g, OTHER, epoch)
    beat(s, v, "unknown group", s.name("absent"), me, epoch)
    beat(s, v, "full again", g, me, epoch, **join_more([t.name]))
    beat(s, v, "leave", g, me, LEAVE)
    beat(s, v, "leave again", g, me, LEAVE)
    beat(s, v, "heartbeat after leaving", g, me, epoch)


@scenario("ConsumerGroupHeartbeat")
def heartbeat_bad(s, v):
    t, g = s.topic(), s.name("g")
    full = join_more([t.name])
    beat(s, v, "empty group", "", own(v), **full)
    beat(s, v, "blank group", "  ", own(v), **full)
    beat(s, v, "no rebalance timeout", g, own(v), **{**full, "RebalanceTimeoutMs": -1})
    beat(s, v, "no topics", g, own(v), **{**full, "SubscribedTopicNames": None})
    beat(s, v, "empty topics", g, own(v), **{**full, "SubscribedTopicNames": []})
    beat(s, v, "no partitions", g, own(v), **{**full, "TopicPartitions": None})
    beat(s, v, "partitions while joining", g, own(v), **{**full, "TopicPartitions": [
        {"TopicId": t.id, "Partitions": [0]}]})
    beat(s, v, "empty member", g, "", 5)
    beat(s, v, "epoch -3", g, MEMBER, -3)
    beat(s, v, "unknown assignor", g, own(v), ServerAssignor="nonsense", **full)
    beat(s, v, "empty assignor", g, own(v), ServerAssignor="", **full)
    beat(s, v, "empty instance", g, own(v), InstanceId="", **full)
    beat(s, v, "empty rack", g, own(v), RackId="", **full)
    beat(s, v, "static leave without an instance", g, MEMBER, LEAVE_STATIC)
    if v >= 1:
        beat(s, v, "no member id", g, "", **full)
        beat(s, v, "bad expression", g, MEMBER, SubscribedTopicRegex="(", RebalanceTimeoutMs=45_000,
             TopicPartitions=[])
        beat(s, v, "neither names nor expression", g, MEMBER, RebalanceTimeoutMs=45_000, TopicPartitions=[])


@scenario("ConsumerGroupHeartbeat")
def heartbeat_for_an_unknown_topic(s, v):
    beat(s, v, "unknown topic", s.name("g"), own(v), **join_more([s.name("absent")]))


@scenario("ConsumerGroupHeartbeat", range(1, 2))
def heartbeat_expression(s, v):
    t, g = s.topic("match-a", partitions=2), s.name("g")
    s.topic("other")
    member = steady(s, v, g, None, partitions=2, SubscribedTopicRegex=s.name("match.*"))
    s.record("assigned", "ConsumerGroupHeartbeat", v, {"assigned": member["assigned"]})
    describe(s, v, "described", [g])
    assert t


@scenario("ConsumerGroupHeartbeat", range(1, 2))
def heartbeat_two(s, v):
    """A second member joins: partitions are given back before they are given away. Who gets which goes by
    the members' ids, which are the servers' own before version 1."""
    t, g = s.topic(partitions=2), s.name("g")
    first = steady(s, v, g, [t.name], partitions=2, ServerAssignor="range")
    second = beat(s, v, "second joins", g, own(v, OTHER), **join_more([t.name], ServerAssignor="range"))
    box = {}

    def revoked():
        box["answer"] = s.do("ConsumerGroupHeartbeat", v, **beat_fields(g, first["id"], first["epoch"]))
        return box["answer"]["Assignment"]
    kept = s.until("the first is told to give one back", revoked)
    s.record("given back", "ConsumerGroupHeartbeat", v, {"Assignment": kept})
    done = s.do("ConsumerGroupHeartbeat", v, **beat_fields(
        g, first["id"], first["epoch"], TopicPartitions=kept["TopicPartitions"]))
    first["epoch"] = done["MemberEpoch"]

    def given():
        box["answer"] = s.do("ConsumerGroupHeartbeat", v, **beat_fields(
            g, second["MemberId"], box.get("epoch", second["MemberEpoch"])))
        box["epoch"] = box["answer"]["MemberEpoch"]
        got = box["answer"]["Assignment"]
        return got and got["TopicPartitions"] and got
    s.record("given", "ConsumerGroupHeartbeat", v, {"Assignment": s.until("the second has its one", given)})
    describe(s, v, "described", [g])


@scenario("ConsumerGroupHeartbeat")
def heartbeat_static(s, v):
    t, g = s.topic(), s.name("g")
    more = join_more([t.name], InstanceId="i1")
    first = steady(s, v, g, [t.name], InstanceId="i1")
    beat(s, v, "its instance is taken", g, own(v, OTHER), **more)
    beat(s, v, "leaves for a while", g, first["id"], LEAVE_STATIC, InstanceId="i1")
    back = beat(s, v, "another process comes back as it", g, own(v, OTHER), **more)
    beat(s, v, "the first is fenced", g, first["id"], first["epoch"], InstanceId="i1")
    beat(s, v, "leaves for good", g, back["MemberId"], LEAVE, InstanceId="i1")


def describe(s, v, label, groups, **more):
    def epochs(group):
        """How far the assignment is behind the group: the numbers are the server's own, and in Kafka not the
        same in each run."""
        return {"GroupEpoch": 0, "AssignmentEpoch": group["AssignmentEpoch"] - group["GroupEpoch"]}

    def keep(answer):
        return dict(answer, Groups=[dict(g, **epochs(g), Members=[
            dict(m, ClientHost="/" in m["ClientHost"], MemberEpoch=m["MemberEpoch"] - g["GroupEpoch"])
            for m in g["Members"]]) for g in answer["Groups"]])
    return s.step(label, "ConsumerGroupDescribe", v, keep=keep, GroupIds=groups, **more)


@scenario("ConsumerGroupDescribe")
def describe_consumer_groups(s, v):
    t, g, e = s.topic(partitions=2), s.name("g"), s.name("e")
    steady(s, 1, g, [t.name], partitions=2)
    gone = steady(s, 1, e, [t.name], partitions=2)
    s.do("ConsumerGroupHeartbeat", **beat_fields(e, gone["id"], LEAVE))
    member_of(s, s.name("classic"))
    describe(s, v, "stable", [g])
    describe(s, v, "empty", [e])
    describe(s, v, "unknown", [s.name("absent")])
    describe(s, v, "classic", [s.name("classic")])
    describe(s, v, "empty id", [""])
    describe(s, v, "operations", [g], IncludeAuthorizedOperations=True)
    describe(s, v, "none", [])
    s.step("as a classic group", "DescribeGroups", 6, Groups=[g])
    s.step("listed", "ListGroups", 5, keep=lambda a: dict(a, Groups=[
        x for x in a["Groups"] if s.mine(x["GroupId"])]))


@scenario("OffsetCommit", range(9, 11))
def commit_of_consumer_members(s, v):
    t, g = s.topic(), s.name("g")
    me = steady(s, 1, g, [t.name])

    def commit(label, member, epoch):
        s.step(label, "OffsetCommit", v, GroupId=g, MemberId=member, GenerationIdOrMemberEpoch=epoch, Topics=[
            {"Name": t.name, "TopicId": t.id, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 3}]}])
    commit("member", me["id"], me["epoch"])
    commit("newer epoch", me["id"], me["epoch"] + 1)
    commit("unknown member", OTHER, me["epoch"])
    commit("no member", "", -1)
    for label, member, epoch in (("member", me["id"], me["epoch"]), ("newer epoch", me["id"], me["epoch"] + 1),
                                 ("unknown member", OTHER, 1), ("no member", None, -1)):
        s.step(f"fetch: {label}", "OffsetFetch", v, Groups=[
            {"GroupId": g, "MemberId": member, "MemberEpoch": epoch, "Topics": [
                {"Name": t.name, "TopicId": t.id, "PartitionIndexes": [0]}]}])


@scenario("JoinGroup")
def classic_member_of_a_consumer_group(s, v):
    """Online downgrade and upgrade: a member of each protocol in one group."""
    t, g = s.topic(partitions=2), s.name("g")
    there = steady(s, 1, g, [t.name], partitions=2)

    def keep(answer):
        """The generation is a member epoch: that of who was there, or a later one if targets are made at once;
        Kafka waits with them for `group.consumer.assignment.interval.ms`."""
        joined = answer["GenerationId"] >= there["epoch"]
        return dict(answer, GenerationId="not older") if joined else answer
    fields = join_fields(g, protocols=(("range", subscription(t.name)),))
    first = s.step("a classic member joins", "JoinGroup", v, keep=keep, **fields)
    if v >= 4:
        s.step("with its id", "JoinGroup", v, keep=keep, **join_fields(
            g, first["MemberId"], protocols=(("range", subscription(t.name)),)))
    s.step("not a consumer", "JoinGroup", v, **join_fields(g, kind="connect"))


@scenario("ConsumerGroupHeartbeat")
def consumer_member_of_a_classic_group(s, v):
    t, g, h = s.topic(partitions=2), s.name("g"), s.name("h")
    member_of(s, g, protocols=(("range", subscription(t.name)),))

    def keep(answer):
        """One of the two; which, goes by the order of Kafka's hash table."""
        given = answer["Assignment"] and answer["Assignment"]["TopicPartitions"]
        return dict(answer, Assignment=given and [len(topic["Partitions"]) for topic in given])
    s.step("joins a group of consumers", "ConsumerGroupHeartbeat", v, keep=keep,
           **beat_fields(g, own(v), **join_more([t.name])))
    member_of(s, h, kind="connect")
    beat(s, v, "joins a group of another kind", h, own(v), **join_more([t.name]))
