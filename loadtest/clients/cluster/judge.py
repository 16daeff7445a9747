"""What was told to producers of transactions, and the judgement over their topic.

The plain topic is judged by `blackbox.verify`. In one with transactions offsets are not dense, as markers take some.
What must hold for who reads committed records:

- a record of a transaction that its producer was told is committed lies at the offset that it was told, once,
- no record of one that it was told is aborted is seen,
- a producer's sequences grow with the offsets.

Of a transaction whose outcome its producer could not learn, either all records are there or none.
"""

from __future__ import annotations

import dataclasses
import threading
import time

import confluent_kafka
from confluent_kafka import TopicPartition

from blackbox import verify, waiting

Who = tuple[int, int, int]  # Partition, producer, sequence.


@dataclasses.dataclass
class TransactionLedger:
    """Thread-safe."""

    committed: dict[Who, int] = dataclasses.field(default_factory=dict)
    aborted: set[Who] = dataclasses.field(default_factory=set)
    unknown: set[Who] = dataclasses.field(default_factory=set)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def acknowledge(self, partition: int, offset: int, producer: int, sequence: int) -> None:
        with self._lock:
            self.committed[(partition, producer, sequence)] = offset

    def abort(self, partition: int, producer: int, sequence: int) -> None:
        with self._lock:
            self.aborted.add((partition, producer, sequence))

    def lose_sight(self, partition: int, producer: int, sequence: int) -> None:
        with self._lock:
            self.unknown.add((partition, producer, sequence))


def judge(bootstrap: str, topic: str, partitions: int, ledger: TransactionLedger) -> int:
    """How many records there are; raises AssertionError on the first thing that does not hold."""
    seen: dict[Who, int] = {}
    for partition in range(partitions):
        last: dict[int, int] = {}
        for offset, data in _committed(bootstrap, topic, partition):
            producer, sequence = verify.parse(data)
            assert sequence > last.get(producer, -1), (
                f"partition {partition} offset {offset}: producer {producer} sequence {sequence} after "
                f"{last[producer]}: twice, or out of order")
            last[producer] = sequence
            seen[(partition, producer, sequence)] = offset
    lost = {who: offset for who, offset in ledger.committed.items() if seen.get(who) != offset}
    assert not lost, (
        f"{len(lost)} of {len(ledger.committed)} committed records are not where they were acknowledged: "
        f"{[(who, offset, seen.get(who)) for who, offset in list(lost.items())[:5]]}")
    shown = ledger.aborted & seen.keys()
    assert not shown, f"{len(shown)} records of aborted transactions are shown: {sorted(shown)[:5]}"
    untold = {(producer, sequence) for _, producer, sequence in seen.keys() - ledger.committed.keys()}
    # A transaction has one record in each partition, under one sequence.
    for producer, sequence in untold:
        there = [(p, producer, sequence) in seen for p in range(partitions)]
        assert all(there), f"producer {producer} sequence {sequence}: a transaction is there in part: {there}"
        assert (0, producer, sequence) in ledger.unknown, (
            f"producer {producer} sequence {sequence} was committed without being asked for")
    return len(seen)


def _committed(bootstrap: str, topic: str, partition: int) -> list[tuple[int, bytes]]:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "judge", "enable.auto.commit": False, "check.crcs": True,
        "enable.partition.eof": True, "auto.offset.reset": "error", "isolation.level": "read_committed",
        "fetch.wait.max.ms": 100, "fetch.error.backoff.ms": 50})
    try:
        consumer.assign([TopicPartition(topic, partition, 0)])
        found: list[tuple[int, bytes]] = []
        deadline = waiting.deadline(40)
        while True:
            assert time.monotonic() < deadline, f"partition {partition}: no end after {len(found)} records"
            for m in consumer.consume(1000, 0.2):
                if m.error() is None:
                    found.append((m.offset(), m.value()))
                elif m.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    return found
                else:
                    raise AssertionError(f"partition {partition}: {m.error()}")
    finally:
        consumer.close()
