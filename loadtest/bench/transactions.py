#!/usr/bin/env python3
"""What transactions cost a producer: the same records with a commit each 100 ms, and without.

    transactions.py [--kinds sluice] [--rounds 3] [--mib 512] [--commit-ms 100]

One librdkafka producer as fast as it goes, 1 KiB records, acks=all, no compression, 8 partitions. In
each round both ways take turns on one fresh server, each time to a new topic, as A B B A B A A B, so that
neither gains by its place; a round's figure is the mean of its turns. Before that the volume is written
over once, as its first time is slower. Idempotent alone is the measure, transactions are held against it:
"ratio" is that of a round, then the median. A commit is timed as the application sees it: from
the call to its return, with what is still in the producer's queue written out in between. CPU is as in
produce_fetch.py. Prints Markdown table rows.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients"))

import confluent_kafka  # noqa: E402

from blackbox import servers, wire  # noqa: E402
from produce_fetch import MIB, PARTITIONS, RECORD, VALUE, Cost, Figures, create, producer, rounds, table  # noqa: E402

CALL_S = 60
WARM = 1_200_000  # Records: more than the default volume holds.
TURNS = (0, 1, 1, 0, 1, 0, 0, 1)
STEP = 1000  # Records between two looks at the clock.


class Plain:
    """Records with no transaction around them."""

    def __init__(self, bootstrap: str):
        self.producer = producer(bootstrap, **{"linger.ms": 5, "batch.size": 1_000_000})
        self.commits_ms: list[float] = []

    def between(self) -> None:
        """Called after each STEP records."""

    def finish(self) -> None:
        if left := self.producer.flush(300):
            raise SystemExit(f"{left} records were not delivered")


class Transactions(Plain):
    """The same, committed whenever the time is over."""

    def __init__(self, bootstrap: str, name: str, commit_s: float):
        self.producer = producer(bootstrap, **{
            "linger.ms": 5, "batch.size": 1_000_000, "transactional.id": name})
        self.commits_ms = []
        self._commit_s = commit_s
        self.producer.init_transactions(CALL_S)
        self.producer.begin_transaction()
        self._due = time.monotonic() + commit_s

    def between(self) -> None:
        if time.monotonic() >= self._due:
            self._commit()
            self.producer.begin_transaction()
            self._due = time.monotonic() + self._commit_s

    def finish(self) -> None:
        self._commit()

    def _commit(self) -> None:
        begun = time.monotonic()
        self.producer.commit_transaction(CALL_S)
        self.commits_ms.append((time.monotonic() - begun) * 1000)


def write(way: Plain, topic: str, count: int) -> None:
    """Writes `count` records; raises when one of them is refused."""
    failed = []
    report = lambda error, _: error and failed.append(error)  # noqa: E731
    send = way.producer.produce
    for sent in range(count):
        while True:
            try:
                # As in produce_fetch.py: reports cost Python time, some are enough to see a refusal.
                if sent % STEP:
                    send(topic, VALUE, partition=sent // 200 % PARTITIONS)
                else:
                    send(topic, VALUE, partition=sent // 200 % PARTITIONS, on_delivery=report)
                break
            except BufferError:
                way.producer.poll(0.01)
        if sent % STEP == STEP - 1:
            way.producer.poll(0)
            way.between()
    way.finish()
    if failed:
        raise SystemExit(f"records were refused: {failed[0]}")


def quantile(values: list[float], of: float) -> float:
    return sorted(values)[min(int(len(values) * of), len(values) - 1)]


def once(kind: str, count: int, commit_s: float, turn: int) -> Figures:
    figures: Figures = {}
    with servers.KINDS[kind](servers.Options()) as server:
        address = server.bootstrap
        wire.wait_for_coordinator(address)
        # Kafka makes the log of transactions at the first of them.
        create(address, "warm")
        write(Plain(address), "warm", WARM)
        write(Transactions(address, "warm", commit_s), "warm", 20 * STEP)
        ways = ("idempotent", "transactions")
        commits_ms: list[float] = []
        for number, name in enumerate(ways[(t + turn) % 2] for t in TURNS):
            topic = f"{name}-{number}"
            create(address, topic)
            way = Plain(address) if name == "idempotent" else Transactions(address, topic, commit_s)
            cost = Cost(server)
            write(way, topic, count)
            for figure, value in cost.per_gib(name, count * RECORD).items():
                figures[figure] = figures.get(figure, 0) + value / (len(TURNS) / 2)
            commits_ms += way.commits_ms
    figures |= {"transactions committed": len(commits_ms), "commit p50 ms": quantile(commits_ms, 0.5),
                "commit p99 ms": quantile(commits_ms, 0.99)}
    figures["ratio"] = figures["transactions MiB/s"] / figures["idempotent MiB/s"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", default="sluice", help="sluice, kafka or both, with a comma between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=512, help="record values written in each turn")
    parser.add_argument("--commit-ms", type=int, default=100, help="from a transaction's begin to its commit")
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    kinds = arguments.kinds.split(",")

    def one(kind: str, turn: int) -> Figures:
        try:
            return once(kind, arguments.mib * MIB // RECORD, arguments.commit_ms / 1000, turn)
        except confluent_kafka.KafkaException as e:
            raise SystemExit(f"{kind}: {e.args[0].str()}") from e

    found = rounds(kinds, arguments.rounds, one)
    print(f"1 KiB records, acks=all, {PARTITIONS} partitions, {arguments.mib} MiB a turn, a commit each "
          f"{arguments.commit_ms} ms, medians of {arguments.rounds} (least to most), load average "
          f"{os.getloadavg()[0]:.1f} of {os.cpu_count()} cores\n")
    table(found, sorted(found[kinds[0]]), 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
