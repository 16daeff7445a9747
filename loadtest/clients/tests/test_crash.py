"""The crash runs of crash.py as tests. The seed is in the report; SLUICE_TEST_SEED repeats one."""

from __future__ import annotations

import os
import secrets

import pytest

import crash
from blackbox import servers


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("SLUICE_TEST_SEED") or secrets.randbelow(1 << 32))
    print(f"seed {chosen}: repeat with SLUICE_TEST_SEED={chosen}")
    return chosen


@pytest.mark.timeout(900)
def test_killed_ten_times_under_load(seed):
    verdict = crash.run_kill(rounds=10, seed=seed)
    print(verdict)
    assert verdict.acked >= 2000


@pytest.mark.timeout(600)
@pytest.mark.skipif(servers.kind() == "kafka", reason="Kafka ends itself when its disk is full")
def test_full_disk(seed):
    try:
        verdict = crash.run_full(seed=seed)
    except crash.NoMount as e:
        pytest.skip(f"NOT RUN: {e}")
    print(verdict)
    assert verdict.acked >= 3000


@pytest.mark.timeout(600)
def test_transactions_copy_exactly_once_through_kills(seed):
    verdict = crash.run_transactions(rounds=5, seed=seed)
    print(verdict)
    assert verdict.seen >= 1000 and verdict.markers >= 20
