"""Record batches (magic 2): made for requests, taken apart for comparison.

Pure. Batches are small here, so the checksum is computed byte by byte.
"""

from __future__ import annotations

import gzip
import struct

from differential.schema import uvarint

_HEADER = struct.Struct(">qiibIhiqqqhii")
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)


def _crc_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC = _crc_table()


def crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _varint(value: int) -> bytes:
    return uvarint(value << 1 ^ value >> 63 if value < 0 else value << 1)


def _sized(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content


def record(delta: int, time_delta: int, key: bytes | None, value: bytes | None,
           headers: tuple = ()) -> bytes:
    body = b"\0" + _varint(time_delta) + _varint(delta) + _sized(key) + _sized(value)
    body += _varint(len(headers))
    for name, content in headers:
        body += _sized(name) + _sized(content)
    return _varint(len(body)) + body


def batch(values, *, base_offset: int = 0, producer_id: int = -1, epoch: int = -1, sequence: int = -1,
          time_ms: int = 1_700_000_000_000, codec: int = NONE, transactional: bool = False,
          attributes: int = 0, magic: int = 2, crc_wrong: bool = False, count: int | None = None,
          last_delta: int | None = None, leader_epoch: int = -1, length_wrong: int = 0,
          step_ms: int = 1) -> bytes:
    """One batch. A value is the record's value or (key, value). The other arguments make it wrong."""
    pairs = [v if isinstance(v, tuple) else (None, v) for v in values]
    content = b"".join(record(i, i * step_ms, key, value) for i, (key, value) in enumerate(pairs))
    if codec == GZIP:
        content = gzip.compress(content, mtime=0)
    attributes |= codec | (0x10 if transactional else 0)
    last = len(pairs) - 1 if last_delta is None else last_delta
    checked = struct.pack(">hiqqqhii", attributes, last, time_ms,
                          time_ms + max(len(pairs) - 1, 0) * step_ms, producer_id, epoch, sequence,
                          len(pairs) if count is None else count) + content
    crc = crc32c(checked) ^ (1 if crc_wrong else 0)
    return struct.pack(">qiibI", base_offset, len(checked) + 9 + length_wrong, leader_epoch, magic,
                       crc) + checked


class _Walk:
    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.content[self.place]
            self.place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value >> 1 ^ -(value & 1)

    def sized(self) -> bytes | None:
        size = self.varint()
        if size < 0:
            return None
        self.place += size
        return self.content[self.place - size:self.place]


def parse(content: bytes | None) -> list[dict] | None:
    """Batches as dictionaries. A last batch that is cut short, as Kafka may send, is left out."""
    if content is None:
        return None
    batches, place = [], 0
    while place + _HEADER.size <= len(content):
        (base, length, leader_epoch, magic, crc, attributes, last, first_ms, max_ms, producer_id, epoch,
         sequence, count) = _HEADER.unpack_from(content, place)
        end = place + 12 + length
        if end > len(content):
            break
        body = content[place + _HEADER.size:end]
        if attributes & 0x20:
            # A marker: its time is the coordinator's.
            first_ms = max_ms = "<time>"
        batches.append({
            "BaseOffset": base, "LeaderEpoch": leader_epoch, "Magic": magic, "Attributes": attributes,
            "LastOffsetDelta": last, "BaseTimestamp": first_ms, "MaxTimestamp": max_ms,
            "ProducerId": producer_id, "ProducerEpoch": epoch, "BaseSequence": sequence,
            "CrcRight": crc == crc32c(content[place + 21:end]),
            "Records": _records(body, count, attributes),
        })
        place = end
    return batches


def _records(body: bytes, count: int, attributes: int) -> list | str:
    codec = attributes & 7
    if codec == GZIP:
        body = gzip.decompress(body)
    elif codec != NONE:
        return body.hex()
    walk, records = _Walk(body), []
    for _ in range(count):
        walk.varint()
        walk.place += 1
        time_delta, delta, key, value = walk.varint(), walk.varint(), walk.sized(), walk.sized()
        headers = [(walk.sized(), walk.sized()) for _ in range(walk.varint())]
        if attributes & 0x20:
            # A control record: the marker's version and type are in the key, the coordinator's
            # epoch in the value.
            value = value and value[:2]
        records.append([delta, time_delta, _text(key), _text(value),
                        [[_text(k), _text(v)] for k, v in headers]])
    return records


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("latin-1") if content.isascii() else content.hex()
