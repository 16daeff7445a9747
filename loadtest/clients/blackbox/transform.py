"""A process that copies a topic into another, exactly once: consume, transform, produce, commit.

    python -m blackbox.transform BOOTSTRAP FROM TO GROUP NAME SEED

Each transaction holds some records and the offsets behind them; about one in eight is aborted on
purpose. A record goes to the partition of its number, its key becomes `partition:offset:attempt`
of where it was read and which transaction copied it. Standard output tells what is known of each
attempt, a line each: `begin ATTEMPT RECORDS` before its first record, then `commit ATTEMPT` or
`abort ATTEMPT` once the server has said so. An attempt without an end had an unknown one.

It may be killed at any point. It ends in order when its standard input is closed, so that none is
left behind. Whatever it cannot abort makes it begin anew with a new producer and consumer, under the
same transactional id, as an application would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import secrets
import sys
import threading
import time

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

RECORDS = 150
GATHER_S = 0.1
CALL_S = 15
# librdkafka 2.16 bootstraps anew when its only broker is gone; what waits for a coordinator in that
# moment, such as send_offsets_to_transaction, is then never sent nor timed out.
_QUICK = {"metadata.recovery.strategy": "none", "reconnect.backoff.ms": 20,
          "reconnect.backoff.max.ms": 250, "log_level": 0}


@dataclasses.dataclass(frozen=True)
class Job:
    bootstrap: str
    source: str
    target: str
    group: str
    name: str
    seed: int


def say(*words: object) -> None:
    # One write a line: a kill must not leave half a line before another's beginning.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Transformer:
    """One producer and one consumer, until one of them cannot go on."""

    def __init__(self, job: Job, rng: random.Random, end: threading.Event):
        self._job, self._random, self._end = job, rng, end
        # Names what this process does, apart from the processes before it under the same id.
        self._incarnation = secrets.token_hex(4)
        self._attempts = 0
        self._batch: list[confluent_kafka.Message] = []
        self._member = None
        self._producer = confluent_kafka.Producer({
            "bootstrap.servers": job.bootstrap, "transactional.id": job.name, "linger.ms": 5,
            "transaction.timeout.ms": 8_000, "retry.backoff.ms": 50, **_QUICK})
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": job.bootstrap, "group.id": job.group,
            "isolation.level": "read_committed", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 3_000, "heartbeat.interval.ms": 500,
            "fetch.error.backoff.ms": 50, **_QUICK})

    def run(self) -> None:
        self._producer.init_transactions(CALL_S)
        self._consumer.subscribe([self._job.source], on_assign=self._assigned,
                                 on_revoke=self._revoked, on_lost=self._revoked)
        while not self._end.is_set():
            self._gather()
            if self._batch:
                self._transform()

    def close(self) -> None:
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()

    def _assigned(self, consumer, partitions) -> None:
        consumer.assign(partitions)
        self._batch.clear()
        # The generation under which what is read from now on was read. Asked for later, it could be
        # that of a member that has lost these partitions, and fence nothing.
        self._member = consumer.consumer_group_metadata()

    def _revoked(self, consumer, _partitions) -> None:
        self._batch.clear()
        self._member = None
        consumer.unassign()

    def _gather(self) -> None:
        self._batch.clear()
        until = time.monotonic() + GATHER_S
        while len(self._batch) < RECORDS and (left := until - time.monotonic()) > 0:
            # One at a time: a rebalance is then seen between records, never within a list of them.
            message = self._consumer.poll(left)
            if message is not None and message.error() is None:
                self._batch.append(message)

    def _transform(self) -> None:
        self._attempts += 1
        attempt = f"{self._job.name}-{self._incarnation}-{self._attempts}"
        say("begin", attempt, len(self._batch))
        try:
            self._producer.begin_transaction()
            for m in self._batch:
                self._producer.produce(
                    self._job.target, m.value(), b"%d:%d:%s" % (
                        m.partition(), m.offset(), attempt.encode()), m.partition())
            self._retry(self._producer.send_offsets_to_transaction, self._after(), self._member)
            if self._random.random() < 0.12:
                self._producer.flush(self._random.uniform(0, 0.5))
                self._abort(attempt)
                return
            self._retry(self._producer.commit_transaction)
            say("commit", attempt)
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                raise
            self._abort(attempt)

    def _after(self) -> list[TopicPartition]:
        ends = {m.partition(): m.offset() + 1 for m in self._batch}
        return [TopicPartition(self._job.source, p, o) for p, o in ends.items()]

    def _abort(self, attempt: str) -> None:
        self._retry(self._producer.abort_transaction)
        say("abort", attempt)
        firsts: dict[int, int] = {}
        for m in self._batch:
            firsts.setdefault(m.partition(), m.offset())
        for partition, offset in firsts.items():
            self._consumer.seek(TopicPartition(self._job.source, partition, offset))

    @staticmethod
    def _retry(call, *arguments) -> None:
        """Calls again while librdkafka says that the call may be repeated, for a minute at most."""
        until = time.monotonic() + 60
        while True:
            try:
                call(*arguments, CALL_S)
                return
            except KafkaException as e:
                if not e.args[0].retriable() or time.monotonic() > until:
                    raise


def main() -> int:
    *names, seed = sys.argv[1:]
    job = Job(*names, int(seed))
    end = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        end.set()

    threading.Thread(target=watch, daemon=True).start()
    rng = random.Random(f"{job.name} {job.seed}")
    while not end.is_set():
        transformer = Transformer(job, rng, end)
        try:
            transformer.run()
        except KafkaException as e:
            say("anew", e.args[0].name(), e.args[0].str().replace("\n", " "))
            end.wait(0.2)
        finally:
            transformer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
