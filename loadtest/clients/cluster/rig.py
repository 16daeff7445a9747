"""A cluster as its own processes: etcd, an S3 server, and nodes by their roles, each with a config file, a data
directory and a node id of its own, and mutual TLS between them.

`Cluster` owns all of them and ends them by the pids that it started. What a test does to them are signals
(`kill`, `stop`, `hang`, `wake`) and cuts of the network (`cut`, `heal`), which need `Namespaces`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile

from blackbox import servers, waiting
from blackbox.etcd import Etcd
from blackbox.s3 import REGION, S3
from cluster.certificates import Authority, Files
from cluster.net import Loopback, Namespaces

BUCKET = "cluster"
PREFIX = "/cluster/"


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a cluster is made of."""

    roles: tuple[str, ...] = ("writer", "writer", "writer", "gateway", "gateway")
    volumes: str = "object"
    volume_count: int = 6
    lease_s: float = 3
    balance: bool = False


class Node(servers.Sluice):
    """One process of a cluster."""

    ready_timeout_s = 60.0
    stop_timeout_s = 30.0

    def __init__(self, cluster: "Cluster", number: int, role: str):
        self.number, self.role, self.name = number, role, f"{role}{number}"
        self._cluster = cluster
        cluster.net.join(self.name)
        self.host = cluster.net.address(self.name)
        super().__init__()
        self.peer_port = servers.free_port()
        self.log_path = self.log_path.with_name(f"cluster-{os.getpid()}-{self.name}.log")
        self.log_path.unlink(missing_ok=True)
        self._files: Files = cluster.authority.sign(self.name, self.host)
        self._ready = re.compile("sluice is ready")

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_gateway(self) -> bool:
        return self.role in ("up", "gateway")

    @property
    def is_writer(self) -> bool:
        return self.role in ("up", "writer")

    def config(self) -> str:
        shape, files = self._cluster.shape, self._files
        lines = [
            f"node_id = {self.number}",
            "[kafka]", f'listen = "{self.bootstrap}"', "allow_unauthenticated_remote = true",
            "[http]", f'listen = "{self.host}:{self.http_port}"',
            "[catalog]", 'store = "etcd"', f'etcd.endpoints = "{self._cluster.etcd.endpoint}"',
            f'etcd.prefix = "{PREFIX}"', 'etcd.request_timeout = "2s"', 'etcd.connect_timeout = "500ms"',
            "[cluster]", f'listen = "{self.host}:{self.peer_port}"', f'lease = "{shape.lease_s:g}s"',
            f"balance = {str(shape.balance).lower()}", f'ca_file = "{files.ca}"', f'cert_file = "{files.cert}"',
            f'key_file = "{files.key}"',
            "[bucket]", f'url = "s3://{BUCKET}/c"', f'endpoint = "{self._cluster.s3.endpoint}"',
            f'region = "{REGION}"', "allow_http = true", 'request_timeout = "5s"', 'connect_timeout = "1s"',
            "[topics]", "auto_create = false",
            "[upload]", 'max_age = "1s"', 'max_age_idle = "1s"',
            "[groups]", 'initial_rebalance_delay = "0ms"',
            "[volumes]", f'kind = "{shape.volumes}"', f"count = {shape.volume_count}", 'size = "128MiB"',
            'linger = "20ms"']
        if shape.volumes == "file":
            lines.append(f'dir = "{self._cluster.shared}"')
        return "\n".join(lines) + "\n"

    def environment(self) -> dict[str, str]:
        ours = {k: v for k, v in super().environment().items() if not k.startswith("AWS_")}
        return {**ours, **self._cluster.s3.keys.environment()}

    def command(self) -> list[str]:
        self.data.mkdir(parents=True, exist_ok=True)
        config = self.log_path.with_suffix(".toml")
        config.write_text(self.config())
        return [*self._cluster.net.inside(self.name), self.binary(), self.role, "--data", str(self.data),
                "--config", str(config)]

    def hang(self) -> None:
        """SIGSTOP: it does nothing, and everything that it holds stays."""
        os.kill(self.pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Cluster:
    """etcd, S3 and nodes, all started; ends all of it."""

    def __init__(self, shape: Shape, net: Loopback | Namespaces):
        self.shape, self.net = shape, net
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="sluice-cluster-"))
        self.shared = self.directory / "volumes"
        self.shared.mkdir()
        self.authority = Authority(self.directory)
        self.etcd = Etcd(*self._at("etcd"))
        self.s3 = S3(*self._at("s3"))
        self.nodes: list[Node] = []

    def _at(self, host: str) -> tuple[str, list[str]]:
        self.net.join(host)
        return self.net.address(host), self.net.inside(host)

    def __enter__(self) -> "Cluster":
        try:
            self.etcd.start()
            self.s3.start()
            self.s3.make_bucket(BUCKET)
            self.nodes = [Node(self, number, role) for number, role in enumerate(self.shape.roles, 1)]
            for node in self.nodes:
                node.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        for node in self.nodes:
            if node.alive:
                # What is stopped is killed all the same, but is not reaped in order.
                node.wake()
            node.close()
        self.s3.close()
        self.etcd.close()
        self.net.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def gateways(self) -> list[Node]:
        return [node for node in self.nodes if node.is_gateway]

    @property
    def writers(self) -> list[Node]:
        return [node for node in self.nodes if node.is_writer]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.gateways)

    def owners(self) -> dict[str, tuple[int | None, int]]:
        """Volume -> its owner's node id and its epoch, as etcd has them."""
        text = self.etcd.ctl("get", "--prefix", f"{PREFIX}", "-w", "json")
        found: dict[str, tuple[int | None, int]] = {}
        for entry in json.loads(text or "{}").get("kvs", []):
            key = base64.b64decode(entry["key"]).decode(errors="replace")
            if "/volumes/" in key:
                record = json.loads(base64.b64decode(entry["value"]))
                found[key.rpartition("/")[2]] = (record.get("owner"), record["epoch"])
        return found

    def first_owner(self) -> Node:
        """Who has the first volume, and with it the coordinators of groups and transactions."""
        owners = self.owners()
        first = owners[min(owners)][0]
        return next(node for node in self.nodes if node.number == first)

    def wait_until_owned(self, by: set[int] | None = None, within_s: float = 30) -> None:
        """Every volume has an owner, all of which are of `by`."""
        def owned() -> bool:
            owners = self.owners()
            return bool(owners) and all(
                owner is not None and (by is None or owner in by) for owner, _ in owners.values())

        waiting.until(owned, within_s, f"every volume has an owner of {by}", 0.1)

    def mend(self) -> None:
        """Heals the network and starts what does not run, as a case that failed may have left it."""
        if self.net.can_cut:
            self.net.heal()
        if not self.etcd.is_running:
            self.etcd.start()
        for node in self.nodes:
            if node.alive:
                node.wake()
            else:
                node.start()
        self.wait_until_owned()
