"""Kafka's own tools against the server: what they print, and the exit code that scripts look at.

What cannot apply to a service that operators run for tenants fails with a clear error of Kafka's, and
changes nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer

from blackbox import tools, waiting

ORACLE = os.environ.get("SLUICE_TEST_KIND") == "kafka"
#: How the head of a tool's table begins.
HEADS = ("GROUP", "TOPIC", "ID", "TransactionalId", "CoordinatorId", "ProducerId", "Topic")
#: A producer that says when its transaction is open and durable, and then waits to be killed.
LEAVES_OPEN = """
import sys
from confluent_kafka import Producer
bootstrap, name, topic = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": name})
producer.init_transactions(60)
producer.begin_transaction()
producer.produce(topic, b"open", partition=0)
assert producer.flush(60) == 0
print("open", flush=True)
sys.stdin.read()
"""
sluice_only = pytest.mark.skipif(ORACLE, reason="a Kafka of one's own lets its user do this")


@pytest.fixture
def tool(bootstrap):
    """Runs a tool: `tool("kafka-topics", "--list")`."""
    return lambda name, *arguments: tools.run(bootstrap, name, *arguments)


def fill(bootstrap: str, topic: str, count: int) -> int:
    """Puts records into partition 0, a millisecond apart; gives the time of the first one."""
    producer = Producer({"bootstrap.servers": bootstrap})
    begun_ms = int(time.time() * 1000)
    for i in range(count):
        producer.produce(topic, value=b"%d" % i, partition=0, timestamp=begun_ms + i)
    assert producer.flush(30) == 0
    return begun_ms


def broker_id(admin) -> str:
    return str(next(iter(admin.list_topics(timeout=10).brokers)))


def table(text: str) -> list[list[str]]:
    """The rows of a table without its head, cut at white space."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    heads = [at for at, row in enumerate(rows) if row[0] in HEADS]
    return rows[heads[0] + 1:] if heads else []


def test_topics(tool, name):
    out = tool("kafka-topics", "--create", "--topic", name, "--partitions", "2",
               "--config", "retention.ms=60000").ok()
    assert f"Created topic {name}." in out
    again = tool("kafka-topics", "--create", "--topic", name)
    assert f"Topic '{name}' already exists." in again.failed()
    waiting.until(lambda: name in tool("kafka-topics", "--list").ok().split(), 30, "it is listed")
    described = tool("kafka-topics", "--describe", "--topic", name).ok()
    assert re.search(r"PartitionCount: 2\s+ReplicationFactor: 1\s+Configs: .*retention.ms=60000",
                     described), described
    assert len(re.findall(r"Partition: \d+\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)) == 2
    tool("kafka-topics", "--alter", "--topic", name, "--partitions", "3").ok()
    fewer = tool("kafka-topics", "--alter", "--topic", name, "--partitions", "1").failed()
    assert f"The topic {name} currently has 3 partition(s); 1 would not be an increase." in fewer
    same = tool("kafka-topics", "--alter", "--topic", name, "--partitions", "3").failed()
    assert "Topic already has 3 partition(s)." in same
    tool("kafka-topics", "--delete", "--topic", name).ok()
    gone = lambda: tool("kafka-topics", "--describe", "--topic", name).code == 1
    waiting.until(gone, 30, "it is gone")


def test_configs_of_topics_and_groups(tool, topic, name):
    made = topic()
    out = tool("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", made,
               "--add-config", "retention.ms=70000,cleanup.policy=[compact,delete]").ok()
    assert f"Completed updating config for topic {made}." in out

    def described() -> str:
        return tool("kafka-configs", "--describe", "--entity-type", "topics", "--entity-name",
                    made).ok()

    expected = "retention.ms=70000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=70000}"
    waiting.until(lambda: expected in described(), 30, "the config is shown")
    assert "cleanup.policy=compact,delete" in described()
    wrong = tool("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", made,
                 "--add-config", "no.such.config=1").failed()
    assert "InvalidConfigurationException: Unknown topic config name: no.such.config" in wrong
    tool("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", made,
         "--delete-config", "retention.ms").ok()
    waiting.until(lambda: "retention.ms" not in described(), 30, "the config is gone")

    out = tool("kafka-configs", "--alter", "--entity-type", "groups", "--entity-name", name,
               "--add-config", "consumer.session.timeout.ms=50000").ok()
    assert f"Completed updating config for group {name}." in out
    expected = "synonyms={DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, " \
               "DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000}"
    group = lambda: tool("kafka-configs", "--describe", "--entity-type", "groups", "--entity-name",
                         name).ok()
    waiting.until(lambda: expected in group(), 30, "the group's config is shown")
    wrong = tool("kafka-configs", "--alter", "--entity-type", "groups", "--entity-name", name,
                 "--add-config", "consumer.session.timeout.ms=1").failed()
    assert "consumer.session.timeout.ms must be greater than or equal to " \
           "group.consumer.min.session.timeout.ms" in wrong
    tool("kafka-configs", "--alter", "--entity-type", "groups", "--entity-name", name,
         "--delete-config", "consumer.session.timeout.ms").ok()


@sluice_only
def test_configs_of_brokers_are_the_tenants_but_for_the_machine(tool, admin):
    own = broker_id(admin)
    describe = lambda *more: tool("kafka-configs", "--describe", *more, "--entity-type", "brokers",
                                  "--entity-name", own).ok()
    assert f"node.id={own}" in describe("--all")
    alter = lambda *change: tool("kafka-configs", "--alter", "--entity-type", "brokers",
                                 "--entity-name", own, *change)
    # A default of topics: other tests use the server too, so that it changes little.
    alter("--add-config", "log.retention.ms=604799999").ok()
    expected = "DYNAMIC_BROKER_CONFIG:log.retention.ms=604799999"
    waiting.until(lambda: expected in describe(), 30, "the config is shown")
    alter("--delete-config", "log.retention.ms").ok()
    waiting.until(lambda: expected not in describe(), 30, "the config is gone")
    refused = alter("--add-config", "num.network.threads=64").failed()
    assert "InvalidRequestException" in refused, refused
    loggers = tool("kafka-configs", "--describe", "--entity-type", "broker-loggers",
                   "--entity-name", own).ok()
    assert "INFO" not in loggers


def test_client_metrics(tool, name):
    out = tool("kafka-client-metrics", "--alter", "--name", name, "--metrics",
               "org.apache.kafka.producer.", "--interval", "1000", "--match",
               "client_id=never").ok()
    assert f"Altered client metrics config for {name}." in out
    waiting.until(lambda: name in tool("kafka-client-metrics", "--list").ok().split(), 30, "listed")
    described = tool("kafka-client-metrics", "--describe", "--name", name).ok()
    assert re.search(r"interval\.ms=1000\s+match=client_id=never\s+"
                     r"metrics=org\.apache\.kafka\.producer\.", described), described
    wrong = tool("kafka-client-metrics", "--alter", "--name", name, "--interval", "1").failed()
    assert "interval must be between 100 and 3600000" in wrong
    assert f"Deleted client metrics config for {name}." in \
        tool("kafka-client-metrics", "--delete", "--name", name).ok()
    gone = lambda: name not in tool("kafka-client-metrics", "--list").ok().split()
    waiting.until(gone, 30, "it is gone")


def test_offsets_and_records(tool, bootstrap, topic, tmp_path):
    made = topic(partitions=2)
    begun_ms = fill(bootstrap, made, 10)

    def at(when: str) -> list[str]:
        return tool("kafka-get-offsets", "--topic", made, "--time", when).ok().split()

    assert at("latest") == [f"{made}:0:10", f"{made}:1:0"]
    assert at("earliest") == [f"{made}:0:0", f"{made}:1:0"]
    # A partition without a record for the question has no line.
    assert at("max-timestamp") == [f"{made}:0:9"]
    assert at(str(begun_ms + 4)) == [f"{made}:0:4"]
    assert at(str(begun_ms + 999)) == []
    order = tmp_path / "delete.json"
    order.write_text(json.dumps(
        {"version": 1, "partitions": [{"topic": made, "partition": 0, "offset": 4}]}))
    out = tool("kafka-delete-records", "--offset-json-file", str(order)).ok()
    assert f"partition: {made}-0\tlow_watermark: 4" in out
    assert at("-2")[0] == f"{made}:0:4"
    order.write_text(json.dumps(
        {"version": 1, "partitions": [{"topic": made, "partition": 0, "offset": 99}]}))
    out = tool("kafka-delete-records", "--offset-json-file", str(order))
    assert f"partition: {made}-0\terror: " in out.out and "OffsetOutOfRange" in out.out


def test_consumer_groups(tool, bootstrap, topic, name):
    made = topic()
    fill(bootstrap, made, 10)
    of_group = ("--group", name)
    moved = tool("kafka-consumer-groups", *of_group, "--reset-offsets", "--to-offset", "4",
                 "--topic", made, "--execute").ok()
    assert table(moved) == [[name, made, "0", "4"]]
    described = tool("kafka-consumer-groups", *of_group, "--describe")
    assert f"Consumer group '{name}' has no active members." in described.out + described.err
    [row] = table(described.ok())
    assert row[:6] == [name, made, "0", "4", "10", "6"]
    [state] = table(tool("kafka-consumer-groups", *of_group, "--describe", "--state").ok())
    assert state[-2:] == ["Empty", "0"]
    assert name in tool("kafka-consumer-groups", "--list").ok().split()
    assert any(row[0] == name for row in table(tool("kafka-groups", "--list").ok()))
    out = tool("kafka-consumer-groups", *of_group, "--delete-offsets", "--topic", made).ok()
    assert table(out) == [[made, "0", "Successful"]]
    tool("kafka-consumer-groups", *of_group, "--reset-offsets", "--to-latest", "--topic", made,
         "--execute").ok()
    assert f"Deletion of requested consumer groups ('{name}') was successful." in \
        tool("kafka-consumer-groups", *of_group, "--delete").ok()
    unknown = tool("kafka-consumer-groups", "--group", name + "-never", "--describe")
    assert "GroupIdNotFoundException" in unknown.out


def test_log_dirs(tool, bootstrap, topic):
    made = topic()
    fill(bootstrap, made, 10)
    out = tool("kafka-log-dirs", "--describe", "--topic-list", made).ok()
    [answer] = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    [directory] = answer["brokers"][0]["logDirs"]
    assert directory["error"] is None
    [partition] = directory["partitions"]
    assert partition["partition"] == f"{made}-0" and partition["size"] > 0


def test_reassignments(tool, admin, topic, tmp_path):
    made, own = topic(), broker_id(admin)
    plan = tmp_path / "plan.json"

    def to(broker: str) -> None:
        replicas = [int(broker)]
        plan.write_text(json.dumps({"version": 1, "partitions": [
            {"topic": made, "partition": 0, "replicas": replicas}]}))

    to(own)
    out = tool("kafka-reassign-partitions", "--reassignment-json-file", str(plan), "--execute").ok()
    assert f"Successfully started partition reassignment for {made}-0" in out
    out = tool("kafka-reassign-partitions", "--reassignment-json-file", str(plan), "--verify").ok()
    assert f"Reassignment of partition {made}-0 is completed." in out
    out = tool("kafka-reassign-partitions", "--list").ok()
    assert "No partition reassignments found." in out
    to("4711")
    out = tool("kafka-reassign-partitions", "--reassignment-json-file", str(plan), "--execute")
    assert "Unknown broker id 4711" in out.failed()


def test_leader_election(tool, topic):
    made = topic()
    preferred = ("--election-type", "preferred")
    tool("kafka-leader-election", *preferred, "--all-topic-partitions").ok()
    out = tool("kafka-leader-election", *preferred, "--topic", made, "--partition", "0").ok()
    assert f"Valid replica already elected for partitions {made}-0" in out
    unknown = tool("kafka-leader-election", *preferred, "--topic", made + "-never",
                   "--partition", "0").failed()
    assert "UnknownTopicOrPartitionException" in unknown


@pytest.fixture
def left_open(bootstrap):
    """Makes transactions with one record in partition 0 whose producers are killed:
    `left_open(transactional_id, topic)`."""
    started = []

    def leave(transactional_id: str, to: str) -> None:
        producer = subprocess.Popen(
            [sys.executable, "-c", LEAVES_OPEN, bootstrap, transactional_id, to],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(producer)
        assert producer.stdout.readline() == "open\n"
        producer.kill()
        producer.wait()

    yield leave
    for producer in started:
        producer.kill()
        producer.wait()
        producer.stdin.close()
        producer.stdout.close()


def test_transactions_that_a_killed_producer_left_open(tool, bootstrap, admin, topic, name, left_open):
    made, idle = topic(), name + "-idle"
    fill(bootstrap, made, 3)
    left_open(name, made)
    Producer({"bootstrap.servers": bootstrap, "transactional.id": idle}).init_transactions(30)
    of_id, own = ("describe", "--transactional-id"), broker_id(admin)

    listed = table(tool("kafka-transactions", "list").ok())
    [row] = [row for row in listed if row[0] == name]
    producer_id = row[2]
    assert row == [name, own, producer_id, "Ongoing"] and int(producer_id) >= 0
    matching = table(tool("kafka-transactions", "list", "--transactional-id-pattern",
                          re.escape(name) + ".*").ok())
    assert sorted(row[::3] for row in matching) == [[name, "Ongoing"], [idle, "Empty"]]
    # An id without a transaction counts as one that runs since 1970, to Kafka too.
    running = table(tool("kafka-transactions", "list", "--duration-filter", "1").ok())
    assert {row[0] for row in running} >= {name, idle}
    longer = {row[0] for row in
              table(tool("kafka-transactions", "list", "--duration-filter", "86400000").ok())}
    assert idle in longer and name not in longer

    [row] = table(tool("kafka-transactions", *of_id, name).ok())
    coordinator, of, producer, epoch, state, timeout_ms, begun_ms, lasted_ms, partitions = row
    assert [coordinator, of, producer, state, timeout_ms, partitions] == \
        [own, name, producer_id, "Ongoing", "60000", f"{made}-0"]
    assert abs(time.time() * 1000 - int(begun_ms)) < 300_000 and 0 <= int(lasted_ms) < 300_000
    [row] = table(tool("kafka-transactions", *of_id, idle).ok())
    assert row[4:] == ["Empty", "60000", "None", "None"]
    unknown = tool("kafka-transactions", *of_id, name + "-never").failed()
    assert "Failed to describe transaction state of transactional-id" in unknown
    assert "could not be found" in unknown

    of_partition = ("--topic", made, "--partition", "0")
    rows = table(tool("kafka-transactions", "describe-producers", *of_partition).ok())
    [row] = [row for row in rows if row[0] == producer_id]
    assert [row[1], row[3], row[5]] == [epoch, "0", "3"]
    there = tool("kafka-transactions", "describe-producers", *of_partition, "--broker-id", own).ok()
    assert producer_id in [row[0] for row in table(there)]

    # Its coordinator knows of it and will end it, so it does not hang, however short the search.
    assert table(tool("kafka-transactions", "find-hanging", "--broker-id", own).ok()) == []
    search = ("find-hanging", "--topic", made, "--max-transaction-timeout", "0")
    assert table(tool("kafka-transactions", *search).ok()) == []

    nothing = tool("kafka-transactions", "abort", *of_partition, "--start-offset", "2").failed()
    assert f"Could not find any open transactions starting at offset 2 on partition {made}-0" in nothing

    # The next producer of that id ends it, as Kafka means it to be.
    Producer({"bootstrap.servers": bootstrap, "transactional.id": name}).init_transactions(30)
    [row] = table(tool("kafka-transactions", *of_id, name).ok())
    assert row[4] in ("CompleteAbort", "Empty") and row[6:8] == ["None", "None"]
    rows = table(tool("kafka-transactions", "describe-producers", *of_partition).ok())
    assert {row[5] for row in rows} == {"None"}


@sluice_only
def test_markers_are_the_services_to_write(tool, admin, topic, name, left_open):
    """No transaction hangs here, and none is a tenant's to cut short in one partition alone."""
    made = topic()
    left_open(name, made)
    refused = tool("kafka-transactions", "abort", "--topic", made, "--partition", "0",
                   "--start-offset", "0").failed()
    assert "Failed to abort transaction AbortTransactionSpec(" in refused
    assert "WRITE_TXN_MARKERS" in refused, refused
    [row] = table(tool("kafka-transactions", "describe", "--transactional-id", name).ok())
    assert row[4] == "Ongoing"


def test_cluster_and_quorum(tool, bootstrap, admin):
    cluster = re.search(r"Cluster ID: (\S{22})", tool("kafka-cluster", "cluster-id").ok())
    assert cluster
    status = tool("kafka-metadata-quorum", "describe", "--status").ok()
    assert re.search(rf"ClusterId:\s+{re.escape(cluster[1])}\n", status), status
    assert re.search(r"LeaderId:\s+\d+", status)
    assert "Leader" in tool("kafka-metadata-quorum", "describe", "--replication").ok()
    endpoints = table(tool("kafka-cluster", "list-endpoints").ok())
    host, _, port = bootstrap.rpartition(":")
    assert [row[:3] for row in endpoints] == [[broker_id(admin), host, port]]
    unknown = tool("kafka-cluster", "unregister", "--id", "4711").failed()
    assert "Broker ID 4711 is not currently registered" in unknown
    versions = tool("kafka-broker-api-versions").ok()
    assert re.search(r"Produce\(0\): 0 to 13 \[usable: 13\]", versions)


def test_features(tool):
    tool("kafka-features", "describe").ok()
    wrong = tool("kafka-features", "upgrade", "--feature", "no.such.feature=1").failed()
    assert "Could not upgrade no.such.feature to 1." in wrong
