"""The operators' tools against a real server's data: verify, restore, inspect, and the page that teaches them."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import servers, waiting, wire

pytestmark = pytest.mark.skipif(servers.kind() != "sluice", reason="Sluice's own tools")

PARTITIONS = 3


class Apart(servers.Sluice):
    """A server whose bucket lies beside its data directory, so that the one can be lost without the other."""

    def __init__(self, data: pathlib.Path, bucket: pathlib.Path):
        options = servers.Options(upload_max_age_ms=500, volume_bytes=128 << 20)
        super().__init__(options, data)
        self.bucket = bucket

    def config(self) -> str:
        return super().config() + f'[bucket]\nurl = "file:{self.bucket}"\n'


@pytest.fixture
def up(tmp_path):
    """Starts servers: `up("data", "bucket")`."""
    made = []

    def make(data: str = "data", bucket: str = "bucket") -> Apart:
        server = Apart(tmp_path / data, tmp_path / bucket)
        made.append(server)
        server.start()
        wire.wait_for_coordinator(server.bootstrap)
        return server

    yield make
    for server in made:
        server.close()


def tool(*args: object, code: int | None = 0, env: dict[str, str] | None = None) -> str:
    """Runs the binary, without the settings in its environment; gives stdout, or stderr if it was to
    fail with code 2."""
    env = {k: v for k, v in (env or os.environ).items() if not k.startswith("SLUICE_")}
    done = subprocess.run([servers.Sluice.binary(), *map(str, args)], text=True, env=env,
                          capture_output=True, timeout=120, check=False)
    assert code is None or done.returncode == code, \
        f"{args}: code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stderr if code == 2 else done.stdout


def verify(tmp_path: pathlib.Path, *more: object, data: str = "data", bucket: str = "bucket",
           code: int = 0) -> dict:
    return json.loads(tool("verify", "--data-dir", tmp_path / data, "--bucket",
                           f"file:{tmp_path / bucket}", "--output", "json", *more, code=code))


def fill(server: servers.Server, topic: str, first: int, count: int) -> None:
    producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True})
    failed = []
    for number in range(first, first + count):
        producer.produce(topic, f"{topic}-{number}".encode() * 20, partition=number % PARTITIONS,
                         on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(60) == 0 and not failed, failed


def create(server: servers.Server, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    config = {"retention.ms": "777000000"}
    made = admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, config=config)])
    made[topic].result(30)


def read(server: servers.Server, topic: str) -> dict[int, list[bytes]]:
    """Every record of the topic, by partition; the offsets must be dense."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "unused",
                         "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    ends = {p.partition: consumer.get_watermark_offsets(p, timeout=30)[1] for p in places}
    consumer.assign([TopicPartition(topic, p, 0) for p in ends])
    found: dict[int, list[bytes]] = {p: [] for p in ends}
    deadline = waiting.deadline(60)
    while any(len(found[p]) < ends[p] for p in ends):
        assert time.monotonic() < deadline, f"{ {p: len(v) for p, v in found.items()} } of {ends}"
        message = consumer.poll(1)
        if message is not None:
            assert not message.error(), message.error()
            assert message.offset() == len(found[message.partition()])
            found[message.partition()].append(message.value())
    consumer.close()
    return found


def expected(topic: str, count: int) -> dict[int, list[bytes]]:
    return {p: [f"{topic}-{n}".encode() * 20 for n in range(p, count, PARTITIONS)]
            for p in range(PARTITIONS)}


def commit(server: servers.Server, group: str, topic: str, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 1, offset)], asynchronous=False)
    consumer.close()


def committed(server: servers.Server, group: str, topic: str) -> int:
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(topic, 1)], timeout=30)[0].offset
    consumer.close()
    return found


def fingerprint(directory: pathlib.Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def objects(tmp_path: pathlib.Path, kind: str) -> list[pathlib.Path]:
    return sorted(p for p in (tmp_path / "bucket").rglob(f"*/{kind}/**/*") if p.is_file())


@pytest.fixture
def filled(up, tmp_path):
    """A stopped server's data: two topics with 3000 records each, and a group's offset."""
    server = up()
    for topic in ("first", "second"):
        create(server, topic)
        fill(server, topic, 0, 3000)
    commit(server, "readers", "first", 321)
    server.stop()
    return server


def test_the_bucket_alone_becomes_the_cluster_again(up, filled, tmp_path):
    report = verify(tmp_path, "--deep")
    assert report["clean"] and report["checked"]["batches"] > 0, report
    assert report["volumes"][0]["unuploaded_frames"] == 0, "a stop uploads the tail"
    shutil.rmtree(tmp_path / "data")

    before = fingerprint(tmp_path / "bucket")
    args = ["restore", "--from", f"file:{tmp_path / 'bucket'}", "--data-dir", tmp_path / "new"]
    assert "TAKES OVER" in tool(*args)
    assert not (tmp_path / "new").exists() and fingerprint(tmp_path / "bucket") == before
    restored = json.loads(tool(*args, "--yes", "--output", "json"))
    # Two, and the internal one of groups.
    assert restored["restored"] and restored["topics"] == 3
    assert restored["volumes"][0]["records"] == 6000
    after = fingerprint(tmp_path / "bucket")
    assert {name: after.get(name) for name in before} == before, "nothing is changed or deleted"
    assert len(after) == len(before) + 1, "one manifest is added"
    assert verify(tmp_path, data="new")["clean"]
    assert "not empty" in tool(*args, "--yes", code=2)

    server = up("new")
    for topic in ("first", "second"):
        assert read(server, topic) == expected(topic, 3000)
    assert committed(server, "readers", "first") == 321
    described = AdminClient({"bootstrap.servers": server.bootstrap}).list_topics(timeout=30)
    assert {"first", "second"} <= set(described.topics)
    # It goes on, over crashes too, and its volume's log begins where the lost one never was.
    fill(server, "first", 3000, 3000)
    commit(server, "readers", "first", 999)
    server.kill()
    server.start()
    wire.wait_for_coordinator(server.bootstrap)
    fill(server, "first", 6000, 300)
    assert read(server, "first") == expected("first", 6300)
    assert committed(server, "readers", "first") == 999
    server.stop()
    assert verify(tmp_path, "--deep", data="new")["clean"]


def test_a_crash_loses_at_most_what_was_not_uploaded(up, tmp_path):
    server = up()
    create(server, "t")
    fill(server, "t", 0, 3000)
    bucket = f"file:{tmp_path / 'bucket'}"
    waiting.until(lambda: verify(tmp_path)["volumes"][0]["streams"] >= PARTITIONS, 30, "an upload")
    fill(server, "t", 3000, 3000)
    server.kill()
    left = verify(tmp_path, "--deep")
    assert left["clean"], left
    shutil.rmtree(tmp_path / "data")
    tool("restore", "--from", bucket, "--data-dir", tmp_path / "new", "--yes")
    again = up("new")
    found, whole = read(again, "t"), expected("t", 6000)
    for partition, values in found.items():
        assert values == whole[partition][:len(values)]
    assert sum(map(len, found.values())) > 0


def test_an_old_owner_that_still_runs_is_cut_off(up, tmp_path):
    old = up()
    create(old, "t")
    fill(old, "t", 0, 300)
    bucket = f"file:{tmp_path / 'bucket'}"
    waiting.until(lambda: verify(tmp_path)["volumes"][0]["streams"] >= PARTITIONS, 30, "an upload")
    note = verify(tmp_path)["notes"]
    assert any("has the data directory open" in n for n in note), note

    def restored() -> bool:
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        # An upload may come between: then the restore says so.
        args = ["restore", "--from", bucket, "--data-dir", tmp_path / "new", "--yes"]
        return "Now start" in tool(*args, code=None)

    waiting.until(restored, 30, "a restore")
    new = up("new")
    producer = Producer({"bootstrap.servers": old.bootstrap, "message.timeout.ms": 5000})
    producer.produce("t", b"for nobody", partition=0)
    producer.flush(10)
    waiting.until(lambda: not old.alive, 30, "the old owner finds that it was cut off")
    found = read(new, "t")
    assert {p: v[:100] for p, v in found.items()} == expected("t", 300)
    with pytest.raises(servers.NotReady):
        old.start()
    fill(new, "t", 300, 30)
    assert read(new, "t") == expected("t", 330)


def test_a_copy_leaves_the_original_alone(up, filled, tmp_path):
    before = fingerprint(tmp_path / "bucket")
    args = ["restore", "--from", f"file:{tmp_path / 'bucket'}", "--bucket-url",
            f"file:{tmp_path / 'copy'}", "--data-dir", tmp_path / "new", "--yes"]
    tool(*args)
    assert fingerprint(tmp_path / "bucket") == before
    shutil.rmtree(tmp_path / "new")
    assert "has this cluster already" in tool(*args, code=2)
    shutil.rmtree(tmp_path / "copy")
    tool(*args)
    copy = up("new", "copy")
    assert read(copy, "second") == expected("second", 3000)
    # The original is as alive as it was.
    filled.start()
    wire.wait_for_coordinator(filled.bootstrap)
    fill(filled, "second", 3000, 30)
    assert read(filled, "second") == expected("second", 3030)


def flip(path: pathlib.Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def test_verify_sees_damage(filled, tmp_path):
    def finding(*more: object) -> str:
        report = verify(tmp_path, *more, code=1)
        assert report["findings"] and not report["clean"]
        return "; ".join(f"{f['place']}: {f['what']}" for f in report["findings"])

    pristine = tmp_path / "pristine"
    shutil.copytree(tmp_path / "bucket", pristine)

    def mend() -> None:
        shutil.rmtree(tmp_path / "bucket")
        shutil.copytree(pristine, tmp_path / "bucket")
        assert verify(tmp_path, "--deep")["clean"]

    segment = max(objects(tmp_path, "segments"), key=lambda p: p.stat().st_size)
    flip(segment, 32 + 40 + 10)
    assert verify(tmp_path)["clean"], "a block is looked at only if it is asked for"
    assert "checksum" in finding("--deep")
    mend()
    segment.write_bytes(segment.read_bytes()[:-1])
    assert "bytes, and the manifest says" in finding()
    mend()
    segment.unlink()
    assert "missing" in finding()
    mend()
    flip(segment, segment.stat().st_size - 60)
    assert "checksum" in finding()
    mend()
    manifests = objects(tmp_path, "manifests")
    flip(manifests[-1], 60)
    assert "checksum" in finding()
    mend()
    manifests[-2].unlink()
    assert "missing" in finding()
    mend()
    # Without its newest manifests the bucket is not the one that the volume was trimmed for.
    for path in manifests[2:]:
        path.unlink()
    assert "trimmed up to" in finding()
    mend()
    journal = objects(tmp_path, "catalog")
    flip(journal[-1], 70)
    assert "catalog" in finding()
    mend()
    (volume,) = (tmp_path / "data" / "volumes").iterdir()
    flip(volume, 100)
    flip(volume, 32 * 1024 + 100)
    assert "no valid superblock" in finding()
    volume.unlink()
    assert "is missing" in finding()


def test_orphans_are_deleted_when_told(filled, tmp_path):
    segment = objects(tmp_path, "segments")[0]
    cluster = segment.parts[segment.parts.index("segments") - 1]
    crc = tool("segment", "inspect", segment, "--output", "json")
    assert json.loads(crc)["volume"] == 0
    # An orphan of our own making: named right, by the hash of its name.
    name = "segments/0/1-987654"
    path = tmp_path / "bucket" / f"{crc32c(name.encode()) >> 16:04x}" / cluster / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"left behind")
    young = verify(tmp_path)
    assert young["clean"] and (young["orphans"]["count"], young["orphans"]["young"]) == (0, 1)
    old = verify(tmp_path, "--grace", 0)
    assert old["orphans"] == {"count": 1, "bytes": 11, "deleted": 0, "young": 0}
    assert path.exists()
    assert verify(tmp_path, "--grace", 0, "--repair")["orphans"]["deleted"] == 1
    assert not path.exists() and verify(tmp_path, "--grace", 0, "--deep")["orphans"]["count"] == 0


def crc32c(data: bytes) -> int:
    """CRC-32/ISCSI, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_inspect_shows_what_is_there_and_survives_damage(filled, tmp_path):
    total = 0
    for segment in objects(tmp_path, "segments"):
        before = segment.read_bytes()
        found = json.loads(tool("segment", "inspect", segment, "--records", "--output", "json"))
        assert found["bytes"] == len(before)
        for extent in found["extents"]:
            assert not extent["problems"]
            batches = [b for block in extent["blocks"] for b in block["records"]]
            assert batches[0]["base_offset"] == extent["base_offset"]
            assert batches[-1]["last_offset"] == extent["end_offset"] - 1
            if not extent["topic"].startswith("0" * 16):
                total += sum(b["records"] for b in batches)
        assert segment.read_bytes() == before
    assert total == 6000
    segment = max(objects(tmp_path, "segments"), key=lambda p: p.stat().st_size)
    whole = segment.read_bytes()
    damaged = tmp_path / "damaged"
    for at in [0, 8, 20, 32, 50, 80, len(whole) // 2, len(whole) - 60, len(whole) - 20, len(whole) - 1]:
        damaged.write_bytes(whole)
        flip(damaged, at)
        tool("segment", "inspect", damaged, code=1)
    for length in [0, 1, 31, 55, 56, 100, len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        tool("segment", "inspect", damaged, code=1)
    assert "there is no" in tool("segment", "inspect", tmp_path / "nothing", code=2)

    (volume,) = (tmp_path / "data" / "volumes").iterdir()
    found = json.loads(tool("volume", "inspect", volume, "--frames", "--output", "json"))
    assert found["current"]["clean"] and not found["problems"]
    assert "closed in order" in tool("volume", "inspect", volume)
    damaged.write_bytes(os.urandom(1 << 20))
    tool("volume", "inspect", damaged, code=1)
    assert "no such volume" in tool("volume", "inspect", tmp_path / "nothing", code=2)


def test_the_commands_of_the_page_work(filled, tmp_path):
    """docs/operations.md: every command line in it, in order, on other paths."""
    page = (servers.ROOT / "docs" / "operations.md").read_text()
    lines = re.findall(r"^\s*\$ sluice (.*)$", page, re.MULTILINE)
    assert len(lines) >= 10
    segment = str(objects(tmp_path, "segments")[0])
    places = {"/srv/sluice": "data", "/srv/bucket": "bucket", "/srv/restored": "restored",
              "/srv/elsewhere": "elsewhere", "/srv/copy": "copy"}
    for line in lines:
        for place, name in places.items():
            line = line.replace(place, str(tmp_path / name))
        tool(*line.replace("SEGMENT", segment).split())


def test_the_journal_says_how_far_behind_it_is(up, tmp_path):
    server = up()

    def metric(name: str) -> float:
        with urllib.request.urlopen(f"http://{servers.HOST}:{server.http_port}/metrics") as answer:
            text = answer.read().decode()
        return float(re.search(rf"^sluice_catalog_journal_{name} (\S+)$", text, re.MULTILINE)[1])

    create(server, "t")
    waiting.until(lambda: metric("lag_seconds") == 0, 30, "the journal is up to date")
    assert metric("revision") > 0
    puts = metric("puts_total")
    for number in range(20):
        create(server, f"more-{number}")
    waiting.until(lambda: metric("puts_total") > puts and metric("lag_seconds") == 0, 30, "a put")
    assert metric("puts_total") - puts < 20, "changes share objects"
    assert verify(tmp_path)["journal"]["revision"] == metric("revision")
