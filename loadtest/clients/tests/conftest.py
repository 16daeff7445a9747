"""One server for all tests that do not restart it; fresh topic and group names for each test."""

from __future__ import annotations

import re
import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import java, servers, waiting, wire

servers.end_on_sigterm()


def pytest_addoption(parser):
    parser.addoption("--minutes", type=float, default=0.0,
                     help="how long the tests of Kafka Streams crash things (default: each way once)")


def pytest_collection_modifyitems(config, items):
    """A test that goes on for `--minutes` may take so much longer."""
    longer_s = 120 * config.getoption("--minutes")
    for item in items:
        if longer_s and "minutes" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(180 + longer_s))


@pytest.fixture
def minutes(request) -> float:
    return request.config.getoption("--minutes")


@pytest.fixture(scope="session")
def server():
    with servers.new_server() as running:
        wire.wait_for_coordinator(running.bootstrap)
        yield running


@pytest.fixture(autouse=True)
def _server_survives(request):
    """No test may cost the shared server its life; its log's tail stands in the report if one did."""
    yield
    if "server" in request.fixturenames:
        request.getfixturevalue("server").assert_alive()


@pytest.fixture
def own_server():
    """Makes servers that the test may stop and crash: `own_server(Options(...))`."""
    made = []

    def make(options: servers.Options | None = None) -> servers.Server:
        server = servers.new_server(options)
        made.append(server)
        server.start()
        wire.wait_for_coordinator(server.bootstrap)
        return server

    yield make
    for server in made:
        server.close()


@pytest.fixture
def bootstrap(server) -> str:
    return server.bootstrap


@pytest.fixture
def admin(bootstrap) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


@pytest.fixture
def name(request) -> str:
    """A name of this test's own, for topics and groups."""
    stem = re.sub(r"[^a-zA-Z0-9._-]", "-", request.node.name)[:80]
    return f"{stem}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def topic(admin, name):
    """Makes topics: `topic()`, `topic(partitions=3, **configs)`."""
    count = 0

    def make(partitions: int = 1, config: dict[str, str] | None = None) -> str:
        nonlocal count
        count += 1
        made = f"{name}-{count}"
        create(admin, made, partitions, config)
        return made

    return make


def create(admin: AdminClient, topic: str, partitions: int = 1,
           config: dict[str, str] | None = None) -> None:
    """Creates a topic and returns when it has a leader everywhere."""
    new = NewTopic(topic, num_partitions=partitions, config=config or {})
    admin.create_topics([new], request_timeout=30)[topic].result(30)
    wait_for_leaders(admin, topic, partitions)


def wait_for_leaders(admin: AdminClient, topic: str, partitions: int) -> None:
    def led() -> bool:
        seen = admin.list_topics(topic, timeout=10).topics[topic]
        return (seen.error is None and len(seen.partitions) == partitions
                and all(p.leader >= 0 and p.error is None for p in seen.partitions.values()))

    waiting.until(led, 30, f"{topic} has {partitions} partitions with leaders")


@pytest.fixture(scope="session")
def java_client(server):
    return java.driver(server.bootstrap)
