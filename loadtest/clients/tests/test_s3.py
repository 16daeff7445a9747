"""With the bucket on a real S3 server: what comes back from there, and what happens without it.

The server is SeaweedFS (blackbox/s3.py), one for the tests that do not need one of their own; each
test has its own bucket.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

import crash
from blackbox import servers, verify, waiting
from blackbox.clients import CODECS, PRODUCERS, Record
from blackbox.s3 import S3, Keys, SluiceOnS3
from conftest import create
from test_tools import tool

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no bucket")

PREFIX = "some/prefix"
OPTIONS = servers.Options(segment_bytes=256 << 10, upload_max_age_ms=300, volume_bytes=128 << 20,
                          tail_cache_bytes=1 << 20)


@pytest.fixture(scope="module")
def running_s3():
    with S3() as s3:
        yield s3


@pytest.fixture
def bucket(running_s3, request) -> str:
    """A new bucket of the shared S3 server, which serves even if an earlier test killed it."""
    running_s3.start_unless_running()
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")
    running_s3.make_bucket(name)
    return name


@pytest.fixture
def sluice():
    """Makes servers, not started: `sluice(s3, bucket)`. Ends them."""
    with contextlib.ExitStack() as made:
        def make(s3: S3, bucket: str, keys: Keys | None = None) -> SluiceOnS3:
            server = SluiceOnS3(s3, bucket, PREFIX, OPTIONS, keys)
            made.callback(server.close)
            return server

        yield make


@pytest.fixture
def pool():
    """Threads. Asked for before `sluice`: a failed test's servers end before it waits here."""
    with ThreadPoolExecutor() as threads:
        yield threads


def uploaded(server: SluiceOnS3) -> None:
    waiting.until(lambda: server.metrics()["sluice_writer_unuploaded_bytes"] == 0, 30,
                  "all is in the bucket")


def starting(server: SluiceOnS3) -> None:
    """Waits until the process answers that it lives and is not ready."""
    waiting.until(lambda: server.http("/livez")[0] == 200, 10, "the process lives")
    assert server.http("/readyz") == (503, '{"status":"starting"}\n')


def stop_quickly(server: SluiceOnS3) -> None:
    took = server.stop()
    assert took < 5, f"{took:.1f} s to stop"


def take(bootstrap: str, topic: str, count: int) -> dict[int, list[tuple[int, bytes]]]:
    """The group's next `count` records, then committed: partition -> (offset, value)."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "check.crcs": True})
    got: dict[int, list[tuple[int, bytes]]] = {}
    try:
        consumer.subscribe([topic])
        left, deadline = count, time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, f"{left} of {count} records did not come"
            for m in consumer.consume(min(left, 500), 0.2):
                assert m.error() is None, m.error()
                got.setdefault(m.partition(), []).append((m.offset(), m.value()))
                left -= 1
        consumer.commit(asynchronous=False)
        return got
    finally:
        consumer.close()


def test_all_of_it_comes_back_after_a_crash(running_s3, bucket, sluice):
    server = sluice(running_s3, bucket).start()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 4)
    rng = random.Random(1)
    sent: dict[int, list[bytes]] = {p: [] for p in range(4)}
    for codec in CODECS:
        # Nothing can compress it: so many bytes at least must come from the bucket.
        records = [Record(rng.randbytes(2000), partition=i % 4) for i in range(600)]
        PRODUCERS["librdkafka"](server.bootstrap, "t", codec, records)
        for r in records:
            sent[r.partition].append(r.value)
    in_bucket = sum(len(v) for values in sent.values() for v in values)
    half = take(server.bootstrap, "t", 1500)
    uploaded(server)
    assert server.metrics()["sluice_writer_segments_total"] > 5
    assert sum(running_s3.objects(bucket).values()) > in_bucket
    # These may lie on the volume alone when the crash comes.
    records = [Record(f"last {i}".encode(), partition=i % 4) for i in range(40)]
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none", records)
    for r in records:
        sent[r.partition].append(r.value)

    server.restart(crash=True)

    for p, values in sent.items():
        assert verify.read_partition(server.bootstrap, "t", p) == list(enumerate(values))
    assert server.metrics()["sluice_reader_bucket_get_bytes_total"] >= in_bucket
    rest = take(server.bootstrap, "t", 3040 - 1500)
    for p, values in sent.items():
        assert half.get(p, []) + rest.get(p, []) == list(enumerate(values)), "the group resumes"


def test_a_lost_data_directory_is_restored_from_s3(running_s3, bucket, sluice):
    server = sluice(running_s3, bucket).start()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 2)
    sent = {p: [f"{p}-{i}".encode() * 40 for i in range(1500)] for p in range(2)}
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none",
                            [Record(v, partition=p) for p in sent for v in sent[p]])
    first = take(server.bootstrap, "t", 1000)
    uploaded(server)
    server.wait_for_journal()
    place = ("--config", server.log_path.with_suffix(".toml"), "--data-dir", server.data)
    live = json.loads(tool("verify", *place, "--deep", "--output", "json", env=server.environment()))
    assert live["findings"] == [], live
    server.kill()
    whole = json.loads(tool("verify", *place, "--deep", "--output", "json", env=server.environment()))
    assert whole["findings"] == [] and whole["volumes"][0]["unuploaded_frames"] is not None, whole
    shutil.rmtree(server.data)
    source = f"s3://{bucket}/{PREFIX}"
    tool("restore", *place, "--from", source, "--yes", env=server.environment())
    server.start()
    for p, values in sent.items():
        assert verify.read_partition(server.bootstrap, "t", p) == list(enumerate(values))
    rest = take(server.bootstrap, "t", 2000)
    for p, values in sent.items():
        assert first.get(p, []) + rest.get(p, []) == list(enumerate(values)), "the group goes on"


def test_keys_are_hashed_and_nothing_is_listed(running_s3, bucket, sluice):
    server = sluice(running_s3, bucket).start()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 2)
    server.wait_for_journal()
    requests, before = running_s3.requests(bucket), server.metrics()
    assert requests["LIST"] == 2, "a first start looks for manifests and a journal, and is seen to"
    for i in range(8):
        PRODUCERS["librdkafka"](server.bootstrap, "t", "none",
                                [Record(b"x" * 100_000, partition=i % 2)])
        uploaded(server)
    after = server.metrics()
    segments, puts, journal = (after[name] - before[name] for name in (
        "sluice_writer_segments_total", "sluice_writer_bucket_puts_total",
        "sluice_catalog_journal_puts_total"))
    assert segments >= 8

    def grown(kind: str) -> int:
        return running_s3.requests(bucket).get(kind, 0) - requests.get(kind, 0)

    assert puts == 2 * segments, "a segment and a manifest for each upload"
    assert grown("PUT") == puts + journal
    assert grown("LIST") == 0, "uploads list"
    server.restart(crash=True)
    server.wait_for_journal()
    assert grown("LIST") == 1, "a start looks for the journal, not for manifests: the volume knows one"

    keys = running_s3.objects(bucket)
    keys = [key for key in keys if not re.fullmatch(PREFIX + "/clusters/[^/]+", key)]
    shape = re.compile(PREFIX + r"/([0-9a-f]{4})/[^/]+/(?:(segments|manifests|snapshots)/\d+|catalog)/[\d-]+")
    found = [shape.fullmatch(key) for key in keys]
    assert all(found), [key for key, match in zip(keys, found) if not match]
    spread = {match[1] for match in found if match[2] == "segments"}
    assert len(spread) >= 6, f"{segments} segments lie under {spread}"


@pytest.mark.parametrize("known", [True, False], ids=["wrong-secret", "unknown-key"])
def test_wrong_credentials_are_told_and_no_secret_is(running_s3, bucket, pool, sluice, known):
    keys = Keys(access=running_s3.keys.access) if known else Keys()
    server = sluice(running_s3, bucket, keys)
    start = pool.submit(server.start)
    code = "SignatureDoesNotMatch" if known else "InvalidAccessKeyId"
    line = waiting.until(lambda: next((l for l in server.log().splitlines() if code in l), None)
                         if server.log_path.exists() else None, 10, f"{code} in the log")
    assert '"level":"WARN"' in line and "check" in line and bucket in line
    starting(server)
    stop_quickly(server)
    assert isinstance(start.exception(), servers.NotReady)
    assert not running_s3.objects(bucket)
    for secret in (keys.secret, running_s3.keys.secret):
        assert secret not in server.log()


def test_start_and_stop_while_s3_is_down(pool, sluice):
    with contextlib.closing(S3()) as s3:
        server = sluice(s3, "later")
        start = pool.submit(server.start)
        starting(server)
        waiting.until(lambda: s3.endpoint in server.log(), 60, "the log names what does not answer")
        stop_quickly(server)
        assert isinstance(start.exception(), servers.NotReady)

        start = pool.submit(server.start)
        starting(server)
        s3.start()
        s3.make_bucket("later")
        start.result(60)
        assert server.http("/readyz")[0] == 200
        create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
        PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(b"1", partition=0)])
        uploaded(server)

        s3.kill()
        PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(b"2", partition=0)])
        stop_quickly(server)
        assert s3.keys.secret not in server.log()


def test_s3_hangs(running_s3, bucket, sluice):
    server = sluice(running_s3, bucket).start()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
    rng = random.Random(2)
    values = [rng.randbytes(4000) for _ in range(1000)]
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(v, partition=0) for v in values])
    uploaded(server)
    puts = server.metrics()["sluice_writer_bucket_puts_total"]
    with running_s3.hanging():
        late = [f"late {i}".encode() for i in range(10)]
        PRODUCERS["librdkafka"](server.bootstrap, "t", "none",
                                [Record(v, partition=0) for v in late])
        waiting.until(lambda: server.metrics()["sluice_writer_bucket_puts_total"] > puts, 10,
                      "an upload is under way")
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": server.bootstrap, "group.id": "g", "check.crcs": True,
            "reconnect.backoff.max.ms": 500, "auto.offset.reset": "error"})
        with contextlib.closing(consumer):
            consumer.assign([confluent_kafka.TopicPartition("t", 0, 0)])
            waiting.until(lambda: server.metrics()["sluice_reader_bucket_gets_total"] > 0, 10,
                          "a read from the bucket is under way")
            tail = verify.read_partition(server.bootstrap, "t", 0, timeout_s=10, start=len(values))
            assert [value for _, value in tail] == late, "the tail is served meanwhile"
            stop_quickly(server)
    server.start()
    assert verify.read_partition(server.bootstrap, "t", 0) == list(enumerate(values + late))


def test_s3_crashes_under_load(running_s3, bucket, pool, sluice):
    server = sluice(running_s3, bucket).start()
    crash.create_topic(server.bootstrap)
    ledger = verify.Ledger()
    producers = [crash.Producer(server.bootstrap, n, ledger, 1, crash.Pace(300, 4000))
                 for n in range(3)]
    reader, watcher = crash.Reader(server.bootstrap), crash.Watcher(server.bootstrap)
    for thread in (*producers, reader):
        thread.start()

    def segments() -> float:
        return server.metrics()["sluice_writer_segments_total"]

    def progress(timeout_s: float) -> None:
        before = len(ledger.acked)
        waiting.until(lambda: len(ledger.acked) > before + 200, timeout_s, "acknowledgements")
        crash.complain(producers, reader)

    # More than the tail cache and the reader's hold.
    waiting.until(lambda: server.metrics()["sluice_writer_segment_bytes_total"] > 4 << 20, 30,
                  "the first uploads")

    running_s3.kill()
    down, before, held = time.monotonic(), segments(), len(ledger.acked)
    # What it wants was uploaded and lies in no cache: it has to wait for S3.
    from_the_start = pool.submit(verify.read_partition, server.bootstrap, crash.TOPIC, 0)
    while time.monotonic() < down + 10:
        progress(5)
    assert segments() == before
    held = len(ledger.acked) - held
    assert server.metrics()["sluice_writer_unuploaded_bytes"] > held * 100, "the volume holds them"
    assert not from_the_start.done()

    running_s3.start()
    waiting.until(lambda: segments() > before, 40, "uploads go on")
    progress(10)
    found = from_the_start.result(60)
    assert [offset for offset, _ in found] == list(range(len(found)))
    crash.finish(producers, reader, watcher)
    assert ledger.refused == 0
    uploaded(server)

    server.restart(crash=True)
    verdict = verify.judge(server.bootstrap, crash.TOPIC, crash.PARTITIONS, ledger)
    assert verdict.acked == len(ledger.acked) >= 5000
    assert server.metrics()["sluice_reader_bucket_get_bytes_total"] > 0
