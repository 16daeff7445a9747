#!/usr/bin/env python3
"""Catching up from the bucket: how fast, for how many requests, and what producers notice of it.

    catch_up.py --drain BINARY [--bucket s3|directory] [--rounds 3] [--mib 512] [--rate 2000] [--readers 4]

1 KiB records, 8 partitions. A round, on a fresh server:

- bucket: its own limit, raw ranged GETs of 8 MiB by 8 threads of this process (s3), or reads of the
  files (directory, from the page cache: no limit to speak of).
- tail: one consumer that follows a producer which writes at full speed, record values a second.
- catch-up: one consumer from the beginning, after a restart, so that nothing is in memory; and the GET
  requests and bytes that the server made for a GiB of values. Then the same by librdkafka.
- p99: of an open loop of --rate records a second, latency from the scheduled time: alone; with --readers
  consumers that catch up over and over, each a process of its own, at lower priority; and, as a control,
  with the same consumers on another server with the same data. What the control shows is what the
  readers take of the machine; what is above it, or below, is the server's doing.

Consumers are `drain` (cargo build --release -p sluice-gateway --example drain), which costs little
beside the server: one connection, one Fetch at a time, Kafka's default sizes. All shares two cores with
the clients and the S3 server: ratios of one run are what counts.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import produce_fetch as base  # noqa: E402
from blackbox import servers, waiting, wire  # noqa: E402
from blackbox.s3 import S3, SluiceOnS3  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
PIECE = 8 * MIB
THREADS = 8
DRAIN = ""
BUCKET = "bench"
OPTIONS = servers.Options(volume_bytes=1 << 30)


class OnS3(SluiceOnS3):
    def environment(self) -> dict[str, str]:
        # The product's own cache, not that of the tests.
        return {k: v for k, v in super().environment().items() if k != "SLUICE_READER_CACHE_BYTES"}


class OnDirectory(servers.Sluice):
    metrics, http = SluiceOnS3.metrics, SluiceOnS3.http


def raw_s3(s3: S3) -> float:
    """MiB/s of ranged GETs of what is in the bucket."""
    pieces = [(key, start, min(start + PIECE, size)) for key, size in s3.objects(BUCKET).items()
              for start in range(0, size, PIECE)]

    def get(piece: tuple[str, int, int]) -> int:
        key, start, end = piece
        status, body = s3.get_range(f"/{BUCKET}/{key}", start, end)
        assert status == 206 and len(body) == end - start
        return len(body)

    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(get, pieces))
    return total / MIB / (time.monotonic() - begun)


def raw_directory(path: pathlib.Path) -> float:
    begun = time.monotonic()
    total = sum(len(file.read_bytes()) for file in path.rglob("*") if file.is_file())
    return total / MIB / (time.monotonic() - begun)


def drained(bootstrap: str, topic: str, count: int) -> list[str]:
    return [DRAIN, bootstrap, topic, str(base.PARTITIONS), str(count)]


def drain(bootstrap: str, topic: str, count: int) -> float:
    """Seconds that one consumer took."""
    done = subprocess.run(drained(bootstrap, topic, count), check=True, stdout=subprocess.PIPE)
    return float(done.stdout.split()[0])


def tail(bootstrap: str, count: int) -> float:
    base.create(bootstrap, "tail")
    consumer = subprocess.Popen(drained(bootstrap, "tail", count), stdout=subprocess.DEVNULL)
    begun = time.monotonic()
    base.write(bootstrap, "tail", count)
    assert consumer.wait() == 0
    return count * base.RECORD / MIB / (time.monotonic() - begun)


@contextlib.contextmanager
def catching_up(bootstrap: str, count: int, readers: int):
    """Other processes that read the old topic over and over."""
    command = [sys.executable, __file__, "--drain", DRAIN, "--read", bootstrap, "--count", str(count)]
    started = [subprocess.Popen(command) for _ in range(readers)]
    try:
        yield
        assert all(p.poll() is None for p in started), "a reader has ended"
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def gets(server) -> tuple[float, float]:
    metrics = server.metrics()
    return (metrics['sluice_bucket_requests_total{op="get"}'],
            metrics["sluice_bucket_received_bytes_total"])


@contextlib.contextmanager
def started(kind: str):
    """A server, and its S3 server if it has one."""
    with contextlib.ExitStack() as stack:
        s3 = None
        if kind == "s3":
            s3 = stack.enter_context(S3())
            s3.make_bucket(BUCKET)
            server = OnS3(s3, BUCKET, "p", OPTIONS)
        else:
            server = OnDirectory(OPTIONS)
        stack.callback(server.close)
        server.start()
        wire.wait_for_coordinator(server.bootstrap)
        base.create(server.bootstrap, "warm")
        base.write(server.bootstrap, "warm", 20_000)
        yield server, s3


def fill(server, count: int) -> None:
    """A topic that lies in the bucket."""
    base.create(server.bootstrap, "old")
    base.write(server.bootstrap, "old", count)
    waiting.until(lambda: server.metrics()["sluice_writer_unuploaded_bytes"] == 0, 120, "uploads")


@contextlib.contextmanager
def backlog(kind: str, count: int):
    """A second server with such a topic."""
    with started(kind) as (server, _):
        fill(server, count)
        server.restart()
        wire.wait_for_coordinator(server.bootstrap)
        yield server


def once(kind: str, count: int, rate: int, readers: int) -> base.Figures:
    figures: base.Figures = {}
    with contextlib.ExitStack() as stack:
        server, s3 = stack.enter_context(started(kind))
        figures["tail MiB/s"] = tail(server.bootstrap, count)
        fill(server, count)
        figures["bucket MiB/s"] = raw_s3(s3) if s3 else raw_directory(server.data / "bucket")

        server.restart()
        wire.wait_for_coordinator(server.bootstrap)
        before, gib = gets(server), count * base.RECORD / GIB
        took = drain(server.bootstrap, "old", count)
        after = gets(server)
        figures["catch-up MiB/s"] = gib * 1024 / took
        figures["catch-up / tail"] = figures["catch-up MiB/s"] / figures["tail MiB/s"]
        figures["GETs per GiB"] = (after[0] - before[0]) / gib
        figures["bucket bytes per byte"] = (after[1] - before[1]) / GIB / gib
        server.restart()
        wire.wait_for_coordinator(server.bootstrap)
        begun = time.monotonic()
        base.read(server.bootstrap, "old", count)
        figures["catch-up by librdkafka MiB/s"] = gib * 1024 / (time.monotonic() - begun)

        other = stack.enter_context(backlog(kind, count))
        name = f"produce at {rate}/s p99 ms"

        def p99() -> float:
            return base.open_loop(server.bootstrap, "warm", rate, 10)[name]

        alone = p99()
        with catching_up(server.bootstrap, count, readers):
            beside = p99()
        with catching_up(other.bootstrap, count, readers):
            control = p99()
        figures["produce p99 alone ms"] = alone
        figures[f"produce p99 beside {readers} readers ms"] = beside
        figures["produce p99, readers on another server ms"] = control
        figures["p99 ratio to alone"] = beside / alone
        figures["p99 ratio to the control"] = beside / control
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bucket", choices=["s3", "directory"], default="s3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="record values written in each phase")
    parser.add_argument("--rate", type=int, default=2000, help="records a second of the open loop")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--drain", metavar="BINARY", required=True, help="the example `drain`")
    parser.add_argument("--read", metavar="BOOTSTRAP", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    global DRAIN
    DRAIN = arguments.drain
    if arguments.read:
        # What is measured is what the server's work for readers does to producers, not what these
        # processes take of the processors that producers run on.
        os.nice(10)
    while arguments.read:
        drain(arguments.read, "old", arguments.count)
    found: dict[str, list[float]] = collections.defaultdict(list)
    for i in range(arguments.rounds):
        figures = once(arguments.bucket, arguments.mib * MIB // base.RECORD, arguments.rate,
                       arguments.readers)
        for name, figure in figures.items():
            found[name].append(figure)
        print(f"round {i + 1}: " + ", ".join(f"{n} {v:.2f}" for n, v in figures.items()),
              file=sys.stderr, flush=True)
    print(f"1 KiB records, {base.PARTITIONS} partitions, {arguments.mib} MiB a phase, bucket: "
          f"{arguments.bucket}, medians of {arguments.rounds} (least to most), load average "
          f"{os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n")
    print("| figure | sluice |\n| --- | --- |")
    for name, values in found.items():
        print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
