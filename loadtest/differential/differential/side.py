"""One of the two servers as a scenario sees it: connections, what was answered, and setting up.

A scenario is run once on each side, with the same names, and never learns which side it is on. What
it does with `step` is recorded and compared; what it does with `do` prepares, and is not.
"""

from __future__ import annotations

import time
import uuid

from differential.connection import CLOSED, SILENT, Connection
from differential.schema import Catalogue

__all__ = ["CLOSED", "SILENT", "NotAnnounced", "Server", "Side", "WaitedInVain"]


class WaitedInVain(AssertionError):
    """What a scenario waits for did not come on this side."""


class NotAnnounced(Exception):
    """A scenario needs an API or a version that this side does not announce."""


class Server:
    """A running server: where it is, and what it says that it serves."""

    def __init__(self, kind: str, host: str, port: int, catalogue: Catalogue):
        self.kind, self.host, self.port, self.catalogue = kind, host, port, catalogue
        connection = Connection(host, port, catalogue, "differential")
        answer = connection.call("ApiVersions", 0, {})
        connection.close()
        self.announced = {
            catalogue.by_key[k["ApiKey"]]: (k["MinVersion"], k["MaxVersion"])
            for k in answer["ApiKeys"] if k["ApiKey"] in catalogue.by_key}

    def top(self, api: str) -> int:
        """The highest version of an API."""
        if api not in self.announced:
            raise NotAnnounced(f"{self.kind} does not announce {api}")
        return self.announced[api][1]


class Side:
    """One run of one scenario on one server."""

    def __init__(self, server: Server, prefix: str):
        self.server = server
        self.prefix = prefix
        # (label, api, version, answer) of each step, in the order of the script.
        self.transcript: list[tuple[str, str, int, dict]] = []
        # The topics that were made: id -> name.
        self.topics: dict[uuid.UUID, str] = {}
        self._connections: list[Connection] = []
        self._default: Connection | None = None

    # Names, the same on both sides and no other scenario's.
    def name(self, suffix: str = "t") -> str:
        return f"{self.prefix}-{suffix}"

    def mine(self, name: str | None) -> bool:
        """Whether a name is this run's: lists of all that there is hold other runs' names too."""
        return name is not None and name.startswith(self.prefix + "-")

    def connect(self, client_id: str | None = "differential") -> Connection:
        connection = Connection(self.server.host, self.server.port, self.server.catalogue, client_id)
        self._connections.append(connection)
        return connection

    @property
    def connection(self) -> Connection:
        if self._default is None:
            self._default = self.connect()
        return self._default

    def step(self, label: str, api: str, version: int, *, on: Connection | None = None,
             keep=None, wait_s: float | None = None, **fields) -> dict:
        """Sends, records the answer and returns it as it came. `keep` takes out of an answer what is to
        be compared, when it holds more than this scenario's own."""
        self.need(api, version)
        extra = {} if wait_s is None else {"wait_s": wait_s}
        answer = (on or self.connection).call(api, version, fields, **extra)
        self.record(label, api, version, keep(answer) if keep and "_connection" not in answer else answer)
        return answer

    def record(self, label: str, api: str, version: int, answer: dict) -> None:
        self.transcript.append((label, api, version, answer))

    def do(self, api: str, version: int | None = None, *, on: Connection | None = None, **fields) -> dict:
        """Sends without recording, at the highest version unless one is said."""
        version = self.server.top(api) if version is None else version
        self.need(api, version)
        answer = (on or self.connection).call(api, version, fields)
        if "_connection" in answer:
            raise AssertionError(f"{self.server.kind}: {api} v{version}: {answer}")
        return answer

    def need(self, api: str, version: int) -> None:
        low, high = self.server.announced.get(api, (0, -1))
        if not low <= version <= high:
            raise NotAnnounced(f"{self.server.kind} does not announce {api} {version}")

    def until(self, what: str, probe, limit_s: float = 30.0):
        """Repeats `probe` until it gives something true, and returns that. Some of Kafka's answers
        follow a change only after a moment."""
        end = time.monotonic() + limit_s
        while True:
            got = probe()
            if got:
                return got
            if time.monotonic() > end:
                raise WaitedInVain(f"{self.server.kind}: waited {limit_s} s for: {what}")
            time.sleep(0.02)

    # Setting up.
    def topic(self, suffix: str = "t", partitions: int = 1, **configs: str) -> "Topic":
        """Makes a topic and returns when it can be used."""
        name = self.name(suffix)
        answer = self.do("CreateTopics", Topics=[{
            "Name": name, "NumPartitions": partitions, "ReplicationFactor": 1,
            "Configs": [{"Name": k.replace("_", "."), "Value": v} for k, v in configs.items()],
        }], timeoutMs=30_000)
        code = answer["Topics"][0]["ErrorCode"]
        if code:
            raise AssertionError(f"{self.server.kind}: topic {name} is not made: {code}")
        return self.wait_for_topic(name, partitions)

    def wait_for_topic(self, name: str, partitions: int) -> "Topic":
        def led():
            answer = self.do("Metadata", Topics=[{"Name": name}], AllowAutoTopicCreation=False)
            topic = answer["Topics"][0]
            made = topic["ErrorCode"] == 0 and len(topic["Partitions"]) == partitions
            if made and all(p["ErrorCode"] == 0 and p["LeaderId"] >= 0 for p in topic["Partitions"]):
                # Kafka's log is opened a little after the metadata says so.
                listed = self.do("ListOffsets", ReplicaId=-1, Topics=[{"Name": name, "Partitions": [
                    {"PartitionIndex": p, "Timestamp": -1} for p in range(partitions)]}])
                if all(p["ErrorCode"] == 0 for p in listed["Topics"][0]["Partitions"]):
                    return topic
            return None

        topic = self.until(f"topic {name} has leaders", led)
        self.topics[topic["TopicId"]] = name
        epochs = {p["PartitionIndex"]: p["LeaderEpoch"] for p in topic["Partitions"]}
        return Topic(name, topic["TopicId"], [epochs[i] for i in range(partitions)])

    def produce(self, topic: "Topic", content: bytes, partition: int = 0, acks: int = -1,
                transactional_id: str | None = None) -> dict:
        """Produces at the highest version; returns the partition's answer, which is no error."""
        answer = self.do("Produce", TransactionalId=transactional_id, Acks=acks, TimeoutMs=30_000,
                         TopicData=[{"Name": topic.name, "TopicId": topic.id, "PartitionData": [
                             {"Index": partition, "Records": content}]}])
        got = answer["Responses"][0]["PartitionResponses"][0]
        if got["ErrorCode"]:
            raise AssertionError(f"{self.server.kind}: produce to {topic.name}: {got}")
        return got

    def coordinator(self) -> None:
        """Returns when groups are served: Kafka makes and loads its offsets topic at the first question."""
        def served() -> bool:
            answer = self.do("OffsetFetch", 7, GroupId=self.name("warm"), Topics=None, RequireStable=False)
            found = self.do("FindCoordinator", 1, Key=self.name("warm"), KeyType=0)
            return answer["ErrorCode"] == 0 and found["ErrorCode"] == 0
        self.until("a group coordinator", served, 90)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class Topic:
    """A topic that was made: its name, its id, and the leader epoch of each partition."""

    def __init__(self, name: str, topic_id: uuid.UUID, epochs: list[int]):
        self.name, self.id, self.epochs = name, topic_id, epochs
