#!/usr/bin/env python3
"""Crash and full-disk runs: what was acknowledged is there, once, in order; offsets never go back.

    crash.py kill [--rounds 10] [--seed N]     kill -9 and restart at random under load
    crash.py full [--seed N]                   the data directory's file system fills up
    crash.py transactions [--rounds 10] [--seed N]
                                               kill -9 of the server, and of those who use it, while
                                               transactions copy one topic into another

A run has idempotent librdkafka producers (acks=all), a librdkafka consumer group that commits as it
reads, and a watcher of the high watermarks. The server's segments and volume are small, so that
uploads, trims and segment rolls happen all the time. In some of the rounds the log's end is damaged
while the server is down, the way a torn last write leaves it. Random choices come from the seed that
is printed first; the moment at which a signal meets the server does not.

With `transactions`, two processes copy what the producers write into a second topic, exactly once: a
transaction holds records and the offsets behind them (blackbox/transform.py; the rules that the copy is
held to are in blackbox/exactly_once.py). A read_committed reader watches the copy as it grows. At the end
all is killed at once, and the server alone has to end what was open.

SLUICE_BIN names the binary; SLUICE_TEST_KIND=kafka runs the same against the oracle.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pathlib
import random
import secrets
import subprocess
import sys
import tempfile
import threading
import time

import confluent_kafka
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
import kafka.errors
from kafka.protocol.producer import ProduceRequest

from blackbox import exactly_once, servers, verify, waiting, wire

TOPIC = "ledger"
PARTITIONS = 4
GROUP = "readers"
OPTIONS = servers.Options(
    segment_bytes=1 << 20, upload_max_age_ms=500, volume_bytes=64 << 20, tail_cache_bytes=4 << 20)


@dataclasses.dataclass
class Pace:
    """Records a second of one producer, and their size."""

    per_s: int = 1500
    length: int = 1000


class Producer(threading.Thread):
    """Sends one record after another to random partitions until it is told to end.

    A record is acknowledged by its delivery report alone. `retriable` says whether a refusal after
    message.timeout.ms is in order (it is while the disk is full); any fatal error is a failure.
    """

    def __init__(self, bootstrap: str, number: int, ledger: verify.Ledger, seed: int,
                 pace: Pace, timeout_ms: int = 300_000):
        super().__init__(name=f"producer-{number}", daemon=True)
        self.number = number
        self.failures: list[str] = []
        self.refusals: list[str] = []
        self._ledger = ledger
        self._random = random.Random(seed * 1000 + number)
        self._pace = pace
        self._end = threading.Event()
        self._producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all",
            "compression.type": ["none", "lz4", "zstd"][number % 3], "linger.ms": 5,
            "message.timeout.ms": timeout_ms, "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 250, "retry.backoff.ms": 50,
            "topic.metadata.refresh.fast.interval.ms": 100, "queue.buffering.max.messages": 50_000,
            "error_cb": self._error, "log_level": 0})

    def run(self) -> None:
        sequences = [0] * PARTITIONS
        begun, sent = time.monotonic(), 0
        while not self._end.is_set():
            partition = self._random.randrange(PARTITIONS)
            sequence = sequences[partition]
            data = verify.value(self.number, sequence, self._pace.length)
            try:
                self._producer.produce(TOPIC, value=data, partition=partition,
                                       on_delivery=self._report(partition, sequence))
            except BufferError:  # The queue is full while the server is away.
                self._producer.poll(0.05)
                continue
            except confluent_kafka.KafkaException as e:
                self.failures.append(f"produce: {e}")
                return
            sequences[partition] += 1
            sent += 1
            ahead = begun + sent / self._pace.per_s - time.monotonic()
            if ahead < -1:  # Not held to a rate that was missed while the queue was full.
                begun, sent = time.monotonic(), 0
            self._producer.poll(max(ahead, 0))
        left = self._producer.flush(120)
        if left:
            self.failures.append(f"{left} records were neither acknowledged nor refused")

    def end(self) -> None:
        self._end.set()

    def _report(self, partition: int, sequence: int):
        def call(error, message) -> None:
            if error is None:
                try:
                    self._ledger.acknowledge(partition, message.offset(), self.number, sequence)
                except AssertionError as e:
                    # Raised here it would end this thread inside of librdkafka's callback.
                    self.failures.append(str(e))
            else:
                self._ledger.refuse()
                self.refusals.append(error.name())
        return call

    def _error(self, error) -> None:
        if error.fatal():
            self.failures.append(f"fatal: {error.name()} {error.str()}")


class Reader(threading.Thread):
    """A group member that commits what it has read, and holds every record it sees to the ledger's
    rules: sequences may repeat from the last commit on (its own crash rule), never leap."""

    def __init__(self, bootstrap: str):
        super().__init__(name="reader", daemon=True)
        self.failures: list[str] = []
        self.read = 0
        self.committed = [0] * PARTITIONS
        self._next: dict[int, int] = {}
        self._end = threading.Event()
        self._address = bootstrap

    def run(self) -> None:
        try:
            self._loop()
        except Exception as e:
            self.failures.append(f"reader: {type(e).__name__}: {e}")

    def _loop(self) -> None:
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self._address, "group.id": GROUP, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 10_000, "check.crcs": True,
            "heartbeat.interval.ms": 500, "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 250, "fetch.error.backoff.ms": 50, "log_level": 0})
        # After a rebalance a partition starts from its commit again.
        consumer.subscribe([TOPIC], on_assign=lambda *_: self._next.clear())
        since_commit = 0
        while not self._end.is_set():
            for m in consumer.consume(500, 0.2):
                if m.error() is not None:
                    if m.error().retriable() or not m.error().fatal():
                        continue
                    raise AssertionError(f"{m.error()}")
                verify.parse(m.value())
                expected = self._next.get(m.partition())
                if expected is None:
                    assert m.offset() <= self.committed[m.partition()], (
                        f"partition {m.partition()} resumed at {m.offset()}, past its commit "
                        f"{self.committed[m.partition()]}")
                else:
                    assert m.offset() == expected, (
                        f"partition {m.partition()}: offset {m.offset()} after {expected - 1}")
                self._next[m.partition()] = m.offset() + 1
                self.read += 1
                since_commit += 1
            if since_commit >= 1000:
                since_commit = self._commit(consumer, since_commit)
        self._commit(consumer, since_commit)
        consumer.close()

    def _commit(self, consumer, since_commit: int) -> int:
        offsets = [TopicPartition(TOPIC, p, o) for p, o in self._next.items()]
        if not offsets:
            return 0
        try:
            done = consumer.commit(offsets=offsets, asynchronous=False)
        except confluent_kafka.KafkaException:
            return since_commit  # The server is away, or a rebalance came first: again later.
        for p in done:
            if p.error is None:
                self.committed[p.partition] = p.offset
        return 0

    def end(self) -> None:
        self._end.set()


class Watcher:
    """High watermarks and log starts, which must never go back; read from outside, over restarts."""

    def __init__(self, bootstrap: str, topic: str = TOPIC):
        self._bootstrap, self._topic = bootstrap, topic
        self._high = [0] * PARTITIONS
        self._low = [0] * PARTITIONS

    def look(self) -> list[int]:
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self._bootstrap, "group.id": "watcher", "log_level": 0,
            "reconnect.backoff.max.ms": 250})
        try:
            for p in range(PARTITIONS):
                low, high = consumer.get_watermark_offsets(
                    TopicPartition(self._topic, p), timeout=30)
                assert high >= self._high[p], (
                    f"{self._topic} {p}: the high watermark went back from {self._high[p]} to {high}")
                assert low >= self._low[p], (
                    f"{self._topic} {p}: the log's start went back from {self._low[p]} to {low}")
                self._high[p], self._low[p] = high, low
        finally:
            consumer.close()
        return list(self._high)


def committed(bootstrap: str, group: str = GROUP) -> list[int]:
    # A consumer that reads committed records gets stable offsets: none that a transaction may change.
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed",
        "log_level": 0})
    try:
        found = consumer.committed([TopicPartition(TOPIC, p) for p in range(PARTITIONS)], timeout=30)
        return [max(p.offset, 0) for p in found]
    finally:
        consumer.close()


def create_topic(bootstrap: str, topic: str = TOPIC) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS)])[topic].result(30)
    wire.wait_for_coordinator(bootstrap)


def tear(server: servers.Server, rng: random.Random) -> str:
    """Damages what lies right behind the log's durable end, as a write that was cut off would.

    For Sluice: the first frame-sized blocks after the last frame that the volume's file holds. The
    end is found from outside: a frame starts on a 4 KiB boundary with the magic of the file's first
    frame, and carries its lsn; the ring's highest-lsn frame is the last. Nothing acknowledged lies
    behind it, so garbage there must not cost a record. For Kafka: bytes appended to a segment.
    """
    garbage = rng.randbytes(rng.choice([100, 4096, 3 * 4096 + 77]))
    if server.kind == "kafka":
        logs = sorted(server.data.glob(f"log/{TOPIC}-*/*.log"))
        path = rng.choice(logs)
        with open(path, "ab") as log:
            log.write(garbage)
        return f"{len(garbage)} bytes behind {path.parent.name}"
    from blackbox import volume_file

    return volume_file.damage_behind_end(server.data, garbage, rng)


def run_kill(rounds: int, seed: int, out=print) -> verify.Verdict:
    rng = random.Random(seed)
    server = servers.new_server(OPTIONS)
    ledger = verify.Ledger()
    with server:
        create_topic(server.bootstrap)
        producers = [Producer(server.bootstrap, n, ledger, seed, Pace()) for n in range(3)]
        reader = Reader(server.bootstrap)
        watcher = Watcher(server.bootstrap)
        threads: list[threading.Thread] = [*producers, reader]
        for t in threads:
            t.start()
        commits = [0] * PARTITIONS
        for i in range(rounds):
            # Under load for a random while, but never without progress since the last round.
            before = len(ledger.acked)
            waiting.until(lambda: len(ledger.acked) > before + 200 or failures(producers, reader),
                          90, "acknowledged records after a restart")
            complain(producers, reader)
            time.sleep(rng.uniform(0.05, 2.5))
            seen = list(reader.committed)
            server.kill()
            torn = tear(server, rng) if rng.random() < 0.5 else "nothing"
            server.start()
            highs = watcher.look()
            wire.wait_for_coordinator(server.bootstrap)
            now = committed(server.bootstrap)
            for p in range(PARTITIONS):
                assert now[p] >= max(seen[p], commits[p]), (
                    f"partition {p}: the committed offset went back from "
                    f"{max(seen[p], commits[p])} to {now[p]}")
            commits = now
            out(f"round {i + 1}/{rounds}: ready after {server.ready_s * 1000:.0f} ms, torn: {torn}, "
                f"acknowledged {len(ledger.acked)}, high watermarks {highs}, committed {now}")
        finish(producers, reader, watcher)
        refused = sum(len(p.refusals) for p in producers)
        assert refused == 0, f"{refused} records were refused: {producers[0].refusals[:3]}"
        verdict = verify.judge(server.bootstrap, TOPIC, PARTITIONS, ledger)
        # And once more from cold, after a graceful stop.
        server.restart()
        watcher.look()
        assert verify.judge(server.bootstrap, TOPIC, PARTITIONS, ledger) == verdict
    return verdict


def failures(producers: list[Producer], reader: Reader | CopyReader) -> list[str]:
    return [f for t in (*producers, reader) for f in t.failures]


def complain(producers: list[Producer], reader: Reader | CopyReader) -> None:
    found = failures(producers, reader)
    assert not found, found[:3]


def end(producers: list[Producer]) -> None:
    for p in producers:
        p.end()
    for p in producers:
        p.join(150)
        assert not p.is_alive(), f"{p.name} does not end"


def finish(producers: list[Producer], reader: Reader, watcher: Watcher) -> None:
    """Ends the producers, lets the reader come to the end, ends it."""
    end(producers)
    complain(producers, reader)
    ends = watcher.look()
    waiting.until(lambda: failures([], reader) or
                  [reader._next.get(p, 0) for p in range(PARTITIONS)] == ends,
                  90, f"the group reads up to {ends}")
    reader.end()
    reader.join(60)
    complain(producers, reader)


COPY = "copy"
TRANSFORMERS = "transformers"


class Transform:
    """One transforming process at a time, under one transactional id."""

    def __init__(self, bootstrap: str, number: int, seed: int, attempts: exactly_once.Attempts):
        self._command = [sys.executable, "-m", "blackbox.transform", bootstrap, TOPIC, COPY,
                         TRANSFORMERS, f"transform-{number}", str(seed)]
        self._attempts = attempts
        self._process: subprocess.Popen[str] | None = None
        self._pump: threading.Thread | None = None

    def start(self) -> None:
        # It ends when its standard input does: at the latest with this process.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=servers.HERE, start_new_session=True)
        self._pump = threading.Thread(
            target=lambda out: [self._attempts.take(line) for line in out],
            args=(self._process.stdout,), daemon=True)
        self._pump.start()

    def kill(self) -> None:
        self._process.kill()
        self._ended(10)

    def stop(self) -> None:
        self._process.stdin.close()
        self._ended(90)

    def assert_alive(self) -> None:
        code = self._process.poll()
        assert code is None, f"a transforming process ended by itself with {code}"

    def _ended(self, timeout_s: float) -> None:
        self._process.wait(timeout_s)
        self._pump.join(10)


class CopyReader(threading.Thread):
    """Reads the copy as it grows, read_committed, and holds each record to its place in the source."""

    def __init__(self, bootstrap: str):
        super().__init__(name="copy-reader", daemon=True)
        self.failures: list[str] = []
        self.next = [0] * PARTITIONS
        self._end = threading.Event()
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": "copy-reader", "enable.auto.commit": False,
            "isolation.level": "read_committed", "auto.offset.reset": "error", "check.crcs": True,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 250,
            "fetch.error.backoff.ms": 50, "log_level": 0})

    def run(self) -> None:
        last = [-1] * PARTITIONS
        self._consumer.assign([TopicPartition(COPY, p, 0) for p in range(PARTITIONS)])
        try:
            while not self._end.is_set():
                for m in self._consumer.consume(500, 0.1):
                    if m.error() is not None:
                        assert m.error().code() != confluent_kafka.KafkaError._AUTO_OFFSET_RESET, (
                            f"{m.error()}")
                        continue
                    p = m.partition()
                    assert m.offset() > last[p], (
                        f"partition {p}: offset {m.offset()} after {last[p]}: not monotonic")
                    last[p] = m.offset()
                    exactly_once.in_order(p, m.key(), self.next[p])
                    self.next[p] += 1
        except AssertionError as e:
            self.failures.append(f"copy: {e}")
        finally:
            self._consumer.close()

    def end(self) -> None:
        self._end.set()
        self.join(30)


def settled(bootstrap: str) -> bool:
    """Whether no transaction is open in the copy: it is stable up to its end."""
    ends = []
    for level in ("read_committed", "read_uncommitted"):
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": "watcher", "isolation.level": level,
            "log_level": 0})
        try:
            ends.append([consumer.get_watermark_offsets(TopicPartition(COPY, p), timeout=30)[1]
                         for p in range(PARTITIONS)])
        finally:
            consumer.close()
    return ends[0] == ends[1]


def run_transactions(rounds: int, seed: int, out=print) -> exactly_once.Verdict:
    rng = random.Random(seed)
    server = servers.new_server(dataclasses.replace(OPTIONS, min_session_timeout_ms=1_000))
    ledger, attempts = verify.Ledger(), exactly_once.Attempts()
    with server, contextlib.ExitStack() as left:
        for topic in (TOPIC, COPY):
            create_topic(server.bootstrap, topic)
        producers = [Producer(server.bootstrap, n, ledger, seed, Pace(400, 300)) for n in range(2)]
        transforms = [Transform(server.bootstrap, n, seed, attempts) for n in range(2)]
        reader = CopyReader(server.bootstrap)
        watchers = [Watcher(server.bootstrap, topic) for topic in (TOPIC, COPY)]
        for t in transforms:
            t.start()
            left.callback(t.kill)
        for t in (*producers, reader):
            t.start()

        def progress() -> None:
            before = sum(reader.next)
            waiting.until(lambda: sum(reader.next) > before + 200 or failures(producers, reader),
                          90, "committed records after a restart")
            complain(producers, reader)
            for t in transforms:
                t.assert_alive()
            time.sleep(rng.uniform(0.05, 2))

        commits = [0] * PARTITIONS
        for i in range(rounds):
            progress()
            # One in three rounds takes a transforming process along, at first or at last.
            victim = rng.choice(transforms) if i % 3 == 1 else None
            if victim and (first := rng.random() < 0.5):
                victim.kill()
            seen = list(reader.next)
            server.kill()
            torn = tear(server, rng) if rng.random() < 0.5 else "nothing"
            if victim and not first:
                victim.kill()
            server.start()
            if victim:
                victim.start()
            for w in watchers:
                w.look()
            wire.wait_for_coordinator(server.bootstrap)
            now = committed(server.bootstrap, TRANSFORMERS)
            assert all(a >= b for a, b in zip(now, commits)), (
                f"the committed offsets went back from {commits} to {now}")
            commits = now
            # What an offset stands for was in the copy before the offset was committed.
            highs = watchers[1].look()
            assert all(high >= offset for high, offset in zip(highs, now)), (
                f"inconsistent offsets: {now} are committed, the copy ends at {highs}")
            out(f"round {i + 1}/{rounds}: ready after {server.ready_s * 1000:.0f} ms, torn: {torn}, "
                f"transform killed: {bool(victim)}, {attempts.count('commit')} transactions committed, "
                f"{attempts.count('abort')} aborted, copied {sum(seen)}, high watermarks {highs}, "
                f"committed {now}")
        # All at once; the server alone ends what is open, by its decision or its timeout.
        progress()
        for t in transforms:
            t.kill()
        server.kill()
        server.start()
        wire.wait_for_coordinator(server.bootstrap)
        waiting.until(lambda: settled(server.bootstrap), 60, "no transaction is open", 0.25)
        verdict = judge_copy(server.bootstrap, attempts)
        out(f"after the death of all: {verdict}")
        for t in transforms:
            t.start()
        progress()
        end(producers)
        ends = watchers[0].look()
        waiting.until(lambda: failures(producers, reader) or reader.next == ends, 90,
                      f"the copy is whole: {ends}")
        complain(producers, reader)
        for t in transforms:
            t.stop()
        reader.end()
        complain(producers, reader)
        verify.judge(server.bootstrap, TOPIC, PARTITIONS, ledger)
        waiting.until(lambda: settled(server.bootstrap), 60, "no transaction is open", 0.25)
        verdict = judge_copy(server.bootstrap, attempts)
        assert verdict.seen == sum(ends), f"{verdict.seen} records of {sum(ends)} are copied"
        # And once more from cold, after a graceful stop.
        server.restart()
        wire.wait_for_coordinator(server.bootstrap)
        assert judge_copy(server.bootstrap, attempts) == verdict
        out(f"{attempts.count('commit')} transactions committed, {attempts.count('abort')} aborted, "
            f"begun anew {len(attempts.anew)} times: {sorted({a.split()[1] for a in attempts.anew})}")
    return verdict


def judge_copy(bootstrap: str, attempts: exactly_once.Attempts) -> exactly_once.Verdict:
    return exactly_once.judge(bootstrap, TOPIC, COPY, committed(bootstrap, TRANSFORMERS), attempts)


class NoMount(RuntimeError):
    """This machine does not let us mount a small file system."""


@contextlib.contextmanager
def small_disk(size_bytes: int):
    """A file system of that size, ext4 on a loop device or else tmpfs; yields its directory."""
    where = pathlib.Path(tempfile.mkdtemp(prefix="sluice-disk-"))
    image = where.with_suffix(".img")
    mounted = ""
    try:
        with open(image, "wb") as f:
            f.truncate(size_bytes)
        made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True)
        if made.returncode == 0 and subprocess.run(
                ["mount", "-o", "loop", str(image), str(where)], capture_output=True).returncode == 0:
            mounted = "ext4"
        elif subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "sluice-test",
                             str(where)], capture_output=True).returncode == 0:
            mounted = "tmpfs"
        else:
            raise NoMount("mounting needs root; this run cannot fill a disk of its own")
        yield where, mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(where)], check=False)
        image.unlink(missing_ok=True)
        where.rmdir()


def fill(directory: pathlib.Path) -> pathlib.Path:
    """Takes all the room that is left; returns the file that holds it."""
    ballast = directory / "ballast"
    with open(ballast, "wb", buffering=0) as f:
        for size in (1 << 20, 4096, 512):
            try:
                while True:
                    f.write(b"\xaa" * size)
            except OSError:
                continue
        with contextlib.suppress(OSError):
            os.fsync(f.fileno())
    return ballast


def run_full(seed: int, out=print) -> verify.Verdict:
    """The disk fills under load, twice: once the server lives through it, once it is killed full."""
    rng = random.Random(seed)
    ledger = verify.Ledger()
    with small_disk(400 << 20) as (disk, kind):
        out(f"data directory on {kind} of 400 MiB")
        server = servers.new_server(OPTIONS, disk / "data")
        with server:
            create_topic(server.bootstrap)
            # The time limit is short, so that refusals are seen; they are retriable to librdkafka,
            # which gives them to the caller as a time-out when the limit is over.
            producers = [Producer(server.bootstrap, n, ledger, seed, Pace(per_s=2500), 20_000)
                         for n in range(2)]
            watcher = Watcher(server.bootstrap)
            for p in producers:
                p.start()
            probes = -1
            for crash in (False, True):
                before = len(ledger.acked)
                waiting.until(lambda: len(ledger.acked) > before + 1000, 60, "a start with room")
                ballast = fill(disk)
                out(f"full, {len(ledger.acked)} acknowledged")
                # The volume's own room may last a while: wait for the stall, or for its end.
                stalled = stall(ledger, 40)
                out(f"stalled: {stalled}, {len(ledger.acked)} acknowledged, "
                    f"{sum(len(p.refusals) for p in producers)} refused")
                server.assert_alive()
                assert stalled, "the disk is full and the server goes on acknowledging: no full disk"
                answers = [probe(server.bootstrap, ledger, probes := probes + 1) for _ in range(3)]
                out(f"a produce request on the full disk is answered with {answers}")
                bad = [a for a in answers if not a.retriable]
                assert not bad, f"not retriable: {bad}"
                highs = watcher.look()
                if crash:
                    server.kill()
                    # With no room at all a server may refuse to start; it must then say so and
                    # start as soon as there is some.
                    try:
                        server.start()
                        out("started on the full disk")
                    except servers.NotReady as e:
                        why = [line for line in str(e).splitlines() if "rror" in line][-1:]
                        out(f"did not start on the full disk: {why or str(e).splitlines()[0]}")
                ballast.unlink()
                if not server.alive:
                    server.start()
                before = len(ledger.acked)
                waiting.until(lambda: len(ledger.acked) > before + 1000, 60, "it goes on with room")
                assert all(a >= b for a, b in zip(watcher.look(), highs))
                rng.random()
            for p in producers:
                p.end()
            for p in producers:
                p.join(150)
            found = [f for p in producers for f in p.failures]
            assert not found, found[:3]
            bad = {r for p in producers for r in p.refusals} - {"_MSG_TIMED_OUT", "_TIMED_OUT"}
            assert not bad, f"refused with an error that is not retriable: {bad}"
            return verify.judge(server.bootstrap, TOPIC, PARTITIONS, ledger)


@dataclasses.dataclass(frozen=True)
class Answer:
    name: str
    retriable: bool

    def __repr__(self) -> str:
        return self.name


PROBE = 99


def probe(bootstrap: str, ledger: verify.Ledger, sequence: int) -> Answer:
    """One produce request past librdkafka, which would retry in silence: what the server answers.

    Raises if there is no answer within 30 s; the request itself allows the server 3 s.
    """
    T = ProduceRequest.TopicProduceData
    with wire.Raw(bootstrap, timeout_s=30) as raw:
        answer = raw.call(ProduceRequest(
            transactional_id=None, acks=-1, timeout_ms=3000, topic_data=[T(
                name=TOPIC, partition_data=[T.PartitionProduceData(
                    index=0, records=wire.batch([verify.value(PROBE, sequence, 500_000)]))])]), 9)
    placed = answer.responses[0].partition_responses[0]
    if placed.error_code == 0:
        ledger.acknowledge(0, placed.base_offset, PROBE, sequence)
        return Answer("no error: it was taken", False)
    error = kafka.errors.for_code(placed.error_code)
    return Answer(error.__name__, bool(error.retriable))


def stall(ledger: verify.Ledger, timeout_s: float) -> bool:
    """Waits until nothing has been acknowledged for 3 s; False if that does not come to pass."""
    deadline = waiting.deadline(timeout_s)
    count, since = len(ledger.acked), time.monotonic()
    while time.monotonic() < deadline:
        if len(ledger.acked) != count:
            count, since = len(ledger.acked), time.monotonic()
        elif time.monotonic() - since > 3:
            return True
        time.sleep(0.1)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", choices=["kill", "full", "transactions"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    print(f"seed {arguments.seed}", flush=True)
    if arguments.run == "transactions":
        print(run_transactions(arguments.rounds, arguments.seed))
        return 0
    if arguments.run == "kill":
        verdict = run_kill(arguments.rounds, arguments.seed)
    else:
        verdict = run_full(arguments.seed)
    print(f"{verdict.records} records, {verdict.acked} acknowledged and found, {verdict.unacked} "
          f"found without an acknowledgement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
