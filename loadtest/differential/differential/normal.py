"""Makes answers comparable: the declared normalisations, all in this file.

What differs between any two clusters is replaced by a name of its own, given in the order of first
sight within a run: the same id twice is the same name twice, another id another name. So a topic id
that changes between two steps, or a member id that is not the one that was given, is a difference.
"""

from __future__ import annotations

import re
import uuid

from differential import records
from differential.schema import ZERO_UUID

# Replaced by one word: these say how loaded a machine is, or at what time a test ran.
BLANK = {
    "ThrottleTimeMs": "throttle time",
    "LogAppendTimeMs": "time",
    "CommitTimestamp": "time",
    "StartTimestamp": "time",
    "TransactionStartTimeMs": "time",
    "LastTimestamp": "time",
    "IssueTimestampMs": "time",
    "LastFetchTimestamp": "time",
    "LastCaughtUpTimestamp": "time",
    "TotalBytes": "size of the disk",
    "UsableBytes": "free on the disk",
    "PushIntervalMs": "interval",
}
# Texts for people: whether there is one is compared, its words are not. None is null or empty.
TEXTS = {"ErrorMessage", "ErrorString", "BatchIndexErrorMessage", "Documentation", "StatusDetail"}
# Ids by kind; -1 and zero, which mean none, stay.
IDS = {
    "TopicId": "topic", "DirectoryId": "directory", "ClusterId": "cluster",
    "ReplicaDirectoryId": "directory", "ProducerId": "producer",
    "LeaderEpoch": "leader epoch", "CurrentLeaderEpoch": "leader epoch", "OffsetEpoch": "leader epoch",
    "CommittedLeaderEpoch": "leader epoch",
    # A coordinator's epoch grows with each owner; where it begins is the server's own.
    "CoordinatorEpoch": "coordinator epoch",
    # Kafka begins with 2 where a group has one member; what a number means is the server's own.
    "MemberEpoch": "group epoch", "GroupEpoch": "group epoch", "AssignmentEpoch": "group epoch",
    "ClientInstanceId": "client instance", "SubscriptionId": "subscription", "LogDir": "log dir",
    "SessionId": "session", "FinalizedFeaturesEpoch": "features epoch",
}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Kafka's own short form: 22 characters of URL-safe base64.
_SHORT_UUID = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])")
# What orders the elements of an array, and names them in a path: the first of these that all have.
KEYS = (
    "Name", "TopicName", "Topic", "TopicId", "GroupId", "Group", "PartitionIndex", "Partition",
    "PartitionId", "Index", "ApiKey", "ConfigName", "ResourceName", "Key", "TransactionalId", "NodeId", "BrokerId",
    "LogDir", "SubtopologyId", "Feature", "MemberId",
)


class Names:
    """The names that ids have got in one run."""

    def __init__(self, host: str, port: int, prefix: str, topics: dict[uuid.UUID, str]):
        self._host, self._port, self._prefix = host, port, prefix + "-"
        # Topics that the script has made are known by their names, so that they can be sorted.
        self._given: dict[tuple[str, object], str] = {
            ("topic", i): f"<id of {n.removeprefix(self._prefix)}>" for i, n in topics.items()}

    def of(self, kind: str, value: object) -> str:
        known = self._given.get((kind, value))
        if known is None:
            count = sum(1 for k, _ in self._given if k == kind) + 1
            known = self._given[kind, value] = f"<{kind} {count}>"
        return known

    def normal(self, value: object, field: str = "") -> object:
        """An answer, or a part of one, in its comparable form."""
        if field == "CurrentLeader" and value == {"LeaderId": 0, "LeaderEpoch": 0}:
            # Share fetches say nothing in this way: it is no epoch.
            return "<no leader told>"
        if isinstance(value, dict):
            return {k: self.normal(v, k) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.normal(v, field) for v in self._ordered(list(value), field)]
        if field in BLANK:
            return f"<{BLANK[field]}>" if value != -1 else -1
        if field in TEXTS:
            return "<text>" if value else None
        if field in ("Records", "Assignment", "ProtocolMetadata", "MemberMetadata", "MemberAssignment",
                     "Metadata") and isinstance(value, bytes):
            return value.hex()
        if field in IDS:
            # 0 is a producer id and an epoch of a leader like any other, and otherwise means none.
            zero = -1 if IDS[field] in ("producer", "leader epoch", "coordinator epoch") else 0
            none = value in (None, "", -1, -2, zero, ZERO_UUID)
            if none:
                return str(value) if isinstance(value, uuid.UUID) else value
            return self.of(IDS[field], value)
        if isinstance(value, uuid.UUID):
            return str(value) if value == ZERO_UUID else self.of("id", value)
        if field == "Host":
            return "<host>" if value == self._host else value
        if field == "Port":
            return "<port>" if value == self._port else value
        if isinstance(value, bytes):
            return value.hex()
        if isinstance(value, str):
            # The run's own names without what makes them unlike other runs'.
            text = value.removeprefix(self._prefix)
            text = _UUID.sub(lambda m: self.of("uuid", m.group()), text)
            if "ember" in field or field == "Leader":
                text = _SHORT_UUID.sub(lambda m: self.of("uuid", m.group()), text)
            return text
        return value

    def _ordered(self, elements: list, field: str) -> list:
        """Servers answer in the order of their hash tables: arrays of structures are sorted by their
        key. An array without one stays as it is."""
        key = key_of(elements)
        if key is None:
            # Numbers of partitions have no order either.
            return sorted(elements) if field == "Partitions" and all(isinstance(e, int) for e in elements) else elements
        if key == "TopicId":
            return sorted(elements, key=lambda e: self._given.get(("topic", e[key]), str(e[key])))
        return sorted(elements, key=lambda e: _rank(e[key]))


def key_of(elements: list) -> str | None:
    """The field that tells an array's elements apart."""
    if not elements or not all(isinstance(e, dict) for e in elements):
        return None
    for key in KEYS:
        if all(key in e for e in elements) and len({str(e[key]) for e in elements}) == len(elements):
            return key
    return None


def _rank(value: object) -> tuple:
    if isinstance(value, int):
        return False, value
    return True, _UUID.sub("", "" if value is None else str(value))


def taken_apart(answer: dict) -> dict:
    """A Fetch or ShareFetch answer with its record batches as structures."""
    def walk(value, field=""):
        if isinstance(value, dict):
            return {k: walk(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(v) for v in value]
        if field == "Records" and isinstance(value, bytes):
            return records.parse(value)
        return value
    return walk(answer)
