"""Topics and their configs, as three admin clients see them."""

from __future__ import annotations

import confluent_kafka
import kafka
import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
)

from blackbox import java, waiting
from blackbox.clients import CONSUMERS, PRODUCERS, Record
from conftest import wait_for_leaders


def code(call) -> int:
    """The Kafka error code that a librdkafka admin call fails with; 0 if it does not."""
    try:
        call()
    except confluent_kafka.KafkaException as e:
        return e.args[0].code()
    return 0


def create_code(admin, new: NewTopic, **options: object) -> int:
    return code(lambda: admin.create_topics([new], **options)[new.topic].result(20))


def test_create_describe_delete(bootstrap, admin, name):
    j = java.driver(bootstrap)
    assert create_code(admin, NewTopic(name, num_partitions=3)) == 0
    wait_for_leaders(admin, name, 3)
    assert create_code(admin, NewTopic(name, num_partitions=3)) == KafkaError.TOPIC_ALREADY_EXISTS
    assert name in j.call("topics")
    described = admin.describe_topics(confluent_kafka.TopicCollection([name]))[name].result(20)
    assert [p.id for p in described.partitions] == [0, 1, 2]
    assert all(p.leader is not None and len(p.replicas) == 1 == len(p.isr)
               for p in described.partitions)
    assert not described.is_internal
    topic_id = described.topic_id

    python = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
    assert len(python.describe_topics([name])[0]["partitions"]) == 3
    python.delete_topics([name])
    python.close()
    waiting.until(lambda: name not in j.call("topics"), 20, "the topic is gone")
    assert code(lambda: admin.delete_topics([name])[name].result(20)) == \
        KafkaError.UNKNOWN_TOPIC_OR_PART
    # The same name again is another topic: nothing of the old one is left.
    waiting.until(lambda: create_code(admin, NewTopic(name, num_partitions=1)) == 0, 20, "made again")
    wait_for_leaders(admin, name, 1)
    described = admin.describe_topics(confluent_kafka.TopicCollection([name]))[name].result(20)
    assert str(described.topic_id) != str(topic_id)


def test_a_topic_made_again_is_empty(bootstrap, admin, topic):
    made = topic()
    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"old")] * 10)
    admin.delete_topics([made])[made].result(20)
    waiting.until(lambda: create_code(admin, NewTopic(made, num_partitions=1)) == 0, 20, "made again")
    wait_for_leaders(admin, made, 1)
    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"new")])
    got = CONSUMERS["librdkafka"](bootstrap, made, 1)
    assert [(r.offset, r.value) for r in got] == [(0, b"new")]


def test_what_create_refuses(admin, name):
    refused = {
        KafkaError.TOPIC_EXCEPTION: [NewTopic("no spaces"), NewTopic("x" * 250), NewTopic(".."),
                                     NewTopic("ümlaut")],
        KafkaError.INVALID_PARTITIONS: [NewTopic(name, num_partitions=0)],
        KafkaError.INVALID_REPLICATION_FACTOR: [
            NewTopic(name, num_partitions=1, replication_factor=3),
            NewTopic(name, num_partitions=1, replication_factor=0)],
        KafkaError.INVALID_CONFIG: [NewTopic(name, num_partitions=1, config=c) for c in (
            {"no.such.key": "1"}, {"retention.ms": "soon"}, {"cleanup.policy": "shred"},
            {"max.message.bytes": "-5"})],
    }
    for expected, topics in refused.items():
        for new in topics:
            assert create_code(admin, new) == expected, (new.topic, new.config)
    assert name not in admin.list_topics(timeout=20).topics


def test_validate_only_makes_nothing(admin, name):
    assert create_code(admin, NewTopic(name, num_partitions=2), validate_only=True) == 0
    assert name not in admin.list_topics(timeout=20).topics
    assert create_code(admin, NewTopic(name, num_partitions=0), validate_only=True) == \
        KafkaError.INVALID_PARTITIONS


def test_longest_name(bootstrap, admin, name):
    longest = (name + "." + "x" * 249)[:249]
    assert create_code(admin, NewTopic(longest, num_partitions=1)) == 0
    wait_for_leaders(admin, longest, 1)
    PRODUCERS["librdkafka"](bootstrap, longest, "none", [Record(b"v")])
    assert len(CONSUMERS["java"](bootstrap, longest, 1)) == 1


def test_create_partitions(bootstrap, admin, topic):
    made = topic(partitions=2)

    def grow(to: int, **options: object) -> int:
        return code(lambda: admin.create_partitions([NewPartitions(made, to)], **options)[made].result(20))

    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"before", partition=1)])
    assert grow(5, validate_only=True) == 0
    assert len(admin.list_topics(made, timeout=20).topics[made].partitions) == 2
    assert grow(5) == 0
    wait_for_leaders(admin, made, 5)
    for to in (5, 4, 1):
        assert grow(to) == KafkaError.INVALID_PARTITIONS, to
    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"after", partition=4)])
    got = CONSUMERS["librdkafka"](bootstrap, made, 2)
    assert sorted((r.partition, r.value) for r in got) == [(1, b"before"), (4, b"after")]
    with pytest.raises(java.JavaError) as unknown:
        java.driver(bootstrap).call("create_partitions", topic=made + "-not", partitions=3)
    assert unknown.value.name == "UnknownTopicOrPartitionException"


def test_a_running_consumer_finds_new_partitions(bootstrap, admin, topic, name):
    made = topic(partitions=1)
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": name, "auto.offset.reset": "earliest",
        "topic.metadata.refresh.interval.ms": 500, "heartbeat.interval.ms": 500})
    consumer.subscribe([made])
    waiting.until(lambda: consumer.consume(1, 0.2) or len(consumer.assignment()) == 1, 30, "joined")
    admin.create_partitions([NewPartitions(made, 3)])[made].result(20)
    wait_for_leaders(admin, made, 3)
    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"v", partition=p) for p in range(3)])
    seen: set[int] = set()

    def all_seen() -> bool:
        seen.update(m.partition() for m in consumer.consume(10, 0.2) if m.error() is None)
        return seen == {0, 1, 2}

    waiting.until(all_seen, 45, "records of all three partitions")
    consumer.close()


def describe(admin, topic: str) -> dict[str, ConfigEntry]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return admin.describe_configs([resource])[resource].result(20)


def test_configs_with_defaults_and_synonyms(bootstrap, admin, topic):
    made = topic(config={"retention.ms": "3600000", "cleanup.policy": "compact"})
    configs = describe(admin, made)
    # What tools look for. Kafka Connect refuses an internal topic that is not "compact".
    assert configs["cleanup.policy"].value == "compact"
    assert configs["retention.ms"].value == "3600000"
    assert configs["retention.ms"].source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert not configs["retention.ms"].is_default
    assert configs["max.message.bytes"].value == str(1_048_588)
    assert configs["max.message.bytes"].is_default
    for key in ("retention.bytes", "segment.bytes", "min.insync.replicas", "compression.type",
                "message.timestamp.type", "delete.retention.ms"):
        assert key in configs, key
    j = java.driver(bootstrap).call("configs", topic=made)
    assert (j["retention.ms"]["source"], j["retention.ms"]["type"]) == ("DYNAMIC_TOPIC_CONFIG", "LONG")
    assert j["cleanup.policy"]["type"] == "LIST"
    assert ["retention.ms", "3600000", "DYNAMIC_TOPIC_CONFIG"] in j["retention.ms"]["synonyms"]
    assert any(source == "DEFAULT_CONFIG" for _, _, source in j["max.message.bytes"]["synonyms"])


def test_describe_configs_of_an_unknown_topic(admin, name):
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    assert code(lambda: admin.describe_configs([resource])[resource].result(20)) == \
        KafkaError.UNKNOWN_TOPIC_OR_PART


def test_alter_configs_incrementally(bootstrap, admin, topic):
    made = topic(config={"retention.ms": "3600000"})

    def alter(*entries: tuple[AlterConfigOpType, str, str | None]) -> int:
        resource = ConfigResource(ConfigResource.Type.TOPIC, made, incremental_configs=[
            ConfigEntry(k, v, incremental_operation=op) for op, k, v in entries])
        return code(lambda: admin.incremental_alter_configs([resource])[resource].result(20))

    def wait(key: str, value: str) -> None:
        waiting.until(lambda: describe(admin, made)[key].value == value, 20, f"{key} is {value}")

    Op = AlterConfigOpType
    assert alter((Op.SET, "max.message.bytes", "5000"), (Op.SET, "retention.bytes", "1000000")) == 0
    wait("max.message.bytes", "5000")
    assert describe(admin, made)["retention.ms"].value == "3600000", "the others stay"
    assert alter((Op.APPEND, "cleanup.policy", "compact")) == 0
    wait("cleanup.policy", "delete,compact")
    assert alter((Op.SUBTRACT, "cleanup.policy", "delete")) == 0
    wait("cleanup.policy", "compact")
    assert alter((Op.DELETE, "retention.ms", None)) == 0
    wait("retention.ms", "604800000")
    assert alter((Op.SET, "no.such.key", "1")) == KafkaError.INVALID_CONFIG
    assert alter((Op.SET, "retention.ms", "soon")) == KafkaError.INVALID_CONFIG
    assert alter((Op.APPEND, "retention.ms", "5")) == KafkaError.INVALID_CONFIG, "not a list"
    # A change acts: the new limit refuses what the old one took.
    with pytest.raises(confluent_kafka.KafkaException):
        PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"x" * 6000, key=b"k")])


def test_alter_configs_replaces_all(admin, topic):
    """The old AlterConfigs sets the whole of a topic's configs; what is not named goes."""
    made = topic(config={"retention.ms": "3600000", "max.message.bytes": "5000"})
    resource = ConfigResource(ConfigResource.Type.TOPIC, made, set_config={"retention.ms": "7200000"})
    admin.alter_configs([resource])[resource].result(20)
    waiting.until(lambda: describe(admin, made)["retention.ms"].value == "7200000", 20, "altered")
    assert describe(admin, made)["max.message.bytes"].value == str(1_048_588)


def test_log_append_time(bootstrap, topic):
    """The broker's time replaces the producer's, and a lookup by time goes by it."""
    made = topic(config={"message.timestamp.type": "LogAppendTime"})
    PRODUCERS["librdkafka"](bootstrap, made, "lz4", [Record(b"v", timestamp=1000)] * 3)
    got = CONSUMERS["librdkafka"](bootstrap, made, 3)
    assert all(r.timestamp > 1_600_000_000_000 for r in got)
    got = CONSUMERS["java"](bootstrap, made, 3)
    assert all(r.timestamp > 1_600_000_000_000 for r in got)
    j = java.driver(bootstrap)
    assert j.call("offset", topic=made, partition=0, spec="2000")[0] == 0


def test_compacted_topics_refuse_records_without_a_key(bootstrap, topic):
    made = topic(config={"cleanup.policy": "compact"})
    for producer in ("librdkafka", "java"):
        with pytest.raises((confluent_kafka.KafkaException, java.JavaError)) as refused:
            PRODUCERS[producer](bootstrap, made, "none", [Record(b"no key")])
        if producer == "librdkafka":
            assert refused.value.args[0].code() == KafkaError.INVALID_RECORD
        else:
            assert refused.value.name == "InvalidRecordException"
    PRODUCERS["librdkafka"](bootstrap, made, "none", [Record(b"v", key=b"k"), Record(None, key=b"k")])


def test_cluster(bootstrap, admin, server):
    d = admin.describe_cluster().result(20)
    assert d.cluster_id and d.controller.id == d.nodes[0].id
    assert [(n.host, n.port) for n in d.nodes] == [("127.0.0.1", server.port)]
    j = java.driver(bootstrap).call("cluster")
    assert j["id"] == d.cluster_id == admin.list_topics(timeout=20).cluster_id
    assert j["nodes"] == [[d.nodes[0].id, "127.0.0.1", server.port]]
