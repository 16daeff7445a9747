"""The Java client as one child process a server, driven by lines of JSON (see sluice.Driver).

`driver(bootstrap)` starts it at the first use; it ends with this process. SLUICE_JAVA_CLASSPATH
names the compiled driver and its jars; `loadtest/clients/run` sets it.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import select
import subprocess
import tempfile

_drivers: dict[str, "Driver"] = {}


class JavaError(Exception):
    """An exception of the Java client; `name` is its simple class name."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name = name


class Driver:
    """One JVM. Commands run one after another."""

    def __init__(self, bootstrap: str):
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
             "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
             "-cp", os.environ["SLUICE_JAVA_CLASSPATH"], "sluice.Driver", bootstrap],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr)

    def call(self, command: str, timeout_s: float = 90.0, **arguments: object):
        """Runs one command and returns its answer; byte strings in arguments become base64."""
        line = json.dumps({"do": command, **arguments}, default=_pack)
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        # One answer a command and no read ahead of it, so the pipe shows whether there is one.
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        reply = self._process.stdout.readline() if ready else b""
        if not reply:
            self.end()
            self._stderr.seek(0)
            raise AssertionError(f"the Java client gave no answer to {command} within {timeout_s} s\n"
                                 + self._stderr.read().decode(errors="replace")[-4000:])
        answer = json.loads(reply)
        if "error" in answer:
            raise JavaError(answer["error"], answer["message"])
        return answer["ok"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def driver(bootstrap: str) -> Driver:
    found = _drivers.get(bootstrap)
    if found is None or not found.alive:
        found = _drivers[bootstrap] = Driver(bootstrap)
    return found


def unpack(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _pack(value: object) -> str:
    assert isinstance(value, bytes)
    return base64.b64encode(value).decode()


@atexit.register
def _end_all() -> None:
    for running in _drivers.values():
        running.end()
