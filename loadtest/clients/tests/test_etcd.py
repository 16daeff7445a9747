"""The catalog in etcd: what goes on without it, and what is there again."""

from __future__ import annotations

import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import servers, verify, waiting
from blackbox.clients import PRODUCERS, Record
from blackbox.etcd import Etcd, SluiceOnEtcd
from conftest import create

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no etcd")

PARTITIONS = 3


@pytest.fixture
def etcd():
    with Etcd() as etcd:
        yield etcd


class Producing:
    """An idempotent producer that goes on until it is told to end."""

    def __init__(self, bootstrap: str, topic: str):
        self.ledger = verify.Ledger()
        self._topic = topic
        self._producer = confluent_kafka.Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
            "message.timeout.ms": 120_000})
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        sequences = [0] * PARTITIONS
        while not self._end.is_set():
            for partition in range(PARTITIONS):
                sequence = sequences[partition]
                sequences[partition] += 1

                def told(error, message, partition=partition, sequence=sequence):
                    if error is None:
                        self.ledger.acknowledge(partition, message.offset(), 0, sequence)
                    else:
                        self.ledger.refuse()

                self._producer.produce(self._topic, verify.value(0, sequence, 200),
                                       partition=partition, on_delivery=told)
            self._producer.poll(0.005)
        self._producer.flush(60)

    def acked(self) -> int:
        return len(self.ledger.acked)

    def goes_on(self) -> None:
        before = self.acked()
        waiting.until(lambda: self.acked() > before + 50, 10, "records are acknowledged")

    def end(self) -> verify.Ledger:
        self._end.set()
        self._thread.join(70)
        assert not self._thread.is_alive()
        return self.ledger


def made(admin: AdminClient, name: str) -> bool:
    """Whether a topic is there after a try to create it."""
    try:
        admin.create_topics([NewTopic(name, 1, 1)], request_timeout=10)[name].result(15)
        return True
    except confluent_kafka.KafkaException as e:
        return e.args[0].code() == confluent_kafka.KafkaError.TOPIC_ALREADY_EXISTS


def test_the_data_path_goes_on_without_etcd_and_all_is_there_again(etcd):
    with SluiceOnEtcd(etcd, "/sluice/a/", servers.Options(upload_max_age_ms=500)) as server:
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        create(admin, "t", PARTITIONS)
        keys = etcd.ctl("get", "--prefix", "/sluice/a/", "--keys-only")
        assert "/topics/" in keys, keys
        producing = Producing(server.bootstrap, "t")
        producing.goes_on()

        # Longer than the node's lease lasts.
        etcd.kill()
        down = time.monotonic()
        while time.monotonic() - down < 15:
            producing.goes_on()
            assert "t" in admin.list_topics(timeout=10).topics
            assert verify.read_partition(server.bootstrap, "t", 0, timeout_s=20)
        assert not made(admin, "while-down")
        server.assert_alive()

        etcd.start()
        waiting.until(lambda: made(admin, "after"), 20, "topics can be created again", 0.5)
        producing.goes_on()

        # Both at once, without a warning; the producer goes on by itself.
        etcd.kill()
        server.kill()
        etcd.start()
        server.start()
        producing.goes_on()
        ledger = producing.end()
        assert ledger.refused == 0
        verdict = verify.judge(server.bootstrap, "t", PARTITIONS, ledger)
        assert verdict.acked == len(ledger.acked)
        assert "after" in admin.list_topics(timeout=20).topics
        server.restart()
        verify.judge(server.bootstrap, "t", PARTITIONS, ledger)


def test_one_process_uses_a_prefix_and_clusters_share_an_etcd(etcd):
    with SluiceOnEtcd(etcd, "/sluice/a/") as ours, SluiceOnEtcd(etcd, "/sluice/b/") as theirs:
        for server in (ours, theirs):
            PRODUCERS["librdkafka"](server.bootstrap, "t", "none", [Record(b"v")])
        admins = [AdminClient({"bootstrap.servers": s.bootstrap}) for s in (ours, theirs)]
        assert len({admin.describe_cluster().result(20).cluster_id for admin in admins}) == 2
        second = SluiceOnEtcd(etcd, "/sluice/a/", servers.Options(node_id=2))
        with pytest.raises(servers.NotReady, match="node 1 is live under this catalog.etcd.prefix"):
            second.start()
        second.close()
        ours.assert_alive()


def test_without_etcd_the_start_says_so(etcd):
    etcd.kill()
    server = SluiceOnEtcd(etcd, "/sluice/a/")
    with pytest.raises(servers.NotReady, match="catalog.store is etcd.*refused"):
        server.start()
    server.close()
