"""Every producer, every compression, every consumer; and the shapes that records can have."""

from __future__ import annotations

import os
import random
import uuid

import confluent_kafka
import kafka
import kafka.errors
import pytest
from confluent_kafka.admin import AdminClient
from kafka.protocol.consumer import FetchRequest

from blackbox import java, wire
from blackbox.clients import CODECS, CONSUMERS, PRODUCERS, Record
from conftest import create

# Nearly everything that a record may hold and that all four clients can say: text that compresses,
# empty and null keys and values are for the tests below, as kcat cannot tell them apart.
HEADERS = (("origin", b"there"), ("origin", b"again"), ("n", b"1"))
CROSS = [Record(value=f"{i} {'abcdefgh' * (i % 300)}".encode(), key=f"k{i % 7}".encode(),
                headers=HEADERS, partition=0) for i in range(400)]


@pytest.fixture(scope="module")
def written(server):
    """Topics by (producer, codec), written at their first use."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    made: dict[tuple[str, str], str] = {}

    def get(producer: str, codec: str) -> str:
        if (producer, codec) not in made:
            topic = f"cross-{producer}-{codec}-{uuid.uuid4().hex[:8]}"
            create(admin, topic)
            placed = PRODUCERS[producer](server.bootstrap, topic, codec, CROSS)
            if placed is not None:
                assert placed == [(0, i) for i in range(len(CROSS))]
            made[producer, codec] = topic
        return made[producer, codec]

    return get


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_each_producer_to_each_consumer(bootstrap, written, producer, codec, consumer):
    got = CONSUMERS[consumer](bootstrap, written(producer, codec), len(CROSS))
    assert [r.offset for r in got] == list(range(len(CROSS)))
    assert [r.content for r in got] == [r.content for r in CROSS]


def stored_codecs(bootstrap: str, topic: str) -> set[int]:
    """The codecs of the batches in partition 0, as a consumer is sent them."""
    t = FetchRequest.FetchTopic
    with wire.Raw(bootstrap) as raw:
        answer = raw.call(FetchRequest(
            replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=1 << 24, isolation_level=0, session_id=0,
            session_epoch=-1, forgotten_topics_data=[], rack_id="", topics=[t(topic=topic, partitions=[
                t.FetchPartition(partition=0, current_leader_epoch=-1, fetch_offset=0, log_start_offset=-1,
                                 partition_max_bytes=1 << 24)])]), 11)
    part = answer.responses[0].partitions[0]
    assert part.error_code == 0
    return {batch.compression_type for batch in wire.batches(part.records)}


@pytest.mark.parametrize("stored", CODECS)
@pytest.mark.parametrize("sent", ["none", "gzip", "zstd"])
def test_compression_type_of_a_topic(bootstrap, topic, sent, stored):
    """`compression.type` says how batches are stored, whatever a producer sends."""
    written = topic(config={"compression.type": "uncompressed" if stored == "none" else stored})
    PRODUCERS["librdkafka"](bootstrap, written, sent, CROSS)
    assert stored_codecs(bootstrap, written) == {CODECS.index(stored)}
    for consumer in ["librdkafka", "java"]:
        got = CONSUMERS[consumer](bootstrap, written, len(CROSS))
        assert [(r.offset, r.content) for r in got] == [(i, r.content) for i, r in enumerate(CROSS)]


SHAPES = [
    Record(b"v"),
    Record(b"v", key=b""),
    Record(b"", key=b"k"),
    Record(None, key=b"tombstone"),
    Record(None, key=None),
    Record(b""),
    Record(b"\x00\xff\xfe binary \r\n", key=b"\x00"),
    Record(b"v", headers=(("", b""), ("null", None), ("twice", b"1"), ("twice", b"2"))),
    Record(b"v", headers=tuple((f"h{i}", bytes([i])) for i in range(100))),
    Record(b"v", key="schlüssel".encode(), headers=(("ключ", "значение".encode()),)),
    Record(b"v", key=b"k" * 20_000),
    Record(b"v", timestamp=1),
    Record(b"v", timestamp=1_600_000_000_123),
]


@pytest.mark.parametrize("codec", ["none", "zstd"])
@pytest.mark.parametrize("producer", ["librdkafka", "kafka-python", "java"])
def test_shapes_of_records(bootstrap, topic, producer, codec):
    written = topic()
    shapes = SHAPES
    if producer == "kafka-python":  # It writes no null header, and no record without key and value.
        shapes = [r for r in SHAPES if (r.key, r.value) != (None, None)
                  and all(value is not None for _, value in r.headers)]
    PRODUCERS[producer](bootstrap, written, codec, shapes)
    for consumer in ["librdkafka", "kafka-python", "java"]:
        got = CONSUMERS[consumer](bootstrap, written, len(shapes))
        assert [r.content for r in got] == [r.content for r in shapes], consumer
        assert [(r.timestamp, w.timestamp) for r, w in zip(got, shapes)
                if w.timestamp >= 0 and r.timestamp != w.timestamp] == [], consumer


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_empty_topic_has_nothing_to_read(bootstrap, topic, consumer):
    empty = topic(partitions=2)
    if consumer == "kcat":
        assert CONSUMERS[consumer](bootstrap, empty, 0) == []
    elif consumer == "java":
        got = java.driver(bootstrap).call("consume", topic=empty, count=1, timeout_ms=1500)
        assert got == []
    elif consumer == "librdkafka":
        c = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "unused",
                                      "enable.partition.eof": True})
        c.assign([confluent_kafka.TopicPartition(empty, p, 0) for p in range(2)])
        ends = {m.partition(): m.error().code() for m in (c.poll(20), c.poll(20))}
        c.close()
        assert ends == {p: confluent_kafka.KafkaError._PARTITION_EOF for p in range(2)}
    else:
        c = kafka.KafkaConsumer(bootstrap_servers=bootstrap)
        parts = [kafka.TopicPartition(empty, p) for p in range(2)]
        assert c.end_offsets(parts) == dict.fromkeys(parts, 0)
        assert c.beginning_offsets(parts) == dict.fromkeys(parts, 0)
        c.close()


def big(size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(size).randbytes(size)


# Room for the batch's and the record's own fields beside the value: 61 and about 20 bytes.
DEFAULT_MAX = 1_048_588


@pytest.mark.parametrize("producer", ["librdkafka", "kafka-python", "java"])
def test_from_one_byte_to_the_largest(bootstrap, topic, producer):
    limits = {"librdkafka": {"message.max.bytes": 2_000_000},
              "kafka-python": {"max_request_size": 2_000_000},
              "java": {"max.request.size": "2000000"}}[producer]
    written = topic()
    # One request each, so that each is a batch of its own.
    sizes = [1, 2, 1000, 1 << 16, 1_000_000, DEFAULT_MAX - 61 - 20]
    for size in sizes:
        PRODUCERS[producer](bootstrap, written, "none", [Record(big(size))], **limits)
    for consumer in CONSUMERS:
        if consumer == "kcat":
            continue  # prints bytes as text
        got = CONSUMERS[consumer](bootstrap, written, len(sizes))
        assert [r.value for r in got] == [big(size) for size in sizes], consumer


@pytest.mark.parametrize("producer", ["librdkafka", "kafka-python", "java"])
def test_larger_than_the_topics_limit_is_refused(bootstrap, topic, producer):
    limits = {"librdkafka": {"message.max.bytes": 4_000_000},
              "kafka-python": {"max_request_size": 4_000_000},
              "java": {"max.request.size": "4000000"}}[producer]
    written = topic()
    small = topic(config={"max.message.bytes": "2000"})
    for where, size in [(written, DEFAULT_MAX + 1), (small, 2001)]:
        with pytest.raises((confluent_kafka.KafkaException, kafka.errors.KafkaError,
                            java.JavaError)) as refused:
            PRODUCERS[producer](bootstrap, where, "none", [Record(big(size))], **limits)
        assert is_too_large(refused.value), refused.value
    PRODUCERS[producer](bootstrap, small, "none", [Record(big(1800))], **limits)
    assert [len(r.value) for r in CONSUMERS[producer](bootstrap, small, 1)] == [1800]


def is_too_large(error: Exception) -> bool:
    if isinstance(error, confluent_kafka.KafkaException):
        return error.args[0].code() == confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE
    if isinstance(error, java.JavaError):
        return error.name == "RecordTooLargeException"
    return isinstance(error, kafka.errors.MessageSizeTooLargeError)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(bootstrap, topic, acks):
    written = topic()
    records = [Record(f"{i}".encode()) for i in range(200)]
    config = {"acks": acks, "enable.idempotence": False, "max.in.flight": 1}
    PRODUCERS["librdkafka"](bootstrap, written, "none", records, **config)
    # With acks=0 "delivered" means sent; reading waits for what is still on its way.
    got = CONSUMERS["librdkafka"](bootstrap, written, 200)
    assert [r.value for r in got] == [r.value for r in records]


def test_many_partitions(bootstrap, topic):
    count = 200
    written = topic(partitions=count)
    records = [Record(f"{p}/{i}".encode(), partition=p) for i in range(5) for p in range(count)]
    PRODUCERS["librdkafka"](bootstrap, written, "lz4", records)
    got = CONSUMERS["librdkafka"](bootstrap, written, len(records))
    by_partition: dict[int, list[bytes]] = {}
    for r in got:
        by_partition.setdefault(r.partition, []).append(r.value)
    assert by_partition == {p: [f"{p}/{i}".encode() for i in range(5)] for p in range(count)}
    got = CONSUMERS["java"](bootstrap, written, len(records))
    assert sorted(r.value for r in got) == sorted(r.value for r in records)


def test_many_topics_in_one_consumer(bootstrap, topic, name):
    topics = [topic(partitions=2) for _ in range(15)]
    for t in topics:
        PRODUCERS["kafka-python"](bootstrap, t, "none", [Record(t.encode(), partition=1)])
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": name, "auto.offset.reset": "earliest"})
    consumer.subscribe(["^" + name.replace(".", r"\.") + "-.*"])
    seen = set()
    for _ in range(300):
        for m in consumer.consume(100, 0.2):
            assert m.error() is None
            seen.add(m.value().decode())
        if len(seen) == len(topics):
            break
    consumer.close()
    assert seen == set(topics)


def test_a_large_log_is_read_whole(bootstrap, topic):
    """64 MiB in 4 KiB values over 2 partitions: more than any single fetch carries."""
    written = topic(partitions=2)
    value = os.urandom(2048) * 2
    records = [Record(i.to_bytes(8, "big") + value, partition=i % 2) for i in range(16_000)]
    PRODUCERS["librdkafka"](bootstrap, written, "none", records,
                            **{"queue.buffering.max.kbytes": 200_000})
    for consumer in ["librdkafka", "kafka-python"]:
        got = CONSUMERS[consumer](bootstrap, written, len(records))
        order = [[int.from_bytes(r.value[:8], "big") for r in got if r.partition == p] for p in (0, 1)]
        assert order == [list(range(p, 16_000, 2)) for p in (0, 1)], consumer
        assert all(r.value[8:] == value for r in got), consumer
