"""One raw connection that speaks chosen versions of chosen requests.

Clients choose versions for themselves; these tests must choose. Messages are encoded by
kafka-python's protocol module, so that nothing of our own codec judges itself.
"""

from __future__ import annotations

import socket
import struct
import time

from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest
from kafka.protocol.consumer import OffsetFetchRequest
from kafka.record import MemoryRecords, MemoryRecordsBuilder

from blackbox import waiting


class Closed(ConnectionError):
    """The server closed the connection."""


class Raw:
    """A connection. Not for use by several threads."""

    def __init__(self, bootstrap: str, timeout_s: float = 20.0, source: str | None = None):
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection(
            (host, int(port)), timeout_s, source_address=(source, 0) if source else None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation = 0

    def call(self, request, version: int):
        """Sends a request at a version and returns its decoded answer."""
        return self.receive(type(request), version, self.send(request, version))

    def send(self, request, version: int) -> int:
        """Sends only; returns the correlation id."""
        correlation, frame = self.frame(request, version)
        self.socket.sendall(frame)
        return correlation

    def frame(self, request, version: int) -> tuple[int, bytes]:
        """Correlation id and bytes of the request that is sent next, for who must lose no time then."""
        self._correlation += 1
        request.API_VERSION = version
        request.with_header(correlation_id=self._correlation, client_id="raw")
        return self._correlation, request.encode(header=True, framed=True)

    def receive(self, request_class, version: int, correlation: int):
        """Reads the next answer, which must be the one to `correlation`."""
        frame = self.receive_frame()
        response_class = response_of(request_class)
        # ApiVersions answers always have the plain header, else an old client could not read them.
        plain = request_class is ApiVersionsRequest or not response_class.flexible_version_q(version)
        (got,) = struct.unpack_from(">i", frame)
        assert got == correlation, f"answer {got} came, {correlation} was next"
        body = frame[4:] if plain else frame[4:][_tags_length(frame[4:]):]
        return response_class.decode(body, version=version)

    def receive_frame(self) -> bytes:
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        pieces, left = [], size
        while left:
            piece = self.socket.recv(min(left, 1 << 20))
            if not piece:
                raise Closed(f"closed with {left} of {size} bytes missing")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def response_of(request_class):
    """The answer's class of a request's class."""
    import kafka.protocol.admin
    import kafka.protocol.consumer
    import kafka.protocol.metadata
    import kafka.protocol.producer

    name = request_class.__name__.replace("Request", "Response")
    for module in (kafka.protocol.metadata, kafka.protocol.producer, kafka.protocol.consumer,
                   kafka.protocol.admin):
        if hasattr(module, name):
            return getattr(module, name)
    raise LookupError(name)


def _tags_length(body: bytes) -> int:
    """Length of a tagged-field section. Headers have carried none so far: one zero byte."""
    assert body[0] == 0, "an answer's header carries tagged fields that this test does not know"
    return 1


def announced(bootstrap: str) -> dict[int, tuple[int, int]]:
    """API key -> (lowest, highest) version, as the server announces them."""
    with Raw(bootstrap) as raw:
        answer = raw.call(ApiVersionsRequest(), 0)
    assert answer.error_code == 0
    return {k.api_key: (k.min_version, k.max_version) for k in answer.api_keys}


def wait_for_coordinator(bootstrap: str, timeout_s: float = 60) -> None:
    """Returns when groups are served. Kafka makes and loads its offsets topic at the first question."""
    def served() -> bool:
        with Raw(bootstrap) as raw:
            found = raw.call(FindCoordinatorRequest(key="any", key_type=0), 1)
            return found.error_code == 0 and raw.call(
                OffsetFetchRequest(group_id="any", topics=None), 5).error_code == 0

    waiting.until(served, timeout_s, "a group coordinator serves")


def batch(values, codec: int = 0, producer: tuple[int, int, int] = (-1, -1, -1),
          timestamp_ms: int | None = None, transactional: bool = False) -> bytes:
    """One record batch (magic 2). `producer` is id, epoch and base sequence.

    The times are of now: producer state expires by the records' own time when it is loaded.
    """
    timestamp_ms = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=1 << 30)
    if producer[0] >= 0:
        builder.set_producer_state(*producer, transactional)
    for i, value in enumerate(values):
        key, value = value if isinstance(value, tuple) else (None, value)
        builder.append(timestamp=timestamp_ms + i, key=key, value=value, headers=[])
    builder.close()
    return bytes(builder.buffer())


def batches(records: bytes):
    """Walks the record batches of a fetch answer."""
    walker = MemoryRecords(bytes(records or b""))
    while walker.has_next():
        yield walker.next_batch()
