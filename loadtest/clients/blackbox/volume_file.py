"""Damage to a volume's file while its server is down.

The layout is that of docs/formats.md, section "Volume": two superblock slots (at 0 and 32 KiB), then
a ring of frames that begin on 4 KiB boundaries. Only what is needed to find the end of the log from
outside is read here: nothing that was written may be touched, only what lies behind it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import struct

BLOCK = 4096
SLOTS = (0, 32 * 1024)
FRAME_HEADER = 64


class Layout(AssertionError):
    """The file is not what this module knows: the format has changed, so must the module."""


@dataclasses.dataclass(frozen=True)
class End:
    """Where the log ends."""

    path: pathlib.Path
    lsn: int
    trim: int
    last_frame: int
    ring_offset: int
    ring_bytes: int

    def position(self, lsn: int) -> int:
        return self.ring_offset + lsn % self.ring_bytes


def volumes(data: pathlib.Path) -> list[pathlib.Path]:
    """The files below the data directory that begin with a volume's magic."""
    found = []
    for path in sorted(p for p in data.rglob("*") if p.is_file() and p.stat().st_size >= 1 << 16):
        with open(path, "rb") as f:
            heads = [os.pread(f.fileno(), 8, slot) for slot in SLOTS]
        if b"SLUICEwl" in heads:
            found.append(path)
    return found


def end_of(path: pathlib.Path) -> End:
    """The end of the frame with the highest lsn of the volume's own (by the seed of its uuid)."""
    with open(path, "rb") as f:
        slots = [s for s in (os.pread(f.fileno(), BLOCK, at) for at in SLOTS) if s[:8] == b"SLUICEwl"]
        if not slots:
            raise Layout(f"{path} has no superblock")
        current = max(slots, key=lambda s: struct.unpack_from("<Q", s, 16))
        seed = current[24:36]
        (trim,) = struct.unpack_from("<Q", current, 64)
        ring_offset, ring_bytes = struct.unpack_from("<QQ", current, 96)
        size = os.fstat(f.fileno()).st_size
        if not 0 < ring_offset < ring_offset + ring_bytes <= size:
            raise Layout(f"{path}: a ring of {ring_bytes} bytes at {ring_offset} in {size}")
        best, last = trim, -1
        for at in range(ring_offset, ring_offset + ring_bytes, BLOCK):
            head = os.pread(f.fileno(), FRAME_HEADER, at)
            if head[:4] != b"SLfr" or head[48:60] != seed:
                continue
            length, _, lsn = struct.unpack_from("<IIQ", head, 8)
            end = lsn + -(-(FRAME_HEADER + length) // BLOCK) * BLOCK
            # A header inside a payload could look like a frame; its lsn would not match its place.
            if ring_offset + lsn % ring_bytes == at and end > best:
                best, last = end, lsn
    return End(path, best, trim, last, ring_offset, ring_bytes)


def damage_behind_end(data: pathlib.Path, garbage: bytes, rng: random.Random) -> str:
    """Writes what a torn write may leave right behind the end of one volume's log.

    Three ways: random bytes; the first half of an older frame, as of a write that was cut off; the
    last frame's own header in front of random bytes.
    """
    found = volumes(data)
    if not found:
        raise Layout(f"no volume below {data}")
    end = end_of(rng.choice(found))
    at = end.position(end.lsn)
    way = rng.choice(["random bytes", "half a frame", "a header without its payload"])
    with open(end.path, "r+b") as f:
        if end.last_frame >= 0 and way != "random bytes":
            frame = os.pread(f.fileno(), end.lsn - end.last_frame, end.position(end.last_frame))
            garbage = frame[:len(frame) // 2] if way == "half a frame" \
                else frame[:FRAME_HEADER] + garbage
        # Neither over the ring's end nor into what has not been trimmed.
        room = min(end.ring_offset + end.ring_bytes - at, end.trim + end.ring_bytes - end.lsn)
        garbage = garbage[:room]
        os.pwrite(f.fileno(), garbage, at)
        os.fsync(f.fileno())
    return f"{way}, {len(garbage)} bytes at lsn {end.lsn}"
