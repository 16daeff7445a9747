"""Two normal answers side by side: where they differ."""

from __future__ import annotations

import dataclasses

from differential.normal import key_of

ABSENT = "<absent>"


@dataclasses.dataclass(frozen=True)
class Difference:
    """One place of one step's answer."""

    scenario: str
    step: str
    api: str
    version: int
    path: str  # Field names alone: Topics.Partitions.ErrorCode.
    place: str  # With the elements' names: Topics[t].Partitions[0].ErrorCode.
    kafka: object
    ours: object

    def __str__(self) -> str:
        return (f"{self.scenario}: {self.step}: {self.api} v{self.version}: {self.place}: "
                f"Kafka {short(self.kafka)}, Sluice {short(self.ours)}")


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 400 else text[:400] + "..."


def differences(kafka: object, ours: object, path: str = "", place: str = ""):
    """Yields (path, place, Kafka's, ours)."""
    if isinstance(kafka, dict) and isinstance(ours, dict):
        for name in [*kafka, *(n for n in ours if n not in kafka)]:
            yield from differences(kafka.get(name, ABSENT), ours.get(name, ABSENT),
                                   f"{path}.{name}".lstrip("."), f"{place}.{name}".lstrip("."))
    elif isinstance(kafka, list) and isinstance(ours, list):
        key = key_of(kafka) if kafka else key_of(ours)
        if key and (not ours or key_of(ours) == key):
            left, right = {e[key]: e for e in kafka}, {e[key]: e for e in ours}
            for name in [*left, *(n for n in right if n not in left)]:
                yield from differences(left.get(name, ABSENT), right.get(name, ABSENT), path,
                                       f"{place}[{name}]")
        elif len(kafka) != len(ours) or not any(isinstance(e, dict) for e in kafka):
            if kafka != ours:
                yield path, place, kafka, ours
        else:
            for index, (one, other) in enumerate(zip(kafka, ours)):
                yield from differences(one, other, path, f"{place}[{index}]")
    elif kafka != ours or type(kafka) is not type(ours):
        yield path, place, kafka, ours
