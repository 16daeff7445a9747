"""A real S3 server as a child process, a Sluice that keeps its bucket there, and a look into it.

The server is SeaweedFS. It keeps its ports and its data over restarts, so that it can be killed and
come back as the same store; it is ended by the pid that was started here, and when this process
ends. Its keys are made anew each time: a test that finds them in a log has found a leak.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
import xml.etree.ElementTree as tree
from typing import Iterator

from blackbox import servers, waiting

REGION = "us-east-1"


@dataclasses.dataclass(frozen=True)
class Keys:
    """An access key and its secret, as the identities file and the AWS_ variables hold them."""

    access: str = dataclasses.field(default_factory=lambda: "AK" + secrets.token_hex(9).upper())
    secret: str = dataclasses.field(default_factory=lambda: secrets.token_hex(20))

    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}


class S3:
    """One SeaweedFS over one directory: master, volume server, filer and S3 in one process."""

    ready_timeout_s = 60.0

    def __init__(self, host: str = servers.HOST, inside: list[str] | None = None) -> None:
        """`inside`: what a command has to begin with to run where the host is."""
        self._host, self._inside = host, inside or []
        self.keys = Keys()
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="sluice-s3-"))
        self._ports = {name: servers.free_port() for name in (
            "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
            "filer.port.grpc", "s3.port", "s3.port.grpc", "metricsPort")}
        assert len(set(self._ports.values())) == len(self._ports), "a port was drawn twice"
        self._address = (host, self._ports["s3.port"])
        logs = pathlib.Path(os.environ.get("SLUICE_TEST_LOGS") or tempfile.gettempdir())
        logs.mkdir(parents=True, exist_ok=True)
        self.log_path = logs / f"s3-{os.getpid()}-{self._address[1]}.log"
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def endpoint(self) -> str:
        return "http://{}:{}".format(*self._address)

    @staticmethod
    def binary() -> str:
        beside = pathlib.Path(sys.executable).parent / "weed"
        path = str(beside) if beside.exists() else shutil.which("weed")
        if path is None:
            raise FileNotFoundError("no `weed`: install what requirements.txt names")
        return path

    def command(self) -> list[str]:
        identities = self.data / "identities.json"
        identities.write_text(json.dumps({"identities": [{
            "name": "sluice", "actions": ["Admin", "Read", "Write", "List"],
            "credentials": [{"accessKey": self.keys.access, "secretKey": self.keys.secret}]}]}))
        store = self.data / "store"
        store.mkdir(exist_ok=True)
        return [*self._inside, self.binary(), "server", f"-ip={self._host}", f"-ip.bind={self._host}",
                f"-dir={store}", "-filer", "-s3", f"-s3.config={identities}",
                *(f"-{name}={port}" for name, port in self._ports.items()),
                f"-filer.localSocket={self.data / 'filer.sock'}",
                f"-s3.localSocket={self.data / 's3.sock'}",
                # It has more doors than are wanted here, and one of them leads outside.
                "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
                "-master.volumeSizeLimitMB=1024", "-volume.max=64"]

    def start(self) -> "S3":
        """Returns when an object can be written and read."""
        assert self._process is None, "the S3 server is running already"
        with open(self.log_path, "ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.data,
                start_new_session=True)
        waiting.until(self._serves, self.ready_timeout_s, "the S3 server serves")
        return self

    def start_unless_running(self) -> None:
        if self._process is None:
            self.start()

    def kill(self) -> None:
        """SIGKILL: a crash of the process."""
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Within, the process takes connections and answers nothing (SIGSTOP)."""
        assert self._process is not None, "the S3 server is not running"
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> "S3":
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def make_bucket(self, name: str) -> None:
        status, body = self._call("PUT", f"/{name}")
        assert status == 200, f"{status}: {body!r}"

    def objects(self, bucket: str) -> dict[str, int]:
        """Key -> bytes of every object in the bucket."""
        found: dict[str, int] = {}
        query = {"list-type": "2"}
        while True:
            status, body = self._call("GET", f"/{bucket}", query)
            assert status == 200, f"{status}: {body!r}"
            page = tree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", body, count=1))
            for item in page.iter("Contents"):
                found[item.findtext("Key")] = int(item.findtext("Size"))
            if page.findtext("IsTruncated") != "true":
                return found
            query["continuation-token"] = page.findtext("NextContinuationToken")

    def get_range(self, path: str, start: int, end: int) -> tuple[int, bytes]:
        """Status and body of a GET of the bytes from `start` up to `end`."""
        return self._call("GET", path, extra={"range": f"bytes={start}-{end - 1}"})

    def requests(self, bucket: str) -> dict[str, int]:
        """Kind of request, as the server names it (LIST, PUT, GET, ...) -> how many there were for
        the bucket since the server's start."""
        url = f"http://{self._host}:{self._ports['metricsPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        counts: dict[str, int] = {}
        for labels, count in re.findall(r"^SeaweedFS_s3_request_total\{(.*)\} (\S+)$", text, re.M):
            label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if label["bucket"] == bucket:
                counts[label["type"]] = counts.get(label["type"], 0) + int(float(count))
        return counts

    def _serves(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (
            f"the S3 server has ended; its log is {self.log_path}")
        try:
            # The gateway listens before the parts behind it can store anything.
            return (self._call("PUT", "/probe")[0] in (200, 409)
                    and self._call("PUT", "/probe/x", body=b"x")[0] == 200
                    and self._call("GET", "/probe/x") == (200, b"x"))
        except (OSError, http.client.HTTPException):
            return False

    def _call(self, method: str, path: str, query: dict[str, str] | None = None,
              body: bytes = b"", extra: dict[str, str] | None = None) -> tuple[int, bytes]:
        """One request, signed by AWS Signature Version 4."""
        now = datetime.datetime.now(datetime.timezone.utc)
        time, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        pairs = urllib.parse.urlencode(sorted((query or {}).items()), quote_via=urllib.parse.quote,
                                       safe="-_.~")
        headers = {"host": "{}:{}".format(*self._address), "x-amz-date": time,
                   "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), **(extra or {})}
        signed = ";".join(sorted(headers))
        canonical = "\n".join([method, path, pairs,
                               *(f"{k}:{headers[k]}" for k in sorted(headers)), "", signed,
                               headers["x-amz-content-sha256"]])
        scope = f"{day}/{REGION}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = ("AWS4" + self.keys.secret).encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
            key = hmac.digest(key, part.encode(), "sha256")
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.keys.access}/{scope}, SignedHeaders={signed}, "
            f"Signature={key.hex()}")
        connection = http.client.HTTPConnection(*self._address, timeout=10)
        try:
            connection.request(method, f"{path}?{pairs}" if pairs else path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class SluiceOnS3(servers.Sluice):
    """Sluice whose bucket is `s3://{bucket}/{prefix}`, with `keys` in its environment."""

    ready_timeout_s = 60.0

    def __init__(self, s3: S3, bucket: str, prefix: str, options: servers.Options,
                 keys: Keys | None = None):
        super().__init__(options)
        self._s3 = s3
        self._url = f"s3://{bucket}/{prefix}"
        self._keys = keys or s3.keys

    def config(self) -> str:
        return super().config() + "\n".join([
            "[bucket]", f'url = "{self._url}"', f'endpoint = "{self._s3.endpoint}"',
            f'region = "{REGION}"', "allow_http = true", ""])

    def environment(self) -> dict[str, str]:
        # Whatever else this machine knows of AWS is not for the test.
        ours = {k: v for k, v in super().environment().items() if not k.startswith("AWS_")}
        # Little is remembered of what was read, so that tests know what must come from S3.
        return {**ours, **self._keys.environment(), "SLUICE_READER_CACHE_BYTES": "1MiB"}

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of the operators' listener; (0, "") while there is none."""
        connection = http.client.HTTPConnection(servers.HOST, self.http_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Name -> value; with labels, as they stand in the exposition: `name{op="get"}`."""
        status, text = self.http("/metrics")
        assert status == 200, f"/metrics answers {status}"
        found = re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.M)
        return {name: float(value) for name, value in found}

    def wait_for_journal(self) -> None:
        """Waits until the catalog is in the bucket, too: from then on its journal is quiet."""
        waiting.until(lambda: self.metrics()["sluice_catalog_journal_puts_total"] > 0
                      and self.metrics()["sluice_catalog_journal_lag_seconds"] == 0, 30,
                      "the catalog is in the bucket")
