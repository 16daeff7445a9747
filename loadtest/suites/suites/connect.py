"""Kafka Connect in distributed mode: a file source and a file sink, under restarts of the server and of the worker.

The source runs with exactly-once support, so what it writes to the topic is checked for loss, duplicates and order
whatever is killed. The sink's file is only as exact as Connect makes it: its task writes, and commits how far it came
a moment later. A worker that stops in order commits what it wrote; before a worker is killed the sink is paused
until that is committed. So the sink's file is checked as strictly as the topic.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import servers, wire
from suites import jars
from suites.expected import Seen
from suites.work import Broken, Job, first_words, say, until

NAMES = ("connect",)
TOPIC = "lines"
LINES_PER_S = 50
# Between one restart and the next, so that the worker is up and running again.
PAUSE_S = 15


def install(home: pathlib.Path) -> None:
    jars.install(home)


def suite(job: Job, _name: str) -> dict[str, Seen]:
    with servers.new_server(servers.Options()) as server:
        wire.wait_for_coordinator(server.bootstrap)
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
        with contextlib.closing(Worker(job, server)) as worker:
            worker.start()
            source, sink = job.logs / "source.txt", job.logs / "sink.txt"
            source.touch()
            for name, config in connectors(source, sink).items():
                worker.configure(name, config)
            written = drive(job, server, worker, source, sink)
            until(lambda: lines(sink)[-1:] == [str(written - 1)], 120,
                  lambda: f"the sink has {len(lines(sink))} of {written} lines\n{worker.log_tail()}")
        produced = read_committed(server.bootstrap)
        server.assert_alive()
    return {"source-topic": exactly(written, produced), "sink-file": exactly(written, lines(sink))}


def drive(job: Job, server: servers.Server, worker: "Worker", source: pathlib.Path, sink: pathlib.Path) -> int:
    """Writes numbered lines all the time and restarts the one or the other; returns how many were written."""
    stop, count = threading.Event(), 0

    def write() -> None:
        nonlocal count
        with open(source, "a", buffering=1) as out:
            while not stop.wait(1 / LINES_PER_S):
                out.write(f"{count}\n")
                count += 1

    writer = threading.Thread(target=write, name="lines")
    writer.start()
    try:
        ends = time.monotonic() + 60 * job.minutes
        what = itertools.cycle([("server stops in order", lambda: server.restart()),
                                ("worker stops in order", worker.restart),
                                ("server is killed", lambda: server.restart(crash=True)),
                                ("worker is killed", lambda: worker.crash(sink))])
        while time.monotonic() + PAUSE_S < ends:
            stop.wait(PAUSE_S)
            words, act = next(what)
            begun = time.monotonic()
            act()
            say(f"  {words} at {count} lines, back after {time.monotonic() - begun:.1f} s")
        stop.wait(max(0.0, ends - time.monotonic()))
    finally:
        stop.set()
        writer.join()
    return count


def exactly(written: int, found: list[str]) -> Seen:
    """Each line once and in order."""
    if found == [str(n) for n in range(written)]:
        return Seen("passed", f"{written} lines")
    distinct = set(found)
    lost = [n for n in range(written) if str(n) not in distinct]
    return Seen("failed", first_words(f"{written} written, {len(found)} found, {len(lost)} lost ({lost[:5]}), "
                                      f"{len(found) - len(distinct)} double"))


def lines(path: pathlib.Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def reader(bootstrap: str, group: str) -> Consumer:
    """Reads what is committed, and commits nothing itself."""
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed",
                     "auto.offset.reset": "earliest", "enable.partition.eof": True, "enable.auto.commit": False})


def committed_line(bootstrap: str) -> int | None:
    """The line that the sink's group is to read next; None if it is not written yet, or there is no answer."""
    with contextlib.closing(reader(bootstrap, "connect-sink")) as consumer:
        try:
            [at] = consumer.committed([TopicPartition(TOPIC, 0)], timeout=10)
        except KafkaException:
            return None
        consumer.assign([TopicPartition(TOPIC, 0, max(at.offset, 0))])
        message = consumer.poll(10)
        return None if message is None or message.error() else int(message.value())


def read_committed(bootstrap: str) -> list[str]:
    consumer = reader(bootstrap, "unused")
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    found: list[str] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            found.append(message.value().decode())
        elif message is not None:  # The partition's end.
            consumer.close()
            return found
    raise Broken(f"the topic was not read to its end within 120 s: {len(found)} lines")


def connectors(source: pathlib.Path, sink: pathlib.Path) -> dict[str, dict[str, str]]:
    file = "org.apache.kafka.connect.file.FileStream"
    return {
        "source": {"connector.class": f"{file}SourceConnector", "tasks.max": "1", "file": os.fspath(source),
                   "topic": TOPIC, "exactly.once.support": "required", "transaction.boundary": "interval",
                   "transaction.boundary.interval.ms": "500"},
        "sink": {"connector.class": f"{file}SinkConnector", "tasks.max": "1", "file": os.fspath(sink), "topics": TOPIC,
                 "consumer.override.isolation.level": "read_committed",
                 "consumer.override.auto.offset.reset": "earliest"},
    }


class Worker:
    """One Connect worker process at a time, on one REST port."""

    def __init__(self, job: Job, server: servers.Server):
        self._bootstrap = server.bootstrap
        self._log = job.logs / "worker.log"
        self._url = f"http://{servers.HOST}:{servers.free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        config = job.logs / "worker.properties"
        text = {
            "bootstrap.servers": server.bootstrap, "group.id": "connect", "listeners": self._url,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "exactly.once.source.support": "enabled", "offset.flush.interval.ms": 1000,
            "connector.client.config.override.policy": "All", "plugin.discovery": "service_load",
            # A killed worker is noticed soon, and its work is not kept for it.
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000, "scheduled.rebalance.max.delay.ms": 1000,
            **{f"{what}.storage.topic": f"connect-{what}s" for what in ("offset", "config", "status")},
            **{f"{what}.storage.replication.factor": 1 for what in ("offset", "config", "status")},
            "offset.storage.partitions": 1, "status.storage.partitions": 1,
        }
        config.write_text("".join(f"{key}={value}\n" for key, value in text.items()))
        self._command = ["nice", *jars.java(job.home, job.home / "java/lib"),
                         "org.apache.kafka.connect.cli.ConnectDistributed", os.fspath(config)]

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._answers, 120, lambda: f"the worker does not answer\n{self.log_tail()}")

    def restart(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self.start()

    def crash(self, sink: pathlib.Path) -> None:
        """Kills the worker and starts another, while the sink rests and has committed what it wrote."""
        self._sink("pause", "PAUSED")
        until(lambda: committed_line(self._bootstrap) == len(lines(sink)), 60,
              lambda: f"{committed_line(self._bootstrap)} of {len(lines(sink))} lines are committed")
        self.close()
        self.start()
        self._sink("resume", "RUNNING")

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def configure(self, name: str, config: dict[str, str]) -> None:
        """Creates a connector; the worker may ask to try again while it rebalances."""
        until(lambda: self._call(f"/connectors/{name}/config", config) in (200, 201), 90,
              lambda: f"the connector {name} is not taken\n{self.log_tail()}")

    def log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"the worker ended\n{self.log_tail()}"
        return self._call("/connectors") == 200

    def _sink(self, order: str, state: str) -> None:
        """Has the sink rest or go on, and waits until its task says so."""
        until(lambda: self._call(f"/connectors/sink/{order}", {}) == 202, 90,
              lambda: f"the sink does not {order}\n{self.log_tail()}")

        def is_so() -> bool:
            told: list[bytes] = []
            return (self._call("/connectors/sink/status", told=told) == 200
                    and [task["state"] for task in json.loads(told[0])["tasks"]] == [state])

        until(is_so, 90, lambda: f"the sink is not {state}\n{self.log_tail()}")

    def _call(self, path: str, body: dict[str, str] | None = None, told: list[bytes] | None = None) -> int:
        """The status; 0 when nobody answers. A body is put; the answer's goes to `told`."""
        request = urllib.request.Request(self._url + path, method="GET" if body is None else "PUT",
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                if told is not None:
                    told.append(answer.read())
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0
