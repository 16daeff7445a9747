"""Transactional producers of librdkafka and aiokafka: commit, abort, fencing by a second instance, timeouts,
several partitions, offsets, and what admin clients and metrics are told. librdkafka and aiokafka speak the
first generation of the protocol; the second is Java's, in the suites of Kafka's tools and Streams, and here what a
client of it may do that is faster than these.
"""

from __future__ import annotations

import asyncio
import urllib.request

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from kafka.protocol.producer import EndTxnRequest, InitProducerIdRequest, ProduceRequest

from blackbox import servers, waiting
from blackbox.wire import Raw, batch

SOON_S = 20


def _producer(bootstrap: str, name: str, **config) -> Producer:
    return Producer({
        "bootstrap.servers": bootstrap,
        "transactional.id": name,
        "linger.ms": 5,
        **config,
    })


def _read(bootstrap: str, topic: str, partitions: int = 1,
          isolation: str = "read_committed") -> list[bytes]:
    """All that a consumer of a topic sees from its beginning to its present end."""
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": f"{topic}-reader",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": isolation,
    })
    try:
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        seen, ended = [], set()
        while len(ended) < partitions:
            message = consumer.poll(SOON_S)
            assert message is not None, f"{len(ended)} of {partitions} partitions ended"
            if message.error() is None:
                seen.append(message.value())
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
        return seen
    finally:
        consumer.close()


BUSY = 51  # CONCURRENT_TRANSACTIONS: ask again.
WRONG_EPOCH = 47  # INVALID_PRODUCER_EPOCH


def test_the_next_transaction_begins_before_the_markers_of_the_last_are_there(bootstrap, topic, name):
    """KIP-890: the answer to the end of a transaction gives the next epoch while markers are being written.

    What is written under it at once is of the next transaction alone, and so is its end.
    """
    partitions, made = 16, topic(partitions=16)
    data = ProduceRequest.TopicProduceData

    def write(producer: tuple[int, int], value: bytes) -> ProduceRequest:
        records = batch([value], producer=(*producer, 0), transactional=True)
        return ProduceRequest(
            transactional_id=name, acks=-1, timeout_ms=10_000, topic_data=[data(name=made, partition_data=[
                data.PartitionProduceData(index=p, records=records) for p in range(partitions)])])

    def codes_of(answer) -> set[int]:
        return {p.error_code for p in answer.responses[0].partition_responses}

    def written(answer) -> bool:
        codes = codes_of(answer)
        assert codes <= {0, BUSY}, codes
        return codes == {0}

    def asked(request, version):
        answer = raw.call(request, version)
        assert answer.error_code in (0, BUSY), answer
        return answer.error_code == 0 and answer

    def end(producer: tuple[int, int], commit: bool) -> None:
        request = EndTxnRequest(transactional_id=name, producer_id=producer[0], producer_epoch=producer[1],
                                committed=commit)
        ended = waiting.until(lambda: asked(request, 5), SOON_S, "the transaction's end")
        assert (ended.producer_id, ended.producer_epoch) == (producer[0], producer[1] + 1)

    committed, last = [], None
    with Raw(bootstrap) as raw, Raw(bootstrap) as quick:
        first = InitProducerIdRequest(transactional_id=name, transaction_timeout_ms=60_000, producer_id=-1,
                                      producer_epoch=-1)
        given = waiting.until(lambda: asked(first, 4), SOON_S, "a producer id")
        producer = (given.producer_id, given.producer_epoch)
        for n in range(60):
            value, commit = str(n).encode(), n % 2 == 0
            request = write(producer, value)
            correlation, frame = quick.frame(request, 12)
            if last:
                end(*last)
            quick.socket.sendall(frame)
            if not written(quick.receive(ProduceRequest, 12, correlation)):
                waiting.until(lambda: written(quick.call(request, 12)), SOON_S, "the transaction before is over")
            committed += [value] * partitions if commit else []
            last, producer = (producer, commit), (producer[0], producer[1] + 1)
            if n == 0:
                early = raw.call(write(producer, b"early"), 12)
                assert codes_of(early) == {WRONG_EPOCH}, "nobody has given this epoch yet"
        end(*last)
    assert sorted(_read(bootstrap, made, partitions)) == sorted(committed)


def _is_fenced(error: KafkaException) -> bool:
    return error.args[0].code() in (
        KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


def test_commits_and_aborts_over_several_partitions(bootstrap, topic, name):
    to = topic(partitions=3)
    producer = _producer(bootstrap, name)
    producer.init_transactions(SOON_S)
    committed = set()
    for round_ in range(6):
        producer.begin_transaction()
        values = {b"%d-%d" % (round_, i) for i in range(30)}
        for i, value in enumerate(sorted(values)):
            producer.produce(to, value, partition=i % 3)
        if round_ % 2:
            producer.flush(SOON_S)
            producer.abort_transaction(SOON_S)
        else:
            producer.commit_transaction(SOON_S)
            committed |= values
    seen = _read(bootstrap, to, partitions=3)
    assert len(seen) == len(committed) and set(seen) == committed


def test_a_second_instance_fences_the_first_and_aborts_its_transaction(bootstrap, topic, name):
    to = topic()
    first = _producer(bootstrap, name)
    first.init_transactions(SOON_S)
    first.begin_transaction()
    first.produce(to, b"of the first")
    first.flush(SOON_S)
    second = _producer(bootstrap, name)
    second.init_transactions(SOON_S)
    second.begin_transaction()
    second.produce(to, b"of the second")
    second.commit_transaction(SOON_S)
    with pytest.raises(KafkaException) as refused:
        first.commit_transaction(SOON_S)
    assert _is_fenced(refused.value), refused.value
    assert _read(bootstrap, to) == [b"of the second"]


@pytest.mark.skipif(servers.kind() == "kafka", reason="waits for a metric of Sluice")
def test_a_transaction_past_its_timeout_is_aborted(server, bootstrap, topic, name):
    to = topic()
    producer = _producer(bootstrap, name, **{"transaction.timeout.ms": 1_500})
    producer.init_transactions(SOON_S)
    # The server is shared: transactions of other tests have timed out on it before.
    before = _metric(server, "sluice_transactions_timed_out_total")
    producer.begin_transaction()
    producer.produce(to, b"late")
    producer.flush(SOON_S)
    waiting.until(lambda: _metric(server, "sluice_transactions_timed_out_total") > before, SOON_S,
                  "the transaction is aborted")
    with pytest.raises(KafkaException) as refused:
        producer.commit_transaction(SOON_S)
    assert _is_fenced(refused.value), refused.value
    next_one = _producer(bootstrap, name)
    next_one.init_transactions(SOON_S)
    next_one.begin_transaction()
    next_one.produce(to, b"in time")
    next_one.commit_transaction(SOON_S)
    assert _read(bootstrap, to) == [b"in time"]


def test_a_timeout_longer_than_allowed_is_refused(bootstrap, name):
    producer = _producer(bootstrap, name, **{"transaction.timeout.ms": 900_001})
    with pytest.raises(KafkaException) as refused:
        producer.init_transactions(SOON_S)
    assert refused.value.args[0].code() == KafkaError.INVALID_TRANSACTION_TIMEOUT


def test_an_open_transaction_survives_a_crash_and_is_ended_after_it(own_server, name):
    server = own_server()
    # librdkafka makes the topic at the first write.
    producer = _producer(server.bootstrap, name)
    producer.init_transactions(SOON_S)
    for value in (b"before", b"across"):
        producer.begin_transaction()
        producer.produce(name, value)
        producer.flush(SOON_S)
        if value == b"across":
            server.kill()
            server.start()
        producer.commit_transaction(60)
    assert _read(server.bootstrap, name) == [b"before", b"across"]


def test_aiokafka(bootstrap, topic, name):
    asyncio.run(asyncio.wait_for(_aiokafka(bootstrap, topic(), name), 60))


async def _aiokafka(bootstrap: str, to: str, name: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=name) as producer:
        async with producer.transaction():
            await producer.send_and_wait(to, b"committed")
        await producer.begin_transaction()
        await producer.send_and_wait(to, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(to, b"committed, too")
    seen = await asyncio.to_thread(_read, bootstrap, to)
    assert seen == [b"committed", b"committed, too"]


def _metric(server, name: str) -> float:
    with urllib.request.urlopen(f"http://{servers.HOST}:{server.http_port}/metrics", timeout=SOON_S) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return 0.0
