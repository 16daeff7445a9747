"""Kafka's own tools, from its jars, each doing what a user would have it do.

A test is a function below whose name begins with `test_`; it gets a `Tools` and fails by raising. The order is
the order of the file; each uses topics and groups of its own.
"""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import re
import subprocess
import sys
import tempfile

from blackbox import servers, wire
from suites import jars
from suites.expected import Seen
from suites.work import Job, first_words, say

NAMES = ("kafka-tools",)
# A JVM's start is most of what a tool does.
AT_A_TIME = 3
GROUPS = "consumer.group."


def install(home: pathlib.Path) -> None:
    jars.install(home)


def suite(job: Job, _name: str) -> dict[str, Seen]:
    tests = {name[5:].replace("_", "-"): function for name, function in vars(sys.modules[__name__]).items()
             if name.startswith("test_")}
    with servers.new_server(servers.Options()) as server, \
            concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        wire.wait_for_coordinator(server.bootstrap)
        running = {name: pool.submit(_one, name, test, Tools(job, server.bootstrap, name))
                   for name, test in tests.items() if job.wants(name)}
        found = {name: test.result() for name, test in running.items()}
        server.assert_alive()
    return found


def _one(name: str, test, tools: "Tools") -> Seen:
    try:
        test(tools)
        seen = Seen("passed")
    except (AssertionError, subprocess.TimeoutExpired, ValueError, KeyError, IndexError) as error:
        tools.say(f"---- {type(error).__name__}: {error}")
        seen = Seen("failed", first_words(f"{type(error).__name__}: {error}"))
    say(f"  {name}: {seen.outcome}")
    return seen


class Tools:
    """Runs tools against one server and keeps what they print in the test's log."""

    def __init__(self, job: Job, bootstrap: str, test: str):
        self._job = job
        self.bootstrap = bootstrap
        self.name = test  # Its topics and groups begin with it.
        self.log = job.logs / f"{test}.log"

    def say(self, text: str) -> None:
        with open(self.log, "a") as log:
            log.write(text + "\n")

    def run(self, main: str, *arguments: object, stdin: str = "", code: int | None = 0,
            timeout_s: float = 120) -> str:
        """stdout of a tool that ends with `code` (None: any code, and stderr too)."""
        if not main.startswith(("org.", "kafka.")):
            main = f"org.apache.kafka.tools.{main}"
        command = ["nice", *jars.tool(self._job.home, main), *map(str, arguments)]
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=timeout_s, check=False)
        self.say(f"---- {main} {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}---- {done.returncode}")
        assert code is None or done.returncode == code, \
            f"{main} ended with {done.returncode}: {done.stdout[-300:]} {done.stderr[-500:]}"
        return done.stdout if code is not None else done.stdout + done.stderr

    def __call__(self, main: str, *arguments: object, **more) -> str:
        """The same with --bootstrap-server."""
        return self.run(main, "--bootstrap-server", self.bootstrap, *arguments, **more)

    def topic(self, partitions: int = 1, name: str = "t") -> str:
        topic = f"{self.name}-{name}"
        self("TopicCommand", "--create", "--topic", topic, "--partitions", partitions, "--replication-factor", 1)
        return topic

    def produce(self, topic: str, count: int, *arguments: object) -> None:
        """`count` records 0, 1, 2... by VerifiableProducer, all acknowledged."""
        lines = events(self("VerifiableProducer", "--topic", topic, "--max-messages", count,
                            "--throughput", -1, *arguments))
        acked = {int(line["value"]) for line in lines if line["name"] == "producer_send_success"}
        assert acked == set(range(count)), f"{len(acked)} of {count} acknowledged"

    def console(self, topic: str, count: int, *arguments: object) -> list[str]:
        """`count` values of a topic from its beginning, by the console consumer."""
        text = self("consumer.ConsoleConsumer", "--topic", topic, "--from-beginning", "--max-messages", count,
                    "--timeout-ms", 30_000, *arguments)
        return text.splitlines()

    def config_file(self, **properties: object) -> str:
        with tempfile.NamedTemporaryFile("w", suffix=".properties", dir=self._job.logs, delete=False) as file:
            file.writelines(f"{key.replace('_', '.')}={value}\n" for key, value in properties.items())
        return file.name


def events(text: str) -> list[dict]:
    """The JSON lines that the verifiable tools print."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


# ---- producing and consuming


def test_verifiable_producer_and_consumer(tools: Tools) -> None:
    verifiable(tools, "--group-protocol", "CLASSIC")


def test_verifiable_consumer_with_the_consumer_protocol(tools: Tools) -> None:
    verifiable(tools, "--group-protocol", "CONSUMER", "--group-remote-assignor", "uniform")


def test_verifiable_consumer_static_and_cooperative(tools: Tools) -> None:
    verifiable(tools, "--group-protocol", "CLASSIC", "--group-instance-id", "one", "--assignment-strategy",
               "org.apache.kafka.clients.consumer.CooperativeStickyAssignor")


def verifiable(tools: Tools, *arguments: object) -> None:
    topic, count = tools.topic(partitions=3), 5000
    tools.produce(topic, count)
    lines = events(tools("VerifiableConsumer", "--topic", topic, "--group-id", tools.name, "--max-messages", count,
                         "--verbose", *arguments))
    values = [int(line["value"]) for line in lines if line["name"] == "record_data"]
    assert sorted(values) == list(range(count)), f"{len(values)} records, {len(set(values))} different"
    commits = [line for line in lines if line["name"] == "offsets_committed"]
    assert commits and all(line["success"] for line in commits), commits
    assert sum(part["offset"] for part in commits[-1]["offsets"]) <= count
    described = tools(GROUPS + "ConsumerGroupCommand", "--describe", "--group", tools.name)
    lag = re.findall(rf"^{tools.name}\s+{topic}\s+\d+\s+\d+\s+\d+\s+(\d+)\b", described, re.M)
    assert lag and set(lag) == {"0"}, described


def test_verifiable_share_consumer(tools: Tools) -> None:
    share(tools, "auto")


def test_verifiable_share_consumer_sync(tools: Tools) -> None:
    share(tools, "sync")


def test_verifiable_share_consumer_async(tools: Tools) -> None:
    share(tools, "async")


def share(tools: Tools, mode: str) -> None:
    topic, count = tools.topic(partitions=2), 2000
    tools.produce(topic, count)
    lines = events(tools("VerifiableShareConsumer", "--topic", topic, "--group-id", tools.name, "--max-messages", count,
                         "--acknowledgement-mode", mode, "--offset-reset-strategy", "earliest", "--verbose"))
    values = [int(line["value"]) for line in lines if line["name"] == "record_data"]
    assert set(values) == set(range(count)), f"{len(values)} records, {len(set(values))} different"
    acknowledged = sum(line["count"] for line in lines if line["name"] == "offsets_acknowledged" and line["success"])
    assert acknowledged >= count, f"{acknowledged} acknowledged"


def test_transactional_message_copier(tools: Tools) -> None:
    copy(tools)


def test_transactional_message_copier_with_aborts(tools: Tools) -> None:
    copy(tools, "--enable-random-aborts", "--use-group-metadata")


def test_transactional_message_copier_in_a_group(tools: Tools) -> None:
    copy(tools, "--group-mode", "--enable-random-aborts", "--use-group-metadata")


def copy(tools: Tools, *arguments: object) -> None:
    """The output, read committed, is the input: each once, in order."""
    source, target, count = tools.topic(name="in"), tools.topic(name="out"), 1000
    tools.produce(source, count)
    lines = events(tools.run("TransactionalMessageCopier", "--broker-list", tools.bootstrap, "--input-topic", source,
                             "--input-partition", 0, "--output-topic", target, "--max-messages", -1,
                             "--consumer-group", tools.name, "--transaction-size", 50,
                             "--transactional-id", tools.name, *arguments))
    done = [line for line in lines if line.get("stage") == "ShutdownComplete" or line.get("shutdown_complete") == "true"]
    assert done, lines[-3:]
    config = tools.config_file(isolation_level="read_committed")
    values = [int(v) for v in tools.console(target, count, "--command-config", config)]
    assert values == list(range(count)), f"{len(values)} values, {len(set(values))} different: {values[:20]}"


def test_client_compatibility(tools: Tools) -> None:
    yes = ("offsets-for-times-supported", "cluster-id-supported", "create-topics-supported",
           "describe-configs-supported", "idempotent-producer-supported")
    arguments = [word for feature in yes for word in (f"--{feature}", "true")]
    # Sluice serves no ACLs yet; the oracle has no authorizer, which the tool takes for support.
    arguments += ["--describe-acls-supported", str(servers.kind() == "kafka").lower()]
    text = tools("ClientCompatibilityTest", "--topic", tools.topic(), "--num-cluster-nodes", 1,
                 "--expect-record-too-large-exception", "false", *arguments)
    assert "SUCCESS" in text, text


def test_console_producer_and_consumer(tools: Tools) -> None:
    topic = tools.topic(partitions=2)
    tools("ConsoleProducer", "--topic", topic, "--reader-property", "parse.key=true", "--reader-property",
          "key.separator=:", "--compression-codec", "zstd", stdin="".join(f"k{n}:v{n}\n" for n in range(100)))
    lines = tools.console(topic, 100, "--formatter-property", "print.key=true", "--formatter-property",
                          "key.separator=:", "--group", tools.name)
    assert sorted(lines) == sorted(f"k{n}:v{n}" for n in range(100)), lines[:5]


def test_console_share_consumer(tools: Tools) -> None:
    topic = tools.topic()
    tools("kafka.admin.ConfigCommand", "--alter", "--entity-type", "groups", "--entity-name", tools.name,
          "--add-config", "share.auto.offset.reset=earliest")
    tools("ConsoleProducer", "--topic", topic, stdin="".join(f"v{n}\n" for n in range(100)))
    text = tools("consumer.ConsoleShareConsumer", "--topic", topic, "--group", tools.name, "--max-messages", 100,
                 "--timeout-ms", 30_000)
    assert sorted(text.splitlines()) == sorted(f"v{n}" for n in range(100)), text[:200]


def test_performance_tools(tools: Tools) -> None:
    topic = tools.topic(partitions=2)
    text = tools("ProducerPerformance", "--topic", topic, "--num-records", 20_000, "--record-size", 200,
                 "--throughput", -1)
    assert "20000 records sent" in text, text
    text = tools("ConsumerPerformance", "--topic", topic, "--num-records", 20_000, "--group", tools.name,
                 "--timeout", 60_000)
    assert re.search(r", 20\d\d\d, ", text), text
    text = tools.run("EndToEndLatency", "--bootstrap-server", tools.bootstrap, "--topic", topic, "--num-records", 200,
                     "--producer-acks", "all", "--record-size", 100)
    assert "Avg latency" in text, text


def test_transactional_producer_performance(tools: Tools) -> None:
    topic = tools.topic()
    text = tools("ProducerPerformance", "--topic", topic, "--num-records", 5000, "--record-size", 100,
                 "--throughput", -1, "--transactional-id", tools.name, "--transaction-duration-ms", 100)
    assert "5000 records sent" in text, text
    # Control records take offsets too, so the end is past 5,000.
    end = int(tools("GetOffsetShell", "--topic", topic).strip().rpartition(":")[2])
    assert end > 5000, end
    listed = tools("TransactionsCommand", "list")
    assert re.search(rf"{tools.name}.*CompleteCommit", listed), listed
    described = tools("TransactionsCommand", "describe", "--transactional-id", tools.name)
    assert "CompleteCommit" in described, described


def test_share_consumer_performance(tools: Tools) -> None:
    topic = tools.topic()
    tools("kafka.admin.ConfigCommand", "--alter", "--entity-type", "groups", "--entity-name", tools.name,
          "--add-config", "share.auto.offset.reset=earliest")
    tools.produce(topic, 5000)
    text = tools("ShareConsumerPerformance", "--topic", topic, "--group", tools.name, "--num-records", 5000,
                 "--timeout", 60_000)
    assert re.search(r"\b5\d\d\d\b", text), text


# ---- administration


def test_topics(tools: Tools) -> None:
    topic = tools.topic(partitions=2)
    assert topic in tools("TopicCommand", "--list").splitlines()
    tools("TopicCommand", "--alter", "--topic", topic, "--partitions", 5)
    text = tools("TopicCommand", "--describe", "--topic", topic)
    assert "PartitionCount: 5" in text and "ReplicationFactor: 1" in text, text
    assert len(re.findall(r"Leader: \d+\s+Replicas: \d+\s+Isr: \d+", text)) == 5, text
    again = tools("TopicCommand", "--create", "--topic", topic, code=None)
    assert "already exists" in again, again
    fewer = tools("TopicCommand", "--alter", "--topic", topic, "--partitions", 2, code=None)
    assert "would not be an increase" in fewer or "which is higher" in fewer, fewer
    tools("TopicCommand", "--delete", "--topic", topic)
    assert topic not in tools("TopicCommand", "--list").splitlines()


def test_configs(tools: Tools) -> None:
    topic = tools.topic()
    config = "kafka.admin.ConfigCommand"
    tools(config, "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config",
          "retention.ms=12345000,cleanup.policy=[compact,delete]")
    text = tools(config, "--describe", "--entity-type", "topics", "--entity-name", topic)
    assert "retention.ms=12345000" in text and "cleanup.policy=compact,delete" in text, text
    tools(config, "--alter", "--entity-type", "topics", "--entity-name", topic, "--delete-config", "retention.ms")
    text = tools(config, "--describe", "--entity-type", "topics", "--entity-name", topic, "--all")
    assert "retention.ms=604800000" in text and "segment.bytes=" in text, text
    wrong = tools(config, "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config",
                  "retention.ms=soon", code=None)
    assert "Invalid value soon for configuration retention.ms" in wrong, wrong
    assert "Dynamic configs for broker" in tools(config, "--describe", "--entity-type", "brokers", "--entity-name",
                                                 broker_id(tools))
    assert "log.retention" in tools(config, "--describe", "--entity-type", "brokers", "--entity-name",
                                    broker_id(tools), "--all")


def broker_id(tools: Tools) -> str:
    return re.search(r"\(id: (\d+) ", tools("BrokerApiVersionsCommand")).group(1)


def test_group_configs(tools: Tools) -> None:
    config = "kafka.admin.ConfigCommand"
    tools(config, "--alter", "--entity-type", "groups", "--entity-name", tools.name, "--add-config",
          "consumer.session.timeout.ms=50000")
    text = tools(config, "--describe", "--entity-type", "groups", "--entity-name", tools.name)
    assert "consumer.session.timeout.ms=50000" in text, text


def test_client_metrics(tools: Tools) -> None:
    tools("ClientMetricsCommand", "--alter", "--name", tools.name, "--metrics", "org.apache.kafka.producer.",
          "--interval", 30_000)
    assert tools.name in tools("ClientMetricsCommand", "--list").splitlines()
    text = tools("ClientMetricsCommand", "--describe", "--name", tools.name)
    assert "interval.ms=30000" in text and "metrics=org.apache.kafka.producer." in text, text
    tools("ClientMetricsCommand", "--delete", "--name", tools.name)
    assert tools.name not in tools("ClientMetricsCommand", "--list").splitlines()


def test_consumer_groups(tools: Tools) -> None:
    topic, groups = tools.topic(), GROUPS + "ConsumerGroupCommand"
    tools.produce(topic, 100)
    tools.console(topic, 40, "--group", tools.name, "--consumer-property", "max.poll.records=40")
    assert tools.name in tools(groups, "--list").split()
    assert re.search(rf"{tools.name}\s.*Empty", tools(groups, "--describe", "--group", tools.name, "--state"))
    tools(groups, "--reset-offsets", "--group", tools.name, "--topic", topic, "--to-offset", 7, "--execute")
    text = tools(groups, "--describe", "--group", tools.name)
    assert re.search(rf"{topic}\s+0\s+7\s+100\s+93", text), text
    tools(groups, "--delete-offsets", "--group", tools.name, "--topic", topic)
    tools(groups, "--delete", "--group", tools.name)
    assert tools.name not in tools(groups, "--list").split()


def test_groups(tools: Tools) -> None:
    topic = tools.topic()
    tools.produce(topic, 10)
    tools.console(topic, 10, "--group", tools.name)
    assert re.search(rf"^{tools.name}\s+Classic\s+consumer", tools("GroupsCommand", "--list"), re.M)


def test_share_groups(tools: Tools) -> None:
    topic, groups = tools.topic(), GROUPS + "ShareGroupCommand"
    tools("kafka.admin.ConfigCommand", "--alter", "--entity-type", "groups", "--entity-name", tools.name,
          "--add-config", "share.auto.offset.reset=earliest")
    tools.produce(topic, 100)
    tools("consumer.ConsoleShareConsumer", "--topic", topic, "--group", tools.name, "--max-messages", 100,
          "--timeout-ms", 30_000)
    assert tools.name in tools(groups, "--list").split()
    text = tools(groups, "--describe", "--group", tools.name)
    assert re.search(rf"{tools.name}\s+{topic}\s+0\s+\d+\b", text), text
    tools(groups, "--reset-offsets", "--group", tools.name, "--topic", topic, "--to-earliest", "--execute")
    text = tools(groups, "--describe", "--group", tools.name)
    assert re.search(rf"{tools.name}\s+{topic}\s+0\s+0\b", text), text
    tools(groups, "--delete", "--group", tools.name)
    assert tools.name not in tools(groups, "--list").split()


def test_streams_groups(tools: Tools) -> None:
    tools("streams.StreamsGroupCommand", "--list")
    text = tools("streams.StreamsGroupCommand", "--describe", "--group", tools.name, code=None)
    assert "not found" in text or "does not exist" in text, text


def test_get_offsets_and_delete_records(tools: Tools) -> None:
    topic = tools.topic()
    tools.produce(topic, 100)
    assert tools("GetOffsetShell", "--topic", topic).strip() == f"{topic}:0:100"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"version": 1, "partitions": [{"topic": topic, "partition": 0, "offset": 30}]}, file)
        file.flush()
        text = tools("DeleteRecordsCommand", "--offset-json-file", file.name)
    assert "low_watermark: 30" in text, text
    assert tools("GetOffsetShell", "--topic", topic, "--time", "earliest").strip() == f"{topic}:0:30"


def test_log_dirs(tools: Tools) -> None:
    topic = tools.topic()
    tools.produce(topic, 100)
    text = tools("LogDirsCommand", "--describe", "--topic-list", topic)
    (line,) = (line for line in text.splitlines() if line.startswith("{"))
    sizes = [part["size"] for broker in json.loads(line)["brokers"] for log in broker["logDirs"]
             for part in log["partitions"] if part["partition"] == f"{topic}-0"]
    assert len(sizes) == 1 and sizes[0] > 0, line


def test_transactions(tools: Tools) -> None:
    topic = tools.topic()
    idempotent = tools.config_file(enable_idempotence="true")
    tools("ConsoleProducer", "--topic", topic, "--command-config", idempotent, stdin="one\ntwo\n")
    text = tools("TransactionsCommand", "describe-producers", "--topic", topic, "--partition", 0)
    assert re.search(r"^\d+\s+0\s+", text, re.M), text
    tools("TransactionsCommand", "list")
    none = tools("TransactionsCommand", "describe", "--transactional-id", "nobody", code=None)
    assert "nobody" in none and "could not be found" in none, none
    hanging = tools("TransactionsCommand", "find-hanging", "--broker-id", broker_id(tools))
    assert topic not in hanging, hanging


def test_cluster(tools: Tools) -> None:
    at = ("--bootstrap-server", tools.bootstrap)
    assert re.search(r"Cluster ID: \S{10,}", tools.run("ClusterTool", "cluster-id", *at))
    text = tools.run("ClusterTool", "list-endpoints", *at)
    assert tools.bootstrap.partition(":")[0] in text, text
    assert "ApiVersions(18)" in tools("BrokerApiVersionsCommand")


def test_metadata_quorum(tools: Tools) -> None:
    text = tools("MetadataQuorumCommand", "describe", "--status")
    assert "LeaderId" in text and "HighWatermark" in text, text


def test_features(tools: Tools) -> None:
    text = tools("FeatureCommand", "describe")
    wanted = ["transaction.version", "group.version", "share.version", "streams.version"]
    if servers.kind() == "kafka":
        # Kafka's controllers' own; docs/kafka-compatibility.md says why Sluice has none.
        wanted.append("metadata.version")
    for feature in wanted:
        assert f"Feature: {feature}" in text, text


def test_leader_election(tools: Tools) -> None:
    topic = tools.topic()
    text = tools("LeaderElectionCommand", "--election-type", "preferred", "--topic", topic, "--partition", 0)
    assert "already" in text.lower() or "Valid replica" in text, text


def test_reassign_partitions(tools: Tools) -> None:
    text = tools("reassign.ReassignPartitionsCommand", "--list")
    assert "No partition reassignments found" in text, text
