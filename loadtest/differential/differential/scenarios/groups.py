"""Classic groups: joining, syncing, heartbeats, leaving; listing, describing, deleting."""

from __future__ import annotations

import time

from differential.scenario import scenario


def subscription(*topics: str) -> bytes:
    """A ConsumerProtocolSubscription of version 0."""
    out = b"\0\0" + len(topics).to_bytes(4, "big")
    for topic in topics:
        out += len(topic).to_bytes(2, "big") + topic.encode()
    return out + b"\xff\xff\xff\xff"


ASSIGNMENT = b"\0\0\0\0\0\0\xff\xff\xff\xff"


def join_fields(group, member="", *, session=30_000, rebalance=30_000, kind="consumer",
                protocols=(("range", b"r"), ("roundrobin", b"rr")), instance=None, reason=None):
    fields = {"GroupId": group, "SessionTimeoutMs": session, "RebalanceTimeoutMs": rebalance,
              "MemberId": member, "ProtocolType": kind,
              "Protocols": [{"Name": n, "Metadata": m} for n, m in protocols]}
    if instance is not None:
        fields["GroupInstanceId"] = instance
    if reason is not None:
        fields["Reason"] = reason
    return fields


def join(s, v, label, group, member="", on=None, **more):
    return s.step(label, "JoinGroup", v, on=on, **join_fields(group, member, **more))


def joined(s, v, group, on=None, record=True, **more):
    """Joins as a client does: once more with the id that it is given (v4+, KIP-394)."""
    call = (lambda label, **f: s.step(label, "JoinGroup", v, on=on, **f)) if record else (
        lambda _label, **f: s.do("JoinGroup", v, on=on, **f))
    answer = call("join", **join_fields(group, **more))
    if answer["ErrorCode"] == 79:
        answer = call("join with the id", **join_fields(group, answer["MemberId"], **more))
    return answer


def sync(s, v, label, group, answer, assignments=(), member=None, generation=None, on=None, **more):
    return s.step(label, "SyncGroup", v, on=on, GroupId=group,
                  GenerationId=answer["GenerationId"] if generation is None else generation,
                  MemberId=answer["MemberId"] if member is None else member,
                  Assignments=[{"MemberId": m, "Assignment": a} for m, a in assignments],
                  **{"ProtocolType": "consumer", "ProtocolName": "range", **more})


def member_of(s, group, kind="consumer", on=None, **more):
    """One stable member, not recorded: the answer to its join."""
    answer = joined(s, s.server.top("JoinGroup"), group, on=on, record=False, kind=kind, **more)
    assert answer["ErrorCode"] == 0, answer
    got = s.do("SyncGroup", on=on, GroupId=group, GenerationId=answer["GenerationId"],
               MemberId=answer["MemberId"], ProtocolType=kind, ProtocolName=answer["ProtocolName"],
               Assignments=[{"MemberId": answer["MemberId"], "Assignment": ASSIGNMENT}])
    assert got["ErrorCode"] == 0, got
    return answer


@scenario("JoinGroup")
def join_one(s, v):
    g = s.name("g")
    first = joined(s, v, g)
    sync(s, 5, "sync", g, first, [(first["MemberId"], b"mine")])
    join(s, v, "join again", g, first["MemberId"])
    join(s, v, "join with other protocols", g, first["MemberId"], protocols=(("range", b"x"),))


@scenario("JoinGroup")
def join_bad(s, v):
    g = s.name("g")
    join(s, v, "empty group id", "")
    join(s, v, "unknown member", g, "nobody")
    join(s, v, "session too short", g, session=10)
    join(s, v, "session too long", g, session=100_000_000)
    join(s, v, "negative session", g, session=-1)
    join(s, v, "no protocols", g, protocols=())
    join(s, v, "empty protocol type", g, kind="")
    join(s, v, "long group id", s.name("g" * 300))


@scenario("JoinGroup")
def join_inconsistent(s, v):
    g = s.name("g")
    first = joined(s, v, g, record=False)
    sync(s, 5, "sync", g, first, [(first["MemberId"], b"mine")])
    join(s, v, "other protocol type", g, kind="connect")
    join(s, v, "no common protocol", g, protocols=(("sticky", b""),))
    join(s, v, "unknown member", g, "nobody")


@scenario("JoinGroup")
def join_two(s, v):
    """A second member joins; the first learns of it by its heartbeat, and joins again."""
    g = s.name("g")
    one, two = s.connect("one"), s.connect("two")
    first = joined(s, v, g, on=one)
    sync(s, 5, "sync alone", g, first, [(first["MemberId"], b"all")], on=one)
    fields = join_fields(g)
    if v >= 4:
        given = s.step("second asks", "JoinGroup", v, on=two, **fields)
        fields = join_fields(g, given["MemberId"])
    two.send("JoinGroup", v, fields)
    s.until("the rebalance begins", lambda: s.do(
        "Heartbeat", 4, on=one, GroupId=g, GenerationId=first["GenerationId"],
        MemberId=first["MemberId"])["ErrorCode"] == 27)
    s.step("heartbeat while it rebalances", "Heartbeat", 4, on=one, GroupId=g,
           GenerationId=first["GenerationId"], MemberId=first["MemberId"])
    sync(s, 5, "sync while it rebalances", g, first, on=one)
    again = join(s, v, "first joins again", g, first["MemberId"], on=one)
    second = two.receive("JoinGroup", v)
    s.record("second has joined", "JoinGroup", v, second)
    two.send("SyncGroup", 5, {"GroupId": g, "GenerationId": second["GenerationId"],
                              "MemberId": second["MemberId"], "ProtocolType": "consumer",
                              "ProtocolName": second["ProtocolName"]})
    time.sleep(0.1)
    sync(s, 5, "leader syncs", g, again, [(first["MemberId"], b"a"), (second["MemberId"], b"b")], on=one)
    s.record("second is synced", "SyncGroup", 5, two.receive("SyncGroup", 5))
    s.step("second leaves", "LeaveGroup", 2, on=two, GroupId=g, MemberId=second["MemberId"])
    s.step("first hears of it", "Heartbeat", 4, on=one, GroupId=g, GenerationId=second["GenerationId"],
           MemberId=first["MemberId"])
    join(s, v, "first alone", g, first["MemberId"], on=one)


@scenario("JoinGroup", range(5, 10))
def join_static(s, v):
    g = s.name("g")
    first = join(s, v, "static", g, instance="i1")
    sync(s, 5, "sync", g, first, [(first["MemberId"], b"mine")], GroupInstanceId="i1")
    back = join(s, v, "comes back", g, instance="i1")
    s.step("the old id is fenced", "Heartbeat", 4, GroupId=g, GenerationId=first["GenerationId"],
           MemberId=first["MemberId"], GroupInstanceId="i1")
    s.step("the new id is not", "Heartbeat", 4, GroupId=g, GenerationId=back["GenerationId"],
           MemberId=back["MemberId"], GroupInstanceId="i1")
    join(s, v, "instance with a wrong member id", g, "other", instance="i1")
    join(s, v, "unknown instance with a member id", g, "other", instance="i2")
    join(s, v, "bad instance id", g, instance="a b")
    join(s, v, "empty instance id", g, instance="")
    s.step("unknown instance", "Heartbeat", 4, GroupId=g, GenerationId=back["GenerationId"],
           MemberId=back["MemberId"], GroupInstanceId="i9")
    s.step("leave by instance", "LeaveGroup", 5, GroupId=g, Members=[
        {"MemberId": "", "GroupInstanceId": "i1"}, {"MemberId": "", "GroupInstanceId": "i9"}])


@scenario("SyncGroup")
def sync_good_and_bad(s, v):
    g = s.name("g")
    more = {} if v >= 5 else {"ProtocolType": None, "ProtocolName": None}
    first = joined(s, 9, g, record=False)
    sync(s, v, "wrong generation", g, first, generation=first["GenerationId"] + 5, **more)
    sync(s, v, "negative generation", g, first, generation=-1, **more)
    sync(s, v, "unknown member", g, first, member="nobody", **more)
    sync(s, v, "unknown group", s.name("absent"), first, **more)
    sync(s, v, "empty group id", "", first, **more)
    sync(s, v, "empty member id", g, first, member="", **more)
    if v >= 5:
        sync(s, v, "wrong protocol type", g, first, ProtocolType="connect")
        sync(s, v, "wrong protocol", g, first, ProtocolName="roundrobin")
        sync(s, v, "null protocol", g, first, ProtocolType=None, ProtocolName=None)
    if v >= 3:
        sync(s, v, "unknown instance", g, first, GroupInstanceId="i9", **more)
    sync(s, v, "leader", g, first, [(first["MemberId"], b"mine"), ("stranger", b"x")], **more)
    sync(s, v, "again", g, first, **more)
    sync(s, v, "again, other assignment", g, first, [(first["MemberId"], b"other")], **more)


@scenario("SyncGroup")
def sync_without_assignment(s, v):
    g = s.name("g")
    first = joined(s, 9, g, record=False)
    more = {} if v >= 5 else {"ProtocolType": None, "ProtocolName": None}
    sync(s, v, "leader gives none", g, first, **more)


@scenario("Heartbeat")
def heartbeats(s, v):
    g = s.name("g")
    first = member_of(s, g)

    def beat(label, **fields):
        s.step(label, "Heartbeat", v, **{"GroupId": g, "GenerationId": first["GenerationId"],
                                         "MemberId": first["MemberId"], **fields})
    beat("good")
    beat("wrong generation", GenerationId=first["GenerationId"] + 1)
    beat("older generation", GenerationId=0)
    beat("negative generation", GenerationId=-1)
    beat("unknown member", MemberId="nobody")
    beat("empty member", MemberId="")
    beat("unknown group", GroupId=s.name("absent"))
    beat("empty group id", GroupId="")
    if v >= 3:
        beat("unknown instance", GroupInstanceId="i9")


@scenario("Heartbeat")
def heartbeat_after_expiry(s, v):
    g = s.name("g")
    first = member_of(s, g, session=400, rebalance=400)
    s.until("the member has expired", lambda: s.do(
        "DescribeGroups", Groups=[g])["Groups"][0]["GroupState"] == "Empty")
    s.step("expired", "Heartbeat", v, GroupId=g, GenerationId=first["GenerationId"],
           MemberId=first["MemberId"])


@scenario("LeaveGroup")
def leave(s, v):
    g = s.name("g")
    first = member_of(s, g)

    def go(label, member, group=g):
        if v < 3:
            s.step(label, "LeaveGroup", v, GroupId=group, MemberId=member)
        else:
            s.step(label, "LeaveGroup", v, GroupId=group, Members=[{"MemberId": member}])
    go("unknown member", "nobody")
    go("unknown group", "nobody", s.name("absent"))
    go("empty group id", "nobody", "")
    go("empty member", "")
    if v >= 3:
        s.step("nobody leaves", "LeaveGroup", v, GroupId=g, Members=[])
        s.step("two, one of them unknown", "LeaveGroup", v, GroupId=g, Members=[
            {"MemberId": first["MemberId"]}, {"MemberId": "nobody"}])
    else:
        go("leaves", first["MemberId"])
    go("again", first["MemberId"])
    describe(s, 6, "left", [g])


def describe(s, v, label, groups, **more):
    def keep(answer):
        # The client's address and id are the test's own; members have no order.
        return dict(answer, Groups=[dict(g, Members=[dict(m, ClientHost="/" in m["ClientHost"] and m[
            "ClientHost"]) for m in g["Members"]]) for g in answer["Groups"]])
    return s.step(label, "DescribeGroups", v, keep=keep, Groups=groups, **more)


@scenario("DescribeGroups")
def describe_groups(s, v):
    g, e = s.name("g"), s.name("e")
    first = member_of(s, g, instance="i1")
    gone = member_of(s, e)
    s.do("LeaveGroup", GroupId=e, Members=[{"MemberId": gone["MemberId"]}])
    describe(s, v, "stable", [g])
    describe(s, v, "empty and unknown", [e, s.name("absent")])
    describe(s, v, "twice", [g, g])
    describe(s, v, "none", [])
    if v >= 3:
        describe(s, v, "operations", [g], IncludeAuthorizedOperations=True)
    assert first


@scenario("DescribeGroups")
def describe_while_rebalancing(s, v):
    g = s.name("g")
    joined(s, 9, g, record=False)
    describe(s, v, "not synced", [g])


def list_groups(s, v, label, **fields):
    return s.step(label, "ListGroups", v, keep=lambda a: dict(a, Groups=[
        g for g in a["Groups"] if s.mine(g["GroupId"])]), **fields)


@scenario("ListGroups")
def list_all_groups(s, v):
    g, e, o = s.name("g"), s.name("e"), s.name("o")
    member_of(s, g)
    gone = member_of(s, e)
    s.do("LeaveGroup", GroupId=e, Members=[{"MemberId": gone["MemberId"]}])
    t = s.topic()
    s.do("OffsetCommit", 9, GroupId=o, GenerationIdOrMemberEpoch=-1, Topics=[
        {"Name": t.name, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 5}]}])
    list_groups(s, v, "all")
    if v >= 4:
        for states in (["Stable"], ["Empty"], ["stable", "EMPTY"], ["Dead"], ["nonsense"], []):
            list_groups(s, v, f"states {states}", StatesFilter=states)
    if v >= 5:
        for types in (["classic"], ["consumer"], ["Classic", "share"], ["streams"], ["nonsense"]):
            list_groups(s, v, f"types {types}", TypesFilter=types)


@scenario("DeleteGroups")
def delete_groups(s, v):
    g, e = s.name("g"), s.name("e")
    member_of(s, g)
    gone = member_of(s, e)
    s.do("LeaveGroup", GroupId=e, Members=[{"MemberId": gone["MemberId"]}])
    s.step("not empty, empty, unknown", "DeleteGroups", v, GroupsNames=[g, e, s.name("absent")])
    s.step("again", "DeleteGroups", v, GroupsNames=[e])
    s.step("twice", "DeleteGroups", v, GroupsNames=[g, g])
    s.step("none", "DeleteGroups", v, GroupsNames=[])
    describe(s, 6, "deleted", [e])


def find(s, v, label, key, kind=0):
    if v >= 4:
        s.step(label, "FindCoordinator", v, KeyType=kind, CoordinatorKeys=[key])
    else:
        s.step(label, "FindCoordinator", v, Key=key, **({"KeyType": kind} if v >= 1 else {}))


@scenario("FindCoordinator")
def find_coordinator(s, v):
    find(s, v, "group", s.name("g"))
    find(s, v, "empty group", "")
    if v >= 1:
        for kind in (3, 7, -1):
            find(s, v, f"key type {kind}", s.name("g"), kind)
    if v >= 4:
        s.step("several", "FindCoordinator", v, KeyType=0, CoordinatorKeys=[s.name("a"), s.name("b")])
        s.step("twice", "FindCoordinator", v, KeyType=0, CoordinatorKeys=[s.name("a"), s.name("a")])
        s.step("none", "FindCoordinator", v, KeyType=0, CoordinatorKeys=[])


@scenario("FindCoordinator", range(1, 7))
def find_transaction_coordinator(s, v):
    s.need("EndTxn", 0)
    s.until("the transaction coordinator is loaded", lambda: all(c["ErrorCode"] == 0 for c in s.do(
        "FindCoordinator", 4, KeyType=1, CoordinatorKeys=[s.name("x")])["Coordinators"]))
    find(s, v, "transactional id", s.name("x"), 1)
    find(s, v, "empty transactional id", "", 1)


@scenario("FindCoordinator", range(1, 7))
def find_share_coordinator(s, v):
    find(s, v, "no share key", s.name("g"), 2)
    t = s.topic()
    find(s, v, "share key of a group that is not there", f"{s.name('g')}:{t.id}:0", 2)
