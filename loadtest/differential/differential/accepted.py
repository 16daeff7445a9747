"""Where Sluice answers otherwise than Apache Kafka, and means to: the table of accepted differences.

An entry says what, why, and in which answers it shows. Each place must show in a full run: one that no
longer does fails the test, as does a difference that is not here. docs/kafka-compatibility.md is made
of this table.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from uuid import UUID

from differential.compare import ABSENT, Difference

ANY = object()


@dataclasses.dataclass(frozen=True, eq=False)
class Where:
    """Answers in which a difference shows. Patterns as in file names."""

    api: str
    path: str = "*"
    scenario: str = "*"
    step: str = "*"
    kafka: object = ANY
    ours: object = ANY

    def matches(self, found: Difference) -> bool:
        return (fnmatch.fnmatchcase(found.api, self.api)
                and fnmatch.fnmatchcase(found.path, self.path)
                and fnmatch.fnmatchcase(found.scenario, self.scenario)
                and fnmatch.fnmatchcase(found.step, self.step)
                and (self.kafka is ANY or self.kafka == found.kafka)
                and (self.ours is ANY or self.ours == found.ours))


@dataclasses.dataclass(frozen=True)
class Accepted:
    what: str  # One line: what a client of Kafka may notice.
    kafka: str
    here: str
    why: str
    where: tuple[Where, ...]
    # A defect, to be mended: it may show, and fails nothing when it no longer does. The report says so.
    mend: bool = False


def _key(key: int, low: int, high: int) -> dict:
    return {"ApiKey": key, "MinVersion": low, "MaxVersion": high}


def _config(name: str) -> "_feature":
    return _feature(name)


class _feature:  # noqa: N801  (reads as a value)
    """Equal to any feature of that name, whatever its levels."""

    def __init__(self, name: str):
        self._name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and other.get("Name") == self._name

    def __hash__(self) -> int:
        return hash(self._name)


ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "texts of errors", "often none beside the code", "a text that says what to do",
        "a code alone helps nobody; clients show the text if there is one",
        (Where("*", "*ErrorMessage", kafka=None, ours="<text>"),)),
    Accepted(
        "security APIs", "announced", "not announced yet",
        "ACLs, SCRAM, delegation tokens, client quotas and SASL come with tenancy",
        tuple(Where("ApiVersions", "ApiKeys", kafka=_key(k, low, high), ours=ABSENT) for k, low, high in (
            (17, 0, 1), (29, 1, 3), (30, 1, 3), (31, 1, 3), (36, 0, 2), (38, 1, 3), (39, 1, 2), (40, 1, 2),
            (41, 1, 3), (48, 0, 1), (49, 0, 1), (50, 0, 0), (51, 0, 0)))),
    Accepted(
        "APIs between brokers", "announced to clients too", "not announced",
        "a tenant is no broker: markers, share state and voters are not its to change",
        tuple(Where("ApiVersions", "ApiKeys", kafka=_key(k, low, high), ours=ABSENT) for k, low, high in (
            (27, 1, 2), (80, 0, 1), (81, 0, 0), (83, 0, 0), (84, 0, 0), (85, 0, 1), (86, 0, 0), (87, 0, 1)))),
    Accepted(
        "features of Kafka's controllers", "metadata.version, kraft.version, eligible.leader.replicas.version",
        "not listed", "there is no KRaft quorum whose format could be upgraded",
        (Where("ApiVersions", "SupportedFeatures", kafka=_feature("metadata.version"), ours=ABSENT),
         Where("ApiVersions", "SupportedFeatures", kafka=_feature("kraft.version"), ours=ABSENT),
         Where("ApiVersions", "SupportedFeatures", kafka=_feature("eligible.leader.replicas.version"), ours=ABSENT),
         Where("ApiVersions", "FinalizedFeatures", kafka=_feature("metadata.version"), ours=ABSENT),
         Where("ApiVersions", "FinalizedFeatures", kafka=_feature("eligible.leader.replicas.version"),
               ours=ABSENT))),
    Accepted(
        "lengths below -1 and text that is not UTF-8", "read as null, and as replacement characters",
        "the connection is closed", "nothing that is well-formed sends them",
        tuple(Where("Metadata", "_connection", "protocol.not_requests", step, ours="closed")
              for step in ("count -2", "client id -2", "name not UTF-8"))),
    Accepted(
        "records that are null", "no answer at all: the handler fails", "INVALID_RECORD",
        "a client that waits for an answer gets one",
        (Where("Produce", "*", "core.produce_null_records"),)),
    Accepted(
        "AddPartitionsToTxn without transactions", "no answer at all: it waits for none", "an empty answer",
        "a client that waits for an answer gets one",
        (Where("AddPartitionsToTxn", "*", step="no transactions"),)),
    Accepted(
        "a compression that does not exist", "UNKNOWN_SERVER_ERROR", "UNSUPPORTED_COMPRESSION_TYPE",
        "it is the client's fault, not the server's",
        (Where("Produce", "Responses.PartitionResponses.ErrorCode", step="unknown codec", kafka=-1, ours=76),
         Where("Produce", "Responses.PartitionResponses.LogStartOffset", step="unknown codec"))),
    Accepted(
        "the leader beside the error of a fetch as a replica", "told", "not told",
        "a tenant has no brokers that replicate, and could do nothing with it",
        (Where("Fetch", "Responses.Partitions.CurrentLeader.*", step="replica 5", ours=ABSENT),)),
    Accepted(
        "a resource named twice in AlterConfigs", "no answer at all", "INVALID_REQUEST for each",
        "a client that waits for an answer gets one",
        (Where("AlterConfigs", "*", step="topic twice"),)),
    Accepted(
        "a topic with neither name nor id in Metadata", "UNKNOWN_SERVER_ERROR, and no brokers",
        "INVALID_TOPIC_EXCEPTION for the topic", "the rest of the question can be answered",
        (Where("Metadata", "*", "core.metadata_by_id", "neither"),)),
    Accepted(
        "two names that differ in . and _ alone, in one CreateTopics", "both are made",
        "INVALID_TOPIC_EXCEPTION for the second", "as it is when they come one after another",
        (Where("CreateTopics", "Topics.*", "topics.create_name_clash", "both at once"),)),
    Accepted(
        "far too many partitions in CreatePartitions", "UNKNOWN_SERVER_ERROR", "POLICY_VIOLATION",
        "a tenant has a limit, and the text says which",
        (Where("CreatePartitions", "Results.ErrorCode", step="too many", kafka=-1, ours=44),)),
    Accepted(
        "min.insync.replicas", "also a default of the cluster, which the feature of eligible leaders sets",
        "a built-in default", "there are no replicas to be in sync",
        (Where("*", "*Configs.ConfigSource", kafka=3, ours=5),
         Where("DescribeConfigs", "Results.Configs.Synonyms", kafka=[
             {"Name": "min.insync.replicas", "Value": "1", "Source": 3},
             {"Name": "min.insync.replicas", "Value": "1", "Source": 5}]),
         Where("DescribeConfigs", "Results.Configs", step="cluster default", ours=ABSENT))),
    Accepted(
        "where a broker config comes from", "the default, where the server's file says nothing", "always the file",
        "the server does not tell the operator's value from its own default",
        (Where("DescribeConfigs", "Results.Configs.ConfigSource", step="what clients ask for", kafka=5, ours=4),)),
    Accepted(
        "an operation that does not exist in IncrementalAlterConfigs", "UNKNOWN_SERVER_ERROR",
        "INVALID_REQUEST", "it is the client's fault, not the server's",
        (Where("IncrementalAlterConfigs", "Responses.ErrorCode", step="unknown operation", kafka=-1, ours=42),)),
    Accepted(
        "size and room of log directories", "those of the disk", "-1, not known",
        "records lie in a bucket, whose size no tenant has",
        (Where("DescribeLogDirs", "Results.TotalBytes", ours=-1),
         Where("DescribeLogDirs", "Results.UsableBytes", ours=-1))),
    Accepted(
        "the high watermark of the metadata quorum", "that of the metadata log", "-1",
        "there is no metadata log",
        (Where("DescribeQuorum", "Topics.Partitions.HighWatermark", kafka=True, ours=False),)),
    Accepted(
        "the first heartbeat of a share group", "tells no partitions yet", "tells them",
        "what is to be known is known at once",
        (Where("ShareGroupHeartbeat", "Assignment.TopicPartitions*", step="join", kafka=ABSENT),)),
    Accepted(
        "ShareFetch of an empty group id or an unknown topic", "UNKNOWN_SERVER_ERROR", "what is known is answered",
        "the rest of a request is not spoiled",
        (Where("ShareFetch", "*", "share.share_fetch_bad", "empty group"),
         Where("ShareFetch", "*", "share.share_fetch_bad", "unknown topic"))),
    Accepted(
        "share offsets of an unknown topic", "no error", "UNKNOWN_TOPIC_OR_PARTITION", "it says what is wrong",
        (Where("DescribeShareGroupOffsets", "*", step="unknown topic"),)),
)


def find(found: Difference) -> Where | None:
    """The place in the table that covers a difference."""
    for entry in ACCEPTED:
        for where in entry.where:
            if where.matches(found):
                return where
    return None
