"""What tools ask of a cluster: its nodes, log directories, elections, reassignments, quorum, features."""

from __future__ import annotations

from differential.records import batch
from differential.scenario import scenario


@scenario("DescribeCluster")
def describe_cluster(s, v):
    s.step("plain", "DescribeCluster", v)
    s.step("operations", "DescribeCluster", v, IncludeClusterAuthorizedOperations=True)
    if v >= 1:
        s.step("controllers", "DescribeCluster", v, EndpointType=2)
        s.step("endpoint type 7", "DescribeCluster", v, EndpointType=7)
    if v >= 2:
        s.step("with fenced brokers", "DescribeCluster", v, IncludeFencedBrokers=True)


@scenario("DescribeLogDirs")
def describe_log_dirs(s, v):
    t = s.topic(partitions=2)
    s.produce(t, batch([b"a"]))

    def keep(answer):
        # How many bytes a record takes on a disk is each server's own matter.
        return dict(answer, Results=[dict(r, Topics=[dict(x, Partitions=[
            dict(p, PartitionSize="some" if p["PartitionSize"] > 0 else p["PartitionSize"])
            for p in x["Partitions"]]) for x in r["Topics"] if s.mine(x["Name"])])
            for r in answer["Results"]])
    s.step("one topic", "DescribeLogDirs", v, keep=keep, Topics=[{"Topic": t.name, "Partitions": [0, 1]}])
    s.step("one partition", "DescribeLogDirs", v, keep=keep, Topics=[{"Topic": t.name, "Partitions": [1]}])
    s.step("all", "DescribeLogDirs", v, keep=keep, Topics=None)
    s.step("none", "DescribeLogDirs", v, keep=keep, Topics=[])
    s.step("unknown", "DescribeLogDirs", v, keep=keep, Topics=[
        {"Topic": s.name("absent"), "Partitions": [0]}, {"Topic": t.name, "Partitions": [9]}])


@scenario("AlterReplicaLogDirs")
def alter_replica_log_dirs(s, v):
    t = s.topic()

    def move(label, path, topic, partitions):
        s.step(label, "AlterReplicaLogDirs", v, Dirs=[
            {"Path": path, "Topics": [{"Name": topic, "Partitions": partitions}]}])
    move("unknown directory", "/no/such/directory", t.name, [0])
    move("relative directory", "elsewhere", t.name, [0])
    move("unknown topic", "/no/such/directory", s.name("absent"), [0])
    s.step("nothing", "AlterReplicaLogDirs", v, Dirs=[])


@scenario("ElectLeaders")
def elect_leaders(s, v):
    t = s.topic()

    def elect(label, topics, kind=0):
        s.step(label, "ElectLeaders", v, **({"ElectionType": kind} if v >= 1 else {}), TimeoutMs=20_000,
               TopicPartitions=topics)
    elect("preferred, needless", [{"Topic": t.name, "Partitions": [0]}])
    elect("unknown", [{"Topic": s.name("absent"), "Partitions": [0]}, {"Topic": t.name, "Partitions": [9]}])
    elect("none", [])
    if v >= 1:
        elect("unclean, needless", [{"Topic": t.name, "Partitions": [0]}], 1)
        elect("type 7", [{"Topic": t.name, "Partitions": [0]}], 7)


@scenario("AlterPartitionReassignments")
def alter_partition_reassignments(s, v):
    t = s.topic()

    def reassign(label, topic, partition, replicas):
        s.step(label, "AlterPartitionReassignments", v, TimeoutMs=20_000, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}])
    reassign("to where it is", t.name, 0, [1])
    reassign("cancel what is not", t.name, 0, None)
    reassign("unknown broker", t.name, 0, [9])
    reassign("two replicas", t.name, 0, [1, 9])
    reassign("broker twice", t.name, 0, [1, 1])
    reassign("no replicas", t.name, 0, [])
    reassign("negative broker", t.name, 0, [-1])
    reassign("unknown partition", t.name, 9, [1])
    reassign("unknown topic", s.name("absent"), 0, [1])
    s.step("nothing", "AlterPartitionReassignments", v, TimeoutMs=20_000, Topics=[])


@scenario("ListPartitionReassignments")
def list_partition_reassignments(s, v):
    t = s.topic()
    for label, topics in {"all": None, "none": [], "one": [{"Name": t.name, "PartitionIndexes": [0]}],
                          "unknown": [{"Name": s.name("absent"), "PartitionIndexes": [0]}]}.items():
        s.step(label, "ListPartitionReassignments", v, TimeoutMs=20_000, Topics=topics)


@scenario("DescribeQuorum")
def describe_quorum(s, v):
    def keep(answer):
        # Offsets and epochs of the metadata log say how much was done before.
        return dict(answer, Topics=[dict(t, Partitions=[dict(
            p, LeaderEpoch=p["LeaderEpoch"] > 0, HighWatermark=p["HighWatermark"] > 0,
            CurrentVoters=[{k: x[k] if k == "ReplicaId" else "any" for k in x} for x in p["CurrentVoters"]],
            Observers=[{k: x[k] if k == "ReplicaId" else "any" for k in x} for x in p["Observers"]])
            for p in t["Partitions"]]) for t in answer["Topics"]], Nodes=[
                dict(n, Listeners=len(n["Listeners"]) > 0) for n in answer.get("Nodes", [])])
    quorum = lambda label, topic, partition: s.step(  # noqa: E731
        label, "DescribeQuorum", v, keep=keep, Topics=[
            {"TopicName": topic, "Partitions": [{"PartitionIndex": partition}]}])
    quorum("metadata", "__cluster_metadata", 0)
    quorum("another partition", "__cluster_metadata", 5)
    quorum("another topic", s.name("absent"), 0)
    s.step("nothing", "DescribeQuorum", v, keep=keep, Topics=[])


@scenario("UpdateFeatures")
def update_features(s, v):
    def update(label, name, level, **more):
        fields = {"AllowDowngrade": more.pop("downgrade", False)} if v == 0 else {
            "UpgradeType": more.pop("upgrade", 1)}
        s.step(label, "UpdateFeatures", v, timeoutMs=20_000, FeatureUpdates=[
            {"Feature": name, "MaxVersionLevel": level, **fields}],
            **({"ValidateOnly": True} if v >= 1 else {}))
    if v >= 1:
        update("unknown feature", "no.such", 1)
        update("level too high", "group.version", 99)
        update("negative level", "group.version", -1)
        update("upgrade type 9", "group.version", 1, upgrade=9)
        update("empty name", "", 1)
    else:
        # Version 0 has no way to check only: what cannot change anything.
        update("unknown feature", "no.such", 1)
        update("empty name", "", 1)
    s.step("nothing", "UpdateFeatures", v, timeoutMs=20_000, FeatureUpdates=[])


@scenario("UnregisterBroker")
def unregister_broker(s, v):
    s.step("unknown broker", "UnregisterBroker", v, BrokerId=77)
    s.step("negative broker", "UnregisterBroker", v, BrokerId=-1)
