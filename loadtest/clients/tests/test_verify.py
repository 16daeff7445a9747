"""The verifier itself: it must see each kind of harm, else the crash tests prove nothing."""

from __future__ import annotations

import pytest

from blackbox import verify


def judge(monkeypatch, found, acked) -> verify.Verdict:
    monkeypatch.setattr(verify, "read_partition", lambda *_: found)
    return verify.judge("", "t", 1, verify.Ledger(acked=dict(acked)))


def log(*sequences: int) -> list[tuple[int, bytes]]:
    return [(i, verify.value(7, s, 100)) for i, s in enumerate(sequences)]


ACKED = {(0, 0): (7, 0), (0, 1): (7, 1), (0, 2): (7, 2)}


def test_a_whole_log_passes(monkeypatch):
    assert judge(monkeypatch, log(0, 1, 2, 3), ACKED) == verify.Verdict(4, 3, 1)


@pytest.mark.parametrize(("found", "acked", "complaint"), [
    (log(0, 1), ACKED, "lost"),
    ([], ACKED, "lost"),
    (log(0, 1, 1, 2), ACKED, "twice"),
    (log(0, 2, 1), {}, "out of order"),
    ([(0, verify.value(7, 0, 50)), (2, verify.value(7, 1, 50))], {}, "hole"),
    (log(0, 1, 3), ACKED, "another record"),
    ([(0, verify.value(7, 0, 50)[:-1])], {}, "not one of ours"),
    ([(0, verify.value(7, 0, 50)[:-5] + b"\x01" + verify.value(7, 0, 50)[-4:])], {}, "damaged"),
])
def test_each_harm_is_seen(monkeypatch, found, acked, complaint):
    with pytest.raises(AssertionError, match=complaint):
        judge(monkeypatch, found, acked)


def test_two_acknowledgements_of_one_offset():
    ledger = verify.Ledger()
    ledger.acknowledge(0, 5, 1, 1)
    ledger.acknowledge(0, 5, 1, 1)
    with pytest.raises(AssertionError, match="acknowledged for"):
        ledger.acknowledge(0, 5, 1, 2)
