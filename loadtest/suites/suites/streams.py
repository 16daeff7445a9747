"""Kafka Streams' own smoke test (kafka-streams' test jar) with exactly_once_v2, under restarts.

Its driver generates data all the while, then waits for the results of a dozen aggregations and compares them with
what they must be. Two processors share the work, each over its own state; in turn one is killed, the server is
killed, the other is stopped in order, the server is stopped in order. The driver's own verdict counts: each
record echoed exactly once, each aggregate right, no transaction left open.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import re
import signal
import subprocess
import time

from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import servers, wire
from suites import jars
from suites.expected import Seen
from suites.work import HERE, Job, first_words, say, until

NAMES = ("streams",)
PROCESSOR = "org.apache.kafka.streams.tests.StreamsSmokeTest"
DRIVER = HERE / "java/SmokeRun.java"
TOPICS = ("data", "fk", "echo", "min", "min-suppressed", "min-raw", "max", "sum", "sws-raw", "sws-suppressed", "dif",
          "cnt", "avg", "tagg")
# Of each of the driver's 20 keys; with 300 it writes 100 records/s to the one topic, and as many to the other.
RECORDS_A_MINUTE = 300
# From the time that all works again to the next restart.
PAUSE_S = 5
# A transaction that a killed processor leaves open hides what follows for as long.
TRANSACTION_MS = 10_000


def install(home: pathlib.Path) -> None:
    jars.install(home)


def suite(job: Job, _name: str) -> dict[str, Seen]:
    return {protocol: one(job, protocol) for protocol in ("classic", "streams") if job.wants(protocol)}


def one(job: Job, protocol: str) -> Seen:
    """The smoke test with the classic group protocol, or with that of KIP-1071."""
    logs = job.logs / protocol
    logs.mkdir(exist_ok=True)
    options = servers.Options(auto_create=False, streams_session_timeout_ms=6_000, streams_heartbeat_interval_ms=500)
    with servers.new_server(options) as server, contextlib.closing(Test(job, server, protocol, logs)) as test:
        wire.wait_for_coordinator(server.bootstrap)
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        for created in admin.create_topics([NewTopic(topic, 5, 1) for topic in TOPICS]).values():
            created.result(30)
        try:
            restarts = test.drive()
            test.driver.wait(900)
            server.assert_alive()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return Seen("failed", first_words(str(error)))
        said = test.verdict()
        if re.search(r"^SUCCESS$", said, re.M):
            return Seen("passed", f"{restarts} restarts")
        return Seen("failed", first_words(f"after {restarts} restarts the driver says: {said[-600:]}"))


class Test:
    """One driver and two processors; owns their processes, and restarts the server."""

    def __init__(self, job: Job, server: servers.Server, protocol: str, logs: pathlib.Path):
        self._job, self._server, self._protocol, self._logs = job, server, protocol, logs
        self._processors: dict[int, subprocess.Popen[bytes]] = {}
        self.driver: subprocess.Popen[bytes] | None = None

    def drive(self) -> int:
        """Restarts one thing after the other until all data is generated; returns how many it restarted."""
        seconds = round(60 * self._job.minutes)
        self.driver = self._begin("driver", DRIVER, self._server.bootstrap, seconds,
                                  round(RECORDS_A_MINUTE * self._job.minutes))
        for slot in (0, 1):
            self._start(slot)
        self._work_again({0, 1})
        ways = itertools.cycle((
            ("processor 0 is killed", lambda: self._end(0, signal.SIGKILL), {0}),
            ("the server is killed", lambda: self._server.restart(crash=True), {0, 1}),
            ("processor 1 stops in order", lambda: self._end(1, signal.SIGTERM), {1}),
            ("the server stops in order", lambda: self._server.restart(), {0, 1}),
        ))
        restarts = 0
        while not self._is_generated():
            words, act, slots = next(ways)
            begun = time.monotonic()
            act()
            self._work_again(slots)
            restarts += 1
            say(f"  {self._protocol}: {words}, works again after {time.monotonic() - begun:.1f} s")
            resume = time.monotonic() + PAUSE_S
            until(lambda: time.monotonic() > resume or self._is_generated(), 2 * PAUSE_S, lambda: "")
        return restarts

    def verdict(self) -> str:
        return (self._logs / "driver.log").read_text(errors="replace")

    def close(self) -> None:
        for process in [*self._processors.values(), *([self.driver] if self.driver else [])]:
            process.kill()
            process.wait()

    def _is_generated(self) -> bool:
        has_ended = self.driver.poll() is not None
        generated = re.search(r"^generated$", self.verdict(), re.M) is not None
        assert generated or not has_ended, f"the driver has ended: {self.verdict()[-600:]}"
        return generated

    def _work_again(self, slots: set[int]) -> None:
        """Waits until each of these processors has processed something from now on."""
        before = {slot: self._done(slot) for slot in slots}

        def more() -> bool:
            ended = [slot for slot, process in self._processors.items() if process.poll() is not None]
            assert not ended, f"{self._protocol}: processors {ended} have ended\n{self._tails()}"
            return all(self._done(slot) > done for slot, done in before.items()) or self._is_generated()

        until(more, 180, lambda: f"{self._protocol}: a processor of {slots} does nothing\n{self._tails()}")

    def _done(self, slot: int) -> int:
        """How often a processor has said that it processed another hundred records."""
        return self._log(slot).read_text(errors="replace").count("processed ")

    def _end(self, slot: int, how: signal.Signals) -> None:
        """Ends a processor and starts it anew, over what it leaves on its disk."""
        self._processors[slot].send_signal(how)
        self._processors[slot].wait(90)
        self._start(slot)

    def _start(self, slot: int) -> None:
        config = self._logs / f"processor-{slot}.properties"
        text = {"bootstrap.servers": self._server.bootstrap, "processing.guarantee": "exactly_once_v2", "acks": "all",
                "state.dir": self._logs / f"state-{slot}", "transaction.timeout.ms": TRANSACTION_MS}
        if self._protocol == "streams":
            text["group.protocol"] = "streams"
        else:
            text |= {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500}
        config.write_text("".join(f"{key}={value}\n" for key, value in text.items()))
        self._processors[slot] = self._begin(f"processor-{slot}", PROCESSOR, config, "process")

    def _begin(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        with open(self._logs / f"{name}.log", "ab") as out:
            return subprocess.Popen(
                ["nice", *jars.java(self._job.home, self._job.home / "java/lib", heap="512m"),
                 *(os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in words)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _log(self, slot: int) -> pathlib.Path:
        return self._logs / f"processor-{slot}.log"

    def _tails(self) -> str:
        return "\n".join("\n".join(self._log(slot).read_text(errors="replace").splitlines()[-15:])
                         for slot in self._processors)
