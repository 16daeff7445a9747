"""Clients that share no code with those of the other tests: aiokafka, and KafkaJS and @platformatic/kafka on
Node. Each goes the whole way: create, produce in several compressions, two members of a group, commits,
configs, deletion. They use older or other versions of the APIs than librdkafka and Java do.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import subprocess
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from blackbox import waiting

PARTITIONS = 4
NODE = pathlib.Path(__file__).resolve().parent.parent / "node"


def test_aiokafka(bootstrap, name):
    asyncio.run(asyncio.wait_for(_aiokafka(bootstrap, name), 60))


async def _aiokafka(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    made = await admin.create_topics(
        [NewTopic(name, PARTITIONS, 1, topic_configs={"retention.ms": "3600000"})])
    assert made.topic_errors[0][1] == 0, made
    await _led(admin, name)

    sent = set()
    for compression in (None, "gzip", "snappy", "lz4", "zstd"):
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=compression,
                                    acks="all") as producer:
            values = [f"{compression}-{i}".encode() for i in range(100)]
            acks = [await producer.send(name, value, key=value, headers=[("h", b"x")])
                    for value in values]
            await asyncio.gather(*acks)
            sent.update(values)

    members = [AIOKafkaConsumer(
        name, bootstrap_servers=bootstrap, group_id=name, auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=10_000, heartbeat_interval_ms=500)
        for _ in range(2)]
    await asyncio.gather(*(member.start() for member in members))
    await _until(lambda: all(len(member.assignment()) == 2 for member in members), "two each")
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:
        for i in range(40):
            await producer.send_and_wait(name, b"shared-%d" % i, partition=i % PARTITIONS)
            sent.add(b"shared-%d" % i)
    seen = []
    deadline = waiting.deadline(20)
    while set(seen) != sent:
        assert time.monotonic() < deadline, f"{len(set(seen))} of {len(sent)} records"
        for member in members:
            for records in (await member.getmany(timeout_ms=100)).values():
                seen += [record.value for record in records]
    assert len(seen) == len(sent), "nothing twice"
    for member in members:
        await member.commit({tp: (await member.position(tp), "words") for tp in member.assignment()})
    offsets = await admin.list_consumer_group_offsets(name)
    assert sum(offset.offset for offset in offsets.values()) == len(sent)
    assert {offset.metadata for offset in offsets.values()} == {"words"}
    group = (await admin.describe_consumer_groups([name]))[0].to_object()["groups"][0]
    assert (group["state"], len(group["members"])) == ("Stable", 2)
    for member in members:
        await member.stop()

    topic = ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": "7200000"})
    await admin.alter_configs([topic])
    described = (await admin.describe_configs([topic]))[0].resources[0][4]
    assert {config[0]: config[1] for config in described} == {"retention.ms": "7200000"}
    first = TopicPartition(name, 0)
    assert await admin.delete_records({first: RecordsToDelete(5)}) == {first: 5}
    await admin.create_partitions({name: NewPartitions(6)})
    await admin.delete_topics([name])
    assert name not in await admin.list_topics()
    await admin.close()


async def _led(admin: AIOKafkaAdminClient, topic: str) -> None:
    """Kafka knows a new topic a moment before it has leaders everywhere."""
    deadline = waiting.deadline(20)
    while True:
        seen = (await admin.describe_topics([topic]))[0]
        leaders = [p for p in seen["partitions"] if p["leader"] >= 0 and p["error_code"] == 0]
        if len(leaders) == PARTITIONS:
            return
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.05)


async def _until(condition, what: str) -> None:
    deadline = waiting.deadline(20)
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("script, oldest_node", [("kafkajs.cjs", 14), ("platformatic.mjs", 20)])
def test_node(bootstrap, name, script, oldest_node):
    version = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
    if int(re.match(r"v(\d+)", version.stdout)[1]) < oldest_node:
        pytest.skip(f"{script} needs node {oldest_node}, here is {version.stdout.strip()}")
    done = subprocess.run(
        ["node", str(NODE / script), os.environ["SLUICE_NODE_MODULES"], bootstrap, name],
        capture_output=True, text=True, timeout=60, env={**os.environ, "KAFKAJS_NO_PARTITIONER_WARNING": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
