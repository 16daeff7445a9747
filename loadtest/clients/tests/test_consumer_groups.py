"""Consumer groups of KIP-848: members that speak the consumer protocol, alone, together, and while a group
changes over from the classic protocol and back."""

from __future__ import annotations

import contextlib
import uuid

import confluent_kafka
import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, Producer, TopicPartition

from blackbox import servers, waiting
from blackbox.clients import java_record


class Member:
    """A librdkafka member that remembers what it has read."""

    def __init__(self, bootstrap: str, group: str, topics: list[str], **config: object):
        self._consumer = confluent_kafka.Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000,
            # A commit behind a JoinGroup waits for the other members, which nobody polls meanwhile.
            "socket.timeout.ms": 10_000, "group.protocol": "consumer", **config})
        self._consumer.subscribe(topics)
        self.values: list[bytes] = []

    def poll(self) -> set[tuple[str, int]]:
        """What it is assigned. What it reads it commits."""
        messages = self._consumer.consume(500, 0.2)
        for message in messages:
            assert message.error() is None, message.error()
            self.values.append(message.value())
        if messages:
            with contextlib.suppress(confluent_kafka.KafkaException):
                # A rebalance may come between: then others read it again.
                self._consumer.commit(asynchronous=False)
        return {(p.topic, p.partition) for p in self._consumer.assignment()}

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def join(bootstrap, name):
    """Makes members of one group: `join(topics, **config)`."""
    group = f"{name}-{uuid.uuid4().hex[:6]}"
    members = []

    def make(topics: list[str], **config: object) -> Member:
        member = Member(bootstrap, group, topics, **config)
        members.append(member)
        return member

    make.group = group
    yield make
    for member in members:
        member.close()


CLASSIC = {"group.protocol": "classic", "session.timeout.ms": 10_000, "heartbeat.interval.ms": 300,
           "partition.assignment.strategy": "cooperative-sticky"}


def settled(members: list[Member], partitions: int, seconds: float = 40) -> list[set]:
    """Polls until the members share the partitions evenly; gives who has what."""
    shares: list[set] = []

    def even() -> bool:
        shares[:] = [member.poll() for member in members]
        union = set().union(*shares)
        sizes = [len(share) for share in shares]
        return (len(union) == sum(sizes) == partitions
                and max(sizes) - min(sizes) <= 1)

    waiting.until(even, seconds, f"{partitions} partitions are shared by {len(members)}")
    return shares


def produce(bootstrap: str, topic: str, start: int, count: int) -> set[bytes]:
    producer = Producer({"bootstrap.servers": bootstrap})
    values = {b"%d" % n for n in range(start, start + count)}
    for value in values:
        producer.produce(topic, value, key=value)
    assert producer.flush(30) == 0
    return values


def described(admin, group: str):
    return admin.describe_consumer_groups([group])[group].result(20)


def test_members_share_partitions_and_go_on_with_what_others_had(bootstrap, topic, admin, join):
    orders = topic(partitions=6)
    expected = produce(bootstrap, orders, 0, 300)
    first = join([orders])
    settled([first], 6)
    second, third = join([orders]), join([orders])
    settled([first, second, third], 6)
    state = described(admin, join.group)
    assert state.state == ConsumerGroupState.STABLE and len(state.members) == 3
    expected |= produce(bootstrap, orders, 300, 300)
    waiting.until(lambda: [m.poll() for m in (first, second, third)] and
                  set().union(*(m.values for m in (first, second, third))) == expected,
                  30, "all records are read")
    second.close()
    settled([first, third], 6)
    expected |= produce(bootstrap, orders, 600, 100)
    waiting.until(lambda: [m.poll() for m in (first, third)] and
                  set(first.values) | set(second.values) | set(third.values) == expected,
                  30, "nothing is lost when a member leaves")


def test_java_and_librdkafka_are_members_of_one_group(bootstrap, topic, java_client, join):
    orders = topic(partitions=4)
    expected = produce(bootstrap, orders, 0, 100)
    member, name = join([orders]), uuid.uuid4().hex
    java_client.call("open", name=name, group=join.group, topics=[orders],
                     config={"group.protocol": "consumer"})
    read: set[bytes] = set()

    def shared() -> bool:
        got = java_client.call("poll", name=name, count=1, timeout_ms=200)
        read.update(java_record(r).value for r in got["records"])
        ours, theirs = member.poll(), {(t, p) for t, p in got["assignment"]}
        return len(ours) == len(theirs) == 2 and not ours & theirs and read | set(member.values) == expected

    waiting.until(shared, 40, "they share the partitions and have read all records")
    java_client.call("close", name=name)
    settled([member], 4)


def test_range_is_an_assignor(topic, join):
    orders = topic(partitions=4)
    config = {"group.remote.assignor": "range"}
    members = [join([orders], **config), join([orders], **config)]
    shares = settled(members, 4)
    numbers = sorted(sorted(partition for _, partition in share) for share in shares)
    assert numbers == [[0, 1], [2, 3]]


def test_an_expression_finds_topics_that_come_later(bootstrap, topic, join):
    stem = topic(partitions=1)
    member = join([f"^{stem}.*"])
    settled([member], 1)
    from conftest import create
    from confluent_kafka.admin import AdminClient
    create(AdminClient({"bootstrap.servers": bootstrap}), f"{stem}-later", 2)
    settled([member], 3)


def test_a_static_member_comes_back_to_its_partitions(topic, join):
    orders = topic(partitions=4)
    first = join([orders], **{"group.instance.id": "i1"})
    second = join([orders], **{"group.instance.id": "i2"})
    had = settled([first, second], 4)[0]
    first.close()
    again = join([orders], **{"group.instance.id": "i1"})
    assert settled([again, second], 4)[0] == had


def test_a_group_changes_over_and_back_under_load(bootstrap, topic, admin, join):
    orders = topic(partitions=6)
    expected = produce(bootstrap, orders, 0, 200)
    members = [join([orders], **CLASSIC), join([orders], **CLASSIC)]
    settled(members, 6)
    everyone = list(members)

    def roll(config: dict, start: int) -> None:
        nonlocal expected
        for place in range(len(members)):
            expected |= produce(bootstrap, orders, start + 100 * place, 100)
            members[place].close()
            members[place] = join([orders], **config)
            everyone.append(members[place])
            settled(members, 6)

    roll({}, 1_000)
    listed = admin.list_consumer_groups().result().valid
    assert "CONSUMER" in [str(g.type).upper().rsplit(".")[-1] for g in listed if g.group_id == join.group]
    roll(CLASSIC, 2_000)
    assert len(described(admin, join.group).members) == 2
    waiting.until(lambda: [m.poll() for m in members] and
                  set().union(*(m.values for m in everyone)) == expected,
                  30, "nothing is lost while the protocol changes")


def test_offsets_of_a_live_group_are_its_members(topic, admin, join):
    orders = topic(partitions=1)
    member = join([orders])
    settled([member], 1)
    wanted = ConsumerGroupTopicPartitions(join.group, [TopicPartition(orders, 0, 5)])
    altered = admin.alter_consumer_group_offsets([wanted])[join.group].result(20)
    error = altered.topic_partitions[0].error
    assert error is not None and error.code() == confluent_kafka.KafkaError.UNKNOWN_MEMBER_ID
    with pytest.raises(confluent_kafka.KafkaException) as refused:
        admin.delete_consumer_groups([join.group])[join.group].result(20)
    assert refused.value.args[0].code() == confluent_kafka.KafkaError.NON_EMPTY_GROUP
    member.close()
    admin.delete_consumer_groups([join.group])[join.group].result(20)


def test_members_keep_their_epochs_through_a_crash(own_server, name):
    from conftest import create
    from confluent_kafka.admin import AdminClient
    server = own_server(servers.Options())
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    create(client, name, 4)
    members = [Member(server.bootstrap, name, [name]) for _ in range(2)]
    try:
        before = settled(members, 4)
        server.kill()
        server.start()
        expected = produce(server.bootstrap, name, 0, 100)
        waiting.until(lambda: [m.poll() for m in members] and
                      set(members[0].values) | set(members[1].values) == expected,
                      60, "members read on after a crash")
        assert [m.poll() for m in members] == before, "nobody lost a partition"
    finally:
        for member in members:
            member.close()
