"""The attacks of hostile.py as tests, each on a server of its own."""

from __future__ import annotations

import pytest

import hostile
from blackbox import servers


@pytest.fixture
def victim(own_server) -> servers.Server:
    return own_server()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("attack", hostile.ATTACKS)
def test_attack(request, attack):
    if servers.kind() == "kafka" and attack in hostile.FATAL_TO_KAFKA:
        pytest.skip("Kafka takes memory for a frame before it has come, and ends")
    victim = request.getfixturevalue("victim")
    print(hostile.run(victim, attack))
