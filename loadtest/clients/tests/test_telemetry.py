"""Clients' own metrics (KIP-714), end to end: an admin subscribes, clients push, the operator's metrics show it.

The operator's side is Sluice's own; Kafka hands what is pushed to a plugin.
"""

from __future__ import annotations

import os
import re
import urllib.request

import confluent_kafka
import pytest

from blackbox import clients, servers, tools, waiting

pytestmark = pytest.mark.skipif(os.environ.get("SLUICE_TEST_KIND") == "kafka",
                                reason="Kafka shows its operator nothing of it by itself")


def shown(server) -> dict[str, float]:
    """The operator's lines about clients' metrics: `kind metric` -> value, over all tenants."""
    url = f"http://{servers.HOST}:{server.http_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    lines = re.findall(r'^sluice_gateway_(client_metric_\w+)\{tenant="\d+",metric="([^"]+)"\} (\S+)$', text, re.M)
    return {f"{kind} {metric}": float(value) for kind, metric, value in lines}


def subscribe(server, name: str, prefix: str, software: str) -> None:
    tools.run(server.bootstrap, "kafka-client-metrics", "--alter", "--name", name, "--metrics", prefix,
              "--interval", "200", "--match", f"client_software_name={software}").ok()


def test_librdkafka_pushes_what_was_subscribed_to(server, name, topic):
    written = topic()
    subscribe(server, name, "org.apache.kafka.producer.connection.creation", "confluent-kafka-python")
    producer = confluent_kafka.Producer({"bootstrap.servers": server.bootstrap, "enable.metrics.push": True})
    producer.produce(written, value=b"v")
    assert producer.flush(30) == 0

    def pushed() -> list[str]:
        producer.poll(0)
        return [line for line in shown(server) if " org.apache.kafka.producer.connection.creation" in line]
    waiting.until(pushed, 60, "the operator's metrics show the producer's connections")
    others = [line for line in shown(server) if " org.apache.kafka.producer.node.request" in line]
    assert not others, "nobody subscribed to these"
    tools.run(server.bootstrap, "kafka-client-metrics", "--delete", "--name", name).ok()


def test_java_pushes_what_was_subscribed_to(server, name, topic):
    written = topic()
    subscribe(server, name, "org.apache.kafka.producer.node.request.latency", "apache-kafka-java")

    def pushed() -> list[str]:
        # A producer that is closed pushes once more, if it has heard of the subscription by then.
        clients.produce_java(server.bootstrap, written, "none", [clients.Record(b"v")])
        return [line for line in shown(server) if " org.apache.kafka.producer.node.request.latency" in line]
    waiting.until(pushed, 60, "the operator's metrics show the producer's requests")
    tools.run(server.bootstrap, "kafka-client-metrics", "--delete", "--name", name).ok()
