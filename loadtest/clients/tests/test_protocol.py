"""What no client shows by itself: chosen versions, null against empty, topic ids, bad requests."""

from __future__ import annotations

import socket
import struct
import uuid

import pytest
from kafka.protocol.consumer import FetchRequest
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from blackbox import servers, waiting
from blackbox.clients import CONSUMERS, PRODUCERS, Record
from blackbox.wire import Closed, Raw, announced, batch, batches

# What the first piece of the product serves: API key -> versions that must be among those announced.
SERVED = {
    0: (3, 13), 1: (4, 18), 2: (1, 11), 3: (0, 13), 8: (2, 10), 9: (1, 10), 10: (0, 6), 11: (0, 9),
    12: (0, 4), 13: (0, 5), 14: (0, 5), 15: (0, 6), 16: (0, 5), 18: (0, 4), 19: (2, 7), 20: (1, 6),
    21: (0, 2), 22: (0, 5), 23: (2, 4), 32: (1, 4), 33: (0, 2), 37: (0, 3), 42: (0, 2), 44: (0, 1),
    47: (0, 0), 60: (0, 2),
}


def test_announced_versions(bootstrap):
    seen = announced(bootstrap)
    missing = {key: (wanted, seen.get(key)) for key, wanted in SERVED.items()
               if key not in seen or seen[key][0] > wanted[0] or seen[key][1] < wanted[1]}
    assert missing == {}
    # KAFKA-18659: older librdkafka stops compressing when Produce does not begin at 0.
    assert seen[0][0] == 0


@pytest.mark.parametrize("version", range(0, 5))
def test_api_versions(bootstrap, version):
    with Raw(bootstrap) as raw:
        answer = raw.call(ApiVersionsRequest(
            client_software_name="raw", client_software_version="1.0"), version)
    assert answer.error_code == 0
    assert len(answer.api_keys) >= len(SERVED)


def test_api_versions_of_an_unknown_version(bootstrap):
    """Error 35 in the body of version 0, with the range that is served; the connection stays."""
    with Raw(bootstrap) as raw:
        raw.socket.sendall(frame(struct.pack(">hhih", 18, 99, 7, -1) + b"\x00" * 8))
        body = raw.receive_frame()
        correlation, error, count = struct.unpack_from(">ihi", body)
        assert (correlation, error) == (7, 35)
        ranges = [struct.unpack_from(">hhh", body, 10 + 6 * i) for i in range(count)]
        assert any(key == 18 and high >= 4 for key, _low, high in ranges)
        assert raw.call(ApiVersionsRequest(), 0).error_code == 0


@pytest.mark.parametrize("header", [
    struct.pack(">hhih", 3, 99, 1, -1),  # Metadata, a version that nobody has
    struct.pack(">hhih", 999, 0, 1, -1),  # an API that nobody has
    struct.pack(">hhih", -1, 0, 1, -1),
    struct.pack(">hh", 3, 1),  # half a header
    b"",
])
def test_what_cannot_be_answered_ends_the_connection(bootstrap, header):
    with Raw(bootstrap, timeout_s=10) as raw:
        raw.socket.sendall(frame(header))
        with pytest.raises((Closed, ConnectionResetError)):
            raw.receive_frame()


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize("version", range(0, 14))
def test_metadata_null_empty_and_named(bootstrap, topic, version):
    made = topic(partitions=2)
    T = MetadataRequest.MetadataRequestTopic

    def ask(raw, topics):
        return raw.call(MetadataRequest(topics=topics, allow_auto_topic_creation=False), version)

    with Raw(bootstrap) as raw:
        named = ask(raw, [T(name=made)])
        assert [(t.name, t.error_code, len(t.partitions)) for t in named.topics] == [(made, 0, 2)]
        assert len(named.brokers) == 1
        if version >= 2:
            assert named.cluster_id
        # In version 0 an empty list means all topics; later null does, and empty means none.
        everything = ask(raw, [] if version == 0 else None)
        assert made in {t.name for t in everything.topics}
        if version > 0:
            assert ask(raw, []).topics == []
        unknown = ask(raw, [T(name=made + "-not")]) if version >= 4 else None
        if unknown:
            assert [(t.error_code, t.partitions) for t in unknown.topics] == [(3, [])]
            bad = ask(raw, [T(name="no spaces")])
            assert bad.topics[0].error_code == 17, "INVALID_TOPIC_EXCEPTION"


def test_topic_ids(bootstrap, topic):
    """By id: Metadata 12, Fetch 13, Produce 13. An id that is not there is UNKNOWN_TOPIC_ID."""
    made = topic()
    T = MetadataRequest.MetadataRequestTopic
    with Raw(bootstrap) as raw:
        topic_id = raw.call(MetadataRequest(topics=[T(name=made)]), 12).topics[0].topic_id
        found = raw.call(MetadataRequest(topics=[T(topic_id=topic_id, name=None)]), 12).topics[0]
        assert (found.error_code, found.name) == (0, made)
        nowhere = uuid.uuid4()
        lost = raw.call(MetadataRequest(topics=[T(topic_id=nowhere, name=None)]), 12).topics[0]
        assert lost.error_code == 100, "UNKNOWN_TOPIC_ID"

        assert produce(raw, 13, batch([b"by id"]), topic_id=topic_id).error_code == 0
        assert produce(raw, 13, batch([b"by id"]), topic_id=nowhere).error_code == 100
        for version in range(13, announced(bootstrap)[1][1] + 1):
            if version > FetchRequest.max_version:
                break
            assert next(batches(fetch_by_id(raw, topic_id, version).records)).base_offset == 0
            assert fetch_by_id(raw, nowhere, version).error_code == 100


def fetch_by_id(raw: Raw, topic_id, version: int):
    T = FetchRequest.FetchTopic
    return raw.call(FetchRequest(
        max_wait_ms=0, min_bytes=1, max_bytes=1 << 20, isolation_level=0, session_id=0,
        session_epoch=-1, forgotten_topics_data=[], rack_id="", topics=[T(
            topic_id=topic_id, partitions=[T.FetchPartition(
                partition=0, current_leader_epoch=-1, fetch_offset=0, last_fetched_epoch=-1,
                log_start_offset=-1, partition_max_bytes=1 << 20)])]),
        version).responses[0].partitions[0]


def produce(raw: Raw, version: int, records: bytes | None, topic: str = "", partition: int = 0,
            acks: int = -1, topic_id=None):
    """One partition's answer."""
    T = ProduceRequest.TopicProduceData
    where = {"topic_id": topic_id} if topic_id else {"name": topic}
    answer = raw.call(ProduceRequest(
        transactional_id=None, acks=acks, timeout_ms=10_000, topic_data=[T(
            **where, partition_data=[T.PartitionProduceData(index=partition, records=records)])]),
        version)
    return answer.responses[0].partition_responses[0]


@pytest.mark.parametrize("version", range(3, 13))
def test_produce_versions(bootstrap, topic, version):
    made = topic()
    with Raw(bootstrap) as raw:
        first = produce(raw, version, batch([b"a", b"b"]), made)
        assert (first.error_code, first.base_offset) == (0, 0)
        second = produce(raw, version, batch([b"c"], codec=1), made)
        assert (second.error_code, second.base_offset) == (0, 2)
        assert produce(raw, version, batch([b"x"]), made, partition=3).error_code == 3
        assert produce(raw, version, batch([b"x"]), made + "-not").error_code == 3
    assert [r.value for r in CONSUMERS["librdkafka"](bootstrap, made, 3)] == [b"a", b"b", b"c"]


def test_damaged_batches_are_refused(bootstrap, topic):
    made = topic()
    good = batch([b"value " * 20])
    flipped = bytearray(good)
    flipped[-3] ^= 1
    old_magic = bytearray(good)
    old_magic[16] = 7
    short = good[:-5]
    long_claim = bytearray(good)
    struct.pack_into(">i", long_claim, 8, 1 << 30)
    with Raw(bootstrap) as raw:
        assert produce(raw, 9, bytes(flipped), made).error_code == 2, "CORRUPT_MESSAGE"
    for bad in (bytes(old_magic), short, bytes(long_claim), b"\x00" * 10):
        with Raw(bootstrap) as raw:
            try:
                assert produce(raw, 9, bad, made).error_code != 0, bad[:20]
            except (Closed, ConnectionResetError):
                pass  # Kafka ends the connection of some of these.
    with Raw(bootstrap) as raw:
        assert produce(raw, 9, good, made).base_offset == 0, "nothing damaged was appended"


def test_invalid_acks(bootstrap, topic):
    made = topic()
    with Raw(bootstrap) as raw:
        assert produce(raw, 9, batch([b"v"]), made, acks=2).error_code == 21, "INVALID_REQUIRED_ACKS"


def new_producer_id(raw: Raw) -> tuple[int, int]:
    """(id, epoch). Kafka asks to try again while it has no block of ids yet."""
    def ask():
        given = raw.call(InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000,
                                               producer_id=-1, producer_epoch=-1), 4)
        return given.error_code == 0 and given

    given = waiting.until(ask, 20, "a producer id")
    return given.producer_id, given.producer_epoch


def test_idempotent_sequences(bootstrap, topic):
    """A repeat is answered with the first offsets, a gap is refused, an old epoch is fenced."""
    made = topic()
    with Raw(bootstrap) as raw:
        pid, epoch = new_producer_id(raw)
        first = batch([b"0", b"1", b"2"], producer=(pid, epoch, 0))
        assert produce(raw, 9, first, made).base_offset == 0
        assert produce(raw, 9, batch([b"3"], producer=(pid, epoch, 3)), made).base_offset == 3
        for _ in range(2):
            again = produce(raw, 9, first, made)
            assert (again.error_code, again.base_offset) == (0, 0)
        gap = produce(raw, 9, batch([b"9"], producer=(pid, epoch, 9)), made)
        assert gap.error_code == 45, "OUT_OF_ORDER_SEQUENCE_NUMBER"
        assert produce(raw, 9, batch([b"4"], producer=(pid, epoch + 1, 0)), made).base_offset == 4
        fenced = produce(raw, 9, batch([b"5"], producer=(pid, epoch, 4)), made)
        assert fenced.error_code == 47, "INVALID_PRODUCER_EPOCH"
        other, _ = new_producer_id(raw)
        assert other != pid
        # Five batches back are known as repeats.
        for i in range(5):
            produce(raw, 9, batch([b"n"], producer=(other, 0, i)), made)
        for i in range(5):
            again = produce(raw, 9, batch([b"n"], producer=(other, 0, i)), made)
            assert (again.error_code, again.base_offset) == (0, 5 + i)
    assert [r.value for r in CONSUMERS["librdkafka"](bootstrap, made, 10)] == \
        [b"0", b"1", b"2", b"3", b"4"] + [b"n"] * 5


def test_answers_come_in_order(bootstrap, topic):
    """Twenty requests at once on one connection, the answers in their order."""
    made = topic()
    T = ProduceRequest.TopicProduceData
    with Raw(bootstrap) as raw:
        sent = []
        for i in range(20):
            request = ProduceRequest(
                transactional_id=None, acks=-1, timeout_ms=10_000, topic_data=[T(
                    name=made, partition_data=[T.PartitionProduceData(
                        index=0, records=batch([str(i).encode()]))])])
            sent.append((ProduceRequest, 9, raw.send(request, 9)))
            sent.append((ApiVersionsRequest, 0, raw.send(ApiVersionsRequest(), 0)))
        answers = [raw.receive(*s) for s in sent]
        offsets = [a.responses[0].partition_responses[0].base_offset for a in answers[::2]]
        assert offsets == list(range(20)), "appends of one connection keep their order"


def test_a_request_in_single_bytes(bootstrap):
    """Frames may come in any pieces."""
    request = ApiVersionsRequest()
    request.API_VERSION = 0
    request.with_header(correlation_id=5, client_id="slow")
    with Raw(bootstrap) as raw:
        for byte in request.encode(header=True, framed=True):
            raw.socket.sendall(bytes([byte]))
        assert raw.receive(ApiVersionsRequest, 0, 5).error_code == 0


@pytest.mark.parametrize("version", range(0, 7))
def test_find_coordinator(bootstrap, server, name, version):
    if version > FindCoordinatorRequest.max_version:
        pytest.skip("kafka-python does not know this version")
    with Raw(bootstrap) as raw:
        def ask():
            answer = raw.call(FindCoordinatorRequest(
                key=name, key_type=0, coordinator_keys=[name]), version)
            return answer.coordinators[0] if version >= 4 else answer
        # Kafka makes its offsets topic at the first question.
        found = waiting.until(lambda: (a := ask()).error_code == 0 and a, 30, "a coordinator")
        assert (found.host, found.port) == ("127.0.0.1", server.port)


class TestAutoCreation:
    """A server of its own for each setting."""

    def test_on(self, own_server):
        from confluent_kafka.admin import AdminClient

        server = own_server(servers.Options(auto_create=True, partitions=3))
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        for producer in PRODUCERS:
            PRODUCERS[producer](server.bootstrap, f"made-by-{producer}", "none",
                                [Record(b"v", key=b"k")])
            seen = admin.list_topics(f"made-by-{producer}", timeout=20)
            assert len(seen.topics[f"made-by-{producer}"].partitions) == 3
            got = CONSUMERS["librdkafka"](server.bootstrap, f"made-by-{producer}", 1)
            assert [r.value for r in got] == [b"v"]
        T = MetadataRequest.MetadataRequestTopic
        with Raw(server.bootstrap) as raw:
            asked = MetadataRequest(topics=[T(name="not-asked-for")], allow_auto_topic_creation=False)
            assert raw.call(asked, 9).topics[0].error_code == 3
            assert raw.call(asked, 9).topics[0].error_code == 3, "the first question made it"
            bad = MetadataRequest(topics=[T(name="no spaces")], allow_auto_topic_creation=True)
            assert raw.call(bad, 9).topics[0].error_code == 17

    def test_off(self, own_server):
        server = own_server(servers.Options(auto_create=False))
        T = MetadataRequest.MetadataRequestTopic
        with Raw(server.bootstrap) as raw:
            asked = MetadataRequest(topics=[T(name="t")], allow_auto_topic_creation=True)
            for _ in range(2):
                assert raw.call(asked, 9).topics[0].error_code == 3


def test_half_closed_clients_get_their_answers(bootstrap):
    """A client that shuts its sending side down right after its request may still be answered or
    closed, but the server frees the connection."""
    request = ApiVersionsRequest()
    request.API_VERSION = 0
    request.with_header(correlation_id=5, client_id="half")
    with Raw(bootstrap, timeout_s=10) as raw:
        raw.socket.sendall(request.encode(header=True, framed=True))
        raw.socket.shutdown(socket.SHUT_WR)
        seen = b""
        while piece := raw.socket.recv(65536):
            seen += piece


def test_topics_are_listed_with_their_ids(bootstrap, admin, topic):
    names = [topic() for _ in range(3)]
    with Raw(bootstrap) as raw:
        listed = raw.call(MetadataRequest(topics=None), 12).topics
    ids = {t.name: t.topic_id for t in listed if t.name in names}
    assert len(set(ids.values())) == 3
    assert uuid.UUID(int=0) not in ids.values()


