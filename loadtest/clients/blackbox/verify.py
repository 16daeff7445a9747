"""Records that can be judged by themselves, and the judgement over a whole topic.

Value layout, big endian:

    0      4          8           16        20                 n-4     n
    | magic | producer | sequence | length   | filler            | crc32 |
              u32        u64        u32        from the sequence   of all before

A sequence counts the records of one producer into one partition, from 0. `Ledger` holds what was
acknowledged; `judge` reads a topic whole and holds it against the ledger. What must hold:

- each value is whole, and lies in the partition that it was sent to,
- offsets are dense from the log's start to its end,
- an acknowledged record lies at the offset that its acknowledgement named,
- a producer's sequence appears once at most, and its sequences grow with the offsets.

A record that was not acknowledged may be there, once.
"""

from __future__ import annotations

import dataclasses
import struct
import threading
import time
import zlib

import confluent_kafka
from confluent_kafka import TopicPartition

_HEAD = struct.Struct(">4sIQI")
_MAGIC = b"slv1"


def value(producer: int, sequence: int, length: int) -> bytes:
    """A value of about `length` bytes, at least 24."""
    filler_length = max(length - _HEAD.size - 4, 0)
    seed = struct.pack(">Q", (sequence * 0x9E3779B97F4A7C15 + producer) & 0xFFFF_FFFF_FFFF_FFFF)
    filler = (seed * (filler_length // 8 + 1))[:filler_length]
    body = _HEAD.pack(_MAGIC, producer, sequence, filler_length) + filler
    return body + struct.pack(">I", zlib.crc32(body))


def parse(data: bytes) -> tuple[int, int]:
    """(producer, sequence); raises AssertionError on a value that is not whole."""
    assert len(data) >= _HEAD.size + 4, f"a value of {len(data)} bytes"
    magic, producer, sequence, filler_length = _HEAD.unpack_from(data)
    (crc,) = struct.unpack_from(">I", data, len(data) - 4)
    assert magic == _MAGIC and filler_length == len(data) - _HEAD.size - 4, "not one of ours"
    assert zlib.crc32(data[:-4]) == crc, f"producer {producer} sequence {sequence} is damaged"
    return producer, sequence


@dataclasses.dataclass
class Ledger:
    """What was acknowledged: (partition, offset) -> (producer, sequence). Thread-safe.

    `unplaced` is what a client takes for acknowledged because it was told that it had sent it twice (Kafka's
    DUPLICATE_SEQUENCE_NUMBER), which names no offset: (partition, producer, sequence).
    """

    acked: dict[tuple[int, int], tuple[int, int]] = dataclasses.field(default_factory=dict)
    unplaced: set[tuple[int, int, int]] = dataclasses.field(default_factory=set)
    refused: int = 0
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def acknowledge(self, partition: int, offset: int | None, producer: int, sequence: int) -> None:
        if offset is None:
            with self._lock:
                self.unplaced.add((partition, producer, sequence))
            return
        with self._lock:
            before = self.acked.setdefault((partition, offset), (producer, sequence))
        assert before == (producer, sequence), (
            f"partition {partition} offset {offset} was acknowledged for {before} "
            f"and for {(producer, sequence)}")

    def refuse(self) -> None:
        with self._lock:
            self.refused += 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    records: int
    acked: int
    unacked: int


def read_partition(bootstrap: str, topic: str, partition: int, timeout_s: float = 120,
                   start: int | None = None) -> list[tuple[int, bytes]]:
    """(offset, value) of everything between the log's start (or `start`) and its end now."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "verifier", "enable.auto.commit": False,
        "check.crcs": True, "enable.partition.eof": True, "auto.offset.reset": "error",
        "reconnect.backoff.max.ms": 500, "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 50})
    try:
        low, high = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=timeout_s)
        low = low if start is None else start
        consumer.assign([TopicPartition(topic, partition, low)])
        found: list[tuple[int, bytes]] = []
        last = time.monotonic()
        while len(found) < high - low:
            # consume() waits for all that it is asked for or for its time: a short time, many calls.
            batch = consumer.consume(1000, 0.2)
            if batch:
                last = time.monotonic()
            assert time.monotonic() - last < timeout_s, (
                f"partition {partition}: nothing came for {timeout_s} s at {len(found)} of "
                f"{high - low} records")
            for m in batch:
                if m.error() is not None:
                    if m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        assert found and found[-1][0] + 1 >= high, (
                            f"partition {partition} ends at {m.offset()}, its high watermark is {high}")
                        continue
                    raise AssertionError(f"partition {partition}: {m.error()}")
                found.append((m.offset(), m.value()))
        return found
    finally:
        consumer.close()


def judge(bootstrap: str, topic: str, partitions: int, ledger: Ledger) -> Verdict:
    """Reads the topic and raises AssertionError on the first thing that does not hold."""
    records = unacked = matched = 0
    for partition in range(partitions):
        found = read_partition(bootstrap, topic, partition)
        records += len(found)
        wanted = {o: who for (p, o), who in ledger.acked.items() if p == partition}
        last: dict[int, int] = {}
        first: dict[tuple[int, int], int] = {}
        for i, (offset, data) in enumerate(found):
            assert offset == found[0][0] + i, f"partition {partition}: hole before offset {offset}"
            who = parse(data)
            producer, sequence = who
            if sequence <= last.get(producer, -1):
                what = f"twice, first at {first[who]}" if who in first else "out of order"
                told = [o for o, known in wanted.items() if known == who]
                raise AssertionError(
                    f"partition {partition} offset {offset}: producer {producer} sequence {sequence} after "
                    f"{last[producer]}: {what}; acknowledged at {told or 'no offset that is still to come'}")
            first[who] = offset
            last[producer] = sequence
            if offset in wanted:
                assert wanted.pop(offset) == who, (
                    f"partition {partition} offset {offset}: acknowledged for another record")
                matched += 1
            else:
                unacked += 1
        gone = {who for who in ledger.unplaced if who[0] == partition and who[1:] not in first}
        assert not gone, f"partition {partition}: {len(gone)} acknowledged records are lost: {sorted(gone)[:5]}"
        assert not wanted, (
            f"partition {partition}: {len(wanted)} acknowledged records are lost, the first at "
            f"offset {min(wanted)}; the log holds {found[0][0] if found else '-'} to "
            f"{found[-1][0] if found else '-'}")
    assert matched == len(ledger.acked)
    return Verdict(records, matched, unacked)
