"""Servers under test as child processes: Sluice, and Apache Kafka as the oracle.

A `Server` owns its process, its log and (unless one is given) its data directory. It keeps its port
over restarts, as clients must find it again. What always holds: a server is ended by the pid that
was started here, never by name, and every server started here is ended when this process ends.
It does not know what runs inside: both kinds are driven by options, signals and the ready line.
"""

from __future__ import annotations

import atexit
import dataclasses
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
HOST = "127.0.0.1"

_alive: set["Server"] = set()
_ports = random.SystemRandom()


@dataclasses.dataclass(frozen=True)
class Options:
    """What a test wants of a server, in words that both kinds know. None means the default."""

    auto_create: bool = True
    partitions: int = 1
    node_id: int | None = None  # Sluice alone; the oracle is broker 1.
    segment_bytes: int | None = None
    upload_max_age_ms: int | None = None
    volume_bytes: int | None = None
    tail_cache_bytes: int | None = None
    min_session_timeout_ms: int | None = None
    retention_check_ms: int | None = None
    compaction_interval_ms: int | None = None
    streams_session_timeout_ms: int | None = None
    streams_heartbeat_interval_ms: int | None = None
    streams_standbys: int | None = None

    def streams(self) -> dict[str, int]:
        """Settings of streams groups, as group configs; they begin tasks without delay."""
        given = {"streams.session.timeout.ms": self.streams_session_timeout_ms,
                 "streams.heartbeat.interval.ms": self.streams_heartbeat_interval_ms,
                 "streams.num.standby.replicas": self.streams_standbys}
        settings = {key: value for key, value in given.items() if value is not None}
        return settings and {**settings, "streams.initial.rebalance.delay.ms": 0}


def free_port() -> int:
    """A free port below the ephemeral range.

    A client that reconnects to a dead server's port inside that range can be given the same port as
    its source: TCP then connects it to itself.
    """
    for _ in range(1000):
        port = _ports.randint(10_000, 31_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 10000 and 31000")


class NotReady(RuntimeError):
    """The server ended or was silent before it was ready; the text carries its log's tail."""


class Server:
    """One server process at a time over one data directory and one port."""

    kind = "?"
    ready_timeout_s = 30.0
    stop_timeout_s = 15.0
    _ready: re.Pattern[str]

    def __init__(self, options: Options | None = None, data: pathlib.Path | None = None):
        self.options = options or Options()
        self._own_data = data is None
        self.data = pathlib.Path(data) if data else pathlib.Path(tempfile.mkdtemp(prefix="sluice-test-"))
        self.port = free_port()
        self.http_port = free_port()
        logs = pathlib.Path(os.environ.get("SLUICE_TEST_LOGS") or tempfile.gettempdir())
        logs.mkdir(parents=True, exist_ok=True)
        self.log_path = logs / f"{self.kind}-{os.getpid()}-{self.port}.log"
        self.ready_s = 0.0
        self._process: subprocess.Popen[str] | None = None

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def start(self) -> "Server":
        """Starts the process and returns when it says that it is ready."""
        assert not self.alive, "the server is running already"
        command = self.command()
        log = open(self.log_path, "a", buffering=1)
        log.write(f"---- start {time.strftime('%H:%M:%S')}\n")
        ready = threading.Event()
        begun = time.monotonic()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True,
            errors="replace", start_new_session=True, env=self.environment())
        _alive.add(self)
        stdout = self._process.stdout

        def pump() -> None:
            for line in stdout:
                if not ready.is_set() and self._ready.search(line):
                    self.ready_s = time.monotonic() - begun
                    ready.set()
                log.write(line)
            log.close()

        threading.Thread(target=pump, daemon=True, name="server-log").start()
        deadline = begun + self.ready_timeout_s
        while not ready.wait(0.005):
            if self._process.poll() is not None:
                raise NotReady(f"{self.kind} ended with {self._process.returncode} before it was "
                               f"ready\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise NotReady(f"{self.kind} was not ready within {self.ready_timeout_s} s\n"
                               f"{self.log_tail()}")
        return self

    def kill(self) -> None:
        """SIGKILL: a crash of the process."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> float:
        """SIGTERM; returns the seconds until the process ended."""
        begun = time.monotonic()
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
            try:
                self._process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.kind} did not end within {self.stop_timeout_s} s of "
                                     f"SIGTERM\n{self.log_tail()}") from None
        self._reap()
        return time.monotonic() - begun

    def restart(self, crash: bool = False) -> "Server":
        if crash:
            self.kill()
        else:
            self.stop()
        return self.start()

    def close(self) -> None:
        """Ends the process and takes the data directory away, if it was made here."""
        self.kill()
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
        _alive.discard(self)

    def log_tail(self, lines: int = 40) -> str:
        try:
            text = self.log_path.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join([f"---- last {lines} lines of {self.log_path.name}", *text[-lines:]])

    def assert_alive(self) -> None:
        assert self.alive, f"{self.kind} has ended by itself\n{self.log_tail()}"

    def __enter__(self) -> "Server":
        return self if self.alive else self.start()

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Sluice(Server):
    """The binary that SLUICE_BIN names, with a config file that the options give."""

    kind = "sluice"
    stop_timeout_s = 10.0

    def __init__(self, options: Options | None = None, data: pathlib.Path | None = None):
        super().__init__(options, data)
        self._ready = re.compile(re.escape(self.bootstrap))

    @staticmethod
    def binary() -> str:
        path = os.environ.get("SLUICE_BIN") or str(ROOT / "target/release/sluice")
        if not os.access(path, os.X_OK):
            raise FileNotFoundError(f"no server binary at {path}: build it or set SLUICE_BIN")
        return path

    def config(self) -> str:
        o = self.options
        groups: dict[str, dict[str, object]] = {
            "topics": {"auto_create": o.auto_create, "default_partitions": o.partitions},
        }

        def put(section: str, key: str, value: object | None) -> None:
            if value is not None:
                groups.setdefault(section, {})[key] = value

        put("volumes", "size", o.volume_bytes and str(o.volume_bytes))
        put("upload", "segment_bytes", o.segment_bytes and str(o.segment_bytes))
        for key in ("max_age", "max_age_idle"):
            put("upload", key, o.upload_max_age_ms and f"{o.upload_max_age_ms}ms")
        put("groups", "min_session_timeout",
            o.min_session_timeout_ms and f"{o.min_session_timeout_ms}ms")
        put("retention", "check_interval", o.retention_check_ms and f"{o.retention_check_ms}ms")
        put("compaction", "interval",
            o.compaction_interval_ms and f"{o.compaction_interval_ms}ms")
        put("compaction", "min_age", o.compaction_interval_ms and "0ms")
        for key, value in o.streams().items():
            put("groups.defaults", f'"{key}"', value)
        lines = []
        if o.node_id is not None:
            lines.append(f"node_id = {o.node_id}")
        if o.tail_cache_bytes is not None:
            lines.append(f'tail_cache_bytes = "{o.tail_cache_bytes}"')
        for section, keys in groups.items():
            lines.append(f"[{section}]")
            for key, value in keys.items():
                text = f'"{value}"' if isinstance(value, str) else str(value).lower()
                lines.append(f"{key} = {text}")
        return "\n".join(lines) + "\n"

    def environment(self) -> dict[str, str]:
        # Every SLUICE_ variable is a setting to the server; those of the tests are not for it.
        return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}

    def command(self) -> list[str]:
        self.data.mkdir(parents=True, exist_ok=True)
        config = self.log_path.with_suffix(".toml")
        config.write_text(self.config())
        return [self.binary(), "up", "--data", str(self.data), "--kafka", self.bootstrap,
                "--http", f"{HOST}:{self.http_port}", "--config", str(config)]


class Kafka(Server):
    """Apache Kafka by the oracle script."""

    kind = "kafka"
    ready_timeout_s = 90.0
    stop_timeout_s = 60.0
    _ready = re.compile(r"Kafka Server started")

    def command(self) -> list[str]:
        o = self.options
        settings = {
            "auto.create.topics.enable": str(o.auto_create).lower(),
            "num.partitions": o.partitions,
            "log.initial.task.delay.ms": 500,
            "log.retention.check.interval.ms": o.retention_check_ms,
            "group.min.session.timeout.ms": o.min_session_timeout_ms,
            # Kafka allows no smaller segment than 1 MiB.
            "log.segment.bytes": o.segment_bytes and max(o.segment_bytes, 1 << 20),
        }
        for key, value in o.streams().items():
            settings[f"group.{key}"] = value
            if key.endswith((".session.timeout.ms", ".heartbeat.interval.ms")):
                settings[f"group.{key}".replace("streams.", "streams.min.")] = value
        command = [str(HERE / "kafka-oracle"), "up", "--data", str(self.data), "--kafka", self.bootstrap]
        for key, value in settings.items():
            if value is not None:
                command += ["--set", f"{key}={value}"]
        return command


KINDS: dict[str, type[Server]] = {"sluice": Sluice, "kafka": Kafka}


def kind() -> str:
    """Which kind the tests drive: SLUICE_TEST_KIND, `sluice` unless it says otherwise."""
    return os.environ.get("SLUICE_TEST_KIND", "sluice")


def new_server(options: Options | None = None, data: pathlib.Path | None = None) -> Server:
    """A server of the kind that the tests drive, not yet started."""
    return KINDS[kind()](options, data)


@atexit.register
def _end_all() -> None:
    for server in list(_alive):
        server.kill()


def end_on_sigterm() -> None:
    """Makes SIGTERM end this process in order, so that its servers end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
