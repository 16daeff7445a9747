"""Streams that move between volumes under clients that know nothing of it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import threading
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from blackbox import servers, verify, waiting
from blackbox.etcd import Etcd, SluiceOnEtcd
from conftest import create
from test_etcd import PARTITIONS, Producing

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no volumes")

PREFIX = "/sluice/moves/"
MOVES = 12


class TwoVolumes(SluiceOnEtcd):
    def environment(self) -> dict[str, str]:
        return super().environment() | {"SLUICE_VOLUMES_COUNT": "2"}


class Restored(servers.Sluice):
    """On the bucket of another, which is gone."""

    def __init__(self, bucket: str, data: pathlib.Path):
        super().__init__(servers.Options(), data)
        self._bucket = bucket

    def config(self) -> str:
        return super().config() + f'[bucket]\nurl = "{self._bucket}"\n'

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SLUICE_VOLUMES_COUNT": "2"}


class Committing(threading.Thread):
    """A transactional producer; every third transaction is aborted."""

    def __init__(self, bootstrap: str, topic: str):
        super().__init__(daemon=True)
        self.committed: list[bytes] = []
        self.rounds = 0
        self.ending = threading.Event()
        self.error: BaseException | None = None
        self._topic = topic
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": bootstrap, "transactional.id": "moves", "linger.ms": 0})
        self.start()

    def run(self) -> None:
        try:
            self._producer.init_transactions(30)
            while not self.ending.is_set():
                values = [f"{self.rounds}-{n}".encode() for n in range(3)]
                self._producer.begin_transaction()
                for value in values:
                    self._producer.produce(self._topic, value, partition=0)
                self._producer.flush(30)
                if self.rounds % 3 == 2:
                    self._producer.abort_transaction(30)
                else:
                    self._producer.commit_transaction(30)
                    self.committed += values
                self.rounds += 1
        except BaseException as e:
            self.error = e


class Catalog:
    """Says in etcd what moves, as `Catalog::move_stream` does."""

    def __init__(self, etcd: Etcd):
        self._etcd = etcd

    def _get(self, key: str) -> dict | None:
        text = self._etcd.ctl("get", "--print-value-only", key)
        return json.loads(text) if text and text.strip() else None

    def topic(self, name: str) -> tuple[str, dict]:
        keys = self._etcd.ctl("get", "--prefix", PREFIX, "--keys-only").split()
        key = next(key for key in keys if "/topics/" in key and key.endswith(f"/{name}"))
        return key, self._get(key)

    def move(self, name: str, partition: int) -> float:
        """To the other volume; gives how long that took."""
        key, topic = self.topic(name)
        before = topic["partitions"][partition]
        at = key.index("/topics/")
        tenant = int(key[at:].split("/")[2])
        move = f"{key[:at]}/moves/{topic['id']}/{partition}"
        begun = time.monotonic()
        wish = json.dumps({"tenant": tenant, "from": before, "to": 1 - before})
        assert self._etcd.ctl("put", move, wish) is not None
        waiting.until(lambda: self._get(move) is None, 20, "the move ends", 0.02)
        took = time.monotonic() - begun
        assert self.topic(name)[1]["partitions"][partition] == 1 - before, "it has moved"
        return took


def committed(bootstrap: str, topic: str) -> list[bytes]:
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "committed", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True})
    found: list[bytes] = []
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    try:
        while True:
            message = consumer.poll(30)
            assert message is not None, "no answer"
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF
                return found
            found.append(message.value())
    finally:
        consumer.close()


def tool(*args: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}
    done = subprocess.run([servers.Sluice.binary(), *args], env=env, text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_clients_notice_nothing_of_streams_that_move(tmp_path):
    with Etcd() as etcd, TwoVolumes(
            etcd, PREFIX, servers.Options(upload_max_age_ms=200, tail_cache_bytes=1 << 20)) as server:
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        create(admin, "t", PARTITIONS)
        create(admin, "x", 1)
        catalog = Catalog(etcd)
        producing = Producing(server.bootstrap, "t")
        transactions = Committing(server.bootstrap, "x")
        producing.goes_on()
        for n in range(MOVES):
            catalog.move("t", n % PARTITIONS)
            producing.goes_on()
            catalog.move("x", 0)
            before = transactions.rounds
            waiting.until(lambda: transactions.rounds > before + 1 or transactions.error, 20,
                          "transactions go on")
        transactions.ending.set()
        transactions.join(60)
        assert transactions.error is None
        ledger = producing.end()
        assert ledger.refused == 0
        assert committed(server.bootstrap, "x") == transactions.committed
        verify.judge(server.bootstrap, "t", PARTITIONS, ledger)

        # Killed, and back: what moved is where it was.
        server.kill()
        server.start()
        verify.judge(server.bootstrap, "t", PARTITIONS, ledger)
        assert committed(server.bootstrap, "x") == transactions.committed
        tool("verify", "--data-dir", str(server.data), "--deep")

        # The bucket alone knows where everything is.
        server.stop()
        bucket, data = f"file:{server.data / 'bucket'}", tmp_path / "new"
        tool("restore", "--from", bucket, "--data-dir", str(data), "--yes")
        with Restored(bucket, data) as restored:
            verify.judge(restored.bootstrap, "t", PARTITIONS, ledger)
            assert committed(restored.bootstrap, "x") == transactions.committed
