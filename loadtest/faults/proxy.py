#!/usr/bin/env python3
"""An HTTP proxy that stands before an S3 server and does to it what networks and S3 do.

    proxy.py --upstream 127.0.0.1:8333 [--listen 127.0.0.1:0] [--control 127.0.0.1:0] [--seed N]

Prints one line, `proxy=HOST:PORT control=HOST:PORT`, and serves until stdin ends or SIGTERM. Requests
pass unchanged, the Host header too, so that signatures hold. Bodies are streamed: some hundred MiB a
second.

The control port takes `PUT /rules` with a JSON list and answers `GET /stats`. A request meets the first
rule that matches it and whose dice fall so; without one it passes. A rule:

    {"fault": NAME, "rate": 0.2, "methods": ["GET"], "path": REGEX, "conditional": true, "count": 3, ...}

`rate` (default 1) is the share of matching requests; `conditional` asks for If-None-Match; after
`count` requests the rule is used up. Faults, with what else they take:

    status     an error answer, not carried out: "status" (503), "code" ("SlowDown")
    quota      the same with 503 for what is over "per_s" requests a second
    hang       read, and never answered, until rules change
    delay      carried out after "seconds"
    slow       the answer's body comes at "bytes_per_s"
    lost       carried out; then the connection breaks in place of the answer
    reset      the connection breaks before it is carried out
    flip       one bit of the answer's body is wrong, where it has one
    damage     one bit of the request's body is wrong, where it has one
    short      the answer ends in the middle of its body
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import re
import signal
import socket
import struct
import sys
import time

PIECE = 256 << 10
MAX_HEAD = 64 << 10
SLOW_PIECE = 16 << 10
FAULTS = ("status", "quota", "hang", "delay", "slow", "lost", "reset", "flip", "damage",
          "short")


class Rule:
    def __init__(self, spec: dict):
        self.fault = spec["fault"]
        if self.fault not in FAULTS:
            raise ValueError(f"no fault {self.fault!r}")
        self.spec = spec
        self.rate = float(spec.get("rate", 1))
        self.methods = spec.get("methods")
        self.path = re.compile(spec.get("path", ""))
        self.conditional = spec.get("conditional", False)
        self.left = spec.get("count")
        self._second, self._in_second = 0, 0

    def meets(self, request: "Head", dice: random.Random) -> bool:
        if self.methods and request.method not in self.methods:
            return False
        if self.conditional and "if-none-match" not in request.fields:
            return False
        if not self.path.search(request.target) or self.left == 0:
            return False
        if self.fault == "quota" and not self._over_quota():
            return False
        if self.rate < 1 and dice.random() >= self.rate:
            return False
        if self.left is not None:
            self.left -= 1
        return True

    def _over_quota(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second > self.spec["per_s"]


class Head:
    """The head of a request or an answer, and how its body is delimited."""

    def __init__(self, raw: bytes):
        self.raw = raw
        lines = raw.decode("latin-1").split("\r\n")
        self.first = lines[0].split(" ", 2)
        self.fields = {k.strip().lower(): v.strip() for k, v in
                       (line.split(":", 1) for line in lines[1:] if ":" in line)}
        self.chunked = "chunked" in self.fields.get("transfer-encoding", "").lower()
        self.length = int(self.fields.get("content-length", 0))
        self.closes = self.fields.get("connection", "").lower() == "close"

    @property
    def method(self) -> str:
        return self.first[0]

    @property
    def target(self) -> str:
        return self.first[1]

    @property
    def status(self) -> int:
        return int(self.first[1])


class Gone(Exception):
    """The other side has closed the connection."""


async def read_head(reader: asyncio.StreamReader) -> Head:
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as e:
        raise Gone from e


async def body(reader: asyncio.StreamReader, head: Head):
    """The body's pieces as they are on the wire."""
    if head.chunked:
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
            if size == 0:
                return
    left = head.length
    while left:
        piece = await reader.read(min(left, PIECE))
        if not piece:
            raise Gone
        left -= len(piece)
        yield piece


def cut(writer: asyncio.StreamWriter) -> None:
    """Breaks the connection: RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def refusal(status: int, code: str) -> bytes:
    text = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    return (f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(text)}\r\n\r\n{text}").encode()


class Proxy:
    def __init__(self, upstream: tuple[str, int], seed: int):
        self._upstream = upstream
        self._dice = random.Random(seed)
        self.rules: list[Rule] = []
        self.stats: collections.Counter[str] = collections.Counter()
        # Replaced when rules change: what hangs is let go.
        self.changed = asyncio.Event()

    def set_rules(self, specs: list[dict]) -> None:
        self.rules = [Rule(spec) for spec in specs]
        self.changed.set()
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await read_head(reader)
                self.stats[f"requests {request.method}"] += 1
                rule = next((r for r in self.rules if r.meets(request, self._dice)), None)
                if rule:
                    self.stats[f"injected {rule.fault}"] += 1
                if rule and await self._instead(rule, request, reader, writer):
                    continue
                if upstream is None:
                    upstream = await asyncio.open_connection(*self._upstream, limit=MAX_HEAD)
                await self._pass_on(rule, request, reader, writer, *upstream)
                if request.closes:
                    return
        except (Gone, ConnectionError, asyncio.IncompleteReadError):
            # Whichever side is gone, the other one learns it.
            cut(writer)
        finally:
            writer.close()
            if upstream:
                upstream[1].close()

    async def _instead(self, rule: Rule, request: Head, reader: asyncio.StreamReader,
                       writer: asyncio.StreamWriter) -> bool:
        """Whether the fault takes the place of the request."""
        if rule.fault == "reset":
            raise Gone
        if rule.fault == "delay":
            await asyncio.sleep(rule.spec["seconds"])
            return False
        if rule.fault not in ("status", "quota", "hang"):
            return False
        changed = self.changed
        async for _ in body(reader, request):
            pass
        if rule.fault == "hang":
            await changed.wait()
            raise Gone
        writer.write(refusal(rule.spec.get("status", 503), rule.spec.get("code", "SlowDown")))
        await writer.drain()
        return True

    async def _pass_on(self, rule: Rule | None, request: Head, reader: asyncio.StreamReader,
                       writer: asyncio.StreamWriter, up_reader: asyncio.StreamReader,
                       up_writer: asyncio.StreamWriter) -> None:
        fault = rule.fault if rule else None
        up_writer.write(request.raw)
        wrong_at, at = self._place(request) if fault == "damage" else -1, 0
        async for piece in body(reader, request):
            up_writer.write(self._wrong(piece, wrong_at - at))
            at += len(piece)
            await up_writer.drain()
        answer = await read_head(up_reader)
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        pieces = nothing() if bodiless else body(up_reader, answer)
        if fault == "lost":
            async for _ in pieces:
                pass
            self.stats[f"lost {request.method} {answer.status}"] += 1
            raise Gone
        writer.write(answer.raw)
        wrong_at, at = self._place(answer) if fault == "flip" else -1, 0
        async for piece in pieces:
            if fault == "short" and at + len(piece) > answer.length // 2:
                writer.write(piece[:max(answer.length // 2 - at, 0)])
                await writer.drain()
                writer.close()
                raise Gone
            piece = self._wrong(piece, wrong_at - at)
            at += len(piece)
            if fault == "slow":
                for start in range(0, len(piece), SLOW_PIECE):
                    part = piece[start:start + SLOW_PIECE]
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(len(part) / rule.spec["bytes_per_s"])
            else:
                writer.write(piece)
                await writer.drain()
        await writer.drain()
        self.stats["bytes"] += at

    def _place(self, head: Head) -> int:
        """Some byte of its body; -1 where it has none."""
        return self._dice.randrange(head.length) if head.length else -1

    def _wrong(self, piece: bytes, at: int) -> bytes:
        """The piece with one bit wrong at that byte, if that is in it."""
        if not 0 <= at < len(piece):
            return piece
        wrong = bytearray(piece)
        wrong[at] ^= 1 << self._dice.randrange(8)
        return bytes(wrong)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(Gone):
            while True:
                request = await read_head(reader)
                sent = b"".join([piece async for piece in body(reader, request)])
                status, answer = 200, dict(self.stats)
                if (request.method, request.target) == ("PUT", "/rules"):
                    try:
                        self.set_rules(json.loads(sent))
                    except (KeyError, ValueError, TypeError, re.error) as e:
                        status, answer = 400, {"error": str(e)}
                elif (request.method, request.target) != ("GET", "/stats"):
                    status, answer = 404, {"error": "PUT /rules or GET /stats"}
                text = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} .\r\nContent-Length: {len(text)}\r\n\r\n".encode()
                             + text)
                await writer.drain()
        writer.close()


async def nothing():
    return
    yield  # Makes it a generator.


def address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host, int(port)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--upstream", required=True, type=address)
    parser.add_argument("--listen", default="127.0.0.1:0", type=address)
    parser.add_argument("--control", default="127.0.0.1:0", type=address)
    parser.add_argument("--seed", default=1, type=int)
    arguments = parser.parse_args()
    proxy = Proxy(arguments.upstream, arguments.seed)
    servers = [await asyncio.start_server(serve, *at, limit=MAX_HEAD)
               for serve, at in ((proxy.serve, arguments.listen), (proxy.control, arguments.control))]
    shown = ["{}:{}".format(*server.sockets[0].getsockname()[:2]) for server in servers]
    print(f"proxy={shown[0]} control={shown[1]}", flush=True)
    end = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    # The parent's end of stdin is closed when it is gone, however it went.
    loop.add_reader(sys.stdin, lambda: None if sys.stdin.buffer.read1(1) else end.set())
    await end.wait()


if __name__ == "__main__":
    asyncio.run(main())
