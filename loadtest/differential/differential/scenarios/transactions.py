"""Transactions: both generations, their offsets, what readers see, and what tools ask."""

from __future__ import annotations

import time
import uuid

from differential.records import batch
from differential.scenario import scenario

# Of now, like the markers: Kafka begins another segment after a week of records' time, and answers one
# segment at a time.
NOW_MS = int(time.time() * 1000)
UNKNOWN_ID = uuid.UUID("00000000-0000-4000-8000-00000000beef")


def coordinator(s):
    """Returns when transactions are served: Kafka makes its log at the first question."""
    s.need("EndTxn", 0)
    s.until("the transaction coordinator is loaded", lambda: all(c["ErrorCode"] == 0 for c in s.do(
        "FindCoordinator", 4, KeyType=1, CoordinatorKeys=[s.name("x")])["Coordinators"]))


def init_fields(transactional_id, timeout=60_000, **more):
    return {"TransactionalId": transactional_id, "TransactionTimeoutMs": timeout, **more}


# The loading of the log, and markers that are still on their way: the client asks again.
RETRY = {14, 15, 16, 51}


def again(s, api, version, **fields):
    """A call that is repeated while the answer says to, as clients do; not recorded."""
    def call():
        answer = s.do(api, version, **fields)
        codes = {answer.get("ErrorCode", 0)}
        for topic in answer.get("ResultsByTopicV3AndBelow", ()):
            codes |= {p["PartitionErrorCode"] for p in topic["ResultsByPartition"]}
        for transaction in answer.get("ResultsByTransaction", ()):
            for topic in transaction["TopicResults"]:
                codes |= {p["PartitionErrorCode"] for p in topic["ResultsByPartition"]}
        return None if codes & RETRY else answer
    return s.until(f"{api} is not to be repeated", call)


def begin(s, version=4, suffix="x", **more):
    """A transactional producer."""
    coordinator(s)
    # Twice, so that there is an epoch before the producer's own.
    again(s, "InitProducerId", version, **init_fields(s.name(suffix), **more))
    answer = again(s, "InitProducerId", version, **init_fields(s.name(suffix), **more))
    assert answer["ErrorCode"] == 0, answer
    return Producer(s, s.name(suffix), answer["ProducerId"], answer["ProducerEpoch"])


class Producer:
    def __init__(self, s, transactional_id, producer_id, epoch):
        self.s, self.transactional_id, self.id, self.epoch = s, transactional_id, producer_id, epoch
        self.sequence = {}

    @property
    def fields(self):
        return {"TransactionalId": self.transactional_id, "ProducerId": self.id, "ProducerEpoch": self.epoch}

    def add(self, topic, partitions=(0,)):
        """Adds partitions as clients of the first generation do."""
        answer = again(self.s, "AddPartitionsToTxn", 3, V3AndBelowTransactionalId=self.transactional_id,
                       V3AndBelowProducerId=self.id, V3AndBelowProducerEpoch=self.epoch,
                       V3AndBelowTopics=[{"Name": topic.name, "Partitions": list(partitions)}])
        codes = [p["PartitionErrorCode"] for t in answer["ResultsByTopicV3AndBelow"]
                 for p in t["ResultsByPartition"]]
        assert not any(codes), answer

    def batch(self, topic, values, partition=0, epoch=None):
        sequence = self.sequence.get((topic.name, partition), 0)
        self.sequence[topic.name, partition] = sequence + len(values)
        return batch(list(values), producer_id=self.id, epoch=self.epoch if epoch is None else epoch,
                     sequence=sequence, transactional=True, time_ms=NOW_MS)

    def produce(self, topic, values, version=11, partition=0):
        answer = self.s.do("Produce", version, TransactionalId=self.transactional_id, Acks=-1, TimeoutMs=30_000,
                           TopicData=[{"Name": topic.name, "TopicId": topic.id, "PartitionData": [
                               {"Index": partition, "Records": self.batch(topic, values, partition)}]}])
        got = answer["Responses"][0]["PartitionResponses"][0]
        assert got["ErrorCode"] == 0, got

    def end(self, commit=True, version=3):
        answer = again(self.s, "EndTxn", version, Committed=commit, **self.fields)
        assert answer["ErrorCode"] == 0, answer
        if version >= 5:
            self.id, self.epoch = answer["ProducerId"], answer["ProducerEpoch"]
            self.sequence = {}


def settled(s, topic, offset, partition=0):
    """Returns when the last stable offset is there: markers are written after EndTxn has answered."""
    s.until(f"the last stable offset is {offset}", lambda: s.do(
        "ListOffsets", ReplicaId=-1, IsolationLevel=1, Topics=[{"Name": topic.name, "Partitions": [
            {"PartitionIndex": partition, "Timestamp": -1}]}])["Topics"][0]["Partitions"][0]["Offset"] == offset)


def high_watermark(s, topic, offset):
    """Returns when the log ends there, markers included."""
    s.until(f"the high watermark is {offset}", lambda: s.do("ListOffsets", ReplicaId=-1, Topics=[
        {"Name": topic.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}])["Topics"][0][
            "Partitions"][0]["Offset"] == offset)


def complete(s, producer):
    """Returns when the coordinator has heard that the markers are written."""
    s.until("the transaction is complete", lambda: s.do("DescribeTransactions", TransactionalIds=[
        producer.transactional_id])["TransactionStates"][0]["TransactionState"].startswith("Complete"))


def read(s, label, topic, version=12, offset=0, committed=True):
    s.step(label, "Fetch", version, MaxWaitMs=0, MinBytes=0, IsolationLevel=1 if committed else 0, Topics=[
        {"Topic": topic.name, "TopicId": topic.id, "Partitions": [
            {"Partition": 0, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20}]}])


@scenario("InitProducerId")
def init_transactional(s, v):
    coordinator(s)

    def init(label, transactional_id=s.name("x"), record=True, **more):
        return s.step(label, "InitProducerId", v, **init_fields(transactional_id, **more))
    again(s, "InitProducerId", v, **init_fields(s.name("warm")))
    first = init("first")
    init("again")
    init("another", s.name("y"))
    init("empty id", "")
    init("no time", s.name("z"), timeout=0)
    init("negative time", s.name("z"), timeout=-1)
    init("too long", s.name("z"), timeout=900_001)
    init("just not too long", s.name("z"), timeout=900_000)
    if v >= 3:
        init("with its id, epoch behind", ProducerId=first["ProducerId"], ProducerEpoch=first["ProducerEpoch"])
        now = init("no id")
        init("with its id and epoch", ProducerId=now["ProducerId"], ProducerEpoch=now["ProducerEpoch"])
        init("with another id", ProducerId=now["ProducerId"] + 77_777, ProducerEpoch=0)
        init("epoch ahead", ProducerId=now["ProducerId"], ProducerEpoch=now["ProducerEpoch"] + 5)
        init("unknown transactional id with an id", s.name("w"), ProducerId=5, ProducerEpoch=1)
        init("id without epoch", ProducerId=now["ProducerId"], ProducerEpoch=-1)


def add_partitions(s, v, label, producer, topics, **more):
    fields = {**producer.fields, **more}
    listed = [{"Name": n, "Partitions": parts} for n, parts in topics]
    if v <= 3:
        return s.step(label, "AddPartitionsToTxn", v, V3AndBelowTransactionalId=fields["TransactionalId"],
                      V3AndBelowProducerId=fields["ProducerId"], V3AndBelowProducerEpoch=fields["ProducerEpoch"],
                      V3AndBelowTopics=listed)
    return s.step(label, "AddPartitionsToTxn", v, Transactions=[
        {**fields, "VerifyOnly": fields.pop("VerifyOnly", False), "Topics": listed}])


@scenario("AddPartitionsToTxn")
def add_partitions_to_transaction(s, v):
    p, t = begin(s), s.topic(partitions=2)
    add_partitions(s, v, "one", p, [(t.name, [0])])
    add_partitions(s, v, "again and one more", p, [(t.name, [0, 1])])
    add_partitions(s, v, "none", p, [])
    add_partitions(s, v, "unknown partition", p, [(t.name, [0, 9])])
    add_partitions(s, v, "unknown topic", p, [(s.name("absent"), [0]), (t.name, [0])])
    add_partitions(s, v, "older epoch", p, [(t.name, [0])], ProducerEpoch=p.epoch - 1)
    add_partitions(s, v, "newer epoch", p, [(t.name, [0])], ProducerEpoch=p.epoch + 1)
    add_partitions(s, v, "another producer id", p, [(t.name, [0])], ProducerId=p.id + 77_777)
    add_partitions(s, v, "unknown transactional id", p, [(t.name, [0])], TransactionalId=s.name("nobody"))
    add_partitions(s, v, "empty transactional id", p, [(t.name, [0])], TransactionalId="")
    if v >= 4:
        add_partitions(s, v, "verified", p, [(t.name, [0])], VerifyOnly=True)
        s.step("no transactions", "AddPartitionsToTxn", v, wait_s=2, Transactions=[])


@scenario("AddOffsetsToTxn")
def add_offsets_to_transaction(s, v):
    p = begin(s)

    def add(label, group=s.name("g"), **more):
        s.step(label, "AddOffsetsToTxn", v, GroupId=group, **{**p.fields, **more})
    add("good")
    add("again")
    add("another group", s.name("h"))
    add("empty group", "")
    add("older epoch", ProducerEpoch=p.epoch - 1)
    add("newer epoch", ProducerEpoch=p.epoch + 1)
    add("another producer id", ProducerId=p.id + 77_777)
    add("unknown transactional id", TransactionalId=s.name("nobody"))
    add("empty transactional id", TransactionalId="")


@scenario("EndTxn", range(0, 5))
def end_transactions(s, v):
    """The first generation: partitions are added, the epoch stays."""
    p, t = begin(s), s.topic()

    def end(label, commit, **more):
        return s.step(label, "EndTxn", v, Committed=commit, **{**p.fields, **more})
    end("commit of nothing", True)
    end("abort of nothing", False)
    p.add(t)
    p.produce(t, [b"a"])
    read(s, "open, committed", t)
    read(s, "open, uncommitted", t, committed=False)
    end("older epoch", True, ProducerEpoch=p.epoch - 1)
    end("newer epoch", True, ProducerEpoch=p.epoch + 1)
    end("another producer id", True, ProducerId=p.id + 77_777)
    end("unknown transactional id", True, TransactionalId=s.name("nobody"))
    end("empty transactional id", True, TransactionalId="")
    end("commit", True)
    settled(s, t, 2)
    complete(s, p)
    end("commit again", True)
    end("abort what is committed", False)
    read(s, "committed", t)
    p.add(t)
    p.produce(t, [b"b"])
    p.end(False)
    settled(s, t, 4)
    complete(s, p)
    end("abort again", False)
    end("commit what is aborted", True)
    read(s, "after an abort, committed", t)
    read(s, "after an abort, uncommitted", t, committed=False)


@scenario("EndTxn", range(5, 6))
def end_transactions_of_the_second_generation(s, v):
    """KIP-890: partitions are added by producing, the epoch grows with each transaction."""
    p, t = begin(s, version=5), s.topic()

    def end(label, commit, **more):
        return s.step(label, "EndTxn", v, Committed=commit, **{**p.fields, **more})
    first = (p.id, p.epoch)
    end("commit of nothing", True)
    answer = end("abort of nothing", False)
    if answer["ErrorCode"] == 0:
        p.id, p.epoch = answer["ProducerId"], answer["ProducerEpoch"]
    p.produce(t, [b"a"], version=12)
    read(s, "open, committed", t)
    end("wrong epoch", True, ProducerEpoch=p.epoch + 3)
    answer = end("commit", True)
    settled(s, t, 2)
    complete(s, p)
    end("commit again", True)
    p.id, p.epoch, p.sequence = answer["ProducerId"], answer["ProducerEpoch"], {}
    end("the epoch before the last", True, ProducerEpoch=first[1])
    p.produce(t, [b"b"], version=12)
    answer = end("abort", False)
    settled(s, t, 4)
    complete(s, p)
    end("abort again", False)
    p.id, p.epoch, p.sequence = answer["ProducerId"], answer["ProducerEpoch"], {}
    read(s, "committed", t)


@scenario("Fetch")
def fetch_aborted(s, v):
    """Aborted transactions in every version that lists them."""
    p, q, t = begin(s), begin(s, suffix="q"), s.topic()
    for end, (producer, value, commit) in enumerate(
            ((p, b"a", False), (q, b"b", True), (p, b"c", False), (q, b"d", False)), 1):
        producer.add(t)
        producer.produce(t, [value])
        producer.end(commit)
        # The marker is written before the next begins, so that offsets are the same on both sides.
        high_watermark(s, t, 2 * end)
    read(s, "all", t, v)
    read(s, "from the third", t, v, 4)
    read(s, "the end", t, v, 8)
    read(s, "uncommitted", t, v, committed=False)
    q.add(t)
    q.produce(t, [b"e"])
    p.add(t)
    p.produce(t, [b"f"])
    p.end(True)
    complete(s, p)
    high_watermark(s, t, 11)
    read(s, "one is open before a committed one", t, v, 6)
    read(s, "behind the last stable offset", t, v, 9)


@scenario("ListOffsets", range(2, 12))
def list_offsets_of_open(s, v):
    p, t = begin(s), s.topic()
    s.produce(t, batch([b"a"]))
    p.add(t)
    p.produce(t, [b"b"])
    for level in (0, 1):
        for time in (-1, -2, 1_700_000_000_000):
            s.step(f"level {level} time {time}", "ListOffsets", v, ReplicaId=-1, IsolationLevel=level, Topics=[
                {"Name": t.name, "Partitions": [{"PartitionIndex": 0, "Timestamp": time}]}])


@scenario("Produce")
def produce_transactional(s, v):
    p, t = begin(s), s.topic(partitions=2)

    def send(label, partition=0, transactional_id=p.transactional_id, **more):
        content = {"producer_id": p.id, "epoch": p.epoch, "sequence": 0, "transactional": True, **more}
        s.step(label, "Produce", v, TransactionalId=transactional_id, Acks=-1, TimeoutMs=30_000, TopicData=[
            {"Name": t.name, "TopicId": t.id, "PartitionData": [
                {"Index": partition, "Records": batch([b"a"], **content)}]}])
    if v < 12:
        send("not added", 1)
        p.add(t)
    send("first")
    send("the same again")
    send("older epoch", epoch=p.epoch - 1, sequence=1)
    send("not transactional, while it is open", transactional=False, sequence=1)
    send("another transactional id", 1, s.name("nobody"))
    if v >= 12:
        send("added by producing", 1)
    p.end(True)
    settled(s, t, 2)
    # While the coordinator is not done, Kafka answers otherwise.
    complete(s, p)
    if v < 12:
        send("after the end", sequence=1)


@scenario("TxnOffsetCommit")
def transactional_offsets(s, v):
    p, t, g = begin(s, version=5 if v >= 5 else 4), s.topic(partitions=2), s.name("g")

    def commit(label, topics, group=g, **more):
        fields = {"GroupId": group, **p.fields, **more}
        return s.step(label, "TxnOffsetCommit", v, Topics=[{"Name": n, "Partitions": [
            {"PartitionIndex": i, "CommittedOffset": o, "CommittedMetadata": m} for i, o, m in parts]}
            for n, parts in topics], **fields)

    def offsets(label, stable):
        s.step(label, "OffsetFetch", 7, GroupId=g, RequireStable=stable, Topics=[
            {"Name": t.name, "PartitionIndexes": [0, 1]}])
    if v < 5:
        again(s, "AddOffsetsToTxn", 3, GroupId=g, **p.fields)
    commit("good", [(t.name, [(0, 5, "note")])])
    offsets("pending", False)
    offsets("pending, stable", True)
    commit("unknown partition", [(t.name, [(9, 5, "")])])
    commit("unknown topic", [(s.name("absent"), [(0, 5, "")])])
    commit("negative offset", [(t.name, [(1, -5, "")])])
    commit("long metadata", [(t.name, [(1, 5, "x" * 5000)])])
    commit("none", [])
    commit("older epoch", [(t.name, [(0, 5, "")])], ProducerEpoch=p.epoch - 1)
    if v >= 3:
        commit("generation of no group", [(t.name, [(0, 5, "")])], GenerationId=7, MemberId="m")
        commit("unknown member", [(t.name, [(0, 5, "")])], MemberId="nobody")
        commit("unknown instance", [(t.name, [(0, 5, "")])], GroupInstanceId="i9")
    commit("empty group id", [(t.name, [(0, 5, "")])], group="")
    p.end(True, version=5 if v >= 5 else 3)
    s.until("the offset is there", lambda: s.do("OffsetFetch", 7, GroupId=g, RequireStable=True, Topics=[
        {"Name": t.name, "PartitionIndexes": [0]}])["Topics"][0]["Partitions"][0]["CommittedOffset"] == 5)
    offsets("committed", True)
    if v < 5:
        again(s, "AddOffsetsToTxn", 3, GroupId=g, **p.fields)
    commit("to be aborted", [(t.name, [(0, 9, "")])])
    p.end(False, version=5 if v >= 5 else 3)
    s.until("the pending offset is gone", lambda: s.do(
        "OffsetFetch", 7, GroupId=g, RequireStable=True, Topics=[
            {"Name": t.name, "PartitionIndexes": [0]}])["Topics"][0]["Partitions"][0]["ErrorCode"] == 0)
    offsets("aborted", True)


@scenario("DescribeProducers")
def describe_producers(s, v):
    p, t = begin(s), s.topic(partitions=2)
    p.add(t)
    p.produce(t, [b"a"])

    def describe(label, topics):
        s.step(label, "DescribeProducers", v, Topics=[
            {"Name": n, "PartitionIndexes": parts} for n, parts in topics])
    describe("open", [(t.name, [0, 1])])
    p.end(True)
    settled(s, t, 2)
    describe("ended", [(t.name, [0])])
    describe("unknown partition", [(t.name, [9])])
    describe("unknown topic", [(s.name("absent"), [0])])
    describe("bad name", [("a/b", [0])])
    describe("nothing", [])


@scenario("DescribeTransactions")
def describe_transactions(s, v):
    p, t = begin(s), s.topic(partitions=2)

    def describe(label, ids):
        s.step(label, "DescribeTransactions", v, TransactionalIds=ids)
    describe("empty", [p.transactional_id])
    p.add(t, (0, 1))
    describe("ongoing", [p.transactional_id])
    p.produce(t, [b"a"])
    p.end(True)
    settled(s, t, 2)
    complete(s, p)
    describe("complete", [p.transactional_id])
    describe("unknown and empty id", [s.name("nobody"), ""])
    describe("none", [])


@scenario("ListTransactions")
def list_transactions(s, v):
    p, q, t = begin(s), begin(s, suffix="q"), s.topic()
    q.add(t)

    def listed(label, **fields):
        s.step(label, "ListTransactions", v, keep=lambda a: dict(a, TransactionStates=[
            x for x in a["TransactionStates"] if s.mine(x["TransactionalId"])]), **fields)
    listed("all")
    listed("ongoing", StateFilters=["Ongoing"])
    listed("empty", StateFilters=["Empty", "CompleteCommit"])
    listed("unknown state", StateFilters=["Nonsense", "Ongoing"])
    listed("of a producer", ProducerIdFilters=[q.id])
    listed("of an unknown producer", ProducerIdFilters=[987_654_321])
    if v >= 1:
        listed("long ones", DurationFilter=3_600_000)
        listed("all by duration", DurationFilter=0)
        listed("negative duration", DurationFilter=-1)
    if v >= 2:
        listed("by pattern", TransactionalIdPattern=".*-q")
        listed("by no pattern", TransactionalIdPattern="")
        listed("by a bad pattern", TransactionalIdPattern="(")
    q.end(False)
    assert p
