"""Kafka's messages by Kafka's own schemas: the JSON files inside the kafka-clients jar.

Pure: bytes in, dictionaries out, and back. Nothing of Sluice's codec takes part, so a wrong table
there is a difference here. A message is a dictionary by the schema's field names; what is left out
has the schema's default. What always holds: a field that the schema has in no version is refused
(a misspelt name must not pass unseen); a field that this version lacks is left out silently, so
that one dictionary can be said in every version. Null may be written where the schema has no null:
hostile requests are what this is for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import struct
import uuid
import zipfile

_NUMBERS = {
    "int8": ">b", "uint8": ">B", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I",
    "int64": ">q", "float64": ">d", "bool": ">?",
}
# A comment of the schemas' dialect of JSON, or a string, in which `//` is no comment.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*')

ZERO_UUID = uuid.UUID(int=0)


class Malformed(ValueError):
    """Bytes that are not the message that they should be."""


@dataclasses.dataclass(frozen=True)
class Versions:
    """A range as schemas say it: `none`, `3`, `3+`, `3-5`."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str | None) -> "Versions":
        if text is None or text == "none":
            return cls(0, -1)
        first, dash, last = text.partition("-")
        if dash:
            return cls(int(first), int(last))
        if text.endswith("+"):
            return cls(int(text[:-1]), 32767)
        return cls(int(text), int(text))

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


@dataclasses.dataclass(frozen=True)
class Field:
    name: str
    kind: str
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int | None
    flexible: Versions | None
    default: object
    fields: tuple["Field", ...]
    key: bool

    @property
    def element(self) -> "Field":
        """What an array holds, as a field."""
        return dataclasses.replace(self, kind=self.kind[2:], nullable=Versions(0, -1), tag=None)


@dataclasses.dataclass(frozen=True)
class Schema:
    """One message: its fields and its versions."""

    name: str
    api_key: int | None
    versions: Versions
    flexible: Versions
    fields: tuple[Field, ...]

    def encode(self, values: dict, version: int) -> bytes:
        out = bytearray()
        _write_struct(out, self.fields, values, version, version in self.flexible)
        return bytes(out)

    def decode(self, body: bytes, version: int) -> dict:
        """The message; bytes that are left over stand under `_left`."""
        reader = _Reader(body)
        values = _read_struct(reader, self.fields, version, version in self.flexible)
        if reader.place != len(body):
            values["_left"] = body[reader.place:].hex()
        return values


class Catalogue:
    """All messages of one jar."""

    def __init__(self, jar: pathlib.Path):
        self._by_name: dict[str, Schema] = {}
        self.by_key: dict[int, str] = {}
        with zipfile.ZipFile(jar) as archive:
            for path in archive.namelist():
                if path.startswith("common/message/") and path.endswith(".json"):
                    self._add(json.loads(_COMMENT.sub(lambda m: m.group(1) or "",
                                                      archive.read(path).decode())))

    def _add(self, source: dict) -> None:
        structs = {s["name"]: s["fields"] for s in source.get("commonStructs", [])}
        schema = Schema(
            source["name"], source.get("apiKey"), Versions.parse(source["validVersions"]),
            Versions.parse(source.get("flexibleVersions")),
            tuple(_field(f, structs) for f in source.get("fields", [])))
        self._by_name[schema.name] = schema
        if source["type"] == "request":
            self.by_key[source["apiKey"]] = schema.name.removesuffix("Request")

    def request(self, api: str) -> Schema:
        return self._by_name[f"{api}Request"]

    def response(self, api: str) -> Schema:
        return self._by_name[f"{api}Response"]

    def message(self, name: str) -> Schema:
        """A message that is neither, such as ConsumerProtocolSubscription."""
        return self._by_name[name]

    @functools.cached_property
    def keys(self) -> dict[str, int]:
        return {name: key for key, name in self.by_key.items()}


def _field(source: dict, structs: dict[str, list]) -> Field:
    kind = source["type"]
    plain = kind.removeprefix("[]")
    fields = source.get("fields") or structs.get(plain) or []
    nullable = Versions.parse(source.get("nullableVersions"))
    return Field(
        source["name"], kind, Versions.parse(source["versions"]), nullable,
        Versions.parse(source.get("taggedVersions")), source.get("tag"),
        Versions.parse(source["flexibleVersions"]) if "flexibleVersions" in source else None,
        _default(kind, plain, source.get("default"), fields),
        tuple(_field(f, structs) for f in fields), bool(source.get("mapKey")))


def _default(kind: str, plain: str, said: object, fields: list) -> object:
    if said == "null":
        return None
    if kind.startswith("[]"):
        return []
    if kind in _NUMBERS:
        if kind == "bool":
            return said in (True, "true")
        if kind == "float64":
            return float(said or 0)
        return int(str(said), 0) if said not in (None, "") else 0
    if kind == "string":
        return said or ""
    if kind in ("bytes", "records"):
        return None if kind == "records" else b""
    if kind == "uuid":
        return ZERO_UUID
    # A structure: its own fields' defaults.
    return {}


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _write_struct(out: bytearray, fields: tuple[Field, ...], values: dict, version: int,
                  flexible: bool) -> None:
    unknown = set(values) - {f.name for f in fields}
    if unknown:
        raise KeyError(f"no such fields: {sorted(unknown)}; there are {[f.name for f in fields]}")
    tagged: list[tuple[int, bytes]] = []
    for field in fields:
        if version not in field.versions:
            continue
        value = values.get(field.name, field.default)
        if version in field.tagged and field.tag is not None:
            if field.name in values and value != field.default:
                content = bytearray()
                _write(content, field, value, version, flexible)
                tagged.append((field.tag, bytes(content)))
            continue
        _write(out, field, value, version, flexible)
    if flexible:
        out += uvarint(len(tagged))
        for tag, content in sorted(tagged):
            out += uvarint(tag) + uvarint(len(content)) + content


def _write(out: bytearray, field: Field, value: object, version: int, flexible: bool) -> None:
    if field.flexible is not None:
        flexible = version in field.flexible
    kind = field.kind
    if kind in _NUMBERS:
        out += struct.pack(_NUMBERS[kind], value)
    elif kind == "uuid":
        out += value.bytes
    elif kind == "string":
        content = value if value is None or isinstance(value, bytes) else value.encode()
        if flexible:
            out += uvarint(0 if content is None else len(content) + 1)
        else:
            out += struct.pack(">h", -1 if content is None else len(content))
        out += content or b""
    elif kind in ("bytes", "records") or kind.startswith("[]"):
        if flexible:
            out += uvarint(0 if value is None else len(value) + 1)
        else:
            out += struct.pack(">i", -1 if value is None else len(value))
        if value is None:
            return
        if kind in ("bytes", "records"):
            out += value
        else:
            element = field.element
            for item in value:
                _write(out, element, item, version, flexible)
    else:
        if version in field.nullable:
            out += struct.pack(">b", -1 if value is None else 1)
            if value is None:
                return
        _write_struct(out, field.fields, value, version, flexible)


class _Reader:
    def __init__(self, body: bytes):
        self.body = body
        self.place = 0

    def take(self, size: int) -> bytes:
        if size < 0 or self.place + size > len(self.body):
            raise Malformed(f"{size} bytes are wanted at {self.place} of {len(self.body)}")
        self.place += size
        return self.body[self.place - size:self.place]

    def number(self, form: str):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def _read_struct(reader: _Reader, fields: tuple[Field, ...], version: int, flexible: bool) -> dict:
    values: dict[str, object] = {}
    tagged = {}
    for field in fields:
        if version not in field.versions:
            continue
        if version in field.tagged and field.tag is not None:
            tagged[field.tag] = field
            values[field.name] = field.default
        else:
            values[field.name] = _read(reader, field, version, flexible)
    if flexible:
        for _ in range(reader.uvarint()):
            tag, content = reader.uvarint(), reader.take(reader.uvarint())
            if tag in tagged:
                inner = _Reader(content)
                values[tagged[tag].name] = _read(inner, tagged[tag], version, flexible)
                if inner.place != len(content):
                    raise Malformed(f"tag {tag} is longer than its field")
            else:
                values[f"_tag_{tag}"] = content.hex()
    return values


def _read(reader: _Reader, field: Field, version: int, flexible: bool):
    if field.flexible is not None:
        flexible = version in field.flexible
    kind = field.kind
    if kind in _NUMBERS:
        return reader.number(_NUMBERS[kind])
    if kind == "uuid":
        return uuid.UUID(bytes=reader.take(16))
    if kind == "string":
        size = reader.uvarint() - 1 if flexible else reader.number(">h")
        return None if size < 0 else reader.take(size).decode()
    if kind in ("bytes", "records") or kind.startswith("[]"):
        size = reader.uvarint() - 1 if flexible else reader.number(">i")
        if size < 0:
            return None
        if kind in ("bytes", "records"):
            return reader.take(size)
        element = field.element
        return [_read(reader, element, version, flexible) for _ in range(size)]
    if version in field.nullable and reader.number(">b") < 0:
        return None
    return _read_struct(reader, field.fields, version, flexible)
