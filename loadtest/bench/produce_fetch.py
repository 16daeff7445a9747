#!/usr/bin/env python3
"""Produce and fetch through librdkafka: throughput, latency, and what they cost in processor time.

    produce_fetch.py [--kinds sluice,kafka] [--rounds 3] [--mib 512] [--rate 5000]

1 KiB records, acks=all, no compression, 8 partitions. For each round the kinds take turns, each on a
fresh server, so that a loaded machine loads them alike; the figures are medians over the rounds.

- max: as fast as one producer goes; its latency is that of a full queue and says little.
- open loop: --rate records a second on a fixed schedule. Latency counts from the scheduled time to the
  delivery report, so a stall costs every record that was due in it.
- tail fetch: a consumer that reads while the producer writes at full speed; catch-up: from the
  beginning, after that, from a restarted server, so that nothing is in its memory.

CPU is user and system time of the server's process (/proc/PID/stat) by GiB of record values; the
client's own is beside it: the client shares the machine. Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import pathlib
import statistics
import sys
import threading
import time
from typing import Callable, Iterable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients"))

import confluent_kafka  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

from blackbox import process, servers, wire  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
PARTITIONS = 8
RECORD = 1024
VALUE = os.urandom(RECORD)

Figures = dict[str, float]


def producer(bootstrap: str, **config: object) -> confluent_kafka.Producer:
    return confluent_kafka.Producer({
        "bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True,
        "queue.buffering.max.kbytes": 64 << 10, "queue.buffering.max.messages": 1_000_000, **config})


class Cost:
    """Processor time of server and client over a stretch of work."""

    def __init__(self, server: servers.Server):
        self._pid = server.pid
        self._server, self._client = process.cpu_s(self._pid), process.cpu_s(os.getpid())
        self._begun = time.monotonic()

    def per_gib(self, name: str, volume_bytes: int) -> Figures:
        took = time.monotonic() - self._begun
        gib = volume_bytes / GIB
        return {f"{name} MiB/s": volume_bytes / MIB / took,
                f"{name} server CPU-s/GiB": (process.cpu_s(self._pid) - self._server) / gib,
                f"{name} client CPU-s/GiB": (process.cpu_s(os.getpid()) - self._client) / gib}


def create(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(topic, num_partitions=PARTITIONS)
    admin.create_topics([new])[topic].result(30)


def write(bootstrap: str, topic: str, count: int) -> None:
    """Writes `count` records as fast as it goes; raises when one is refused."""
    failed = []
    sender = producer(bootstrap, **{"linger.ms": 5, "batch.size": 1_000_000})
    report = lambda error, _: error and failed.append(error)  # noqa: E731
    send = sender.produce
    left = count
    # Reports cost Python time for each record; one on each thousandth record is enough to see a
    # refusal, and flush counts the rest.
    while left:
        try:
            for i in range(min(left, 1000), 0, -1):
                if left % 1000:
                    send(topic, VALUE, partition=left // 200 % PARTITIONS)
                else:
                    send(topic, VALUE, partition=left // 200 % PARTITIONS, on_delivery=report)
                left -= 1
        except BufferError:
            sender.poll(0.01)
        sender.poll(0)
    if sender.flush(300) or failed:
        raise SystemExit(f"records were refused or not delivered: {failed[:1]}")


def read(bootstrap: str, topic: str, count: int, ready: threading.Event | None = None) -> None:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False,
        "check.crcs": False, "fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 64 << 10})
    consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    if ready:
        ready.set()
    left, deadline = count, time.monotonic() + 600
    while left > 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"{left} of {count} records did not come within 600 s")
        batch = consumer.consume(10_000, 0.5)
        left -= len(batch)
        if batch and batch[0].error():
            raise SystemExit(str(batch[0].error()))
    consumer.close()


def open_loop(bootstrap: str, topic: str, rate: int, seconds: float) -> Figures:
    """Sends on a schedule of 1 ms ticks; latency by the schedule, in ms."""
    latencies: list[float] = []
    failed = []
    sender = producer(bootstrap, **{"linger.ms": 1})
    clock = time.perf_counter

    def report(due: float):
        def call(error, _message) -> None:
            if error:
                failed.append(error)
            else:
                latencies.append((clock() - due) * 1000)
        return call

    sender.list_topics(topic, timeout=30)
    gc.disable()
    begun = clock()
    total = int(rate * seconds)
    sent = 0
    while sent < total:
        now = clock()
        due_count = min(int((now - begun) * rate), total)
        while sent < due_count:
            sender.produce(topic, VALUE, partition=sent % PARTITIONS,
                           on_delivery=report(begun + sent / rate))
            sent += 1
        sender.poll(0.0005)
    sender.flush(60)
    gc.enable()
    if failed or len(latencies) != total:
        raise SystemExit(f"{total - len(latencies)} of {total} records were not delivered: {failed[:1]}")
    # The first fifth warms connections and caches.
    warm = sorted(latencies[total // 5:])
    return {f"produce at {rate}/s p{p} ms": warm[min(int(len(warm) * p / 100), len(warm) - 1)]
            for p in (50, 99, 99.9)}


def once(kind: str, count: int, rate: int) -> Figures:
    figures: Figures = {}
    volume = count * RECORD
    with servers.KINDS[kind](servers.Options()) as server:
        wire.wait_for_coordinator(server.bootstrap)
        create(server.bootstrap, "warm")
        write(server.bootstrap, "warm", 20_000)

        create(server.bootstrap, "produce")
        cost = Cost(server)
        write(server.bootstrap, "produce", count)
        figures |= cost.per_gib("produce max", volume)
        figures |= open_loop(server.bootstrap, "warm", rate, 10)

        create(server.bootstrap, "tail")
        ready = threading.Event()
        consumer = threading.Thread(target=read, args=(server.bootstrap, "tail", count, ready))
        consumer.start()
        ready.wait()
        cost = Cost(server)
        write(server.bootstrap, "tail", count)
        consumer.join()
        figures |= cost.per_gib("produce and tail fetch", volume)

        server.restart()
        wire.wait_for_coordinator(server.bootstrap)
        cost = Cost(server)
        read(server.bootstrap, "produce", count)
        figures |= cost.per_gib("catch-up fetch", volume)
        figures["peak VmRSS MiB"] = process.peak_rss_bytes(server.pid) / MIB
    return figures


def rounds(kinds: list[str], count: int, once: Callable[[str, int], Figures]) -> dict[str, dict[str, list[float]]]:
    """The figures of `count` rounds of `once(kind, round)`, by kind and name; kinds take turns at going first."""
    found: dict[str, dict[str, list[float]]] = {k: collections.defaultdict(list) for k in kinds}
    for i in range(count):
        for kind in kinds if i % 2 == 0 else kinds[::-1]:
            figures = once(kind, i)
            for name, figure in figures.items():
                found[kind][name].append(figure)
            print(f"round {i + 1} {kind}: " + ", ".join(f"{n} {v:.2f}" for n, v in figures.items()),
                  file=sys.stderr, flush=True)
    return found


def table(found: dict[str, dict[str, list[float]]], names: Iterable[str], digits: int) -> None:
    """Prints medians (least to most) of these figures as a Markdown table, a column a kind."""
    print("| figure | " + " | ".join(found) + " |\n| --- |" + " --- |" * len(found))
    for name in names:
        cells = [f"{statistics.median(v):.{digits}f} ({min(v):.{digits}f} to {max(v):.{digits}f})"
                 for v in (figures[name] for figures in found.values())]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", default="sluice,kafka")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="record values written in each phase")
    parser.add_argument("--rate", type=int, default=5000, help="records a second of the open loop")
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    kinds = arguments.kinds.split(",")
    found = rounds(kinds, arguments.rounds,
                   lambda kind, _: once(kind, arguments.mib * MIB // RECORD, arguments.rate))
    print(f"1 KiB records, acks=all, {PARTITIONS} partitions, {arguments.mib} MiB a phase, medians of "
          f"{arguments.rounds} (least to most), load average {os.getloadavg()[0]:.1f} of "
          f"{os.cpu_count()} cores\n")
    table(found, found[kinds[0]], 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
