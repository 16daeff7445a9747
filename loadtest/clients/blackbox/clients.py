"""Four clients that others wrote behind one shape: produce these records, read that topic.

Only what is common to all of them is here; what one client does alone stands in its test. Every
call makes its own client and closes it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time

import confluent_kafka
import kafka

from blackbox import java, waiting

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@dataclasses.dataclass(frozen=True)
class Record:
    """A record as written or as read. `partition`, `offset` and `timestamp` are -1 when unknown."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int = -1
    offset: int = -1
    timestamp: int = -1

    @property
    def content(self) -> tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]:
        return (self.key, self.value, self.headers)


def produce_librdkafka(bootstrap: str, topic: str, codec: str, records: list[Record],
                       **config: object) -> list[tuple[int, int]]:
    """Returns (partition, offset) of each record, in the order given. Raises KafkaException."""
    producer = confluent_kafka.Producer({
        "bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": True,
        "linger.ms": 20, **config})
    placed: list[tuple[int, int] | None] = [None] * len(records)
    failed: list[confluent_kafka.KafkaError] = []

    def delivered(i: int):
        def call(error, message):
            if error is not None:
                failed.append(error)
            else:
                placed[i] = (message.partition(), message.offset())
        return call

    for i, r in enumerate(records):
        extra = {"timestamp": r.timestamp} if r.timestamp >= 0 else {}
        if r.partition >= 0:
            extra["partition"] = r.partition
        producer.produce(topic, value=r.value, key=r.key, headers=list(r.headers),
                         on_delivery=delivered(i), **extra)
        producer.poll(0)
    left = producer.flush(60)
    assert left == 0, f"{left} records were neither delivered nor refused within 60 s"
    if failed:
        raise confluent_kafka.KafkaException(failed[0])
    return placed


def consume_librdkafka(bootstrap: str, topic: str, count: int, **config: object) -> list[Record]:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"unused-{topic}", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "check.crcs": True, **config})
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        consumer.assign([confluent_kafka.TopicPartition(topic, p, confluent_kafka.OFFSET_BEGINNING)
                         for p in partitions])
        records: list[Record] = []
        deadline = waiting.deadline(60)
        while len(records) < count and time.monotonic() < deadline:
            for m in consumer.consume(500, 0.2):
                assert m.error() is None, m.error()
                records.append(Record(
                    m.value(), m.key(), tuple((k, v) for k, v in m.headers() or ()),
                    m.partition(), m.offset(), m.timestamp()[1]))
        return records
    finally:
        consumer.close()


def produce_kafka_python(bootstrap: str, topic: str, codec: str, records: list[Record],
                         **config: object) -> list[tuple[int, int]]:
    producer = kafka.KafkaProducer(
        bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
        acks="all", linger_ms=20, **config)
    try:
        futures = [producer.send(topic, value=r.value, key=r.key, headers=list(r.headers),
                                 partition=r.partition if r.partition >= 0 else None,
                                 timestamp_ms=r.timestamp if r.timestamp >= 0 else None)
                   for r in records]
        producer.flush(60)
        return [(m.partition, m.offset) for m in (f.get(60) for f in futures)]
    finally:
        producer.close(10)


def consume_kafka_python(bootstrap: str, topic: str, count: int, **config: object) -> list[Record]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False,
                                   auto_offset_reset="earliest", check_crcs=True, **config)
    try:
        partitions = [kafka.TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        records: list[Record] = []
        deadline = waiting.deadline(60)
        while len(records) < count and time.monotonic() < deadline:
            for batch in consumer.poll(200).values():
                records += [Record(m.value, m.key, tuple(m.headers), m.partition, m.offset,
                                   m.timestamp) for m in batch]
        return records
    finally:
        consumer.close()


def produce_kcat(bootstrap: str, topic: str, codec: str, records: list[Record],
                 **config: object) -> None:
    """Text only. kcat has one set of headers for all records and says no offsets."""
    command = ["kcat", "-P", "-b", bootstrap, "-t", topic, "-z", codec, "-Z", "-K", "\t",
               "-X", "acks=all", "-X", "message.timeout.ms=60000"]
    for key, value in config.items():
        command += ["-X", f"{key}={value}"]
    assert len({(r.headers, r.partition) for r in records}) == 1, "one set of headers, one partition"
    for key, value in records[0].headers:
        command += ["-H", f"{key}={value.decode()}"]
    if records[0].partition >= 0:
        command += ["-p", str(records[0].partition)]
    lines = b"".join((r.key or b"") + b"\t" + (r.value or b"") + b"\n" for r in records)
    done = subprocess.run(command, input=lines, capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def consume_kcat(bootstrap: str, topic: str, count: int, **_config: object) -> list[Record]:
    done = subprocess.run(
        ["kcat", "-C", "-b", bootstrap, "-t", topic, "-o", "beginning", "-e", "-q", "-J",
         "-X", "check.crcs=true"],
        capture_output=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    records = []
    for line in done.stdout.splitlines():
        m = json.loads(line)
        flat = m.get("headers", [])
        headers = tuple((k, v.encode()) for k, v in zip(flat[::2], flat[1::2]))
        records.append(Record(
            None if m["payload"] is None else m["payload"].encode(),
            None if m["key"] is None else m["key"].encode(),
            headers, m["partition"], m["offset"], m["ts"]))
    return records


def produce_java(bootstrap: str, topic: str, codec: str, records: list[Record],
                 **config: object) -> list[tuple[int, int]]:
    placed = java.driver(bootstrap).call(
        "produce", topic=topic,
        config={"compression.type": codec, "acks": "all", "linger.ms": "20", **config},
        records=[{"key": r.key, "value": r.value, "headers": r.headers,
                  "partition": r.partition if r.partition >= 0 else None,
                  "timestamp": r.timestamp if r.timestamp >= 0 else None} for r in records])
    return [(partition, offset) for partition, offset in placed]


def consume_java(bootstrap: str, topic: str, count: int, **config: object) -> list[Record]:
    got = java.driver(bootstrap).call("consume", topic=topic, count=count, timeout_ms=60_000,
                                      config={"auto.offset.reset": "earliest", **config})
    return [java_record(r) for r in got]


def java_record(r: dict) -> Record:
    return Record(java.unpack(r["value"]), java.unpack(r["key"]),
                  tuple((k, java.unpack(v)) for k, v in r["headers"]),
                  r["partition"], r["offset"], r["timestamp"])


PRODUCERS = {"librdkafka": produce_librdkafka, "kafka-python": produce_kafka_python,
             "kcat": produce_kcat, "java": produce_java}
CONSUMERS = {"librdkafka": consume_librdkafka, "kafka-python": consume_kafka_python,
             "kcat": consume_kcat, "java": consume_java}
