"""A bucket that misbehaves: the fault proxy (loadtest/faults) between Sluice and a real S3 server.

One server under one load of verifying idempotent producers, a group that reads along and a watcher of
high watermarks goes through all faults, one test each; the last test of the load holds everything that
was acknowledged to be there. In every fault uploads go on, producers are acknowledged without a
refusal, and a reader of old records gets the right bytes. Another server meets an outage with a small
volume, until that is full.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Iterator

import confluent_kafka
import pytest

import crash
from blackbox import servers, verify, waiting
from blackbox.faults import Faulty, Rule
from blackbox.s3 import S3, SluiceOnS3

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no bucket")

OPTIONS = servers.Options(segment_bytes=1 << 20, upload_max_age_ms=500, volume_bytes=128 << 20,
                          tail_cache_bytes=1 << 20)
SMALL = dataclasses.replace(OPTIONS, segment_bytes=2 << 20, volume_bytes=16 << 20)
RETRIES = "sluice_bucket_retries_total"


class Hasty(SluiceOnS3):
    """Waits for the bucket less long than is the default, so that the tests do."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "SLUICE_BUCKET_READ_TIMEOUT": "1s",
                "SLUICE_BUCKET_REQUEST_TIMEOUT": "2s"}


def failures(kind: str) -> str:
    return f'sluice_bucket_failures_total{{kind="{kind}"}}'


@dataclasses.dataclass
class Load:
    """A server behind the proxy, and who uses it."""

    server: SluiceOnS3
    s3: Faulty
    ledger: verify.Ledger
    producers: list[crash.Producer]
    reader: crash.Reader
    watcher: crash.Watcher
    read_from: int = 0

    def acknowledged(self, count: int, timeout_s: float = 20) -> None:
        before = len(self.ledger.acked)
        waiting.until(lambda: len(self.ledger.acked) >= before + count, timeout_s,
                      f"{count} acknowledgements")
        crash.complain(self.producers, self.reader)
        assert self.ledger.refused == 0

    def uploaded(self, count: int, timeout_s: float = 30) -> None:
        name = "sluice_writer_segments_total"
        before = self.server.metrics()[name]
        waiting.until(lambda: self.server.metrics()[name] >= before + count, timeout_s,
                      f"{count} uploads")

    def read_old(self, count: int = 150) -> None:
        """Reads records that lie in the bucket alone, and that this has not read before."""
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": self.server.bootstrap, "group.id": "old", "check.crcs": True,
            "enable.auto.commit": False, "fetch.error.backoff.ms": 50, "auto.offset.reset": "error"})
        with contextlib.closing(consumer):
            partition = self.read_from % crash.PARTITIONS
            start = self.read_from // crash.PARTITIONS * count
            consumer.assign([confluent_kafka.TopicPartition(crash.TOPIC, partition, start)])
            found: list[int] = []
            deadline = waiting.deadline(30)
            while len(found) < count:
                assert time.monotonic() < deadline, f"{len(found)} of {count} old records came"
                for m in consumer.consume(count - len(found), 0.2):
                    assert m.error() is None, m.error()
                    who = verify.parse(m.value())
                    assert self.ledger.acked.get((partition, m.offset()), who) == who
                    found.append(m.offset())
        assert found == list(range(start, start + count))
        self.read_from += 1


@pytest.fixture(scope="module")
def real():
    with S3() as s3:
        yield s3


@contextlib.contextmanager
def load_on(real: S3, bucket: str, options: servers.Options,
            pace: crash.Pace) -> Iterator[Load]:
    real.make_bucket(bucket)
    with Faulty(real) as s3, contextlib.closing(Hasty(s3, bucket, "p", options)) as server:
        server.start()
        crash.create_topic(server.bootstrap)
        ledger = verify.Ledger()
        producers = [crash.Producer(server.bootstrap, n, ledger, 1, pace) for n in range(3)]
        reader, watcher = crash.Reader(server.bootstrap), crash.Watcher(server.bootstrap)
        for thread in (*producers, reader):
            thread.start()
        try:
            yield Load(server, s3, ledger, producers, reader, watcher)
        finally:
            for thread in (*producers, reader):
                thread.end()


@pytest.fixture(scope="module")
def load(real):
    with load_on(real, "faults", OPTIONS, crash.Pace(150, 3000)) as load:
        # What the reads of old records want must have left the memory.
        written = "sluice_writer_segment_bytes_total"
        waiting.until(lambda: load.server.metrics()[written] > 4 << 20, 40, "the first uploads")
        yield load


# What is injected, how often it must have been, and how the server calls it.
FAULTS: dict[str, tuple[Rule, int, str | None]] = {
    "lost-replies": ({"fault": "lost", "methods": ["PUT"], "rate": 0.3}, 3, "unclear"),
    "lost-commits": ({"fault": "lost", "conditional": True, "rate": 0.5}, 3, "unclear"),
    "conflicts": ({"fault": "status", "conditional": True, "rate": 0.5, "status": 409,
                   "code": "ConditionalRequestConflict"}, 3, "not_done"),
    "errors": ({"fault": "status", "status": 500, "code": "InternalError", "rate": 0.2}, 3,
               "unclear"),
    "resets": ({"fault": "reset", "rate": 0.2}, 3, "unclear"),
    "hangs": ({"fault": "hang", "rate": 0.15}, 2, "timed_out"),
    "latency": ({"fault": "delay", "seconds": 0.3}, 5, None),
    "slow-answers": ({"fault": "slow", "methods": ["GET"], "bytes_per_s": 1 << 20}, 2, None),
    "wrong-bytes": ({"fault": "flip", "methods": ["GET"], "rate": 0.3}, 2, None),
    "damaged-uploads": ({"fault": "damage", "methods": ["PUT"], "rate": 0.3}, 3, "not_done"),
    "short-bodies": ({"fault": "short", "methods": ["GET"], "rate": 0.3}, 2, "unclear"),
    "throttling": ({"fault": "status", "rate": 0.3}, 3, "throttled"),
    "quota": ({"fault": "quota", "per_s": 6}, 2, "throttled"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(load: Load, name: str):
    rule, least, kind = FAULTS[name]
    before = load.server.metrics()
    injected = load.s3.injected(rule["fault"])
    with load.s3.having(rule):
        load.uploaded(2)
        load.acknowledged(100)
        load.read_old()
        deadline = waiting.deadline(20)
        while load.s3.injected(rule["fault"]) - injected < least:
            assert time.monotonic() < deadline, f"{name} was hardly injected"
            load.read_old()

        def told() -> bool:
            now = load.server.metrics()
            # A commit whose answer was lost is not repeated: whoever made it looks what is there.
            repeated = name == "lost-commits" or now[RETRIES] > before[RETRIES]
            return now[failures(kind)] > before[failures(kind)] and repeated

        if kind:
            waiting.until(told, 20, f"metrics tell of {kind} and of retries")
    load.acknowledged(50)
    load.server.assert_alive()
    after = load.server.metrics()
    if name in ("throttling", "quota"):
        assert after["sluice_bucket_throttled_total"] > before["sluice_bucket_throttled_total"]
        assert 0 < after["sluice_bucket_rate_limit"], "it goes slower"
    if name == "wrong-bytes":
        assert after["sluice_reader_rereads_total"] > before["sluice_reader_rereads_total"]


def test_nothing_acknowledged_is_lost_in_all_of_it(load: Load):
    crash.finish(load.producers, load.reader, load.watcher)
    assert load.ledger.refused == 0
    server = load.server
    waiting.until(lambda: server.metrics()["sluice_writer_unuploaded_bytes"] == 0, 30, "uploads")
    server.restart(crash=True)
    verdict = verify.judge(server.bootstrap, crash.TOPIC, crash.PARTITIONS, load.ledger)
    assert verdict.acked == len(load.ledger.acked) >= 2000
    assert verdict.unacked == 0, "what was repeated is there once"


def test_an_outage_longer_than_the_volume_lasts(real):
    with load_on(real, "outage", SMALL, crash.Pace(1500, 3000)) as load:
        load.acknowledged(200)
        with load.s3.having({"fault": "reset"}):
            assert crash.stall(load.ledger, 30), "the volume fills up, and producers are held back"
            metrics = load.server.metrics()
            assert metrics["sluice_writer_stalls_total"] > 0
            assert metrics["sluice_writer_unuploaded_bytes"] > 8 << 20
            # Clients that do not wait are told to come again.
            answer = crash.probe(load.server.bootstrap, load.ledger, 0)
            assert answer.retriable, f"{answer} is not retriable"
            load.server.assert_alive()
            # The proxy saw no storm: a few requests a second, from one upload at a time.
            seen = load.s3.injected("reset")
            begun = time.monotonic()
            waiting.until(lambda: time.monotonic() > begun + 3, 10, "three seconds")
            a_second = (load.s3.injected("reset") - seen) / (time.monotonic() - begun)
            assert a_second < 20, f"{a_second} requests a second in an outage"
        load.acknowledged(1000, timeout_s=30)
        crash.finish(load.producers, load.reader, load.watcher)
        assert load.ledger.refused == 0, "who waited was served"
        verify.judge(load.server.bootstrap, crash.TOPIC, crash.PARTITIONS, load.ledger)
