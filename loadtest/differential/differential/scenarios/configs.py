"""Configs of topics, groups and brokers: described, altered, listed."""

from __future__ import annotations

from differential.scenario import scenario

UNKNOWN, TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 0, 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)


def describe(s, v, label, resources, keep=None, **more):
    """`resources` is a list of (type, name, keys or None)."""
    return s.step(label, "DescribeConfigs", v, keep=keep, Resources=[
        {"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}
        for kind, name, keys in resources], **more)


@scenario("DescribeConfigs")
def describe_topic(s, v):
    t = s.topic(retention_ms="12345", cleanup_policy="compact,delete")
    describe(s, v, "all", [(TOPIC, t.name, None)])
    describe(s, v, "none", [(TOPIC, t.name, [])])
    describe(s, v, "some", [(TOPIC, t.name, ["retention.ms", "segment.ms", "no.such"])])
    describe(s, v, "with synonyms", [(TOPIC, t.name, ["retention.ms", "max.message.bytes"])],
             IncludeSynonyms=True)
    if v >= 3:
        describe(s, v, "with documentation", [(TOPIC, t.name, ["retention.ms"])], IncludeDocumentation=True)


@scenario("DescribeConfigs")
def describe_all_synonyms(s, v):
    t = s.topic()
    describe(s, v, "all with synonyms", [(TOPIC, t.name, None)], IncludeSynonyms=True)


@scenario("DescribeConfigs")
def describe_unknown(s, v):
    t = s.topic()
    describe(s, v, "unknown topic", [(TOPIC, s.name("absent"), None)])
    describe(s, v, "bad topic name", [(TOPIC, "a/b", None)])
    describe(s, v, "empty topic name", [(TOPIC, "", None)])
    describe(s, v, "unknown type", [(UNKNOWN, "x", None)])
    describe(s, v, "type 99", [(99, "x", None)])
    describe(s, v, "nothing", [])
    describe(s, v, "good and bad", [(TOPIC, t.name, ["retention.ms"]), (TOPIC, s.name("absent"), None)])
    describe(s, v, "twice", [(TOPIC, t.name, ["retention.ms"]), (TOPIC, t.name, ["segment.ms"])])


@scenario("DescribeConfigs")
def describe_broker(s, v):
    # Which configs a broker has is its own matter: that there are some, and how the bad are refused.
    describe(s, v, "broker", [(BROKER, "1", None)], keep=lambda a: {"Results": [
        {k: r[k] for k in ("ErrorCode", "ResourceType", "ResourceName")} | {"some": len(r["Configs"]) > 5}
        for r in a["Results"]]})
    # What a broker and a cluster of one have alike, and clients ask for.
    describe(s, v, "what clients ask for", [(BROKER, "1", [
        "message.max.bytes", "num.partitions", "default.replication.factor", "min.insync.replicas",
        "auto.create.topics.enable", "log.cleanup.policy", "compression.type"])])
    describe(s, v, "cluster default", [(BROKER, "", None)])
    describe(s, v, "unknown broker", [(BROKER, "9", None)])
    describe(s, v, "broker by name", [(BROKER, "one", None)])


@scenario("DescribeConfigs")
def describe_loggers(s, v):
    def keep(answer):
        return {"Results": [{k: r[k] for k in ("ErrorCode", "ResourceType", "ResourceName")}
                            for r in answer["Results"]]}
    describe(s, v, "loggers", [(LOGGER, "1", ["no.such"])], keep)
    describe(s, v, "loggers of another", [(LOGGER, "9", None)], keep)


@scenario("DescribeConfigs")
def describe_group(s, v):
    describe(s, v, "group", [(GROUP, s.name("g"), None)])
    describe(s, v, "empty group", [(GROUP, "", None)])


@scenario("DescribeConfigs")
def describe_client_metrics(s, v):
    describe(s, v, "client metrics", [(CLIENT_METRICS, s.name("m"), None)])
    describe(s, v, "no name", [(CLIENT_METRICS, "", None)])


def incremental(s, v, label, resources, **more):
    """`resources` is a list of (type, name, [(config, operation, value)])."""
    return s.step(label, "IncrementalAlterConfigs", v, **{"ValidateOnly": False, "Resources": [
        {"ResourceType": kind, "ResourceName": name, "Configs": [
            {"Name": n, "ConfigOperation": o, "Value": value} for n, o, value in configs]}
        for kind, name, configs in resources], **more})


# What a topic's configs become may be seen a little later.
def settled(s, name, key, value):
    s.until(f"{key} is {value}", lambda: any(
        c["Value"] == value for c in s.do("DescribeConfigs", Resources=[{
            "ResourceType": TOPIC, "ResourceName": name, "ConfigurationKeys": [key]}])["Results"][0]["Configs"]))


@scenario("IncrementalAlterConfigs")
def incremental_alter_topic(s, v):
    t = s.topic()
    incremental(s, v, "set", [(TOPIC, t.name, [("retention.ms", SET, "777")])])
    incremental(s, v, "append", [(TOPIC, t.name, [("cleanup.policy", APPEND, "compact")])])
    incremental(s, v, "append again", [(TOPIC, t.name, [("cleanup.policy", APPEND, "compact")])])
    incremental(s, v, "subtract", [(TOPIC, t.name, [("cleanup.policy", SUBTRACT, "delete")])])
    incremental(s, v, "append to a number", [(TOPIC, t.name, [("retention.ms", APPEND, "1")])])
    incremental(s, v, "check only", [(TOPIC, t.name, [("retention.ms", SET, "888")])], ValidateOnly=True)
    incremental(s, v, "bad value, check only", [(TOPIC, t.name, [("retention.ms", SET, "x")])],
                ValidateOnly=True)
    incremental(s, v, "bad value", [(TOPIC, t.name, [("retention.ms", SET, "x")])])
    incremental(s, v, "unknown name", [(TOPIC, t.name, [("no.such", SET, "x")])])
    incremental(s, v, "null value", [(TOPIC, t.name, [("retention.ms", SET, None)])])
    incremental(s, v, "unknown operation", [(TOPIC, t.name, [("retention.ms", 9, "1")])])
    incremental(s, v, "one key twice", [(TOPIC, t.name, [("retention.ms", SET, "1"),
                                                         ("retention.ms", SET, "2")])])
    incremental(s, v, "one bad of two", [(TOPIC, t.name, [("segment.ms", SET, "60000"),
                                                          ("retention.ms", SET, "x")])])
    incremental(s, v, "delete what is not set", [(TOPIC, t.name, [("segment.bytes", DELETE, None)])])
    incremental(s, v, "delete an unknown one", [(TOPIC, t.name, [("no.such", DELETE, None)])])
    incremental(s, v, "unknown topic", [(TOPIC, s.name("absent"), [("retention.ms", SET, "1")])])
    incremental(s, v, "bad topic name", [(TOPIC, "a/b", [("retention.ms", SET, "1")])])
    incremental(s, v, "empty topic name", [(TOPIC, "", [("retention.ms", SET, "1")])])
    incremental(s, v, "no configs", [(TOPIC, t.name, [])])
    incremental(s, v, "no resources", [])
    incremental(s, v, "unknown type", [(UNKNOWN, "x", [("a", SET, "b")])])
    incremental(s, v, "type 99", [(99, "x", [("a", SET, "b")])])
    incremental(s, v, "topic twice", [(TOPIC, t.name, [("retention.ms", SET, "1")]),
                                      (TOPIC, t.name, [("segment.ms", SET, "70000")])])
    settled(s, t.name, "cleanup.policy", "compact")
    describe(s, 4, "what is set", [(TOPIC, t.name, None)])
    incremental(s, v, "delete", [(TOPIC, t.name, [("retention.ms", DELETE, None),
                                                  ("cleanup.policy", DELETE, "")])])
    settled(s, t.name, "cleanup.policy", "delete")
    describe(s, 4, "what is left", [(TOPIC, t.name, ["retention.ms", "cleanup.policy"])])


VALUES = {
    "cleanup.policy": ("delete", "compact", "delete,compact", "", "none", "DELETE"),
    "compression.type": ("producer", "gzip", "zstd", "lz4", "snappy", "uncompressed", "none", "GZIP"),
    "compression.gzip.level": ("1", "9", "-1", "0", "10"),
    "compression.lz4.level": ("1", "17", "0", "18"),
    "compression.zstd.level": ("1", "22", "-131072", "23"),
    "delete.retention.ms": ("0", "-1"),
    "file.delete.delay.ms": ("0", "-1"),
    "flush.messages": ("1", "0"),
    "flush.ms": ("0", "-1"),
    "index.interval.bytes": ("0", "-1"),
    "local.retention.bytes": ("-2", "-3", "100"),
    "local.retention.ms": ("-2", "-3", "100"),
    "max.compaction.lag.ms": ("1", "0"),
    "max.message.bytes": ("0", "-1", "1048588"),
    "message.timestamp.after.max.ms": ("0", "-1"),
    "message.timestamp.before.max.ms": ("0", "-1"),
    "message.timestamp.type": ("CreateTime", "LogAppendTime", "createtime"),
    "message.timestamp.difference.max.ms": ("0",),
    "message.downconversion.enable": ("true",),
    "message.format.version": ("3.0",),
    "min.cleanable.dirty.ratio": ("0", "1", "1.1", "-0.1", "x"),
    "min.compaction.lag.ms": ("0", "-1"),
    "min.insync.replicas": ("1", "0", "5"),
    "preallocate": ("true", "TRUE", "yes"),
    "remote.storage.enable": ("false", "true"),
    "remote.log.copy.disable": ("false", "true"),
    "remote.log.delete.on.disable": ("false", "true"),
    "retention.bytes": ("-1", "-2", "0", "9223372036854775807", "9223372036854775808"),
    "retention.ms": ("-1", "-2", "0", " 5 ", "5.0"),
    "segment.bytes": ("1048576", "1048575", "14", "2147483647", "2147483648"),
    "segment.index.bytes": ("4", "3"),
    "segment.jitter.ms": ("0", "-1"),
    "segment.ms": ("1", "0"),
    "unclean.leader.election.enable": ("true", "false", "maybe"),
    "leader.replication.throttled.replicas": ("", "*", "0:1", "none", "x"),
    "follower.replication.throttled.replicas": ("", "*", "0:1", "none", "x"),
    "errors.deadletterqueue.group.enable": ("true",),
}


@scenario("IncrementalAlterConfigs", range(1, 2))
def every_topic_config(s, v):
    """Each config that a topic has, at the ends of its range and past them."""
    t = s.topic()
    for name, values in VALUES.items():
        for value in values:
            incremental(s, v, f"{name}={value}", [(TOPIC, t.name, [(name, SET, value)])], ValidateOnly=True)


@scenario("IncrementalAlterConfigs")
def incremental_alter_group(s, v):
    g = s.name("g")
    incremental(s, v, "set", [(GROUP, g, [("consumer.session.timeout.ms", SET, "50000")])])
    incremental(s, v, "out of range", [(GROUP, g, [("consumer.session.timeout.ms", SET, "1")])])
    incremental(s, v, "unknown", [(GROUP, g, [("no.such", SET, "1")])])
    incremental(s, v, "empty group", [(GROUP, "", [("consumer.session.timeout.ms", SET, "50000")])])
    incremental(s, v, "bad value", [(GROUP, g, [("consumer.heartbeat.interval.ms", SET, "x")])])
    s.until("it is set", lambda: any(c["Value"] == "50000" for c in s.do("DescribeConfigs", Resources=[{
        "ResourceType": GROUP, "ResourceName": g, "ConfigurationKeys": None}])["Results"][0]["Configs"]))
    describe(s, 4, "described", [(GROUP, g, None)], IncludeSynonyms=True)
    incremental(s, v, "delete", [(GROUP, g, [("consumer.session.timeout.ms", DELETE, None)])])


@scenario("IncrementalAlterConfigs")
def incremental_alter_client_metrics(s, v):
    m = s.name("m")
    incremental(s, v, "set", [(CLIENT_METRICS, m, [("interval.ms", SET, "10000"), ("metrics", SET, "org.apache."),
                                                   ("match", SET, "client_id=nobody")])])
    incremental(s, v, "bad interval", [(CLIENT_METRICS, m, [("interval.ms", SET, "1")])])
    incremental(s, v, "bad match", [(CLIENT_METRICS, m, [("match", SET, "planet=mars")])])
    incremental(s, v, "unknown", [(CLIENT_METRICS, m, [("no.such", SET, "1")])])
    incremental(s, v, "no name", [(CLIENT_METRICS, "", [("interval.ms", SET, "10000")])])
    s.until("it is set", lambda: any(c["Value"] == "10000" for c in s.do("DescribeConfigs", Resources=[{
        "ResourceType": CLIENT_METRICS, "ResourceName": m, "ConfigurationKeys": None}])["Results"][0]["Configs"]))
    describe(s, 4, "described", [(CLIENT_METRICS, m, None)])
    incremental(s, v, "delete", [(CLIENT_METRICS, m, [(k, DELETE, None) for k in ("interval.ms", "metrics", "match")])])


@scenario("IncrementalAlterConfigs")
def incremental_alter_broker(s, v):
    # Validated only: a broker of a test is not to be changed under other tests.
    for label, name, configs in (
            ("broker", "1", [("log.cleaner.threads", SET, "2")]),
            ("cluster", "", [("log.cleaner.threads", SET, "2")]),
            ("unknown broker", "9", [("log.cleaner.threads", SET, "2")]),
            ("read-only", "1", [("process.roles", SET, "broker")]),
            ("unknown name", "1", [("no.such", SET, "2")]),
            ("not a number", "one", [("log.cleaner.threads", SET, "2")])):
        incremental(s, v, label, [(BROKER, name, configs)], ValidateOnly=True)
    incremental(s, v, "logger", [(LOGGER, "1", [("kafka.no.such", SET, "INFO")])], ValidateOnly=True)


@scenario("AlterConfigs")
def alter_topic(s, v):
    t = s.topic(retention_ms="5")

    def alter(label, kind, name, configs, **more):
        s.step(label, "AlterConfigs", v, **{"ValidateOnly": False, "Resources": [
            {"ResourceType": kind, "ResourceName": name, "Configs": [
                {"Name": n, "Value": value} for n, value in configs]}], **more})
    alter("replaces all", TOPIC, t.name, [("segment.ms", "60000")])
    settled(s, t.name, "segment.ms", "60000")
    describe(s, 4, "what is set", [(TOPIC, t.name, ["retention.ms", "segment.ms"])])
    alter("check only", TOPIC, t.name, [("segment.ms", "70000")], ValidateOnly=True)
    alter("bad value", TOPIC, t.name, [("segment.ms", "x")])
    alter("unknown name", TOPIC, t.name, [("no.such", "x")])
    alter("null value", TOPIC, t.name, [("segment.ms", None)])
    alter("key twice", TOPIC, t.name, [("segment.ms", "5000"), ("segment.ms", "6000")])
    alter("unknown topic", TOPIC, s.name("absent"), [("segment.ms", "60000")])
    alter("bad name", TOPIC, "a/b", [("segment.ms", "60000")])
    alter("broker", BROKER, "1", [("log.cleaner.threads", "2")], ValidateOnly=True)
    alter("unknown type", UNKNOWN, "x", [("a", "b")])
    alter("nothing set", TOPIC, t.name, [])
    s.step("no resources", "AlterConfigs", v, ValidateOnly=False, Resources=[])
    s.step("topic twice", "AlterConfigs", v, wait_s=2, ValidateOnly=False, Resources=[
        {"ResourceType": TOPIC, "ResourceName": t.name, "Configs": []},
        {"ResourceType": TOPIC, "ResourceName": t.name, "Configs": []}])


@scenario("ListConfigResources")
def list_config_resources(s, v):
    t = s.topic()

    def listed(label, **fields):
        s.step(label, "ListConfigResources", v, keep=lambda a: dict(a, ConfigResources=[
            r for r in a["ConfigResources"] if s.mine(r["ResourceName"])
            or r.get("ResourceType") in (BROKER, LOGGER)]), **fields)
    listed("all")
    if v >= 1:
        for kinds in ([TOPIC], [BROKER], [LOGGER], [GROUP], [CLIENT_METRICS], [TOPIC, GROUP], [99], [UNKNOWN]):
            listed(f"types {kinds}", ResourceTypes=kinds)
    assert t
