"""Clients that never rest: librdkafka, Java and franz-go, each idempotent and transactional, and group consumers.

`Load` starts them on two topics of its own and records every acknowledgement with its time, so that `longest_gap`
says for how long some partition took nothing from somebody. `end` lets all of them come to an end and holds the
topics and what the consumers saw against what was acknowledged.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import threading
import time

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import verify, waiting
from cluster import judge

HERE = pathlib.Path(__file__).resolve().parent
PAUSE_MS = 50
END_WITHIN_S = 60


class Producer:
    """What all of them share: what was acknowledged, when, and what went wrong."""

    def __init__(self, name: str, number: int, topic: str, partitions: int,
                 ledger: verify.Ledger | judge.TransactionLedger):
        self.name, self.number, self.topic, self.partitions, self.ledger = name, number, topic, partitions, ledger
        self.failures: list[str] = []
        self.notes: list[str] = []
        # By partition.
        self.acked_at: list[list[float]] = [[] for _ in range(partitions)]

    def acknowledged(self, partition: int, offset: int, sequence: int) -> None:
        try:
            self.ledger.acknowledge(partition, offset, self.number, sequence)
        except AssertionError as e:
            self.failures.append(str(e))
        self.acked_at[partition].append(time.monotonic())

    def count(self) -> int:
        """Acknowledgements in the partition that has the fewest."""
        return min(len(at) for at in self.acked_at)

    def longest_gap(self, since: float, until: float) -> float:
        longest = 0.0
        for times in self.acked_at:
            within = [at for at in list(times) if since <= at <= until]
            edges = [since, *within, until]
            longest = max(longest, max(b - a for a, b in zip(edges, edges[1:])))
        return longest

    def end(self) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        raise NotImplementedError


class Child(Producer):
    """A producer in a process of its own that prints what becomes of each record."""

    def __init__(self, command: list[str], *arguments: object, mode: str, bootstrap: str):
        super().__init__(*arguments)
        self._process = subprocess.Popen(
            [*command, bootstrap, self.topic, str(self.partitions), str(self.number), mode, str(PAUSE_MS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._has_ended = False
        self._reads = [threading.Thread(target=self._read, daemon=True),
                       threading.Thread(target=self._read_errors, daemon=True)]
        for thread in self._reads:
            thread.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            word, *rest = line.split()
            if word == "ack":
                partition, offset, sequence = map(int, rest)
                self.acknowledged(partition, offset, sequence)
            elif word == "aborted":
                self.ledger.abort(int(rest[0]), self.number, int(rest[1]))
            elif word == "unknown":
                self.ledger.lose_sight(int(rest[0]), self.number, int(rest[1]))
            elif word == "failed":
                self.failures.append(line.strip())
            elif word == "end":
                self._has_ended = True
            else:
                self.notes.append(line.strip())

    def _read_errors(self) -> None:
        for line in self._process.stderr:
            self.notes.append(line.strip())

    def end(self) -> None:
        self._process.stdin.close()

    def wait(self) -> None:
        try:
            self._process.wait(END_WITHIN_S * waiting.PATIENCE)
        except subprocess.TimeoutExpired:
            self.failures.append("did not end")
            self.kill()
        for thread in self._reads:
            thread.join(5)
        if not self._has_ended:
            self.failures.append(f"ended by itself: {self.notes[-5:]}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


_RDKAFKA = {"linger.ms": 2, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 250, "retry.backoff.ms": 50,
            "retry.backoff.max.ms": 200, "topic.metadata.refresh.fast.interval.ms": 100,
            "socket.connection.setup.timeout.ms": 2000, "request.timeout.ms": 5000, "log_level": 0}


class Librdkafka(Producer):
    """In a thread of this process."""

    def __init__(self, *arguments: object, mode: str, bootstrap: str):
        super().__init__(*arguments)
        settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "error_cb": self._error, **_RDKAFKA}
        if mode == "transactional":
            settings |= {"transactional.id": f"rdkafka-{self.topic}-{self.number}", "transaction.timeout.ms": 60_000}
        else:
            settings |= {"message.timeout.ms": 120_000}
        self._producer = confluent_kafka.Producer(settings)
        self._ended = threading.Event()
        self._sequences = [0] * self.partitions
        run = self._transactions if mode == "transactional" else self._records
        self._thread = threading.Thread(target=self._guarded, args=(run,), daemon=True)
        self._thread.start()

    def _error(self, error: confluent_kafka.KafkaError) -> None:
        (self.failures if error.fatal() else self.notes).append(str(error))

    def _guarded(self, run) -> None:
        try:
            run()
        except Exception as e:
            self.failures.append(f"{type(e).__name__}: {e}")

    def _next(self, partition: int) -> tuple[int, bytes]:
        sequence = self._sequences[partition]
        self._sequences[partition] += 1
        return sequence, verify.value(self.number, sequence, 100)

    def _records(self) -> None:
        def report(partition: int, sequence: int):
            def call(error, message) -> None:
                if error is None:
                    self.acknowledged(partition, message.offset(), sequence)
                else:
                    self.failures.append(f"refused: {error}")
            return call

        while not self._ended.is_set():
            for partition in range(self.partitions):
                sequence, data = self._next(partition)
                self._producer.produce(self.topic, value=data, partition=partition,
                                       on_delivery=report(partition, sequence))
            self._producer.poll(PAUSE_MS / 1000)
        left = self._producer.flush(END_WITHIN_S * waiting.PATIENCE)
        if left:
            self.failures.append(f"{left} records were neither acknowledged nor refused")

    def _transactions(self) -> None:
        self._again(lambda: self._producer.init_transactions(20))
        count = 0
        while not self._ended.wait(PAUSE_MS / 1000):
            count += 1
            self._producer.begin_transaction()
            placed: dict[int, int] = {}
            sent: dict[int, int] = {}
            for partition in range(self.partitions):
                sequence, data = self._next(partition)
                sent[partition] = sequence
                self._producer.produce(self.topic, value=data, partition=partition, on_delivery=lambda error, m, p=partition: (
                    placed.__setitem__(p, m.offset()) if error is None else None))
            self._producer.flush(END_WITHIN_S)
            commits = count % 5 != 0 and len(placed) == self.partitions
            if commits:
                try:
                    self._again(lambda: self._producer.commit_transaction(20))
                except confluent_kafka.KafkaException as e:
                    if not e.args[0].txn_requires_abort():
                        raise
                    self.notes.append(str(e))
                    commits = False
            if not commits:
                self._again(lambda: self._producer.abort_transaction(20))
            for partition, sequence in sent.items():
                if commits:
                    self.acknowledged(partition, placed[partition], sequence)
                else:
                    self.ledger.abort(partition, self.number, sequence)

    def _again(self, call) -> None:
        """A call of the transactional API may be repeated as long as its error says so."""
        deadline = waiting.deadline(END_WITHIN_S)
        while True:
            try:
                return call()
            except confluent_kafka.KafkaException as e:
                if not e.args[0].retriable() or time.monotonic() > deadline:
                    raise
                self.notes.append(str(e))

    def end(self) -> None:
        self._ended.set()

    def wait(self) -> None:
        self._thread.join(2 * END_WITHIN_S * waiting.PATIENCE)
        if self._thread.is_alive():
            self.failures.append("did not end")

    def kill(self) -> None:
        self._ended.set()


class Group:
    """Two members that read the plain topic, commit, and see each offset after the one before."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, members: int = 2):
        self.failures: list[str] = []
        self._topic = topic
        self._lock = threading.Lock()
        # By partition: one past the largest offset that a commit was tried for, and that one was done for.
        self._tried, self.committed = [0] * partitions, [0] * partitions
        self.delivered: list[set[int]] = [set() for _ in range(partitions)]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._member, args=(bootstrap,), daemon=True)
                         for _ in range(members)]
        for thread in self._threads:
            thread.start()

    def _member(self, bootstrap: str) -> None:
        try:
            self._read(bootstrap)
        except Exception as e:
            self.failures.append(f"member: {type(e).__name__}: {e}")

    def _read(self, bootstrap: str) -> None:
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": self._topic, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 20_000, "heartbeat.interval.ms": 500,
            "check.crcs": True, "fetch.error.backoff.ms": 50, "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 250, "socket.connection.setup.timeout.ms": 2000, "log_level": 0})
        following: dict[int, int] = {}
        consumer.subscribe([self._topic], on_assign=lambda *_: following.clear(),
                           on_revoke=lambda *_: following.clear())
        while not self._ended.is_set():
            messages = consumer.consume(500, 0.2)
            for m in messages:
                if m.error() is not None:
                    assert not m.error().fatal(), m.error()
                    continue
                verify.parse(m.value())
                partition, offset = m.partition(), m.offset()
                expected = following.get(partition)
                with self._lock:
                    assert expected is not None or offset <= self._tried[partition], (
                        f"partition {partition} begins at {offset}; only {self._tried[partition]} was committed")
                    self.delivered[partition].add(offset)
                assert expected is None or offset == expected, (
                    f"partition {partition}: offset {offset} after {expected - 1}")
                following[partition] = offset + 1
            if messages and following:
                self._commit(consumer, dict(following))
        consumer.close()

    def _commit(self, consumer: confluent_kafka.Consumer, following: dict[int, int]) -> None:
        with self._lock:
            for partition, offset in following.items():
                self._tried[partition] = max(self._tried[partition], offset)
        try:
            done = consumer.commit(offsets=[TopicPartition(self._topic, p, o) for p, o in following.items()],
                                   asynchronous=False)
        except confluent_kafka.KafkaException:
            return  # The coordinator is away, or a rebalance came first: again with the next records.
        with self._lock:
            for at in done:
                if at.error is None:
                    self.committed[at.partition] = max(self.committed[at.partition], at.offset)

    def kill(self) -> None:
        self._ended.set()

    def end(self, ends: list[int]) -> None:
        """Waits until everything before these offsets was read and committed."""
        def has_all() -> bool:
            with self._lock:
                return bool(self.failures) or all(
                    len(seen) >= end and done >= end
                    for seen, done, end in zip(self.delivered, self.committed, ends))

        try:
            waiting.until(has_all, 40, f"the group has read and committed up to {ends}", 0.1)
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join(20)
        assert not self.failures, self.failures


@dataclasses.dataclass(frozen=True)
class Verdict:
    plain: int
    transactional: int


def _kinds() -> dict[str, object]:
    java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", os.environ["SLUICE_JAVA_CLASSPATH"], "sluice.Load"]
    return {
        "librdkafka": Librdkafka,
        "java": lambda *a, **k: Child(java, *a, **k),
        "franz-go": lambda *a, **k: Child([os.environ["SLUICE_KGO_PRODUCER"]], *a, **k),
    }


class Load:
    """All clients, on topics of their own."""

    def __init__(self, bootstrap: str, name: str, partitions: int = 6,
                 kinds: tuple[str, ...] = ("librdkafka", "java", "franz-go")):
        self.bootstrap, self.partitions = bootstrap, partitions
        self.plain, self.transactional = f"{name}-plain", f"{name}-tx"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        for topic in (self.plain, self.transactional):
            waiting.until(lambda: _created(admin, topic, partitions), 30, f"{topic} is created", 0.5)
        self.records, self.transactions = verify.Ledger(), judge.TransactionLedger()
        self.producers: list[Producer] = []
        number = 0
        for kind in kinds:
            make = _kinds()[kind]
            for mode, topic, ledger in (("idempotent", self.plain, self.records),
                                        ("transactional", self.transactional, self.transactions)):
                number += 1
                self.producers.append(make(f"{kind}, {mode}", number, topic, partitions, ledger,
                                           mode=mode, bootstrap=bootstrap))
        self.group = Group(bootstrap, self.plain, partitions)

    def goes_on(self, within_s: float = 60) -> None:
        """Each producer gets something new acknowledged in each partition."""
        before = [producer.count() for producer in self.producers]

        def behind() -> list[str]:
            return [producer.name for producer, count in zip(self.producers, before)
                    if producer.count() < count + 2 and not producer.failures]

        deadline = waiting.deadline(within_s)
        while behind():
            self.assert_well()
            assert time.monotonic() < deadline, f"nothing is acknowledged to {behind()}: {self.notes()}"
            time.sleep(0.05)
        self.assert_well()

    def notes(self) -> dict[str, list[str]]:
        return {producer.name: producer.notes[-3:] for producer in self.producers}

    def assert_well(self) -> None:
        failures = {producer.name: producer.failures[:3] for producer in self.producers if producer.failures}
        if self.group.failures:
            failures["group"] = self.group.failures[:3]
        assert not failures, failures

    def has_failed(self) -> bool:
        return bool(self.group.failures) or any(producer.failures for producer in self.producers)

    def longest_gaps(self, since: float, until: float) -> dict[str, float]:
        return {producer.name: producer.longest_gap(since, until) for producer in self.producers}

    def end(self) -> Verdict:
        """Everything comes to its end and is judged."""
        for producer in self.producers:
            producer.end()
        for producer in self.producers:
            producer.wait()
        self.assert_well()
        plain = verify.judge(self.bootstrap, self.plain, self.partitions, self.records)
        assert plain.acked == len(self.records.acked)
        ends = [0] * self.partitions
        for partition, offset in self.records.acked:
            ends[partition] = max(ends[partition], offset + 1)
        self.group.end(ends)
        return Verdict(plain.records, judge.judge(
            self.bootstrap, self.transactional, self.partitions, self.transactions))

    def kill(self) -> None:
        for producer in self.producers:
            producer.kill()
        self.group.kill()


def _created(admin: AdminClient, topic: str, partitions: int) -> bool:
    try:
        admin.create_topics([NewTopic(topic, num_partitions=partitions)], request_timeout=5)[topic].result(10)
    except confluent_kafka.KafkaException as e:
        return e.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS
    return True
