"""What is there again after a graceful stop and after a crash."""

from __future__ import annotations

import threading
import time

import confluent_kafka
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from kafka.protocol.consumer import HeartbeatRequest
from kafka.protocol.metadata import MetadataRequest

from blackbox import servers, waiting
from blackbox.clients import CONSUMERS, PRODUCERS, Record
from blackbox.wire import Raw, batch
from conftest import create
from test_groups import Librdkafka, poll_until, raw_member, shared
from test_protocol import new_producer_id, produce

CRASH = pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])


@CRASH
def test_everything_is_there_again(own_server, crash):
    server = own_server()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    create(admin, "kept", 3, {"retention.ms": "86400000"})
    create(admin, "gone", 1)
    for codec in ("none", "zstd"):
        for producer in PRODUCERS:
            PRODUCERS[producer](server.bootstrap, "kept", codec, [
                Record(f"{producer} {codec} {i}".encode(), key=b"k", partition=1) for i in range(50)])
    admin.delete_topics(["gone"])["gone"].result(20)
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(
        "g", [TopicPartition("kept", 1, 123)])])["g"].result(20)
    # Kafka writes the log's start down once a minute, so it forgets a deletion when it crashes.
    low = 0 if crash and servers.kind() == "kafka" else 10
    list(admin.delete_records([TopicPartition("kept", 1, low)]).values())[0].result(20)
    cluster = admin.describe_cluster().result(20).cluster_id
    with Raw(server.bootstrap) as raw:
        ids = {t.name: t.topic_id for t in raw.call(MetadataRequest(topics=None), 12).topics}
    before = CONSUMERS["librdkafka"](server.bootstrap, "kept", 400 - low)
    assert [r.offset for r in before] == list(range(low, 400))

    server.restart(crash)

    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    waiting.until(lambda: "kept" in admin.list_topics(timeout=20).topics, 20, "the topic")
    assert admin.describe_cluster().result(20).cluster_id == cluster
    with Raw(server.bootstrap) as raw:
        again = {t.name: t.topic_id for t in raw.call(MetadataRequest(topics=None), 12).topics}
    assert again["kept"] == ids["kept"]
    assert "gone" not in again
    resource = ConfigResource(ConfigResource.Type.TOPIC, "kept")
    assert admin.describe_configs([resource])[resource].result(20)["retention.ms"].value == "86400000"
    assert len(admin.list_topics("kept", timeout=20).topics["kept"].partitions) == 3
    for consumer in CONSUMERS.values():
        after = consumer(server.bootstrap, "kept", 400 - low)
        assert [(r.offset, r.content, r.timestamp) for r in after] == \
            [(r.offset, r.content, r.timestamp) for r in before]
    got = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("g")])["g"].result(20)
    assert [(p.topic, p.partition, p.offset) for p in got.topic_partitions] == [("kept", 1, 123)]
    placed = PRODUCERS["librdkafka"](server.bootstrap, "kept", "none", [Record(b"next", partition=1)])
    assert placed == [(1, 400)]


def test_a_graceful_stop_is_quick_with_clients_connected(own_server):
    server = own_server()
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    create(admin, "t", 1)
    member = Librdkafka(server.bootstrap, "g", "t")
    poll_until([member], shared(1, 1), "assigned")
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(b"v")])
    took = server.stop()
    if servers.kind() == "sluice":
        assert took < 5, f"{took:.1f} s to stop"
    server.start()
    got = poll_until([member], lambda _o, r: len(r) >= 1, "the consumer goes on by itself")
    assert [r.value for r in got] == [b"v"]
    member.close()


@CRASH
def test_a_group_goes_on_without_a_rebalance(own_server, crash):
    """Members are persisted: the same member ids, generation and assignment after the restart."""
    server = own_server()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
    with Raw(server.bootstrap) as raw:
        member = raw_member(raw, "g", "t", session_ms=60_000)
    server.restart(crash)

    def beat() -> int:
        with Raw(server.bootstrap) as raw:
            return raw.call(HeartbeatRequest(group_id="g", generation_id=1, member_id=member), 3).error_code

    # 14 and 16: the coordinator is loading, or not here yet.
    code = waiting.until(lambda: (c := beat()) not in (14, 15, 16) and c + 1, 30, "a coordinator") - 1
    assert code == 0


@CRASH
def test_producer_state_survives(own_server, crash):
    server = own_server()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
    with Raw(server.bootstrap) as raw:
        pid, _ = new_producer_id(raw)
        sent = batch([b"0", b"1"], producer=(pid, 0, 0))
        for _ in range(2):
            assert produce(raw, 9, sent, "t").base_offset == 0
    server.restart(crash)
    with Raw(server.bootstrap) as raw:
        # Metadata may name a leader a moment before it serves (6: NOT_LEADER_OR_FOLLOWER).
        again = waiting.until(
            lambda: (a := produce(raw, 9, sent, "t")).error_code not in (3, 5, 6) and a, 20, "a leader")
        assert (again.error_code, again.base_offset) == (0, 0), "a repeat, known over the restart"
        gap = produce(raw, 9, batch([b"5"], producer=(pid, 0, 5)), "t")
        assert gap.error_code == 45, "OUT_OF_ORDER_SEQUENCE_NUMBER"
        assert produce(raw, 9, batch([b"2"], producer=(pid, 0, 2)), "t").base_offset == 2
        other, _ = new_producer_id(raw)
        assert other != pid, "a producer id was given out twice"


@CRASH
@pytest.mark.parametrize("client", ["librdkafka", "java"])
def test_an_idempotent_producer_goes_on(own_server, client, crash):
    """The producer sends while the server goes away and comes back; each record is there once."""
    server = own_server()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
    count = 20_000 if client == "librdkafka" else 60_000
    records = [Record(str(i).encode(), partition=0) for i in range(count)]
    failed: list[BaseException] = []

    def send() -> None:
        try:
            if client == "librdkafka":
                producer = confluent_kafka.Producer({
                    "bootstrap.servers": server.bootstrap, "enable.idempotence": True,
                    "linger.ms": 1, "message.timeout.ms": 120_000, "reconnect.backoff.max.ms": 300,
                    "batch.num.messages": 50})
                for i, r in enumerate(records):
                    producer.produce("t", value=r.value, partition=0,
                                     on_delivery=lambda e, _m: e and failed.append(Exception(e)))
                    producer.poll(0)
                    if i % 50 == 0:
                        time.sleep(0.002)  # Spread over the restart, not to wait for anything.
                assert producer.flush(120) == 0
            else:
                PRODUCERS["java"](server.bootstrap, "t", "none", records, **{
                    "delivery.timeout.ms": "120000", "batch.size": "400", "linger.ms": "0",
                    "enable.idempotence": "true"})
        except BaseException as e:
            failed.append(e)

    sender = threading.Thread(target=send)
    sender.start()

    def end() -> int:
        consumer = confluent_kafka.Consumer({"bootstrap.servers": server.bootstrap, "group.id": "e"})
        try:
            return consumer.get_watermark_offsets(TopicPartition("t", 0), timeout=10)[1]
        finally:
            consumer.close()

    waiting.until(lambda: end() > 100, 60, "the first records")
    server.restart(crash)
    sender.join(150)
    assert not sender.is_alive() and not failed, failed[:1]
    got = CONSUMERS["librdkafka"](server.bootstrap, "t", count)
    assert [r.value for r in got] == [r.value for r in records]
    assert end() == count


def test_restarts_without_anything_between(own_server):
    """Ten crashes of a server that does nothing change nothing."""
    server = own_server()
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 2)
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(b"v", partition=1)] * 10)
    for _ in range(10 if servers.kind() == "sluice" else 2):
        server.restart(crash=True)
    assert len(CONSUMERS["librdkafka"](server.bootstrap, "t", 10)) == 10


@pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no bucket")
def test_from_the_bucket_as_from_memory(own_server):
    """Small segments, a small cache, a small volume: most of the topic is read from the bucket."""
    server = own_server(servers.Options(
        segment_bytes=1 << 20, upload_max_age_ms=500, volume_bytes=64 << 20, tail_cache_bytes=1 << 20))
    create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 4)
    records = [Record(i.to_bytes(4, "big") * 500, partition=i % 4) for i in range(80_000)]
    PRODUCERS["librdkafka"](server.bootstrap, "t", "none", records)  # 160 MB through 64 MiB
    for crash in (None, True):
        if crash:
            server.restart(crash)
        got = CONSUMERS["librdkafka"](server.bootstrap, "t", len(records))
        for p in range(4):
            assert [int.from_bytes(r.value[:4], "big") for r in got if r.partition == p] == \
                list(range(p, 80_000, 4))
