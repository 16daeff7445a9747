#!/usr/bin/env python3
"""Hostile input over raw sockets: what it costs the server in memory, and what others notice.

    hostile.py [ATTACK...]     all of them unless some are named

Each attack runs against one server while a well-behaved client produces and reads back a record
again and again. What must hold, for each: the server lives; its resident memory stays under the
attack's bound; the other client's slowest round trip stays under LATENCY_S; and afterwards all but a
few of the attack's connections can be freed. Every loop is bounded by a count or a deadline.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import resource
import socket
import struct
import sys
import threading
import time
import uuid
from typing import Callable

from kafka.protocol.consumer import FetchRequest

from blackbox import process, servers, waiting, wire
from blackbox.clients import PRODUCERS, Record

MIB = 1 << 20

# The slowest round trip (produce, then fetch, acks=all) that another client may see. Large, as the
# machines are shared: it tells a server that serves from one that is stuck.
LATENCY_S = 5.0

# Resident memory, above what the server had before the attack.
BOUNDS_BYTES = {
    "random_bytes": 64 * MIB,
    "huge_lengths": 64 * MIB,
    "huge_counts": 64 * MIB,
    "half_frames": 320 * MIB,  # The budget for arriving frames, 256 MiB, and what else moves.
    "idle_connections": 100 * MIB,
    "never_reads": 200 * MIB,
    "never_reads_in_many_connections": 448 * MIB,  # The budgets for answers and for frames.
}


@dataclasses.dataclass
class Outcome:
    attack: str
    before_bytes: int
    peak_bytes: int
    slowest_s: float
    round_trips: int
    note: str

    def __str__(self) -> str:
        grown = (self.peak_bytes - self.before_bytes) / MIB
        return (f"{self.attack}: resident memory {self.before_bytes / MIB:.0f} MiB, "
                f"at most {grown:+.0f} MiB (bound {BOUNDS_BYTES[self.attack] / MIB:.0f}); another "
                f"client: {self.round_trips} round trips, the slowest {self.slowest_s * 1000:.0f} ms; "
                f"{self.note}")


class Bystander(threading.Thread):
    """Produces and fetches one record again and again over one connection, and times it; looks at
    the server's memory beside it."""

    def __init__(self, server: servers.Server, topic: str):
        super().__init__(name="bystander", daemon=True)
        self.times_s: list[float] = []
        self.peak_bytes = 0
        self.failure: BaseException | None = None
        self._server = server
        self._topic = topic
        self._end = threading.Event()

    def run(self) -> None:
        try:
            with wire.Raw(self._server.bootstrap, timeout_s=30) as raw:
                while not self._end.wait(0.01):
                    begun = time.monotonic()
                    offset = produce(raw, self._topic)
                    answer = fetch(raw, self._topic, offset)
                    assert next(wire.batches(answer.records)).base_offset == offset
                    self.times_s.append(time.monotonic() - begun)
                    self.peak_bytes = max(self.peak_bytes, process.rss_bytes(self._server.pid))
        except BaseException as e:
            self.failure = e

    def end(self) -> None:
        self._end.set()
        self.join(60)
        if self.failure:
            raise AssertionError(f"the other client failed: {self.failure!r}") from self.failure


def produce(raw: wire.Raw, topic: str) -> int:
    from kafka.protocol.producer import ProduceRequest

    T = ProduceRequest.TopicProduceData
    answer = raw.call(ProduceRequest(
        transactional_id=None, acks=-1, timeout_ms=20_000, topic_data=[T(
            name=topic, partition_data=[T.PartitionProduceData(
                index=0, records=wire.batch([b"x" * 100]))])]), 9)
    placed = answer.responses[0].partition_responses[0]
    assert placed.error_code == 0, placed
    return placed.base_offset


def fetch_request(topic: str, offset: int, size: int = MIB, partitions: int = 1) -> FetchRequest:
    T = FetchRequest.FetchTopic
    return FetchRequest(
        replica_id=-1, max_wait_ms=1000, min_bytes=1, max_bytes=size, isolation_level=0, session_id=0,
        session_epoch=-1, forgotten_topics_data=[], rack_id="", topics=[T(topic=topic, partitions=[
            T.FetchPartition(partition=p, current_leader_epoch=-1, fetch_offset=offset,
                             last_fetched_epoch=-1, log_start_offset=-1, partition_max_bytes=size)
            for p in range(partitions)])])


def fetch(raw: wire.Raw, topic: str, offset: int):
    return raw.call(fetch_request(topic, offset), 11).responses[0].partitions[0]


def connect(server: servers.Server, source: str | None = None) -> socket.socket:
    return socket.create_connection((servers.HOST, server.port), 10,
                                    source_address=(source, 0) if source else None)


def close_all(connections: list[socket.socket]) -> None:
    for c in connections:
        c.close()


def poke(server: servers.Server, data: bytes, rng: random.Random) -> bool:
    """Sends bytes on a new connection; returns whether the server ended it within 50 ms."""
    with connect(server) as c:
        try:
            step = rng.choice([7, 1000, len(data)]) if len(data) < 5000 else len(data)
            for at in range(0, len(data), step):
                c.sendall(data[at:at + step])
            c.settimeout(0.05)
            return c.recv(1 << 16) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def random_bytes(server: servers.Server, rng: random.Random) -> str:
    """Noise, and noise behind a length that fits it, and noise behind a real header."""
    ended = 0
    keys = sorted(wire.announced(server.bootstrap).items())
    for i in range(600):
        noise = rng.randbytes(rng.choice([1, 3, 4, 10, 100, 4000, 100_000]))
        if i % 3 == 1:
            noise = struct.pack(">i", len(noise)) + noise
        elif i % 3 == 2:
            key, (low, high) = rng.choice(keys)
            body = struct.pack(">hhih", key, rng.randint(low, high), i, -1) + noise
            noise = struct.pack(">i", len(body)) + body
        ended += poke(server, noise, rng)
    return f"600 connections, {ended} of them ended by the server at once"


def huge_lengths(server: servers.Server, rng: random.Random) -> str:
    """Frame lengths that nothing follows, or little."""
    ended = kept = 0
    open_ones = []
    for i in range(400):
        length = rng.choice([-1, -(2**31), 2**31 - 1, 1 << 30, 101 << 20, 100 << 20, 99 << 20])
        c = connect(server)
        open_ones.append(c)
        c.sendall(struct.pack(">i", length) + rng.randbytes(rng.choice([0, 0, 10])))
        if length < 0 or length > 100 << 20:
            c.settimeout(10)
            try:
                assert c.recv(1) == b"", f"an answer to a frame of {length} bytes"
            except ConnectionResetError:
                pass
            except TimeoutError:
                raise AssertionError(f"a frame of {length} bytes is waited for") from None
            ended += 1
        else:
            kept += 1
    close_all(open_ones)
    return f"{ended} refused by their length, {kept} waited for"


def huge_counts(server: servers.Server, rng: random.Random) -> str:
    """Small frames whose arrays, strings and tag sections claim to be huge."""
    claims = [struct.pack(">i", n) for n in (2**31 - 1, 1 << 28, -2, 1 << 20)]
    claims += [b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\x7f", b"\xff" * 10, struct.pack(">h", 32767)]
    keys = sorted(wire.announced(server.bootstrap).items())
    count = 0
    for key, (low, high) in keys:
        for version in {low, high}:
            for claim in claims:
                body = struct.pack(">hhih", key, version, 1, -1)
                body += rng.choice([b"", b"\x00"]) + claim + rng.randbytes(rng.choice([0, 20]))
                poke(server, struct.pack(">i", len(body)) + body, rng)
                count += 1
    return f"{count} frames"


def half_frames(server: servers.Server, rng: random.Random) -> str:
    """Many connections each send half of a 2 MiB frame and wait.

    What the server does not take stays in the kernel's buffers, which are not its memory.
    """
    open_ones: list[socket.socket] = []
    sent = 0
    half = struct.pack(">i", 2 * MIB) + struct.pack(">hhih", 0, 9, 1, -1) + rng.randbytes(MIB)
    try:
        for _ in range(1000):
            c = connect(server)
            open_ones.append(c)
            c.setblocking(False)
        left = dict.fromkeys(open_ones, 0)
        deadline = time.monotonic() + 8
        # Round and round, so that the server can take what it wants of each; never past the half.
        while left and time.monotonic() < deadline:
            for c, at in list(left.items()):
                try:
                    taken = c.send(half[at:at + (256 << 10)])
                except BlockingIOError:
                    continue
                sent += taken
                left[c] = at + taken
                if left[c] >= len(half):
                    del left[c]
        waited_for = sum(1 for c in open_ones if _is_open(c))
        assert waited_for > 900, f"only {waited_for} of 1000 half frames are waited for"
    finally:
        close_all(open_ones)
    return f"1000 half frames of 2 MiB, {sent / MIB:.0f} MiB sent, {waited_for} waited for"


def _is_open(c: socket.socket) -> bool:
    """Whether the server has neither ended the connection nor answered."""
    try:
        c.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def idle_connections(server: servers.Server, rng: random.Random) -> str:
    """10,000 connections, half of which have asked one thing, then silence."""
    count = 10_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 5000), hard))
    if min(hard, count + 5000) < count + 200:
        raise AssertionError(f"this process may open {hard} files, {count} connections need more")
    from kafka.protocol.metadata import ApiVersionsRequest

    asked = ApiVersionsRequest(client_software_name="idle", client_software_version="1")
    asked.API_VERSION = 3
    asked.with_header(correlation_id=1, client_id="idle")
    hello = asked.encode(header=True, framed=True)
    open_ones: list[socket.socket] = []
    begun = time.monotonic()
    try:
        for i in range(count):
            # Several sources: neither the ports of one address nor a bound on one may run out.
            c = connect(server, f"127.0.0.{2 + i % 8}")
            open_ones.append(c)
            if i % 2:
                c.sendall(hello)
        answered = 0
        for c in open_ones[1::2]:
            c.settimeout(30)
            (size,) = struct.unpack(">i", c.recv(4, socket.MSG_WAITALL))
            assert len(c.recv(size, socket.MSG_WAITALL)) == size
            answered += 1
        took = time.monotonic() - begun
        held = process.open_files(server.pid)
        assert held >= count, f"the server holds {held} files, not {count} connections"
        time.sleep(2)
        rss = process.rss_bytes(server.pid)
    finally:
        close_all(open_ones)
    waiting.until(lambda: process.open_files(server.pid) < 500, 60, "the connections are freed")
    return (f"{count} connections in {took:.1f} s, {answered} answered, "
            f"{rss / MIB:.0f} MiB resident with all of them")


def _never_read(server: servers.Server, topic: str, connections: int, requests: int) -> str:
    # The same fetch from one that reads: else a refusal would pass for patience.
    with wire.Raw(server.bootstrap) as raw:
        answer = raw.call(fetch_request(topic, 0, size=50 * MIB, partitions=4), 11)
    asked_for = sum(len(p.records or b"") for p in answer.responses[0].partitions)
    assert asked_for > 10 * MIB, f"the fetch gives {asked_for} bytes only: no load at all"
    open_ones: list[socket.socket] = []
    sent = 0
    try:
        for _ in range(connections):
            c = socket.socket()
            c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            c.connect((servers.HOST, server.port))
            open_ones.append(c)
            c.setblocking(False)
            for i in range(requests):
                request = fetch_request(topic, 0, size=50 * MIB, partitions=4)
                request.API_VERSION = 11
                request.with_header(correlation_id=i, client_id="deaf")
                try:
                    c.send(request.encode(header=True, framed=True))
                    sent += 1
                except OSError:
                    break  # The server reads no more from this one, as it should not.
        time.sleep(5)
    finally:
        close_all(open_ones)
    return (f"{sent} fetches of {asked_for / MIB:.0f} MiB asked for on {connections} connections, "
            "none read")


def never_reads(server: servers.Server, rng: random.Random) -> str:
    return _never_read(server, fill_topic(server), 1, 2000)


def never_reads_in_many_connections(server: servers.Server, rng: random.Random) -> str:
    return _never_read(server, fill_topic(server), 200, 50)


_filled: dict[int, str] = {}


def fill_topic(server: servers.Server) -> str:
    """300 MB to fetch, more than a server keeps in memory; written once for a server."""
    if id(server) not in _filled:
        topic = f"filled-{uuid.uuid4().hex[:8]}"
        create(server, topic, 4)
        PRODUCERS["librdkafka"](server.bootstrap, topic, "none", [
            Record(bytes([i % 251]) * 100_000, partition=i % 4) for i in range(3000)])
        _filled[id(server)] = topic
    return _filled[id(server)]


def create(server: servers.Server, topic: str, partitions: int) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.create_topics([NewTopic(topic, num_partitions=partitions)])[topic].result(30)
    with wire.Raw(server.bootstrap) as raw:
        waiting.until(lambda: all(p.error_code == 0 for p in raw.call(
            fetch_request(topic, 0, partitions=partitions), 11).responses[0].partitions),
            30, f"{topic} is served")


ATTACKS: dict[str, Callable[[servers.Server, random.Random], str]] = {
    f.__name__: f for f in (random_bytes, huge_lengths, huge_counts, half_frames, idle_connections,
                            never_reads, never_reads_in_many_connections)}

# Kafka takes memory for a frame as soon as its length has come: a few of these end it.
FATAL_TO_KAFKA = {"huge_lengths", "half_frames"}


def run(server: servers.Server, attack: str, seed: int = 1) -> Outcome:
    """Runs one attack and raises AssertionError on what does not hold."""
    if "never_reads" in attack:
        fill_topic(server)  # What that costs is not the attack's.
    topic = f"bystander-{uuid.uuid4().hex[:8]}"
    create(server, topic, 1)
    bystander = Bystander(server, topic)
    bystander.start()
    waiting.until(lambda: len(bystander.times_s) > 20 or bystander.failure, 30, "round trips")
    before = process.rss_bytes(server.pid)
    bystander.times_s.clear()
    bystander.peak_bytes = before
    note = ATTACKS[attack](server, random.Random(seed))
    at_end = len(bystander.times_s)
    waiting.until(lambda: len(bystander.times_s) > at_end + 5 or bystander.failure, 30,
                  "round trips after the attack")
    server.assert_alive()
    bystander.end()
    outcome = Outcome(attack, before, bystander.peak_bytes, max(bystander.times_s),
                      len(bystander.times_s), note)
    # The oracle's memory is a JVM's heap: it says nothing about bounds.
    if server.kind != "kafka":
        assert outcome.peak_bytes - before <= BOUNDS_BYTES[attack], str(outcome)
    assert outcome.slowest_s <= LATENCY_S, str(outcome)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("attack", nargs="*", metavar="ATTACK", help=", ".join(ATTACKS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    servers.end_on_sigterm()
    with servers.new_server() as server:
        for attack in arguments.attack or ATTACKS:
            print(run(server, attack, arguments.seed), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
