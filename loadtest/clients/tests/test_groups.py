"""Consumer groups by the classic protocol: members come and go, offsets stay."""

from __future__ import annotations

import time
import uuid

import confluent_kafka
import kafka
import kafka.errors
import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition
from kafka.protocol.consumer import (
    JoinGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
    HeartbeatRequest,
)

from blackbox import java, waiting
from blackbox.clients import PRODUCERS, Record, java_record
from blackbox.wire import Raw


class Librdkafka:
    """A librdkafka member. `poll` gathers what came until the next call."""

    def __init__(self, bootstrap: str, group: str, topic: str, **config: object):
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 500, "topic.metadata.refresh.interval.ms": 1000, **config})
        self._consumer.subscribe([topic])

    def poll(self) -> tuple[list[Record], set[int]]:
        records = []
        for m in self._consumer.consume(200, 0.2):
            assert m.error() is None, m.error()
            records.append(Record(m.value(), m.key(), (), m.partition(), m.offset()))
        return records, {p.partition for p in self._consumer.assignment()}

    def commit(self, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        done = self._consumer.commit(
            offsets=[TopicPartition(topic, partition, offset, metadata)], asynchronous=False)
        assert all(p.error is None for p in done), done

    def close(self) -> None:
        self._consumer.close()


class KafkaPython:
    def __init__(self, bootstrap: str, group: str, topic: str):
        self._consumer = kafka.KafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
            enable_auto_commit=False, session_timeout_ms=10_000, heartbeat_interval_ms=500)

    def poll(self) -> tuple[list[Record], set[int]]:
        records = [Record(m.value, m.key, (), m.partition, m.offset)
                   for batch in self._consumer.poll(200).values() for m in batch]
        return records, {p.partition for p in self._consumer.assignment()}

    def commit(self, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        self._consumer.commit({kafka.TopicPartition(topic, partition):
                               kafka.OffsetAndMetadata(offset, metadata, -1)})

    def close(self) -> None:
        self._consumer.close()


class Java:
    def __init__(self, bootstrap: str, group: str, topic: str):
        self._driver = java.driver(bootstrap)
        self._name = uuid.uuid4().hex
        self._driver.call("open", name=self._name, group=group, topics=[topic],
                          config={"metadata.max.age.ms": "1000"})

    def poll(self) -> tuple[list[Record], set[int]]:
        got = self._driver.call("poll", name=self._name, count=1, timeout_ms=200)
        return [java_record(r) for r in got["records"]], {p for _, p in got["assignment"]}

    def commit(self, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        self._driver.call("commit", name=self._name, offsets=[
            {"topic": topic, "partition": partition, "offset": offset, "metadata": metadata}])

    def close(self) -> None:
        self._driver.call("close", name=self._name)


MEMBERS = {"librdkafka": Librdkafka, "kafka-python": KafkaPython, "java": Java}


def poll_until(members, condition, what: str, timeout_s: float = 45) -> list[Record]:
    """Polls the members in turn until condition(assignments, records so far)."""
    records: list[Record] = []

    def step() -> bool:
        owned = []
        for m in members:
            came, partitions = m.poll()
            records.extend(came)
            owned.append(partitions)
        return condition(owned, records)

    waiting.until(step, timeout_s, what, every_s=0.0)
    return records


def shared(count: int, partitions: int):
    """Each of the members owns something and all partitions are owned once."""
    def condition(owned, _records) -> bool:
        return (all(owned) and len(owned) == count
                and sorted(p for one in owned for p in one) == list(range(partitions)))
    return condition


@pytest.mark.parametrize("client", MEMBERS)
def test_two_members_join_and_leave(bootstrap, topic, name, client):
    read = topic(partitions=4)
    first_half = [Record(f"{p}/{i}".encode(), partition=p) for i in range(50) for p in range(4)]
    PRODUCERS["librdkafka"](bootstrap, read, "none", first_half)
    one = MEMBERS[client](bootstrap, name, read)
    records = poll_until([one], lambda _o, r: len(r) >= 200, "one member reads everything")
    assert sorted(r.value for r in records) == sorted(r.value for r in first_half)
    for p in range(4):
        one.commit(read, p, 50)

    two = MEMBERS[client](bootstrap, name, read)
    again = poll_until([one, two], shared(2, 4), "two members share four partitions")
    assert again == [], "the second member starts from what the first committed"
    second_half = [Record(f"{p}/{i}".encode(), partition=p) for i in range(50, 80) for p in range(4)]
    PRODUCERS["librdkafka"](bootstrap, read, "none", second_half)
    records = poll_until([one, two], lambda _o, r: len(r) >= 120, "both read on")
    assert sorted(r.value for r in records) == sorted(r.value for r in second_half)
    for p in range(4):
        for member in (one, two):
            if p in member.poll()[1]:
                member.commit(read, p, 80)

    one.close()
    rest = poll_until([two], shared(1, 4), "the one that is left owns all")
    assert rest == []
    two.close()


def test_members_of_different_clients_in_one_group(bootstrap, topic, name):
    """They have the range assignor in common, and nothing but its bytes to agree by."""
    read = topic(partitions=6)
    members = [make(bootstrap, name, read) for make in MEMBERS.values()]
    poll_until(members, shared(3, 6), "three clients share six partitions", timeout_s=90)
    written = [Record(f"{p}/{i}".encode(), partition=p) for i in range(10) for p in range(6)]
    PRODUCERS["java"](bootstrap, read, "none", written)
    records = poll_until(members, lambda _o, r: len(r) >= 60, "all read")
    assert sorted(r.value for r in records) == sorted(r.value for r in written)
    for m in members:
        m.close()


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_assignors(bootstrap, topic, name, strategy):
    read = topic(partitions=5)
    config = {"partition.assignment.strategy": strategy}
    members = [Librdkafka(bootstrap, name, read, **config) for _ in range(2)]
    poll_until(members, shared(2, 5), f"two share five partitions by {strategy}")
    members.append(Librdkafka(bootstrap, name, read, **config))
    poll_until(members, shared(3, 5), f"three share five partitions by {strategy}")
    members.pop(0).close()
    poll_until(members, shared(2, 5), f"two are left with five partitions by {strategy}")
    for m in members:
        m.close()


def test_a_dead_member_is_dropped_after_its_session(bootstrap, topic, name):
    """A member that joined over a raw connection and says no more loses its partitions."""
    read = topic(partitions=2)
    with Raw(bootstrap) as raw:
        member = raw_member(raw, name, read, session_ms=6000)
        begun = time.monotonic()
        alive = Librdkafka(bootstrap, name, read, **{"session.timeout.ms": 30_000})
        poll_until([alive], shared(1, 2), "the living member owns all")
        assert time.monotonic() - begun > 3, "the dead member's session was cut short"
        beat = raw.call(HeartbeatRequest(group_id=name, generation_id=1, member_id=member), 3)
        assert beat.error_code == 25, "UNKNOWN_MEMBER_ID"
        alive.close()


def raw_member(raw: Raw, group: str, topic: str, session_ms: int, instance: str | None = None) -> str:
    """Joins as the only member and syncs with an empty assignment; returns the member id."""
    subscription = b"\x00\x00" + b"\x00\x00\x00\x01" + len(topic).to_bytes(2, "big") + topic.encode() \
        + b"\x00\x00\x00\x00"

    def join(member: str):
        return JoinGroupRequest(
            group_id=group, session_timeout_ms=session_ms, rebalance_timeout_ms=session_ms,
            member_id=member, group_instance_id=instance, protocol_type="consumer",
            protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=subscription)])

    answer = raw.call(join(""), 5)
    if answer.error_code == 79:  # MEMBER_ID_REQUIRED (KIP-394)
        assert answer.member_id
        answer = raw.call(join(answer.member_id), 5)
    assert answer.error_code == 0
    synced = raw.call(SyncGroupRequest(
        group_id=group, generation_id=answer.generation_id, member_id=answer.member_id,
        group_instance_id=instance, assignments=[]), 3)
    assert synced.error_code == 0
    return answer.member_id


def test_a_new_member_must_come_back_with_its_id(bootstrap, topic, name):
    """KIP-394 from JoinGroup v4 on; before that the id is given and used at once."""
    with Raw(bootstrap) as raw:
        for version, expected in [(3, 0), (4, 79)]:
            answer = raw.call(JoinGroupRequest(
                group_id=f"{name}-{version}", session_timeout_ms=10_000, rebalance_timeout_ms=10_000,
                member_id="", protocol_type="consumer", protocols=[
                    JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"")]), version)
            assert (answer.error_code, bool(answer.member_id)) == (expected, True), version


def test_static_member_comes_back_without_a_rebalance(bootstrap, topic, name):
    read = topic(partitions=2)
    static = {"group.instance.id": "a", "session.timeout.ms": 30_000}
    other = Librdkafka(bootstrap, name, read, **{"group.instance.id": "b"})
    member = Librdkafka(bootstrap, name, read, **static)
    poll_until([other, member], shared(2, 2), "both static members own one partition")
    owned = member.poll()[1]
    before = member._consumer.memberid()
    member.close()  # A static member does not leave the group when it closes.
    member = Librdkafka(bootstrap, name, read, **static)
    lost: list[object] = []

    def returned(assigned, _records) -> bool:
        if len(assigned[0]) != 1:
            lost.append(assigned[0])
        return assigned[1] == owned

    poll_until([other, member], returned, "the static member has its partition again")
    assert lost == [], "the other member was rebalanced"
    assert member._consumer.memberid() != before
    admin = kafka.KafkaAdminClient(bootstrap_servers=bootstrap)
    described = admin.describe_groups([name])[name]
    assert sorted(m["group_instance_id"] for m in described["members"]) == ["a", "b"]
    admin.close()
    for m in (member, other):
        m.close()


def test_two_with_the_same_instance_id_fence_each_other(bootstrap, topic, name):
    read = topic()
    with Raw(bootstrap) as raw:
        old = raw_member(raw, name, read, 30_000, instance="same")
        new = raw_member(raw, name, read, 30_000, instance="same")
        assert old != new
        beat = raw.call(HeartbeatRequest(
            group_id=name, generation_id=1, member_id=old, group_instance_id="same"), 3)
        assert beat.error_code == 82, "FENCED_INSTANCE_ID"


@pytest.mark.parametrize("client", MEMBERS)
def test_commit_with_metadata_and_resume(bootstrap, topic, name, client):
    read = topic(partitions=2)
    PRODUCERS["librdkafka"](bootstrap, read, "none", [
        Record(f"{p}/{i}".encode(), partition=p) for i in range(20) for p in range(2)])
    member = MEMBERS[client](bootstrap, name, read)
    poll_until([member], shared(1, 2), "assigned")
    member.commit(read, 0, 7, "note: ü {}")
    member.commit(read, 1, 20)
    member.close()
    committed = java.driver(bootstrap).call("committed", group=name)
    # confluent-kafka sends C's closing zero along with the text.
    assert sorted([*o[:3], o[3].rstrip("\0")] for o in committed) == [
        [read, 0, 7, "note: ü {}"], [read, 1, 20, ""]]
    for again in MEMBERS.values():
        member = again(bootstrap, name, read)
        got = poll_until([member], lambda _o, r: len(r) >= 13, "resumes at the commit")
        assert sorted((r.partition, r.offset) for r in got) == [(0, i) for i in range(7, 20)]
        member.close()


def test_commit_limits_and_unknown_partitions(bootstrap, topic, name):
    known = topic()
    P, T = (OffsetCommitRequest.OffsetCommitRequestTopic.OffsetCommitRequestPartition,
            OffsetCommitRequest.OffsetCommitRequestTopic)

    def commit(raw, topic_name: str, partition: int, metadata: str | None):
        answer = raw.call(OffsetCommitRequest(
            group_id=name, generation_id_or_member_epoch=-1, member_id="", topics=[T(
                name=topic_name, partitions=[P(
                    partition_index=partition, committed_offset=3, committed_leader_epoch=-1,
                    committed_metadata=metadata)])]), 8)
        return answer.topics[0].partitions[0].error_code

    with Raw(bootstrap) as raw:
        assert commit(raw, known, 0, "m" * 4096) == 0
        assert commit(raw, known, 0, "m" * 4097) == 12, "OFFSET_METADATA_TOO_LARGE"
        assert commit(raw, known, 0, None) == 0
        assert commit(raw, known, 9, "") == 3, "UNKNOWN_TOPIC_OR_PARTITION"
        assert commit(raw, known + "-not", 0, "") == 3
        fetch = raw.call(OffsetFetchRequest(group_id=name, topics=None), 7)
        assert [(t.name, [(p.partition_index, p.committed_offset) for p in t.partitions])
                for t in fetch.topics] == [(known, [(0, 3)])], "null topics: all of them"
        fetch = raw.call(OffsetFetchRequest(group_id=name, topics=[]), 7)
        assert fetch.topics == [], "no topics: none of them"


def test_commit_of_a_stranger_is_refused(bootstrap, topic, name):
    read = topic()
    P, T = (OffsetCommitRequest.OffsetCommitRequestTopic.OffsetCommitRequestPartition,
            OffsetCommitRequest.OffsetCommitRequestTopic)

    def commit(raw, member: str, generation: int) -> int:
        return raw.call(OffsetCommitRequest(
            group_id=name, generation_id_or_member_epoch=generation, member_id=member, topics=[T(
                name=read, partitions=[P(partition_index=0, committed_offset=1,
                                         committed_leader_epoch=-1, committed_metadata="")])]),
            8).topics[0].partitions[0].error_code

    with Raw(bootstrap) as raw:
        member = raw_member(raw, name, read, 30_000)
        assert commit(raw, member, 1) == 0
        assert commit(raw, member, 2) == 22, "ILLEGAL_GENERATION"
        assert commit(raw, "stranger", 1) == 25, "UNKNOWN_MEMBER_ID"
        assert commit(raw, "", -1) == 25, "a simple commit into a group that has members"


def test_list_describe_delete(bootstrap, admin, topic, name):
    read = topic(partitions=2)
    member = Librdkafka(bootstrap, name, read, **{"client.id": "me"})
    poll_until([member], shared(1, 2), "assigned")

    listed = {g.group_id: g for g in admin.list_consumer_groups(request_timeout=20).result().valid}
    assert listed[name].state == ConsumerGroupState.STABLE
    assert not listed[name].is_simple_consumer_group
    stable = admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result().valid
    assert name not in {g.group_id for g in stable}

    d = admin.describe_consumer_groups([name])[name].result(20)
    assert (d.state, d.partition_assignor) == (ConsumerGroupState.STABLE, "range")
    assert [(m.client_id, {(p.topic, p.partition) for p in m.assignment.topic_partitions})
            for m in d.members] == [("me", {(read, 0), (read, 1)})]
    assert d.members[0].host.lstrip("/") == "127.0.0.1"
    j = java.driver(bootstrap)
    assert j.call("groups")[name] == "Stable"
    described = j.call("describe_group", group=name)
    assert described["state"] == "Stable"
    assert sorted(described["members"][0]["assignment"]) == [[read, 0], [read, 1]]

    with pytest.raises(confluent_kafka.KafkaException) as refused:
        admin.delete_consumer_groups([name])[name].result(20)
    assert refused.value.args[0].code() == confluent_kafka.KafkaError.NON_EMPTY_GROUP
    member.commit(read, 0, 5)
    member.close()
    waiting.until(lambda: j.call("describe_group", group=name)["state"] == "Empty", 20, "empty")
    admin.delete_consumer_groups([name])[name].result(20)
    assert name not in j.call("groups")
    assert j.call("committed", group=name) == []
    with pytest.raises(confluent_kafka.KafkaException) as unknown:
        admin.delete_consumer_groups([name])[name].result(20)
    assert unknown.value.args[0].code() == confluent_kafka.KafkaError.GROUP_ID_NOT_FOUND


def test_delete_and_alter_offsets(bootstrap, admin, topic, name):
    read = topic(partitions=2)
    j = java.driver(bootstrap)
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(
        name, [TopicPartition(read, 0, 3), TopicPartition(read, 1, 4)])])[name].result(20)
    assert [o[:3] for o in sorted(j.call("committed", group=name))] == [[read, 0, 3], [read, 1, 4]]
    j.call("delete_offsets", group=name, topic=read, partition=0)
    assert [o[:3] for o in j.call("committed", group=name)] == [[read, 1, 4]]
    member = Librdkafka(bootstrap, name, read)
    poll_until([member], shared(1, 2), "assigned")
    with pytest.raises(java.JavaError) as refused:
        j.call("delete_offsets", group=name, topic=read, partition=1)
    assert refused.value.name == "GroupSubscribedToTopicException"
    member.close()
    got = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])[name].result(20)
    assert [(p.topic, p.partition, p.offset) for p in got.topic_partitions] == [(read, 1, 4)]


def test_offsets_go_with_their_topic(bootstrap, admin, topic, name):
    read, kept = topic(), topic()
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(
        name, [TopicPartition(read, 0, 3), TopicPartition(kept, 0, 4)])])[name].result(20)
    admin.delete_topics([read])[read].result(20)
    waiting.until(
        lambda: [o[:3] for o in java.driver(bootstrap).call("committed", group=name)] == [[kept, 0, 4]],
        20, "the deleted topic's offsets are gone")


def test_session_timeout_limits(bootstrap, topic, name):
    with Raw(bootstrap) as raw:
        for session_ms in (10, 3_600_000):
            answer = raw.call(JoinGroupRequest(
                group_id=name, session_timeout_ms=session_ms, rebalance_timeout_ms=10_000,
                member_id="", protocol_type="consumer", protocols=[
                    JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"")]), 5)
            assert answer.error_code == 26, "INVALID_SESSION_TIMEOUT"
        answer = raw.call(JoinGroupRequest(
            group_id="", session_timeout_ms=10_000, rebalance_timeout_ms=10_000,
            member_id="", protocol_type="consumer", protocols=[
                JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"")]), 5)
        assert answer.error_code == 24, "INVALID_GROUP_ID"
