"""Where Sluice answers otherwise than Apache Kafka, and means to: the table of accepted differences.

An entry says what, why, and in which answers it shows. Each place must show in a full run: one that no
longer does fails the test, as does a difference that is not here. docs/kafka-compatibility.md is made
of this table.
"""

from __future__ import annotations

import dataclasses
import fnmatch

from differential.compare import Difference

ANY = object()


@dataclasses.dataclass(frozen=True)
class Where:
    """Answers in which a difference shows. Patterns as in file names."""

    api: str
    path: str = "*"
    scenario: str = "*"
    step: str = "*"
    kafka: object = ANY
    ours: object = ANY

    def matches(self, found: Difference) -> bool:
        return (fnmatch.fnmatchcase(found.api, self.api)
                and fnmatch.fnmatchcase(found.path, self.path)
                and fnmatch.fnmatchcase(found.scenario, self.scenario)
                and fnmatch.fnmatchcase(found.step, self.step)
                and (self.kafka is ANY or self.kafka == found.kafka)
                and (self.ours is ANY or self.ours == found.ours))


@dataclasses.dataclass(frozen=True)
class Accepted:
    what: str  # One line: what a client of Kafka may notice.
    kafka: str
    here: str
    why: str
    where: tuple[Where, ...]


ACCEPTED: tuple[Accepted, ...] = (
)


def find(found: Difference) -> Where | None:
    """The place in the table that covers a difference."""
    for entry in ACCEPTED:
        for where in entry.where:
            if where.matches(found):
                return where
    return None
