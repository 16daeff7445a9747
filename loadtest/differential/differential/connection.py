"""One connection that sends what it is told to, well-formed or not, and says what came of it.

What always holds: a call returns. An answer that does not come within the time, and a connection
that the server closes, are outcomes that are compared like any other.
"""

from __future__ import annotations

import socket
import struct

from differential.schema import Catalogue, uvarint

CLOSED = {"_connection": "closed"}
SILENT = {"_connection": "no answer"}
# How long an answer may take. Far above what a loaded machine needs: only a scenario that expects
# silence waits for less.
PATIENCE_S = 40.0


class Connection:
    """Not for use by several threads."""

    def __init__(self, host: str, port: int, catalogue: Catalogue, client_id: str | None):
        self._socket = socket.create_connection((host, port), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._catalogue = catalogue
        self._client_id = client_id
        self._correlation = 0
        self._closed = False

    def call(self, api: str, version: int, fields: dict, wait_s: float = PATIENCE_S) -> dict:
        self.send(api, version, fields)
        return self.receive(api, version, wait_s)

    def send(self, api: str, version: int, fields: dict) -> None:
        body = self._catalogue.request(api).encode(fields, version)
        self.send_frame(self.header(api, version) + body)

    def header(self, api: str, version: int) -> bytes:
        """The header of the next request."""
        self._correlation += 1
        name = self._client_id
        out = struct.pack(">hhih", self._catalogue.keys[api], version, self._correlation,
                          -1 if name is None else len(name)) + (name or "").encode()
        request = self._catalogue.request(api)
        # Above the last version that there is, the header is like the last one's.
        if min(version, request.versions.last) in request.flexible:
            out += uvarint(0)
        return out

    def send_frame(self, content: bytes) -> None:
        """One frame around any bytes."""
        self.send_bytes(struct.pack(">i", len(content)) + content)

    def send_bytes(self, content: bytes) -> None:
        try:
            self._socket.sendall(content)
        except OSError:
            self._closed = True

    def receive(self, api: str, version: int, wait_s: float = PATIENCE_S) -> dict:
        """The next answer. Its correlation id must be that of the oldest request not yet answered,
        which the caller knows only when it keeps to one at a time: it is checked by its size alone."""
        frame = self.receive_frame(wait_s)
        if isinstance(frame, dict):
            return frame
        schema = self._catalogue.response(api)
        place = 4
        if version in schema.flexible and api != "ApiVersions":
            if frame[place] != 0:
                return {"_header_tags": frame[place:].hex()}
            place += 1
        return schema.decode(frame[place:], version)

    def receive_frame(self, wait_s: float = PATIENCE_S) -> bytes | dict:
        if self._closed:
            return CLOSED
        try:
            self._socket.settimeout(wait_s)
            size = struct.unpack(">i", self._exactly(4))[0]
            return self._exactly(size)
        except TimeoutError:
            return SILENT
        except (EOFError, OSError):
            self._closed = True
            return CLOSED

    def _exactly(self, size: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            piece = self._socket.recv(min(size - len(pieces), 1 << 20))
            if not piece:
                raise EOFError
            pieces += piece
        return bytes(pieces)

    def close(self) -> None:
        self._socket.close()
