"""Share groups (KIP-932) with the Java client's KafkaShareConsumer: several consumers, implicit and explicit
acknowledgements, release, reject, renewal, locks that run out, delivery counts, offsets set by an admin,
and a server that is killed.
"""

from __future__ import annotations

import contextlib
import time

import pytest

from blackbox import java, waiting


class Group:
    """A share group on one topic, with consumers of the Java client."""

    def __init__(self, bootstrap: str, group: str, topic: str, driver: java.Driver | None = None):
        self.driver = driver or java.driver(bootstrap)
        self.group, self.topic = group, topic

    def configure(self, **configs: str) -> None:
        ops = [["SET", key.replace("_", "."), value] for key, value in configs.items()]
        self.driver.call("alter_configs", group=self.group, ops=ops)

    def produce(self, values: range, partitions: int = 1) -> None:
        records = [{"value": b"%d" % i, "partition": i % partitions} for i in values]
        self.driver.call("produce", topic=self.topic, records=records)

    def open(self, name: str, mode: str = "implicit", **config: str) -> None:
        self.driver.call("share_open", name=self._name(name), group=self.group, mode=mode,
                         topics=[self.topic],
                         config={key.replace("_", "."): value for key, value in config.items()})

    def poll(self, name: str, count: int, timeout_ms: int = 15_000, **how: object) -> list[dict]:
        answer = self.driver.call("share_poll", name=self._name(name), count=count,
                                  timeout_ms=timeout_ms, **how)
        assert not answer["errors"], answer["errors"]
        return answer["records"]

    def close(self, name: str) -> None:
        self.driver.call("share_close", name=self._name(name))

    def offsets(self) -> dict[int, tuple[int, int]]:
        """Partition to (start offset, lag)."""
        found = self.driver.call("share_offsets", group=self.group)
        return {partition: (start, lag) for partition, start, lag in found}

    def describe(self) -> dict:
        return self.driver.call("share_group", group=self.group)

    def _name(self, name: str) -> str:
        return f"{self.group}-{name}"


def values(records: list[dict]) -> list[int]:
    return sorted(int(java.unpack(record["value"])) for record in records)


def deliveries(records: list[dict]) -> set[int]:
    return {record["deliveries"] for record in records}


@pytest.fixture
def group(bootstrap, name, topic):
    made = Group(bootstrap, name, topic())
    made.configure(share_auto_offset_reset="earliest")
    return made


def test_each_record_goes_to_one_consumer(group, topic):
    group.topic = topic(partitions=3)
    names = ["a", "b"]
    for member in names:
        group.open(member, max_poll_records="20")

    def shared_out() -> bool:
        for member in names:
            assert group.poll(member, 1, 100) == []
        return sorted(group.describe()["members"]) == [1, 2]

    waiting.until(shared_out, 60, "partitions of their own for both")
    group.produce(range(300), partitions=3)
    seen: list[dict] = []
    by_member = dict.fromkeys(names, 0)

    def drained() -> bool:
        for member in names:
            got = group.poll(member, 1, 500)
            by_member[member] += len(got)
            seen.extend(got)
        return len(seen) >= 300

    waiting.until(drained, 60, "all records")
    assert values(seen) == list(range(300)), "each once"
    assert deliveries(seen) == {1}
    assert all(by_member.values()), by_member
    assert group.describe()["state"].lower() == "stable"
    for member in names:
        group.close(member)
    assert group.offsets() == {0: (100, 0), 1: (100, 0), 2: (100, 0)}
    group.driver.call("delete_share_group", group=group.group)
    with pytest.raises(java.JavaError, match="not found|GroupIdNotFound"):
        group.describe()


def test_explicit_acknowledgements(group):
    group.produce(range(10))
    group.open("a", mode="explicit")
    first = group.poll("a", 10, say="RELEASE")
    assert (values(first), deliveries(first)) == (list(range(10)), {1})
    again = group.poll("a", 10, say="REJECT")
    assert (values(again), deliveries(again)) == (list(range(10)), {2})
    assert group.poll("a", 1, 1_500, say="ACCEPT") == []
    assert group.offsets() == {0: (10, 0)}
    group.close("a")


def test_a_record_is_given_up_at_the_limit(group):
    group.configure(share_delivery_count_limit="2")
    group.produce(range(3))
    group.open("a", mode="explicit")
    seen = [record for _ in range(8) for record in group.poll("a", 3, 700, say="RELEASE")]
    counts = {value: values(seen).count(value) for value in range(3)}
    assert counts == {0: 2, 1: 2, 2: 2}
    assert group.offsets() == {0: (3, 0)}
    group.close("a")


def test_a_consumer_that_goes_away_gives_back_what_it_had(group):
    group.produce(range(5))
    group.open("a", mode="explicit")
    assert values(group.poll("a", 5, commit=False)) == list(range(5))
    group.close("a")
    group.open("b")
    got = group.poll("b", 5)
    assert values(got) == list(range(5))
    group.close("b")


def test_a_lock_that_runs_out_gives_the_records_to_another(group):
    group.configure(share_record_lock_duration_ms="15000")
    group.produce(range(5))
    group.open("a", mode="explicit")
    assert values(group.poll("a", 5, commit=False)) == list(range(5))
    group.open("b")
    assert group.poll("b", 1, 3_000) == [], "they are locked"
    got = group.poll("b", 5, 30_000)
    assert (values(got), deliveries(got)) == (list(range(5)), {2})
    for member in ["b", "a"]:
        group.close(member)


def test_a_lock_is_renewed(group):
    group.produce(range(5))
    group.open("a", mode="explicit")
    assert values(group.poll("a", 5, say="RENEW")) == list(range(5))
    # What is renewed is the consumer's still: the client gives it to the application again.
    again = group.poll("a", 5, say="ACCEPT")
    assert (values(again), deliveries(again)) == (list(range(5)), {1})
    group.close("a")
    assert group.offsets() == {0: (5, 0)}


def test_offsets_are_set_and_deleted(group):
    group.produce(range(10))
    group.open("a")
    assert values(group.poll("a", 10)) == list(range(10))
    with pytest.raises(java.JavaError):
        group.driver.call("alter_share_offsets", group=group.group, topic=group.topic,
                          partition=0, offset=7)
    group.close("a")
    group.driver.call("alter_share_offsets", group=group.group, topic=group.topic, partition=0, offset=7)
    assert group.offsets() == {0: (7, 3)}
    group.open("b")
    assert values(group.poll("b", 3)) == [7, 8, 9]
    group.close("b")
    group.driver.call("delete_share_offsets", group=group.group, topic=group.topic)
    assert group.offsets() == {}
    group.open("c")
    assert values(group.poll("c", 10)) == list(range(10))
    group.close("c")


def test_what_was_acknowledged_survives_a_kill(own_server, name):
    server = own_server()
    group = Group(server.bootstrap, name, f"{name}-t")
    group.driver.call("create_topic", topic=group.topic, partitions=1)
    group.configure(share_auto_offset_reset="earliest")
    group.produce(range(20))
    group.open("a", mode="explicit")
    accepted = values(group.poll("a", 20, say="ACCEPT"))
    assert accepted == list(range(20))
    group.produce(range(20, 60))
    held = values(group.poll("a", 1, commit=False))
    assert held and not set(held) & set(accepted)
    server.kill()
    server.start()
    group.open("b", mode="explicit")
    rest: list[dict] = []

    def drained() -> bool:
        rest.extend(group.poll("b", 1, 1_000, say="ACCEPT"))
        return len(set(values(rest))) >= 60 - len(accepted)

    waiting.until(drained, 60, "the rest of the records")
    assert sorted(set(values(rest)) | set(accepted)) == list(range(60)), "at least once"
    assert not set(values(rest)) & set(accepted), "what was accepted is not delivered again"
    with contextlib.suppress(java.JavaError):
        group.close("a")
    group.close("b")


def test_what_a_killed_consumer_had_is_given_to_another_at_once(bootstrap, group):
    """Long before the locks run out: the share session ends with the connection."""
    group.configure(share_record_lock_duration_ms="60000")
    group.produce(range(10))
    process = java.Driver(bootstrap)
    try:
        doomed = Group(bootstrap, group.group, group.topic, process)
        doomed.open("doomed", "explicit")
        held = doomed.poll("doomed", 10)
        assert (values(held), deliveries(held)) == (list(range(10)), {1})
        group.open("heir")
        assert group.poll("heir", 1, 2_000) == []
    finally:
        process.end()
    begun = time.monotonic()
    got = group.poll("heir", 10, 45_000)
    assert (values(got), deliveries(got)) == (list(range(10)), {2})
    assert time.monotonic() - begun < 45, "the locks would have run out"
