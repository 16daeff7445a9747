"""Offsets: by time, at the ends, in the middle of a batch, and after records were deleted."""

from __future__ import annotations

import confluent_kafka
import kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import OffsetSpec
from kafka.protocol.consumer import FetchRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest

from blackbox import java, waiting
from blackbox.clients import CONSUMERS, PRODUCERS, Record
from blackbox.wire import Raw, batches

BASE = 1_700_000_000_000


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_lookup_by_time(bootstrap, admin, topic, codec):
    """The first offset whose timestamp is the wanted one or later, within batches too."""
    read = topic()
    # Three batches; the times of the middle one are out of order.
    for times in ([0, 10, 20, 30], [60, 40, 80, 50], [100, 110]):
        PRODUCERS["librdkafka"](bootstrap, read, codec,
                                [Record(b"v" * 50, timestamp=BASE + t) for t in times])
    expected = {BASE - 5: 0, BASE: 0, BASE + 1: 1, BASE + 20: 2, BASE + 25: 3, BASE + 31: 4,
                BASE + 60: 4, BASE + 61: 6, BASE + 80: 6, BASE + 81: 8, BASE + 110: 9}
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    for when, offset in expected.items():
        found = consumer.offsets_for_times([TopicPartition(read, 0, when)], timeout=20)
        assert found[0].offset == offset, when - BASE
        answer = java.driver(bootstrap).call("offset", topic=read, partition=0, spec=str(when))
        assert answer[0] == offset, when - BASE
    beyond = consumer.offsets_for_times([TopicPartition(read, 0, BASE + 111)], timeout=20)
    assert beyond[0].offset in (-1, confluent_kafka.OFFSET_END)
    consumer.close()
    python = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
    tp = kafka.TopicPartition(read, 0)
    found = python.offsets_for_times({tp: BASE + 41})[tp]
    assert (found.offset, found.timestamp) == (4, BASE + 60)
    assert python.offsets_for_times({tp: BASE + 111})[tp] is None
    python.close()


def test_earliest_latest_and_max_timestamp(bootstrap, admin, topic):
    read = topic()
    j = java.driver(bootstrap)

    def ends() -> list[list[int]]:
        return [j.call("offset", topic=read, partition=0, spec=s)
                for s in ("earliest", "latest", "max_timestamp")]

    assert ends() == [[0, -1], [0, -1], [-1, -1]]
    PRODUCERS["librdkafka"](bootstrap, read, "none", [
        Record(b"v", timestamp=BASE + t) for t in (0, 900, 5, 900, 6)])
    assert ends() == [[0, -1], [5, -1], [1, BASE + 900]]
    spec = {TopicPartition(read, 0): OffsetSpec.max_timestamp()}
    found = list(admin.list_offsets(spec).values())[0].result(20)
    assert (found.offset, found.timestamp) == (1, BASE + 900)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_fetch_from_inside_a_batch(bootstrap, topic, codec):
    """The whole batch comes back; the client drops what is before the offset that it wants."""
    read = topic()
    PRODUCERS["librdkafka"](bootstrap, read, codec, [Record(f"{i}".encode() * 20) for i in range(100)])
    with Raw(bootstrap) as raw:
        first = fetch(raw, read, 57, 11)
    found = next(batches(first.records))
    assert found.base_offset <= 57
    assert found.base_offset + found.last_offset_delta >= 57
    assert first.high_watermark == 100
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "unused",
                                         "check.crcs": True})
    consumer.assign([TopicPartition(read, 0, 57)])
    got = consumer.consume(43, 20)
    consumer.close()
    assert [m.offset() for m in got] == list(range(57, 100))
    python = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
    tp = kafka.TopicPartition(read, 0)
    python.assign([tp])
    python.seek(tp, 57)
    assert next(python).offset == 57
    python.close()


def fetch(raw: Raw, topic: str, offset: int, version: int, max_bytes: int = 1 << 20,
          partition_bytes: int = 1 << 20, wait_ms: int = 0, min_bytes: int = 1, partition: int = 0):
    """One partition's answer."""
    T = FetchRequest.FetchTopic
    answer = raw.call(FetchRequest(
        replica_id=-1, max_wait_ms=wait_ms, min_bytes=min_bytes, max_bytes=max_bytes,
        isolation_level=0, session_id=0, session_epoch=-1, forgotten_topics_data=[], rack_id="",
        topics=[T(topic=topic, partitions=[T.FetchPartition(
            partition=partition, current_leader_epoch=-1, fetch_offset=offset,
            last_fetched_epoch=-1, log_start_offset=-1, partition_max_bytes=partition_bytes)])]), version)
    return answer.responses[0].partitions[0]


@pytest.mark.parametrize("version", [4, 5, 7, 11, 12])
def test_fetch_versions_and_bounds(bootstrap, topic, version):
    read = topic()
    for i in range(10):
        PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(bytes([i]) * 10_000)])
    with Raw(bootstrap) as raw:
        whole = fetch(raw, read, 0, version)
        assert [b.base_offset for b in batches(whole.records)] == list(range(10))
        # A first batch larger than the bounds comes whole all the same (KIP-74).
        tiny = fetch(raw, read, 3, version, max_bytes=10, partition_bytes=10)
        assert next(batches(tiny.records)).base_offset == 3
        some = fetch(raw, read, 0, version, partition_bytes=35_000)
        assert 0 < len(bytes(some.records)) <= 45_000
        assert fetch(raw, read, 10, version).records in (None, b"")
        assert fetch(raw, read, 11, version).error_code == 1, "OFFSET_OUT_OF_RANGE"
        assert fetch(raw, read, -5, version).error_code == 1
        assert fetch(raw, read, 0, version, partition=7).error_code == 3
        assert fetch(raw, read + "-not", 0, version).error_code == 3


def test_fetch_waits_for_data(bootstrap, topic):
    """A long poll at the end answers when a record comes, not at its time limit."""
    read = topic()
    with Raw(bootstrap, timeout_s=40) as raw:
        # Kafka's metadata can name a leader a moment before that leader serves.
        waiting.until(lambda: fetch(raw, read, 0, 11).error_code == 0, 20, "the leader serves")
        T = FetchRequest.FetchTopic
        request = FetchRequest(
            replica_id=-1, max_wait_ms=30_000, min_bytes=1, max_bytes=1 << 20, isolation_level=0,
            session_id=0, session_epoch=-1, forgotten_topics_data=[], rack_id="",
            topics=[T(topic=read, partitions=[T.FetchPartition(
                partition=0, current_leader_epoch=-1, fetch_offset=0, last_fetched_epoch=-1,
                log_start_offset=-1, partition_max_bytes=1 << 20)])])
        sent = raw.send(request, 11)
        raw.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            raw.receive(FetchRequest, 11, sent)
        raw.socket.settimeout(20)  # Well under the request's own 30 s.
        PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(b"woken")])
        answer = raw.receive(FetchRequest, 11, sent).responses[0].partitions[0]
        assert next(batches(answer.records)).base_offset == 0
        # With nothing new the answer is empty, at about the time limit.
        assert fetch(raw, read, 1, 11, wait_ms=400).records in (None, b"")


def test_delete_records(bootstrap, admin, topic):
    read = topic()
    PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(f"{i}".encode()) for i in range(100)])
    done = admin.delete_records([TopicPartition(read, 0, 30)])
    assert [f.result(20).low_watermark for f in done.values()] == [30]
    j = java.driver(bootstrap)
    assert j.call("offset", topic=read, partition=0, spec="earliest")[0] == 30
    for consumer in CONSUMERS.values():
        assert [r.offset for r in consumer(bootstrap, read, 70)] == list(range(30, 100))
    with Raw(bootstrap) as raw:
        gone = fetch(raw, read, 29, 11)
        assert (gone.error_code, gone.log_start_offset) == (1, 30) or gone.error_code == 1
        assert fetch(raw, read, 30, 11).log_start_offset == 30
    with pytest.raises(java.JavaError) as beyond:
        j.call("delete_records", topic=read, partition=0, offset=101)
    assert beyond.value.name == "OffsetOutOfRangeException"
    assert j.call("delete_records", topic=read, partition=0, offset=10) == 30, "never back"
    assert j.call("delete_records", topic=read, partition=0, offset=-1) == 100, "-1 is the end"
    assert j.call("offset", topic=read, partition=0, spec="earliest")[0] == 100
    PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(b"after")])
    assert [r.offset for r in CONSUMERS["librdkafka"](bootstrap, read, 1)] == [100]


def test_out_of_range_resets(bootstrap, admin, topic, name):
    """A consumer whose offset was deleted starts at the log's start, by its own policy."""
    read = topic()
    PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(f"{i}".encode()) for i in range(20)])
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": name,
                                         "auto.offset.reset": "earliest"})
    # First the deletion: an assigned consumer fetches at once.
    list(admin.delete_records([TopicPartition(read, 0, 12)]).values())[0].result(20)
    consumer.assign([TopicPartition(read, 0, 5)])
    assert [m.offset() for m in consumer.consume(8, 20)] == list(range(12, 20))
    consumer.close()


@pytest.mark.parametrize("version", range(1, 8))
def test_list_offsets_versions(bootstrap, topic, version):
    read = topic()
    PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(b"v", timestamp=BASE + i) for i in range(5)])
    T = ListOffsetsRequest.ListOffsetsTopic

    def ask(raw, when: int, partition: int = 0):
        return raw.call(ListOffsetsRequest(
            replica_id=-1, isolation_level=0, topics=[T(name=read, partitions=[T.ListOffsetsPartition(
                partition_index=partition, current_leader_epoch=-1, timestamp=when)])]),
            version).topics[0].partitions[0]

    with Raw(bootstrap) as raw:
        assert (ask(raw, -2).offset, ask(raw, -1).offset) == (0, 5)
        found = ask(raw, BASE + 3)
        assert (found.offset, found.timestamp) == (3, BASE + 3)
        assert ask(raw, BASE + 9).offset == -1
        assert ask(raw, -1, partition=4).error_code == 3
        if version >= 7:
            assert ask(raw, -3).offset == 4


@pytest.mark.parametrize("version", [2, 3, 4])
def test_end_of_the_leader_epoch(bootstrap, topic, version):
    read = topic()
    PRODUCERS["librdkafka"](bootstrap, read, "none", [Record(b"v")] * 5)
    T = OffsetForLeaderEpochRequest.OffsetForLeaderTopic
    with Raw(bootstrap) as raw:
        epoch = next(batches(fetch(raw, read, 0, 11).records)).leader_epoch
        answer = raw.call(OffsetForLeaderEpochRequest(
            replica_id=-1, topics=[T(topic=read, partitions=[T.OffsetForLeaderPartition(
                partition=0, current_leader_epoch=-1, leader_epoch=epoch)])]), version)
        found = answer.topics[0].partitions[0]
        assert (found.error_code, found.leader_epoch, found.end_offset) == (0, epoch, 5)
