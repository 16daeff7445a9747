"""Compacted topics as their users see them: the last record of each key, at the offset it always had."""

from __future__ import annotations

import re
import urllib.request

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from confluent_kafka.admin import AdminClient

from blackbox import servers, waiting
from conftest import create

pytestmark = pytest.mark.skipif(
    servers.kind() != "sluice",
    reason="Kafka never compacts its active segment: what is compacted when differs")

# Everything goes to the bucket at once, is compacted there at once, and is not in memory any more.
OPTIONS = servers.Options(segment_bytes=64 << 10, upload_max_age_ms=100, retention_check_ms=200,
                          tail_cache_bytes=1 << 20, compaction_interval_ms=100)
COMPACT = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.0"}


def produce(server, topic: str, records: list[tuple[str, str | None]], codec: str = "none",
            **more) -> None:
    producer = confluent_kafka.Producer({
        "bootstrap.servers": server.bootstrap, "compression.type": codec, "linger.ms": 5,
        "enable.idempotence": True, **more})
    for key, value in records:
        producer.produce(topic, key=key, value=value, partition=0)
    assert producer.flush(30) == 0


def metric(server, name: str) -> float:
    url = f"http://{servers.HOST}:{server.http_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.M)[1])


def ends(server, topic: str) -> tuple[int, int]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": server.bootstrap, "group.id": "ends"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    finally:
        consumer.close()


def read(server, topic: str, start: int = OFFSET_BEGINNING) -> list[tuple[int, str, str | None]]:
    """All records from an offset on, until the consumer is at the end."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": server.bootstrap, "group.id": "read", "enable.partition.eof": True,
        "auto.offset.reset": "error", "check.crcs": True})
    found = []
    try:
        consumer.assign([TopicPartition(topic, 0, start)])
        while True:
            message = consumer.poll(20)
            assert message is not None, f"no end of partition after {len(found)} records"
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, \
                    message.error()
                return found
            value = message.value()
            found.append((message.offset(), message.key().decode(), value and value.decode()))
    finally:
        consumer.close()


def test_the_last_value_of_each_key_remains_at_its_offset(own_server):
    server = own_server(OPTIONS)
    topic = "compacted"
    create(AdminClient({"bootstrap.servers": server.bootstrap}), topic, config=COMPACT)
    last = {}
    offset = 0
    # Few keys come in each round, so that batches of every codec keep some of their records.
    for round_, codec in enumerate(["none", "gzip", "snappy", "lz4", "zstd"]):
        records = [(f"key-{round_ * 20 + n % 50}", f"{round_}-{n}" * 20) for n in range(400)]
        produce(server, topic, records, codec)
        for key, value in records:
            last[key] = (offset, value)
            offset += 1
    wanted = sorted((at, key, value) for key, (at, value) in last.items())
    waiting.until(lambda: read(server, topic) == wanted, 40, "only last values remain")
    assert ends(server, topic) == (0, offset)
    # From an offset that is gone a consumer gets the next that is there.
    middle = wanted[len(wanted) // 2]
    assert read(server, topic, middle[0]) == wanted[len(wanted) // 2:]
    gone = next(at for at in range(offset) if at not in {w[0] for w in wanted})
    assert read(server, topic, gone) == [w for w in wanted if w[0] > gone]
    server.restart(crash=True)
    assert read(server, topic) == wanted, "after a crash"
    produce(server, topic, [("key-0", "new")])
    assert read(server, topic)[-1] == (offset, "key-0", "new")


def test_tombstones_go_after_their_time(own_server):
    server = own_server(OPTIONS)
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "deleted",
           config=COMPACT | {"delete.retention.ms": "1500"})
    produce(server, "deleted", [("a", "1"), ("b", "1"), ("a", None)])
    waiting.until(lambda: read(server, "deleted") == [(1, "b", "1"), (2, "a", None)], 20,
                  "the value is gone and its tombstone is there")

    def gone() -> bool:
        # A tombstone goes with the next cleaning after its time.
        produce(server, "deleted", [("c", "1")])
        return [key for _, key, _ in read(server, "deleted") if key != "c"] == ["b"]

    waiting.until(gone, 30, "the tombstone is gone")


def test_both_policies(own_server):
    server = own_server(OPTIONS)
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "both",
           config=COMPACT | {"cleanup.policy": "compact,delete", "retention.ms": "3000"})
    produce(server, "both", [("a", "1"), ("a", "2"), ("b", "1")])
    waiting.until(lambda: ends(server, "both")[0] == 3, 30, "all is too old")
    assert read(server, "both") == []
    produce(server, "both", [("a", "3")])
    assert read(server, "both") == [(3, "a", "3")]


def test_small_extents_are_merged_and_read_the_same(own_server):
    """A topic that is not compacted: many small uploads become few objects."""
    server = own_server(OPTIONS)
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "plain")
    values = []
    for n in range(60):
        produce(server, "plain", [(str(n), f"{n}-{m}") for m in range(5)])
        values += [f"{n}-{m}" for m in range(5)]
        waiting.until(lambda: metric(server, "sluice_writer_unuploaded_bytes") == 0, 20,
                      "all is uploaded")
    waiting.until(lambda: metric(server, "sluice_writer_compactions_total") > 0, 30, "merged")
    server.restart(crash=True)
    assert [value for _, _, value in read(server, "plain")] == values


def test_a_compacted_topic_takes_no_record_without_a_key(own_server):
    server = own_server(OPTIONS)
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "keyed", config=COMPACT)
    producer = confluent_kafka.Producer({"bootstrap.servers": server.bootstrap})
    errors = []
    producer.produce("keyed", value="v", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    assert errors[0].code() == confluent_kafka.KafkaError.INVALID_RECORD
