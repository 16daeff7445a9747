"""etcd as a child process, and Sluice with its catalog in it."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile

from blackbox import servers, waiting


class Etcd:
    """One member, on loopback unless it is told otherwise. It keeps its data and its port over restarts."""

    def __init__(self, host: str = servers.HOST, inside: list[str] | None = None):
        """`inside`: what a command has to begin with to run where the host is."""
        self.data = pathlib.Path(tempfile.mkdtemp(prefix="sluice-etcd-"))
        self.endpoint = f"http://{host}:{servers.free_port()}"
        self._peer = f"http://{host}:{servers.free_port()}"
        self._inside = inside or []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.data / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, "etcd", "--name=one", f"--data-dir={self.data / 'data'}", "--logger=zap",
                 f"--listen-client-urls={self.endpoint}", f"--advertise-client-urls={self.endpoint}",
                 f"--listen-peer-urls={self._peer}", f"--initial-advertise-peer-urls={self._peer}",
                 f"--initial-cluster=one={self._peer}"], stdout=log, stderr=log)
        waiting.until(lambda: self.ctl("endpoint", "health") is not None, 20, "etcd serves", 0.2)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ctl(self, *arguments: str) -> str | None:
        """What etcdctl prints; None if it fails."""
        done = subprocess.run(["etcdctl", f"--endpoints={self.endpoint}", *arguments],
                              env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout if done.returncode == 0 else None

    def __enter__(self) -> "Etcd":
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


class SluiceOnEtcd(servers.Sluice):
    """Sluice whose catalog is in an etcd, under a prefix of its own."""

    def __init__(self, etcd: Etcd, prefix: str, options: servers.Options | None = None):
        super().__init__(options)
        self._etcd = etcd
        self._prefix = prefix

    def config(self) -> str:
        return super().config() + "\n".join([
            "[catalog]", 'store = "etcd"', f'etcd.endpoints = "{self._etcd.endpoint}"',
            f'etcd.prefix = "{self._prefix}"', 'etcd.request_timeout = "2s"', ""])
