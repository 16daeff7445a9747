"""The judge of exactly-once copies itself: it must see each kind of harm."""

from __future__ import annotations

import pytest

from blackbox import exactly_once
from blackbox.exactly_once import Attempts, Batch

SOURCE = [(i, b"value %d" % i) for i in range(4)]


def record(at: int, offset: int, attempt: str) -> tuple[int, bytes, bytes]:
    return at, b"0:%d:%s" % (offset, attempt.encode()), b"value %d" % offset


def batch(producer: int, *records) -> Batch:
    return Batch(records[0][0], records[-1][0], producer, "", records)


def marker(at: int, producer: int, end: str) -> Batch:
    return Batch(at, at, producer, end)


A0, A1, X2, B2, B3 = (record(0, 0, "a"), record(1, 1, "a"), record(2, 2, "x"), record(4, 2, "b"),
                      record(5, 3, "b"))
# Two records of a, one of x that is aborted, two of b.
LOG = [batch(1, A0, A1), batch(2, X2), marker(3, 2, "abort"), batch(2, B2, B3),
       marker(6, 1, "commit"), marker(7, 2, "commit")]
SEEN = [A0, A1, B2, B3]


def judge(log=LOG, seen=SEEN, offset=4):
    return exactly_once.judge_partition(0, SOURCE, log, seen, offset, {})


def test_a_whole_copy_passes():
    counts: dict[str, int] = {}
    verdict = exactly_once.judge_partition(0, SOURCE, LOG, SEEN, 4, counts)
    assert verdict == exactly_once.Verdict(seen=4, aborted=1, markers=3)
    assert counts == {"a": 2, "b": 2}


AGAIN = record(8, 3, "c")
SKIP = record(0, 1, "a")
OTHER = (0, A0[1], b"value 9")


@pytest.mark.parametrize(("changed", "complaint"), [
    ({"seen": [A0, A1, X2, B2, B3]}, "no commit ends"),
    ({"seen": [A0, A1, B2]}, "are not read"),
    ({"seen": [A0, B2, A1, B3]}, "out of order"),
    ({"offset": 3}, "inconsistent offset"),
    ({"log": LOG[:-1]}, "never end"),
    ({"log": LOG[:2] + LOG[3:]}, "hole before offset 4"),
    ({"log": [*LOG, batch(1, AGAIN), marker(9, 1, "commit")], "seen": [*SEEN, AGAIN]}, "duplicate"),
    ({"log": [batch(1, SKIP), marker(1, 1, "commit")], "seen": [SKIP]}, "lost"),
    ({"log": [batch(1, OTHER), marker(1, 1, "commit")], "seen": [OTHER]}, "is another"),
])
def test_each_harm_is_seen(changed, complaint):
    with pytest.raises(AssertionError, match=complaint):
        judge(**changed)


@pytest.mark.parametrize(("lines", "seen", "complaint"), [
    ("begin a 2\n", {"a": 1}, "in part"),
    ("begin a 2\nabort a\n", {"a": 2}, "aborted, and is read"),
    ("begin a 2\ncommit a\n", {}, "committed, and is lost"),
    ("", {"a": 1}, "never begun"),
])
def test_each_broken_attempt_is_seen(lines, seen, complaint):
    said = Attempts()
    for line in lines.splitlines(keepends=True):
        said.take(line)
    with pytest.raises(AssertionError, match=complaint):
        exactly_once.judge_attempts(said, seen)


def test_an_attempt_of_unknown_end_is_whole_or_not_there():
    said = Attempts()
    said.take("begin a 2\n")
    said.take("commit")  # Cut off.
    for seen in ({}, {"a": 2}):
        exactly_once.judge_attempts(said, seen)
