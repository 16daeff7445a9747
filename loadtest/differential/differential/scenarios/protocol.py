"""What is announced, and what becomes of a connection after a request that is none."""

from __future__ import annotations

import struct

from differential.scenario import scenario
from differential.side import CLOSED


@scenario("ApiVersions")
def api_versions(s, v):
    s.step("announced", "ApiVersions", v, ClientSoftwareName="differential", ClientSoftwareVersion="1.0")


@scenario("ApiVersions", range(3, 5))
def api_versions_bad_names(s, v):
    for label, name, version in (("empty name", "", "1.0"), ("empty version", "a", ""),
                                 ("space", "a b", "1.0"), ("dash first", "-a", "1"), ("dots", "a.b-c", "1.0-x")):
        s.step(label, "ApiVersions", v, ClientSoftwareName=name, ClientSoftwareVersion=version,
               keep=lambda a: {"ErrorCode": a["ErrorCode"], "keys": len(a["ApiKeys"]) > 0})


@scenario("ApiVersions", range(0, 1))
def api_versions_unsupported(s, _v):
    connection = s.connect()
    for version in (5, 99, 32767):
        connection.send_frame(struct.pack(">hhih", 18, version, 9, -1) + b"\0" * 8)
        # The answer is in version 0, whatever was asked for.
        s.record(f"version {version}", "ApiVersions", 0, connection.receive("ApiVersions", 0))
    s.step("the connection stays", "ApiVersions", 0, on=connection,
           keep=lambda a: {"ErrorCode": a["ErrorCode"]})
    connection = s.connect()
    connection.send_frame(struct.pack(">hhih", 18, -1, 9, -1) + b"\0" * 8)
    s.record("version -1", "ApiVersions", 0, connection.receive("ApiVersions", 0))


@scenario("Metadata", range(0, 1))
def not_requests(s, _v):
    """Each on a connection of its own: whether it is closed."""
    for label, frame in {
        "unknown API": struct.pack(">hhih", 999, 0, 1, -1),
        "negative API": struct.pack(">hhih", -1, 0, 1, -1),
        "API between brokers": struct.pack(">hhih", 4, 0, 1, -1),
        "API of the controller": struct.pack(">hhih", 52, 0, 1, -1),
        "half a header": struct.pack(">hh", 3, 1),
        "empty frame": b"",
        "Metadata 99": struct.pack(">hhih", 3, 99, 1, -1),
        "Metadata -1": struct.pack(">hhih", 3, -1, 1, -1),
        "count past the frame": struct.pack(">hhihi", 3, 1, 1, -1, 1000),
        "count of billions": struct.pack(">hhihi", 3, 1, 1, -1, 0x7FFFFFFF),
        "count -2": struct.pack(">hhihi", 3, 1, 1, -1, -2),
        "client id past the frame": struct.pack(">hhih", 3, 1, 1, 100),
        "client id -2": struct.pack(">hhihi", 3, 1, 1, -2, 0),
        "name not UTF-8": struct.pack(">hhihih", 3, 1, 1, -1, 1, 2) + b"\xff\xfe",
        "null name": struct.pack(">hhihih", 3, 1, 1, -1, 1, -1),
        "bytes left over": struct.pack(">hhihi", 3, 1, 1, -1, 0) + b"more",
    }.items():
        connection = s.connect()
        connection.send_frame(frame)
        got = connection.receive_frame(5)
        s.record(label, "Metadata", 0, got if isinstance(got, dict) else {"_connection": "answered"})
    for label, head in {"negative size": -1, "size of 2 GiB": 0x7FFFFFFF}.items():
        connection = s.connect()
        connection.send_bytes(struct.pack(">i", head) + b"abcd")
        got = connection.receive_frame(5)
        s.record(label, "Metadata", 0, got if isinstance(got, dict) else {"_connection": "answered"})


@scenario("Metadata", range(9, 14))
def tagged_fields(s, v):
    """Unknown tagged fields are for later versions: they are passed over."""
    connection = s.connect()
    unknown_tag = bytes([1, 99, 3]) + b"abc"
    body = bytes([1]) + (b"\1\0\0" if v <= 10 else b"\1\0")
    for label, tags in {"unknown tag": unknown_tag, "tag twice": bytes([2, 99, 1, 0, 99, 1, 0]),
                        "tags in disorder": bytes([2, 99, 1, 0, 98, 1, 0]),
                        "tag past the frame": bytes([1, 99, 100])}.items():
        header = connection.header("Metadata", v)
        connection.send_frame(header + body + tags)
        answer = connection.receive("Metadata", v, 5)
        s.record(label, "Metadata", v, answer)
        if answer == CLOSED:
            connection = s.connect()


@scenario("Metadata", range(0, 1))
def unsupported_versions(s, _v):
    """One above the highest version of each announced API, and one below the lowest."""
    announced = s.server.announced
    # APIs that tenants may not call yet have their own issue.
    for api in ("Produce", "Fetch", "ListOffsets", "Metadata", "OffsetCommit", "OffsetFetch", "FindCoordinator",
                "JoinGroup", "Heartbeat", "LeaveGroup", "SyncGroup", "DescribeGroups", "ListGroups",
                "CreateTopics", "DeleteTopics", "DeleteRecords", "InitProducerId", "OffsetForLeaderEpoch",
                "DescribeConfigs", "AlterConfigs", "CreatePartitions", "DeleteGroups",
                "IncrementalAlterConfigs", "OffsetDelete", "DescribeCluster"):
        low, high = announced[api]
        for label, version in (("above", high + 1), ("below", -1 if api == "Produce" else low - 1)):
            connection = s.connect()
            header = connection.header(api, version)
            connection.send_frame(header + b"\0" * 40)
            got = connection.receive_frame(5)
            s.record(f"{api} {label}", "Metadata", 0,
                     got if isinstance(got, dict) else {"_connection": "answered"})
    for version in range(0, 3):
        connection = s.connect()
        connection.send_frame(connection.header("Produce", version) + b"\0" * 40)
        got = connection.receive_frame(5)
        s.record(f"Produce {version}", "Metadata", 0,
                 got if isinstance(got, dict) else {"_connection": "answered"})


@scenario("Metadata", range(0, 1))
def pipelined(s, _v):
    """Answers come in the order of the requests."""
    connection = s.connect()
    for _ in range(5):
        connection.send("Metadata", 1, {"Topics": []})
        connection.send("ApiVersions", 0, {})
    order = []
    for _ in range(10):
        frame = connection.receive_frame()
        order.append(struct.unpack_from(">i", frame)[0])
    s.record("order", "Metadata", 1, {"order": order})
