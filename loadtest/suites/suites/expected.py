"""What each test of a suite must do: the lists in expected/, and the comparison with what was seen.

A list has one line a test: `outcome test reason...`. The outcome is `passed`, `failed` or `skipped`;
`outcome@sluice` or `outcome@kafka` holds for that kind of server alone, over a line without a kind. All
but `passed` want a reason. `unstable` is for a test that Apache Kafka itself does not pass each time:
it is run, and either outcome is right.

What always holds: a pass where none is expected fails the run as a failure does, and so does a test
that is not listed or a listed one that was not run, so the lists stay true.
"""

from __future__ import annotations

import dataclasses
import pathlib

LISTS = pathlib.Path(__file__).resolve().parent.parent / "expected"
OUTCOMES = ("passed", "failed", "skipped", "unstable")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one test did: `passed`, `failed` or `skipped`, and the first words of why."""

    outcome: str
    message: str = ""


@dataclasses.dataclass(frozen=True)
class Score:
    """How many tests did what they must; a line for each that did not; remarks worth showing."""

    right: int
    wrong: list[str]
    remarks: list[str]


def recorded(suite: str) -> bool:
    """Whether there is a list to be checked against."""
    return (LISTS / f"{suite}.txt").exists()


def load(suite: str, kind: str) -> dict[str, tuple[str, str]]:
    """test -> (outcome, reason) of one suite for one kind of server."""
    general: dict[str, tuple[str, str]] = {}
    own: dict[str, tuple[str, str]] = {}
    path = LISTS / f"{suite}.txt"
    if not path.exists():
        return {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        outcome, test, *reason = line.split(None, 2)
        outcome, _, only = outcome.partition("@")
        if outcome not in OUTCOMES or only not in ("", "sluice", "kafka"):
            raise ValueError(f"{path.name}:{number}: no outcome: {line}")
        if outcome != "passed" and not reason:
            raise ValueError(f"{path.name}:{number}: {test} is not expected to pass, and no reason is given")
        found = own if only else general
        if only in ("", kind):
            if test in found:
                raise ValueError(f"{path.name}:{number}: {test} is listed twice")
            found[test] = (outcome, reason[0] if reason else "")
    return general | own


def score(suite: str, kind: str, seen: dict[str, Seen], whole: bool) -> Score:
    """Compares; `whole` says that every test was to be run."""
    expected, right, wrong, remarks = load(suite, kind), 0, [], []
    for test, did in sorted(seen.items()):
        if test not in expected:
            wrong.append(f"{test} {did.outcome} and is not in expected/{suite}.txt: {did.message}")
            continue
        wanted, reason = expected[test]
        if did.outcome == wanted or wanted == "unstable":
            right += 1
            if wanted != "passed":
                remarks.append(f"as expected, {did.outcome}: {test}: {reason}")
        else:
            wrong.append(f"{test} {did.outcome}, expected {wanted}: {did.message}")
    if whole:
        wrong += [f"{test} is listed and was not run" for test in expected if test not in seen]
    return Score(right, wrong, remarks)
