"""Apache Kafka's own command-line tools, run as their users run them: one process each.

The jars are those that `kafka-oracle install` fetches (SLUICE_ORACLE_HOME, default: the user's cache).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import subprocess

from blackbox.servers import HERE

_PACKAGE = "org.apache.kafka.tools."
#: The classes behind Kafka's shell scripts.
CLASSES = {
    "kafka-broker-api-versions": _PACKAGE + "BrokerApiVersionsCommand",
    "kafka-client-metrics": _PACKAGE + "ClientMetricsCommand",
    "kafka-cluster": _PACKAGE + "ClusterTool",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-consumer-groups": _PACKAGE + "consumer.group.ConsumerGroupCommand",
    "kafka-delete-records": _PACKAGE + "DeleteRecordsCommand",
    "kafka-features": _PACKAGE + "FeatureCommand",
    "kafka-get-offsets": _PACKAGE + "GetOffsetShell",
    "kafka-groups": _PACKAGE + "GroupsCommand",
    "kafka-leader-election": _PACKAGE + "LeaderElectionCommand",
    "kafka-log-dirs": _PACKAGE + "LogDirsCommand",
    "kafka-metadata-quorum": _PACKAGE + "MetadataQuorumCommand",
    "kafka-reassign-partitions": _PACKAGE + "reassign.ReassignPartitionsCommand",
    "kafka-topics": _PACKAGE + "TopicCommand",
    "kafka-transactions": _PACKAGE + "TransactionsCommand",
}


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a tool ended and what it wrote; warnings of its logging set-up are left out."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        """The output of a tool that has succeeded."""
        assert self.code == 0 and "Error" not in self.out, self
        return self.out

    def failed(self) -> str:
        """All that a tool wrote that has failed."""
        assert self.code == 1, self
        return self.out + self.err


@functools.cache
def _jars() -> str:
    subprocess.run([HERE / "kafka-oracle", "install"], check=True)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    home = pathlib.Path(os.environ.get("SLUICE_ORACLE_HOME") or cache / "sluice-clients/oracle")
    return f"{home}/lib/*"


def run(bootstrap: str, tool: str, *arguments: str, timeout_s: float = 90) -> Ran:
    """Runs a tool to its end."""
    server = ["--bootstrap-server", bootstrap]
    # It belongs to the command of some tools, and to the sub-command of this one.
    words = [*arguments, *server] if tool == "kafka-cluster" else [*server, *arguments]
    done = subprocess.run(
        ["java", "-Xmx192m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
         "-Dorg.apache.logging.log4j.level=OFF", "-cp", _jars(), CLASSES[tool], *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s)
    kept = [line for line in done.stderr.splitlines() if "StatusLogger" not in line]
    return Ran(done.returncode, done.stdout, "\n".join(kept))
