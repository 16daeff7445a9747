"""Making, growing, describing and deleting topics."""

from __future__ import annotations

import uuid

from differential.scenario import scenario

UNKNOWN_ID = uuid.UUID("00000000-0000-4000-8000-00000000beef")


def create(s, v, label, topics, **more):
    return s.step(label, "CreateTopics", v, **{"timeoutMs": 20_000, "Topics": [
        {"NumPartitions": 1, "ReplicationFactor": 1, **t} for t in topics], **more})


@scenario("CreateTopics")
def create_topics(s, v):
    create(s, v, "one", [{"Name": s.name("a")}])
    create(s, v, "again", [{"Name": s.name("a")}])
    create(s, v, "two, one of them there", [{"Name": s.name("a")}, {"Name": s.name("b"), "NumPartitions": 3}])
    create(s, v, "defaults", [{"Name": s.name("c"), "NumPartitions": -1, "ReplicationFactor": -1}])
    create(s, v, "none", [])
    create(s, v, "twice in one request", [{"Name": s.name("d")}, {"Name": s.name("d")}])
    create(s, v, "check only", [{"Name": s.name("e")}], validateOnly=True)
    create(s, v, "check only, there", [{"Name": s.name("a")}], validateOnly=True)
    s.until("three topics", lambda: sum(
        s.mine(t["Name"]) for t in s.do("Metadata", Topics=None)["Topics"]) >= 3)
    s.step("what there is", "Metadata", 12, Topics=None, keep=lambda a: {"Topics": sorted(
        t["Name"] for t in a["Topics"] if s.mine(t["Name"]))})


@scenario("CreateTopics")
def create_bad_topics(s, v):
    for name in ("", ".", "..", "a/b", "a b", "ä", "x" * 249, "x" * 250):
        create(s, v, f"name {name[:20]} of {len(name)}", [{"Name": name}], validateOnly=True)
    name = s.name("a")
    for partitions in (0, -2, 1 << 30):
        create(s, v, f"{partitions} partitions", [{"Name": name, "NumPartitions": partitions}], validateOnly=True)
    for factor in (0, -2, 2, 100):
        create(s, v, f"{factor} replicas", [{"Name": name, "ReplicationFactor": factor}], validateOnly=True)


@scenario("CreateTopics")
def create_name_clash(s, v):
    create(s, v, "dots", [{"Name": s.name("a.b")}])
    create(s, v, "underscores", [{"Name": s.name("a_b")}])
    create(s, v, "both at once", [{"Name": s.name("c.d")}, {"Name": s.name("c_d")}])


@scenario("CreateTopics")
def create_assigned(s, v):
    def assigned(label, assignments, **more):
        create(s, v, label, [{"Name": s.name(label.replace(" ", "")), "NumPartitions": -1,
                              "ReplicationFactor": -1, "Assignments": [
                                  {"PartitionIndex": i, "BrokerIds": b} for i, b in assignments], **more}])
    assigned("good", [(0, [1]), (1, [1])])
    assigned("unknown broker", [(0, [9])])
    assigned("not from 0", [(1, [1])])
    assigned("gap", [(0, [1]), (2, [1])])
    assigned("partition twice", [(0, [1]), (0, [1])])
    assigned("broker twice", [(0, [1, 1])])
    assigned("no broker", [(0, [])])
    assigned("negative broker", [(0, [-1])])
    assigned("with a count", [(0, [1])], NumPartitions=1)
    assigned("with a factor", [(0, [1])], ReplicationFactor=1)


@scenario("CreateTopics")
def create_with_configs(s, v):
    def configured(label, name, configs):
        create(s, v, label, [{"Name": s.name(name), "Configs": [
            {"Name": k, "Value": value} for k, value in configs]}])
    configured("good", "good", [("cleanup.policy", "compact"), ("retention.ms", "5000")])
    configured("unknown name", "a", [("no.such.config", "1")])
    configured("bad value", "b", [("retention.ms", "soon")])
    configured("out of range", "c", [("min.insync.replicas", "0")])
    configured("bad choice", "d", [("cleanup.policy", "shred")])
    configured("null value", "e", [("retention.ms", None)])
    configured("twice", "f", [("retention.ms", "5000"), ("retention.ms", "6000")])
    configured("empty value", "g", [("retention.ms", "")])
    configured("empty name", "h", [("", "1")])
    configured("retention below segment", "i", [("retention.ms", "1"), ("segment.ms", "10000")])
    configured("policy of both", "j", [("cleanup.policy", "compact,delete")])
    configured("no policy", "k", [("cleanup.policy", "")])


def delete(s, v, label, names=(), ids=()):
    if v >= 6:
        s.step(label, "DeleteTopics", v, TimeoutMs=20_000, Topics=[
            *({"Name": n} for n in names), *({"Name": None, "TopicId": i} for i in ids)])
    else:
        s.step(label, "DeleteTopics", v, TimeoutMs=20_000, TopicNames=list(names))


@scenario("DeleteTopics")
def delete_topics(s, v):
    t = s.topic()
    delete(s, v, "there and not", [t.name, s.name("absent")])
    delete(s, v, "again", [t.name])
    delete(s, v, "none")
    delete(s, v, "bad name", ["a/b"])
    u = s.topic("u")
    delete(s, v, "twice in one request", [u.name, u.name])


@scenario("DeleteTopics", range(6, 7))
def delete_topics_by_id(s, v):
    t, u = s.topic(), s.topic("u")
    delete(s, v, "by id", ids=[t.id])
    delete(s, v, "by id again", ids=[t.id])
    delete(s, v, "unknown id", ids=[UNKNOWN_ID])
    delete(s, v, "zero id", ids=[uuid.UUID(int=0)])
    s.step("id and name", "DeleteTopics", v, TimeoutMs=20_000, Topics=[{"Name": u.name, "TopicId": u.id}])
    s.step("neither", "DeleteTopics", v, TimeoutMs=20_000, Topics=[{"Name": None}])
    delete(s, v, "by name and by id", [u.name], [u.id])


def grow(s, v, label, topics, **more):
    s.step(label, "CreatePartitions", v, **{"TimeoutMs": 20_000, "ValidateOnly": False, "Topics": [
        {"Name": n, "Count": count, "Assignments": a if a is None else [{"BrokerIds": b} for b in a]}
        for n, count, a in topics], **more})


@scenario("CreatePartitions")
def create_partitions(s, v):
    t = s.topic(partitions=2)
    grow(s, v, "check only", [(t.name, 4, None)], ValidateOnly=True)
    grow(s, v, "more", [(t.name, 3, None)])
    grow(s, v, "same", [(t.name, 3, None)])
    grow(s, v, "fewer", [(t.name, 1, None)])
    grow(s, v, "zero", [(t.name, 0, None)])
    grow(s, v, "negative", [(t.name, -3, None)])
    grow(s, v, "too many", [(t.name, 1 << 30, None)], ValidateOnly=True)
    grow(s, v, "unknown", [(s.name("absent"), 3, None)])
    grow(s, v, "bad name", [("a/b", 3, None)])
    grow(s, v, "assigned", [(t.name, 4, [[1]])])
    grow(s, v, "too few assignments", [(t.name, 7, [[1]])])
    grow(s, v, "too many assignments", [(t.name, 5, [[1], [1]])])
    grow(s, v, "unknown broker", [(t.name, 5, [[9]])])
    grow(s, v, "no brokers", [(t.name, 5, [[]])])
    grow(s, v, "two replicas", [(t.name, 5, [[1, 2]])])
    grow(s, v, "empty assignments", [(t.name, 5, [])])
    grow(s, v, "twice", [(t.name, 8, None), (t.name, 9, None)])
    grow(s, v, "none", [])
    s.until("four partitions", lambda: len(s.do("Metadata", Topics=[{"Name": t.name}])["Topics"][0][
        "Partitions"]) >= 4)
    s.step("what there is", "Metadata", 12, Topics=[{"Name": t.name}])


def topic_partitions(s, v, label, names, limit=2000, cursor=None):
    s.step(label, "DescribeTopicPartitions", v, Topics=[{"Name": n} for n in names],
           ResponsePartitionLimit=limit, Cursor=cursor)


@scenario("DescribeTopicPartitions")
def describe_topic_partitions(s, v):
    a, b = s.topic("a", partitions=3), s.topic("b", partitions=3)
    at = lambda name, index: {"TopicName": name, "PartitionIndex": index}  # noqa: E731
    topic_partitions(s, v, "both", [a.name, b.name])
    topic_partitions(s, v, "in disorder", [b.name, a.name])
    topic_partitions(s, v, "two at a time", [a.name, b.name], 2)
    topic_partitions(s, v, "from the cursor", [a.name, b.name], 2, at(a.name, 2))
    topic_partitions(s, v, "from a later topic", [a.name, b.name], 2, at(b.name, 1))
    topic_partitions(s, v, "just as many as fit", [a.name, b.name], 6)
    topic_partitions(s, v, "one topic fits", [a.name, b.name], 3)
    topic_partitions(s, v, "cursor past all", [a.name], 2, at(b.name, 0))
    topic_partitions(s, v, "cursor past the topic", [a.name, b.name], 2, at(a.name, 9))
    topic_partitions(s, v, "cursor at no topic", [a.name, b.name], 2, at(s.name("aa"), 1))
    topic_partitions(s, v, "negative cursor", [a.name], 2, at(a.name, -1))
    topic_partitions(s, v, "unknown", [s.name("absent"), a.name])
    topic_partitions(s, v, "bad name", ["a/b"])
    topic_partitions(s, v, "limit 0", [a.name], 0)
    topic_partitions(s, v, "limit -1", [a.name], -1)
    topic_partitions(s, v, "twice", [a.name, a.name])
