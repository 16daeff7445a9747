"""The fault proxy (loadtest/faults/proxy.py) as a child process before an S3 server."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
from typing import Iterator

from blackbox import servers
from blackbox.s3 import S3, Keys

PROXY = servers.ROOT / "loadtest/faults/proxy.py"
Rule = dict[str, object]


class Faulty:
    """An S3 server as seen through the proxy: what SluiceOnS3 wants of an S3."""

    def __init__(self, s3: S3, seed: int = 1):
        host, _, port = s3.endpoint.removeprefix("http://").rpartition(":")
        self.keys: Keys = s3.keys
        self._process = subprocess.Popen(
            [sys.executable, str(PROXY), "--upstream", f"{host}:{port}", "--seed", str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        found = re.fullmatch(r"proxy=(\S+) control=(\S+)\n", line)
        assert found, f"the proxy said {line!r}"
        self.endpoint = f"http://{found[1]}"
        self._control = found[2]

    def set(self, *rules: Rule) -> None:
        """From now on these rules hold, and no others."""
        self._ask("PUT", "/rules", json.dumps(rules))

    @contextlib.contextmanager
    def having(self, *rules: Rule) -> Iterator[None]:
        self.set(*rules)
        try:
            yield
        finally:
            self.set()

    def stats(self) -> dict[str, int]:
        """`requests METHOD`, `injected FAULT`, `lost METHOD STATUS`, `bytes` -> how many."""
        return self._ask("GET", "/stats")

    def injected(self, fault: str) -> int:
        return self.stats().get(f"injected {fault}", 0)

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, text: str = "") -> dict[str, int]:
        connection = http.client.HTTPConnection(self._control, timeout=10)
        try:
            connection.request(method, path, text)
            answer = connection.getresponse()
            told = answer.read().decode()
            assert answer.status == 200, told
            return json.loads(told)
        finally:
            connection.close()
