#!/usr/bin/env python3
"""A steady rate for minutes: memory, lag, and what the bucket is asked for.

    sustained.py [--rate 100] [--seconds 300] [--partitions 100] [--bucket dir|s3] [--consumers 1]
                 [--volumes 1]

1 KiB records at --rate MiB/s on a schedule, acks=all, random bytes, over --partitions partitions, with
--consumers that read at the tail. After the last record it waits until all is in the bucket, so that
no request is left out. `s3` starts SeaweedFS, which takes much of the same processors.

Requests and bytes are the server's own counters (`sluice_bucket_*` of /metrics); for `dir` the bytes
are compared with what lies in the directory. Latency counts from the scheduled time of each
thousandth record to its delivery report. Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import statistics
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients"))

import confluent_kafka  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

from blackbox import process, servers, wire  # noqa: E402
from blackbox.s3 import S3, SluiceOnS3  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
RECORD = 1024
TOPIC = "steady"
VALUES = [os.urandom(RECORD) for _ in range(64)]


def metrics(server: servers.Server) -> dict[str, float]:
    """`name{labels}` -> value."""
    url = f"http://{servers.HOST}:{server.http_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^([a-z]\S*) (\S+)$", text, re.M)}


class Consumers:
    """Groups of one member each that read what comes."""

    def __init__(self, bootstrap: str, count: int, partitions: int):
        self.read = 0
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(bootstrap, n, partitions))
                         for n in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, bootstrap: str, number: int, partitions: int) -> None:
        consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"steady-{number}", "check.crcs": False,
            "enable.auto.commit": False, "queued.max.messages.kbytes": 32 << 10})
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, p, 0) for p in range(partitions)])
        while not self._end.is_set():
            self.read += len(consumer.consume(10_000, 0.2))
        consumer.close()

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


class Memory(threading.Thread):
    """Samples the server's resident memory each second."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid = pid
        self.samples: list[float] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.samples.append(process.rss_bytes(self._pid) / MIB)
                time.sleep(1)


def send(bootstrap: str, rate: float, seconds: float, partitions: int) -> tuple[int, float, list[float]]:
    """Records sent, the seconds that took, and latencies in ms."""
    sender = confluent_kafka.Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 20,
        "batch.size": 1_000_000, "queue.buffering.max.kbytes": 128 << 10,
        "queue.buffering.max.messages": 1_000_000})
    clock = time.monotonic
    latencies: list[float] = []
    failed: list[confluent_kafka.KafkaError] = []

    def report(due: float):
        def call(error, _message) -> None:
            if error:
                failed.append(error)
            else:
                latencies.append((clock() - due) * 1000)
        return call

    per_s = rate * MIB / RECORD
    total = int(per_s * seconds)
    begun, sent, told = clock(), 0, clock()
    while sent < total:
        now = clock()
        due = min(int((now - begun) * per_s), total)
        while sent < due:
            try:
                if sent % 1000:
                    sender.produce(TOPIC, VALUES[sent % 64], partition=sent // 100 % partitions)
                else:
                    sender.produce(TOPIC, VALUES[sent % 64], partition=sent // 100 % partitions,
                                   on_delivery=report(begun + sent / per_s))
                sent += 1
            except BufferError:
                sender.poll(0.01)
                break
        sender.poll(0.002)
        if now - told > 15:
            told = now
            print(f"{now - begun:.0f} s: {sent * RECORD / MIB / (now - begun):.0f} MiB/s",
                  file=sys.stderr, flush=True)
    if sender.flush(120) or failed:
        raise SystemExit(f"records were refused or not delivered: {failed[:1]}")
    return total, clock() - begun, latencies


def drained(server: servers.Server) -> None:
    deadline = time.monotonic() + 300
    while metrics(server)["sluice_writer_unuploaded_bytes"] > 0:
        if time.monotonic() > deadline:
            raise SystemExit("not all was uploaded within 300 s")
        time.sleep(0.5)


def requests(figures: dict[str, float]) -> dict[str, float]:
    """Requests to the bucket by operation."""
    found = re.compile(r'^sluice_bucket_requests_total\{(?:.*,)?op="([^"]+)"')
    totals: dict[str, float] = {}
    for name, value in figures.items():
        if match := found.match(name):
            totals[match[1]] = totals.get(match[1], 0) + value
    return totals


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def run(server: servers.Server, arguments: argparse.Namespace) -> None:
    wire.wait_for_coordinator(server.bootstrap)
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(TOPIC, num_partitions=arguments.partitions)])[TOPIC].result(30)
    memory = Memory(server.pid)
    memory.start()
    consumers = Consumers(server.bootstrap, arguments.consumers, arguments.partitions)
    before, cpu = metrics(server), process.cpu_s(server.pid)
    count, took, latencies = send(server.bootstrap, arguments.rate, arguments.seconds,
                                  arguments.partitions)
    drained(server)
    cpu = process.cpu_s(server.pid) - cpu
    consumers.end()
    after = metrics(server)
    gib = count * RECORD / GIB

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    rows = [("rate, MiB/s", count * RECORD / MIB / took),
            ("data, GiB", gib),
            ("produce p50, ms", statistics.median(latencies)),
            ("produce p99, ms", percentile(latencies, 0.99)),
            ("produce, slowest, ms", max(latencies)),
            ("server CPU-s/GiB", cpu / gib),
            ("resident memory, most, MiB", max(memory.samples)),
            ("resident memory, median, MiB", statistics.median(memory.samples)),
            ("bytes written to the bucket / data",
             sum(v - before.get(n, 0) for n, v in after.items()
                 if n.startswith("sluice_bucket_sent_bytes_total")) / (count * RECORD))]
    before_by_op = requests(before)
    rows += [(f"bucket {op} per GiB", (value - before_by_op.get(op, 0)) / gib)
             for op, value in sorted(requests(after).items())]
    if arguments.consumers:
        rows.append(("records read / written", consumers.read / count / arguments.consumers))
    if arguments.bucket == "dir":
        held = sum(f.stat().st_size for f in (server.data / "bucket").rglob("*") if f.is_file())
        rows.append(("bytes in the bucket at the end / data", held / (count * RECORD)))
    print(f"{arguments.rate} MiB/s for {arguments.seconds} s, {arguments.partitions} partitions, "
          f"{arguments.consumers} consumers, bucket: {arguments.bucket}; load average "
          f"{os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n\n| figure | value |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=float, default=100, help="MiB/s of record values")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--partitions", type=int, default=100)
    parser.add_argument("--consumers", type=int, default=1)
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--bucket", choices=["dir", "s3"], default="dir")
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    with contextlib.ExitStack() as made:
        if arguments.bucket == "s3":
            s3 = made.enter_context(S3())
            s3.make_bucket("steady")
            server: servers.Server = SluiceOnS3(s3, "steady", "", servers.Options())
        else:
            server = servers.Sluice(servers.Options())
        # The server is told through its environment; `environment` of the tests leaves these out.
        told = server.environment() | {"SLUICE_VOLUMES_COUNT": str(arguments.volumes)}
        server.environment = lambda: told  # type: ignore[method-assign]
        run(made.enter_context(server), arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
