"""Volumes that lie in the bucket: on a real S3 server, and in the directory bucket.

What a client was told is there after crashes of the server and of the store; of two processes that
want one volume, the second gets it and the first stops serving; an append costs no GET and no LIST.
"""

from __future__ import annotations

import pathlib
import shutil
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from blackbox import servers, verify, waiting
from blackbox.clients import PRODUCERS, Record
from blackbox.s3 import S3, SluiceOnS3
from conftest import create

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Kafka has no bucket")

PREFIX = "some/prefix"
OPTIONS = servers.Options(segment_bytes=1 << 20, upload_max_age_ms=60_000, volume_bytes=64 << 20)


def in_the_bucket(server: servers.Sluice, linger_ms: int = 50) -> servers.Sluice:
    """The server, with its volumes in its bucket."""
    environment = server.environment
    server.environment = lambda: {**environment(), "SLUICE_VOLUMES_KIND": "object",
                                  "SLUICE_VOLUMES_LINGER": f"{linger_ms}ms"}
    return server


@pytest.fixture(scope="module")
def s3():
    with S3() as running:
        yield running


def produce(server: servers.Sluice, topic: str, values: list[bytes]) -> None:
    PRODUCERS["librdkafka"](server.bootstrap, topic, "none", [Record(v, partition=0) for v in values])


def read(server: servers.Sluice, topic: str) -> list[bytes]:
    return [value for _, value in verify.read_partition(server.bootstrap, topic, 0)]


def wal(objects: dict[str, int]) -> dict[str, int]:
    return {key: size for key, size in objects.items() if "/wal/" in key}


def test_records_survive_crashes_of_the_server_and_of_s3(s3):
    s3.make_bucket("crashes")
    server = in_the_bucket(SluiceOnS3(s3, "crashes", PREFIX, OPTIONS))
    try:
        server.start()
        create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
        sent: list[bytes] = []
        for round_ in range(3):
            values = [f"{round_}-{i}".encode().ljust(3000, b".") for i in range(200)]
            produce(server, "t", values)
            sent += values
            server.restart(crash=True)
            assert read(server, "t") == sent
        assert wal(s3.objects("crashes")), "nothing lies in the bucket's log"
        s3.kill()
        s3.start()
        more = [b"after the store came back"]
        produce(server, "t", more)
        server.restart(crash=True)
        assert read(server, "t") == sent + more
    finally:
        server.close()


def test_an_append_costs_a_put_alone_and_a_trim_removes(s3):
    s3.make_bucket("costs")
    server = in_the_bucket(SluiceOnS3(s3, "costs", PREFIX, OPTIONS))
    try:
        server.start()
        create(AdminClient({"bootstrap.servers": server.bootstrap}), "t", 1)
        # The journal of the catalog looks for an older one once.
        server.wait_for_journal()
        before = s3.requests("costs")
        begun = time.monotonic()
        for i in range(20):
            produce(server, "t", [f"{i}".encode()])
        after = s3.requests("costs")
        lasted_ms = (time.monotonic() - begun) * 1000
        grown = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in ("PUT", "GET", "LIST")}
        assert grown["LIST"] == 0 and grown["GET"] == 0, grown
        # At most one in 50 ms; the catalog's journal and its like take a few.
        assert 1 <= grown["PUT"] <= lasted_ms / 50 + 10, (grown, lasted_ms)
        produce(server, "t", [b"x" * 100_000 for _ in range(40)])
        waiting.until(lambda: sum(wal(s3.objects("costs")).values()) < 2 << 20, 30,
                      "the log's objects are removed behind an upload")
    finally:
        server.close()


def test_of_two_processes_the_second_has_the_volume(tmp_path):
    """The first is not told: it finds out at its next append, and its client gets no wrong answer."""
    bucket = tmp_path / "bucket"
    first = in_the_bucket(OnDirectory(bucket, data=tmp_path / "first"))
    second = in_the_bucket(OnDirectory(bucket, data=tmp_path / "second"))
    try:
        first.start()
        create(AdminClient({"bootstrap.servers": first.bootstrap}), "t", 1)
        produce(first, "t", [b"a"])
        # The catalog of a cluster is not shared between machines yet: the second has a copy.
        shutil.copytree(tmp_path / "first" / "catalog", tmp_path / "second" / "catalog")
        second.start()
        assert read(second, "t") == [b"a"]
        refused = confluent_kafka.Producer({
            "bootstrap.servers": first.bootstrap, "message.timeout.ms": 4000,
            "enable.idempotence": False})
        outcomes: list[object] = []
        refused.produce("t", b"lost", partition=0, on_delivery=lambda error, _: outcomes.append(error))
        refused.flush(10)
        assert outcomes and outcomes[0] is not None, "the first still acknowledges"
        waiting.until(lambda: not first.alive, 20, "the first has ended: it lost its volume")
        produce(second, "t", [b"b"])
        second.restart(crash=True)
        assert read(second, "t") == [b"a", b"b"]
    finally:
        first.close()
        second.close()


class OnDirectory(servers.Sluice):
    """Sluice with a directory as its bucket, not below its own data."""

    def __init__(self, bucket: pathlib.Path, data: pathlib.Path):
        data.mkdir()
        super().__init__(OPTIONS, data)
        self._bucket = bucket

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "SLUICE_BUCKET_URL": f"file://{self._bucket}"}
