"""A Kafka Streams application as a child process (see sluice.StreamsApp), and what it must come to.

An `App` owns its process and its state directory; several apps of one `application_id` share its work.
SLUICE_JAVA_CLASSPATH names the compiled application and its jars; `loadtest/clients/run` sets it.
"""

from __future__ import annotations

import collections
import json
import os
import queue
import random
import shutil
import subprocess
import tempfile
import threading
import time

import confluent_kafka

from blackbox import waiting

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


class App:
    """One instance. `topics` are the input, the stateless and the counted output."""

    def __init__(self, bootstrap: str, application_id: str, topics: tuple[str, str, str],
                 **settings: object):
        self._state = tempfile.mkdtemp(prefix="sluice-streams-")
        self._stderr = tempfile.TemporaryFile()
        self._answers: queue.Queue = queue.Queue()
        self.state = "CREATED"
        given = {"application.id": application_id, "state.dir": self._state,
                 "commit.interval.ms": 100, "heartbeat.interval.ms": 500, **settings}
        if given.get("group.protocol") == "streams":
            # The group decides: streams.heartbeat.interval.ms.
            del given["heartbeat.interval.ms"]
        self._process = subprocess.Popen(
            ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
             "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
             "-cp", os.environ["SLUICE_JAVA_CLASSPATH"], "sluice.StreamsApp", bootstrap, *topics,
             *(f"{key}={value}" for key, value in given.items())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True)
        threading.Thread(target=self._read, daemon=True, name="streams-app").start()

    def _read(self) -> None:
        for line in self._process.stdout:
            said = json.loads(line)
            if list(said) == ["state"]:
                self.state = said["state"]
            else:
                self._answers.put(said)
        self._answers.put(None)

    def ask(self, command: str, timeout_s: float = 60.0) -> dict:
        """`tasks`: what this instance has. `describe`: the group, of the streams protocol only."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            answer = None
        assert answer is not None, f"no answer to {command}\n{self.errors()}"
        return answer

    def wait_running(self, timeout_s: float = 90.0) -> "App":
        def running() -> bool:
            assert self._process.poll() is None, f"the application ended\n{self.errors()}"
            return self.state == "RUNNING"
        try:
            waiting.until(running, timeout_s, "RUNNING")
        except AssertionError as late:
            raise AssertionError(f"{late}; it is {self.state}\n{self.errors()}") from None
        return self

    def stop(self) -> None:
        """Lets it end by itself."""
        if self._process.poll() is None:
            self._process.stdin.write("stop\n")
            self._process.stdin.flush()
            self._process.wait(60)
        self.close()

    def close(self) -> None:
        """A crash, if it runs; its local state is gone with it."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._state, ignore_errors=True)

    def errors(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")[-6000:]


class Feeder:
    """Writes lines of words until it is stopped, and knows how many of each were acknowledged."""

    def __init__(self, bootstrap: str, topic: str, per_second: int = 50):
        self._producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": 300_000, "reconnect.backoff.max.ms": 500})
        self._topic = topic
        self._pause_s = 1 / per_second
        self._end = threading.Event()
        self.lines = 0
        self.words: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True, name="feeder")
        self._thread.start()

    def _run(self) -> None:
        source = random.Random(4)
        while not self._end.is_set():
            words = source.choices(WORDS, k=3)
            self._producer.produce(
                self._topic, " ".join(words), key=str(self.lines),
                on_delivery=lambda error, _message, words=words: self._delivered(error, words))
            self.lines += 1
            self._producer.poll(self._pause_s)

    def _delivered(self, error: confluent_kafka.KafkaError | None, words: list[str]) -> None:
        if error is None:
            self.words.update(words)
        else:
            self.failed.append(str(error))

    def written(self) -> dict[str, int]:
        """How many of each word are acknowledged by now."""
        return dict(self.words)

    def stop(self) -> None:
        """Returns when all is acknowledged; nothing may have failed."""
        self._end.set()
        self._thread.join(60)
        assert self._producer.flush(300) == 0, "not all was acknowledged"
        assert not self.failed, self.failed[:5]


class Output:
    """All that can be read, as a consumer that reads what is committed alone."""

    def __init__(self, bootstrap: str, topic: str):
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": "unused", "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "isolation.level": "read_committed",
            "reconnect.backoff.max.ms": 500})
        partitions = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
        #: The values of each key, in order.
        self.values: dict[str, list[str]] = collections.defaultdict(list)

    def read(self, seconds: float = 0.5) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for message in self._consumer.consume(500, 0.1):
                if message.error() is None:
                    key = (message.key() or b"").decode()
                    self.values[key].append(message.value().decode())

    def read_until(self, done, timeout_s: float, what: str) -> None:
        deadline = waiting.deadline(timeout_s)
        while not done():
            assert time.monotonic() < deadline, what
            self.read()

    def reach(self, words: dict[str, int]) -> bool:
        """Whether the last count of each word is at least what is given."""
        return all(int(self.values.get(word, ["0"])[-1]) >= n for word, n in words.items())

    def close(self) -> None:
        self._consumer.close()


