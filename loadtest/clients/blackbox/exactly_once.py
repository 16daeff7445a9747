"""The judgement over a topic that `blackbox.transform` wrote: all of its source, once, by whole transactions.

Partition P of the target holds records of partition P of the source. What must hold:

- offsets of the log, read raw, are dense: a hole in what is read committed is a marker or was aborted,
- a read_committed consumer sees exactly the records whose transaction a commit marker ends,
- what it sees are the source's records from offset 0 on, each once, in order, and whole,
- of each attempt everything is seen or nothing; everything if its commit was acknowledged, nothing
  if its abort was,
- the group's committed offset is the number of records that are seen.
"""

from __future__ import annotations

import dataclasses
import threading

import confluent_kafka
from confluent_kafka import TopicPartition
from kafka.protocol.consumer import FetchRequest

from blackbox import verify, wire

FETCH_BYTES = 4 << 20

Record = tuple[int, bytes, bytes]  # offset, key, value


class Attempts:
    """What transforming processes said of their transactions. Thread-safe."""

    def __init__(self) -> None:
        self.records: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.anew: list[str] = []
        self._lock = threading.Lock()

    def take(self, line: str) -> None:
        """One line of a process. A line that a kill cut off has no line end, and says nothing."""
        if not line.endswith("\n"):
            return
        word, _, rest = line.strip().partition(" ")
        with self._lock:
            if word == "begin":
                attempt, records = rest.split()
                self.records[attempt] = int(records)
            elif word in ("commit", "abort"):
                self.ends[rest] = word
            else:
                self.anew.append(line.strip())

    def count(self, end: str) -> int:
        with self._lock:
            return sum(1 for e in self.ends.values() if e == end)


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of the log. `end` is `commit` or `abort` of a marker, else empty."""

    first: int
    last: int
    producer: int
    end: str = ""
    records: tuple[Record, ...] = ()


@dataclasses.dataclass(frozen=True)
class Verdict:
    seen: int
    aborted: int
    markers: int


def origin(key: bytes) -> tuple[int, int, str]:
    """(partition, offset, attempt) of a transformed record's key."""
    partition, offset, attempt = key.decode().split(":")
    return int(partition), int(offset), attempt


def read_raw(bootstrap: str, topic: str, partition: int) -> list[Batch]:
    """Every batch of the partition, markers too, from offset 0 to its high watermark."""
    T = FetchRequest.FetchTopic
    found: list[Batch] = []
    position = 0
    with wire.Raw(bootstrap, timeout_s=60) as raw:
        while True:
            answer = raw.call(FetchRequest(
                replica_id=-1, max_wait_ms=0, min_bytes=0, max_bytes=FETCH_BYTES, isolation_level=0,
                session_id=0, session_epoch=-1, forgotten_topics_data=[], rack_id="", topics=[T(
                    topic=topic, partitions=[T.FetchPartition(
                        partition=partition, current_leader_epoch=-1, fetch_offset=position,
                        log_start_offset=-1, partition_max_bytes=FETCH_BYTES)])]), 11)
            part = answer.responses[0].partitions[0]
            assert part.error_code == 0, f"partition {partition} at {position}: error {part.error_code}"
            if position >= part.high_watermark:
                return found
            before = position
            for b in wire.batches(part.records):
                if b.last_offset < position:
                    continue
                assert b.validate_crc(), f"partition {partition} offset {b.base_offset}: damaged"
                assert b.is_transactional, f"partition {partition} offset {b.base_offset}: of no transaction"
                records = list(b)
                if b.is_control_batch:
                    end = "commit" if records[0].commit else "abort"
                    found.append(Batch(b.base_offset, b.last_offset, b.producer_id, end))
                else:
                    found.append(Batch(b.base_offset, b.last_offset, b.producer_id, "", tuple(
                        (r.offset, r.key, r.value) for r in records)))
                position = b.last_offset + 1
            assert position > before, f"partition {partition}: nothing came at {position}"


def read_committed(bootstrap: str, topic: str, partition: int, timeout_s: float = 60) -> list[Record]:
    """All that a read_committed consumer sees, to the partition's end."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "judge", "enable.auto.commit": False,
        "isolation.level": "read_committed", "check.crcs": True, "enable.partition.eof": True,
        "auto.offset.reset": "error", "fetch.wait.max.ms": 100})
    found: list[Record] = []
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        while True:
            batch = consumer.consume(1, timeout_s)
            assert batch, f"partition {partition}: nothing came for {timeout_s} s after {len(found)} records"
            for m in [*batch, *consumer.consume(1000, 0.05)]:
                if m.error() is None:
                    found.append((m.offset(), m.key(), m.value()))
                elif m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise AssertionError(f"partition {partition}: {m.error()}")
    finally:
        consumer.close()


def committed_view(partition: int, log: list[Batch]) -> tuple[list[Record], int]:
    """(records that a commit marker ends, in the order of the log; number of those aborted)."""
    open_: dict[int, list[Record]] = {}
    kept: list[Record] = []
    aborted = 0
    position = 0
    for b in log:
        assert b.first == position, (
            f"partition {partition}: hole before offset {b.first}, where {position} is next")
        assert b.last >= b.first and (b.end or [r[0] for r in b.records] == list(
            range(b.first, b.last + 1))), f"partition {partition}: hole in the batch at {b.first}"
        position = b.last + 1
        if not b.end:
            open_.setdefault(b.producer, []).extend(b.records)
            continue
        ended = open_.pop(b.producer, [])
        if b.end == "commit":
            kept += ended
        else:
            aborted += len(ended)
    assert not any(open_.values()), f"partition {partition}: transactions of {list(open_)} never end"
    return sorted(kept, key=lambda r: r[0]), aborted


def in_order(partition: int, key: bytes, expected: int) -> str:
    """The attempt of a record that is seen where offset `expected` of the source is due."""
    of, offset, attempt = origin(key)
    assert of == partition, f"partition {partition}: a record of partition {of}"
    assert offset >= expected, (
        f"partition {partition}: offset {offset} of the source where {expected} is due: "
        f"duplicate, or not monotonic ({attempt})")
    assert offset == expected, (
        f"partition {partition}: offset {offset} of the source where {expected} is due: "
        f"lost, or skipped by a poll ({attempt})")
    return attempt


def judge_partition(partition: int, source: list[tuple[int, bytes]], log: list[Batch],
                    seen: list[Record], offset: int, attempts: dict[str, int]) -> Verdict:
    """Holds one partition to the rules; counts the records of each attempt into `attempts`."""
    kept, aborted = committed_view(partition, log)
    extra = sorted(set(seen) - set(kept))
    assert not extra, (
        f"partition {partition}: {len(extra)} records are read that no commit ends, aborted ones "
        f"perhaps, the first at offset {extra[0][0]} ({extra[0][1]!r})")
    missing = sorted(set(kept) - set(seen))
    assert not missing, (
        f"partition {partition}: {len(missing)} committed records are not read, the first at offset "
        f"{missing[0][0]} ({missing[0][1]!r})")
    assert seen == kept, f"partition {partition}: read twice or out of order"
    for expected, (_, key, value) in enumerate(seen):
        attempt = in_order(partition, key, expected)
        attempts[attempt] = attempts.get(attempt, 0) + 1
        assert value == source[expected][1], (
            f"partition {partition}: the record of the source's offset {expected} is another")
    assert offset == len(seen), (
        f"partition {partition}: inconsistent offset: {offset} is committed, the output holds "
        f"{len(seen)} records")
    return Verdict(len(seen), aborted, sum(1 for b in log if b.end))


def judge_attempts(said: Attempts, seen: dict[str, int]) -> None:
    """Each transaction whole or not at all, and as its end was acknowledged."""
    for attempt, count in seen.items():
        whole = said.records.get(attempt)
        assert whole is not None, f"{attempt} was never begun"
        assert count == whole, f"{attempt} is seen in part: {count} of {whole} records"
        assert said.ends.get(attempt) != "abort", f"{attempt} was aborted, and is read"
    for attempt, end in said.ends.items():
        assert end == "abort" or attempt in seen, f"{attempt} was committed, and is lost"


def judge(bootstrap: str, source: str, target: str, offsets: list[int], said: Attempts) -> Verdict:
    """Reads both topics and raises AssertionError on the first thing that does not hold.

    `offsets` are the group's committed ones, 0 where there is none, one a partition.
    """
    attempts: dict[str, int] = {}
    parts = [judge_partition(
        p, verify.read_partition(bootstrap, source, p), read_raw(bootstrap, target, p),
        read_committed(bootstrap, target, p), offset, attempts) for p, offset in enumerate(offsets)]
    judge_attempts(said, attempts)
    return Verdict(*(sum(getattr(v, f.name) for v in parts) for f in dataclasses.fields(Verdict)))
