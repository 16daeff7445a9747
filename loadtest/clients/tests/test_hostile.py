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
def test_attack(victim, attack):
    print(hostile.run(victim, attack))
