"""Produce, Fetch, ListOffsets, Metadata, OffsetForLeaderEpoch, DeleteRecords."""

from __future__ import annotations

import time
import uuid

from differential import records
from differential.records import batch
from differential.scenario import scenario

# Of now: Kafka forgets producers by the time of their records, a day later.
NOW_MS = int(time.time() * 1000)
UNKNOWN_ID = uuid.UUID("00000000-0000-4000-8000-00000000beef")
EARLIEST, LATEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED = -2, -1, -3, -4, -5
LOG_MODES = (EARLIEST, LATEST, MAX_TIMESTAMP, EARLIEST_LOCAL, LATEST_TIERED)


def produce(s, v, label, topics, acks=-1, **more):
    """A Produce step. `topics` is a list of (name, id, [(partition, records)])."""
    return s.step(label, "Produce", v, Acks=acks, TimeoutMs=30_000, TopicData=[
        {"Name": name, "TopicId": topic_id, "PartitionData": [
            {"Index": index, "Records": content} for index, content in parts]}
        for name, topic_id, parts in topics], **more)


def produce_one(s, v, label, topic, content, **more):
    return produce(s, v, label, [(topic.name, topic.id, [(0, content)])], **more)


@scenario("Produce")
def produce_and_read_back(s, v):
    t = s.topic(partitions=2)
    produce(s, v, "two partitions", [(t.name, t.id, [(0, batch([b"a", (b"k", b"b")])), (1, batch([b"c"]))])])
    produce_one(s, v, "again", t, batch([b"d", None, (b"k", None)]))
    produce_one(s, v, "acks 1", t, batch([b"e"]), acks=1)
    s.step("log", "Fetch", 12, MaxWaitMs=0, MinBytes=0, Topics=[{"Topic": t.name, "Partitions": [
        {"Partition": p, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20} for p in (0, 1)]}])


@scenario("Produce")
def produce_gzip(s, v):
    t = s.topic()
    produce_one(s, v, "gzip", t, batch([b"a" * 200, b"b" * 200], codec=records.GZIP))
    fetch_all(s, "log", t)


@scenario("Produce")
def produce_to_unknown(s, v):
    t = s.topic()
    name = s.name("absent")
    produce(s, v, "unknown topic", [(name, UNKNOWN_ID, [(0, batch([b"a"]))])])
    produce(s, v, "unknown partition", [(t.name, t.id, [(7, batch([b"a"]))])])
    produce(s, v, "negative partition", [(t.name, t.id, [(-1, batch([b"a"]))])])
    produce(s, v, "one good, one bad", [(t.name, t.id, [(0, batch([b"a"])), (7, batch([b"a"]))]),
                                        (name, UNKNOWN_ID, [(0, batch([b"a"]))])])
    produce(s, v, "bad name", [("a/b", uuid.UUID(int=0), [(0, batch([b"a"]))])])


@scenario("Produce")
def produce_nothing(s, v):
    t = s.topic()
    produce(s, v, "no topics", [])
    produce(s, v, "no partitions", [(t.name, t.id, [])])


@scenario("Produce")
def produce_acks(s, v):
    t = s.topic()
    produce_one(s, v, "acks 2", t, batch([b"a"]), acks=2)
    produce_one(s, v, "acks -2", t, batch([b"a"]), acks=-2)
    produce_one(s, v, "acks 0", t, batch([b"a"]), acks=0, wait_s=0.5)
    s.until("acks 0 is stored", lambda: s.do(
        "ListOffsets", ReplicaId=-1, Topics=[{"Name": t.name, "Partitions": [
            {"PartitionIndex": 0, "Timestamp": LATEST}]}])["Topics"][0]["Partitions"][0]["Offset"] == 1)


@scenario("Produce")
def produce_acks_0_with_error(s, v):
    t = s.topic()
    produce(s, v, "acks 0, unknown partition", [(t.name, t.id, [(7, batch([b"a"]))])], acks=0, wait_s=3)


@scenario("Produce")
def produce_bad_batches(s, v):
    t = s.topic()
    for label, content in {
        "wrong checksum": batch([b"a"], crc_wrong=True),
        "magic 1": batch([b"a"], magic=1),
        "magic 3": batch([b"a"], magic=3),
        "count too high": batch([b"a"], count=2),
        "count zero": batch([b"a"], count=0),
        "last delta wrong": batch([b"a"], last_delta=5),
        "no records": batch([]),
        "too short": batch([b"a"])[:20],
        "cut": batch([b"a" * 50])[:-10],
        "empty": b"",
        "two batches": batch([b"a"]) + batch([b"b"]),
        "base offset 5": batch([b"a"], base_offset=5),
        "control batch": batch([b"a"], attributes=0x20),
        "unknown codec": batch([b"a"], attributes=6),
    }.items():
        produce_one(s, v, label, t, content)
    s.step("end", "ListOffsets", 5, ReplicaId=-1, Topics=[{"Name": t.name, "Partitions": [
        {"PartitionIndex": 0, "Timestamp": LATEST}]}])


@scenario("Produce")
def produce_null_records(s, v):
    t = s.topic()
    produce_one(s, v, "null", t, None, wait_s=2)


@scenario("Produce")
def produce_too_large(s, v):
    t = s.topic(max_message_bytes="1000")
    produce_one(s, v, "too large", t, batch([b"a" * 2000]))
    produce_one(s, v, "small enough", t, batch([b"a" * 500]))


@scenario("Produce")
def produce_to_compacted(s, v):
    t = s.topic(cleanup_policy="compact")
    produce_one(s, v, "without key", t, batch([(b"k", b"v"), b"no key", (b"k", None)]))
    produce_one(s, v, "with keys", t, batch([(b"k", b"v")]))


@scenario("Produce")
def produce_times(s, v):
    t = s.topic(message_timestamp_after_max_ms="1000", message_timestamp_before_max_ms="1000")
    produce_one(s, v, "too old", t, batch([b"a"]))
    produce_one(s, v, "too new", t, batch([b"a"], time_ms=4_000_000_000_000))
    produce_one(s, v, "no time", t, batch([b"a"], time_ms=-1))


@scenario("Produce")
def produce_append_time(s, v):
    t = s.topic(message_timestamp_type="LogAppendTime")
    answer = produce_one(s, v, "append time", t, batch([b"a"]))
    s.record("a time is told", "Produce", v, {"told": answer["Responses"][0]["PartitionResponses"][0]
                                              .get("LogAppendTimeMs", -1) > 1_600_000_000_000})


@scenario("Produce")
def produce_idempotent(s, v):
    t = s.topic()

    def given():
        got = s.do("InitProducerId", TransactionalId=None, TransactionTimeoutMs=60_000,
                   ProducerId=-1, ProducerEpoch=-1)
        return got["ErrorCode"] == 0 and got["ProducerId"] + 1
    # A Kafka that has just started has no ids yet.
    pid = s.until("a producer id", given) - 1

    def send(label, sequence, epoch=0, producer_id=pid, values=(b"a",)):
        produce_one(s, v, label, t, batch(list(values), producer_id=producer_id, epoch=epoch,
                                          sequence=sequence, time_ms=NOW_MS))
    send("first", 0)
    send("next", 1, values=(b"a", b"b"))
    send("next again", 1, values=(b"a", b"b"))
    send("first again", 0)
    send("gap", 9)
    send("epoch 1", 0, epoch=1)
    send("epoch 0 after 1", 3)
    send("epoch 1, sequence 5", 5, epoch=1)
    send("epoch 2, not from 0", 5, epoch=2)
    send("other producer, not from 0", 5, producer_id=pid + 4_000_000)
    send("negative epoch", 0, epoch=-1)
    send("negative sequence", -1, epoch=1)
    fetch_all(s, "log", t)


@scenario("Produce")
def produce_transactional_without_transaction(s, v):
    t = s.topic()
    produce_one(s, v, "transactional id, plain batch", t, batch([b"a"]), TransactionalId=s.name("x"))
    produce_one(s, v, "transactional batch, no id", t, batch(
        [b"a"], producer_id=1_000_000, epoch=0, sequence=0, transactional=True))


def fetch_all(s, label, topic, partition=0):
    s.step(label, "Fetch", 12, MaxWaitMs=0, MinBytes=0, Topics=[{"Topic": topic.name, "Partitions": [
        {"Partition": partition, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}])


def fetch(s, v, label, topics, keep=None, **more):
    """A Fetch step. `topics` is a list of (name, id, [(partition, fields)])."""
    more = {"MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 24, **more}
    return s.step(label, "Fetch", v, keep=keep, Topics=[
        {"Topic": name, "TopicId": topic_id, "Partitions": [
            {"Partition": index, "PartitionMaxBytes": 1 << 20, **fields} for index, fields in parts]}
        for name, topic_id, parts in topics], **more)


def filled(s, values=(b"a", b"b", b"c"), partitions=1, **configs):
    t = s.topic(partitions=partitions, **configs)
    for value in values:
        s.produce(t, batch([value]))
    return t


@scenario("Fetch")
def fetch_offsets(s, v):
    t = filled(s)
    for label, offset in {"all": 0, "from inside": 1, "end": 3, "past the end": 4, "far": 1 << 40,
                          "negative": -1, "lowest": -(1 << 63)}.items():
        fetch(s, v, label, [(t.name, t.id, [(0, {"FetchOffset": offset})])])


@scenario("Fetch")
def fetch_inside_a_batch(s, v):
    t = s.topic()
    s.produce(t, batch([b"a", b"b", b"c"]))
    fetch(s, v, "from inside", [(t.name, t.id, [(0, {"FetchOffset": 2})])])


def together(answer):
    """Kafka lists a topic again if another stands between two of its partitions in the answer."""
    topics = {}
    for topic in answer["Responses"]:
        name = topic.get("Topic") or topic["TopicId"]
        topics.setdefault(name, dict(topic, Partitions=[]))["Partitions"] += topic["Partitions"]
    return dict(answer, Responses=list(topics.values()))


@scenario("Fetch")
def fetch_unknown(s, v):
    t = filled(s)
    absent = s.name("absent")
    fetch(s, v, "unknown topic", [(absent, UNKNOWN_ID, [(0, {"FetchOffset": 0})])])
    fetch(s, v, "unknown partition", [(t.name, t.id, [(9, {"FetchOffset": 0})])])
    fetch(s, v, "negative partition", [(t.name, t.id, [(-1, {"FetchOffset": 0})])])
    fetch(s, v, "good and bad", [(t.name, t.id, [(0, {"FetchOffset": 0}), (9, {"FetchOffset": 0})]),
                                 (absent, UNKNOWN_ID, [(0, {"FetchOffset": 0})])], keep=together)
    fetch(s, v, "zero id, bad name", [("a/b", uuid.UUID(int=0), [(0, {"FetchOffset": 0})])])


@scenario("Fetch")
def fetch_limits(s, v):
    t = filled(s, (b"a" * 500, b"b" * 500, b"c" * 500))
    fetch(s, v, "one batch fits", [(t.name, t.id, [(0, {"FetchOffset": 0, "PartitionMaxBytes": 600})])])
    fetch(s, v, "none fits", [(t.name, t.id, [(0, {"FetchOffset": 0, "PartitionMaxBytes": 10})])])
    fetch(s, v, "zero", [(t.name, t.id, [(0, {"FetchOffset": 0, "PartitionMaxBytes": 0})])])
    fetch(s, v, "all of it is small", [(t.name, t.id, [(0, {"FetchOffset": 0})])], MaxBytes=600)
    fetch(s, v, "all of it is nothing", [(t.name, t.id, [(0, {"FetchOffset": 0})])], MaxBytes=0)


@scenario("Fetch")
def fetch_nothing(s, v):
    t = s.topic()
    fetch(s, v, "no topics", [])
    fetch(s, v, "no partitions", [(t.name, t.id, [])])
    fetch(s, v, "empty log", [(t.name, t.id, [(0, {"FetchOffset": 0})])])
    fetch(s, v, "empty log, wait", [(t.name, t.id, [(0, {"FetchOffset": 0})])], MaxWaitMs=100, MinBytes=1)


@scenario("Fetch", range(9, 19))
def fetch_leader_epochs(s, v):
    t = filled(s)
    now = t.epochs[0]
    fetch(s, v, "right epoch", [(t.name, t.id, [(0, {"FetchOffset": 0, "CurrentLeaderEpoch": now})])])
    fetch(s, v, "newer epoch", [(t.name, t.id, [(0, {"FetchOffset": 0, "CurrentLeaderEpoch": now + 7})])])
    fetch(s, v, "negative epoch", [(t.name, t.id, [(0, {"FetchOffset": 0, "CurrentLeaderEpoch": -5})])])


@scenario("Fetch", range(12, 19))
def fetch_last_fetched_epoch(s, v):
    t = filled(s)
    now = t.epochs[0]
    fetch(s, v, "last epoch right", [(t.name, t.id, [
        (0, {"FetchOffset": 1, "CurrentLeaderEpoch": now, "LastFetchedEpoch": now})])])
    fetch(s, v, "last epoch newer", [(t.name, t.id, [
        (0, {"FetchOffset": 1, "CurrentLeaderEpoch": now, "LastFetchedEpoch": now + 3})])])


@scenario("Fetch", range(7, 19))
def fetch_sessions(s, v):
    t = filled(s)
    fetch(s, v, "no session", [(t.name, t.id, [(0, {"FetchOffset": 0})])], SessionId=0, SessionEpoch=-1)
    fetch(s, v, "unknown session", [(t.name, t.id, [(0, {"FetchOffset": 0})])], SessionId=77, SessionEpoch=3)
    fetch(s, v, "new session", [(t.name, t.id, [(0, {"FetchOffset": 0})])], SessionId=0, SessionEpoch=0)
    fetch(s, v, "end of no session", [], SessionId=77, SessionEpoch=-1)


@scenario("Fetch", range(7, 19))
def fetch_session_goes_on(s, v):
    t, other = s.topic(partitions=3), s.topic("other")
    s.produce(t, batch([b"a"]))

    def each(topic, *offsets):
        return [(topic.name, topic.id, [(index, {"FetchOffset": offset}) for index, offset in offsets])]

    def forget(topic, *partitions):
        return [{"Topic": topic.name, "TopicId": topic.id, "Partitions": list(partitions)}]
    session = fetch(s, v, "begin", each(t, (0, 0), (1, 0), (2, 0)), SessionId=0, SessionEpoch=0)["SessionId"]

    def on(label, epoch, topics=(), session=session, **more):
        fetch(s, v, label, list(topics), SessionId=session, SessionEpoch=epoch, **more)
    on("the same again", 1)
    on("records are taken", 2, each(t, (0, 1)))
    on("nothing new", 3)
    s.produce(t, batch([b"b"]), partition=2)
    s.produce(t, batch([b"c"]), partition=1)
    on("two have records", 4)
    on("one goes on", 5, each(t, (2, 1)))
    on("another topic", 6, each(other, (0, 0)))
    on("one forgotten", 7, ForgottenTopicsData=forget(t, 1))
    on("one that is not there", 8, each(t, (9, 0)))
    on("is still not there", 9)
    on("out of range", 10, each(t, (2, 50)), ForgottenTopicsData=forget(t, 9))
    on("back in range", 11, each(t, (2, 1)))
    on("wrong epoch", 17)
    on("another session", 12, session=session + 1000)
    on("forgotten twice", 12, ForgottenTopicsData=forget(t, 1))
    on("the last are forgotten", 13, ForgottenTopicsData=forget(t, 0, 2) + forget(other, 0))
    on("ended by that", 14)
    again = fetch(s, v, "begin again", each(t, (0, 1)), SessionId=0, SessionEpoch=0)["SessionId"]
    fetch(s, v, "end", each(t, (0, 1)), SessionId=again, SessionEpoch=-1)
    on("after the end", 1, session=again)


@scenario("Fetch")
def fetch_read_committed(s, v):
    t = filled(s)
    fetch(s, v, "read committed", [(t.name, t.id, [(0, {"FetchOffset": 0})])], IsolationLevel=1)
    fetch(s, v, "isolation level 7", [(t.name, t.id, [(0, {"FetchOffset": 0})])], IsolationLevel=7)


@scenario("Fetch")
def fetch_as_replica(s, v):
    t = filled(s)
    more = {"ReplicaId": 5} if v < 15 else {"ReplicaState": {"ReplicaId": 5, "ReplicaEpoch": 1}}
    fetch(s, v, "replica 5", [(t.name, t.id, [(0, {"FetchOffset": 0})])], **more)


@scenario("Fetch")
def fetch_twice_the_same(s, v):
    t = filled(s)
    fetch(s, v, "partition twice", [(t.name, t.id, [(0, {"FetchOffset": 0}), (0, {"FetchOffset": 1})])])


def offsets(s, v, label, topics, **more):
    return s.step(label, "ListOffsets", v, ReplicaId=-1, TimeoutMs=5000, Topics=[
        {"Name": name, "Partitions": [{"PartitionIndex": index, "Timestamp": time, **fields}
                                      for index, time, fields in parts]}
        for name, parts in topics], **more)


@scenario("ListOffsets")
def list_offsets_by_time(s, v):
    t = s.topic()
    for i in range(3):
        s.produce(t, batch([b"a", b"b"], time_ms=1_700_000_000_000 + i * 1000, step_ms=100))
    for label, time in {"earliest": EARLIEST, "latest": LATEST, "first": 1_700_000_000_000,
                        "inside": 1_700_000_001_050, "between": 1_700_000_000_500,
                        "after all": 1_800_000_000_000, "zero": 0, "max": MAX_TIMESTAMP,
                        "earliest local": EARLIEST_LOCAL, "latest tiered": LATEST_TIERED,
                        "earliest pending": -6, "undefined": -7, "lowest": -(1 << 63)}.items():
        offsets(s, v, label, [(t.name, [(0, time, {})])])


@scenario("ListOffsets")
def list_offsets_of_nothing(s, v):
    t = s.topic(partitions=2)
    offsets(s, v, "empty log", [(t.name, [(0, EARLIEST, {}), (1, LATEST, {})])])
    for mode in (MAX_TIMESTAMP, 5):
        offsets(s, v, f"empty log {mode}", [(t.name, [(0, mode, {})])])
    offsets(s, v, "no topics", [])
    offsets(s, v, "no partitions", [(t.name, [])])


@scenario("ListOffsets")
def list_offsets_unknown(s, v):
    t = s.topic()
    offsets(s, v, "unknown topic", [(s.name("absent"), [(0, LATEST, {})])])
    offsets(s, v, "unknown partition", [(t.name, [(0, LATEST, {}), (8, LATEST, {})])])
    offsets(s, v, "negative partition", [(t.name, [(-1, LATEST, {})])])
    offsets(s, v, "twice", [(t.name, [(0, LATEST, {}), (0, EARLIEST, {})])])
    offsets(s, v, "bad name", [("a b", [(0, LATEST, {})])])


@scenario("ListOffsets")
def list_offsets_committed(s, v):
    t = filled(s)
    offsets(s, v, "read committed", [(t.name, [(0, LATEST, {})])], **({"IsolationLevel": 1} if v >= 2 else {}))
    if v >= 2:
        offsets(s, v, "isolation level 7", [(t.name, [(0, LATEST, {})])], IsolationLevel=7)


@scenario("ListOffsets", range(4, 12))
def list_offsets_epochs(s, v):
    t = filled(s)
    offsets(s, v, "right", [(t.name, [(0, LATEST, {"CurrentLeaderEpoch": t.epochs[0]})])])
    offsets(s, v, "newer", [(t.name, [(0, LATEST, {"CurrentLeaderEpoch": t.epochs[0] + 9})])])


@scenario("ListOffsets")
def list_offsets_replica(s, v):
    t = filled(s)
    s.step("debug replica", "ListOffsets", v, ReplicaId=-2, Topics=[
        {"Name": t.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": LATEST}]}])


def metadata(s, v, label, topics, **more):
    def keep(answer):
        if topics is None:
            answer = dict(answer, Topics=[t for t in answer["Topics"] if s.mine(t["Name"])])
        return answer
    return s.step(label, "Metadata", v, keep=keep, Topics=topics, **more)


@scenario("Metadata")
def metadata_of_topics(s, v):
    t, u = s.topic("t", partitions=3), s.topic("u")
    metadata(s, v, "both", [{"Name": t.name}, {"Name": u.name}], AllowAutoTopicCreation=False)
    metadata(s, v, "twice", [{"Name": t.name}, {"Name": t.name}], AllowAutoTopicCreation=False)
    if v >= 1:
        metadata(s, v, "none", [])
        metadata(s, v, "all", None)
    else:
        s.step("empty is all", "Metadata", v, Topics=[], keep=lambda a: dict(
            a, Topics=[x for x in a["Topics"] if s.mine(x["Name"])]))


@scenario("Metadata")
def metadata_unknown(s, v):
    if v >= 4:
        metadata(s, v, "unknown", [{"Name": s.name("absent")}], AllowAutoTopicCreation=False)
        metadata(s, v, "long", [{"Name": "x" * 250}], AllowAutoTopicCreation=False)
        for bad in ("", ".", "..", "a/b", "ä"):
            metadata(s, v, f"bad name {bad}", [{"Name": bad}], AllowAutoTopicCreation=False)
    else:
        for bad in ("", ".", "..", "a/b", "x" * 250):
            metadata(s, v, f"bad name {bad}", [{"Name": bad}])


@scenario("Metadata")
def metadata_auto_create(s, v):
    name = s.name("auto")
    metadata(s, v, "first", [{"Name": name}], AllowAutoTopicCreation=True)
    s.wait_for_topic(name, 1)
    metadata(s, v, "then", [{"Name": name}], AllowAutoTopicCreation=True)


@scenario("Metadata", range(4, 14))
def metadata_internal(s, v):
    metadata(s, v, "internal topic", [{"Name": "__consumer_offsets"}], AllowAutoTopicCreation=False)


@scenario("Metadata", range(8, 14))
def metadata_operations(s, v):
    t = s.topic()
    more = {"IncludeClusterAuthorizedOperations": True} if v <= 10 else {}
    metadata(s, v, "operations", [{"Name": t.name}], IncludeTopicAuthorizedOperations=True, **more)


@scenario("Metadata", range(10, 14))
def metadata_by_id(s, v):
    t = s.topic()
    metadata(s, v, "by id", [{"TopicId": t.id, "Name": None}])
    metadata(s, v, "unknown id", [{"TopicId": UNKNOWN_ID, "Name": None}])
    metadata(s, v, "id and name", [{"TopicId": t.id, "Name": t.name}])
    metadata(s, v, "neither", [{"Name": None}])
    metadata(s, v, "known and unknown id", [{"TopicId": t.id, "Name": None},
                                            {"TopicId": UNKNOWN_ID, "Name": None}])
    metadata(s, v, "id, and another by name", [{"TopicId": t.id, "Name": None}, {"Name": s.name("absent")}],
             AllowAutoTopicCreation=False)


def for_epoch(s, v, label, name, parts, replica=-1):
    more = {"ReplicaId": replica} if v >= 3 else {}
    s.step(label, "OffsetForLeaderEpoch", v, Topics=[{"Topic": name, "Partitions": [
        {"Partition": p, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}
        for p, current, epoch in parts]}], **more)


@scenario("OffsetForLeaderEpoch")
def offset_for_leader_epoch(s, v):
    t = filled(s)
    now = t.epochs[0]
    for_epoch(s, v, "now", t.name, [(0, now, now)])
    for_epoch(s, v, "no current", t.name, [(0, -1, now)])
    for_epoch(s, v, "later", t.name, [(0, -1, now + 5)])
    for_epoch(s, v, "before all", t.name, [(0, -1, -1)])
    for_epoch(s, v, "current newer", t.name, [(0, now + 5, now)])
    for_epoch(s, v, "unknown partition", t.name, [(9, -1, now)])
    for_epoch(s, v, "unknown topic", s.name("absent"), [(0, -1, now)])
    s.step("nothing", "OffsetForLeaderEpoch", v, Topics=[])


def delete_records(s, v, label, name, parts):
    s.step(label, "DeleteRecords", v, TimeoutMs=10_000, Topics=[{"Name": name, "Partitions": [
        {"PartitionIndex": p, "Offset": offset} for p, offset in parts]}])


@scenario("DeleteRecords")
def delete_some_records(s, v):
    t = filled(s)
    delete_records(s, v, "one", t.name, [(0, 1)])
    fetch_all(s, "offset 0 is gone", t)
    delete_records(s, v, "less", t.name, [(0, 0)])
    delete_records(s, v, "past the end", t.name, [(0, 9)])
    delete_records(s, v, "negative", t.name, [(0, -7)])
    delete_records(s, v, "all", t.name, [(0, -1)])
    delete_records(s, v, "unknown partition", t.name, [(5, 0)])
    delete_records(s, v, "unknown topic", s.name("absent"), [(0, 0)])
    s.step("nothing", "DeleteRecords", v, TimeoutMs=1000, Topics=[])
    offsets(s, 5, "begin", [(t.name, [(0, EARLIEST, {})])])


@scenario("DeleteRecords")
def delete_records_of_compacted(s, v):
    t = s.topic(cleanup_policy="compact")
    s.produce(t, batch([(b"k", b"v")]))
    delete_records(s, v, "compacted", t.name, [(0, 1)])


@scenario("InitProducerId")
def init_producer_id_idempotent(s, v):
    def init(label, **fields):
        return s.step(label, "InitProducerId", v, **{"TransactionalId": None,
                                                     "TransactionTimeoutMs": 60_000, **fields})
    init("new")
    init("another")
    init("zero timeout", TransactionTimeoutMs=0)
    if v >= 3:
        init("id given", ProducerId=5, ProducerEpoch=3)
        init("epoch alone", ProducerId=-1, ProducerEpoch=3)
        init("id alone", ProducerId=5, ProducerEpoch=-1)
