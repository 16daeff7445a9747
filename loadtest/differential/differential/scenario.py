"""What a scenario is, and the list of all.

A scenario is a script in a function: `def unknown_topic(s, v)` sends requests through `s` (a `Side`)
and is run at each version of its API, on both servers, with names of its own. It may look at answers
to go on (an id that was given), never at which server gave them.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable

from differential.side import Side


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str  # family.function
    api: str
    script: Callable[[Side, int], None]
    versions: range | None  # None: all that Kafka announces.
    alone: bool  # Changes what others see: no other runs beside it.


ALL: list[Scenario] = []


def scenario(api: str, versions: range | None = None, alone: bool = False):
    """Declares a script for an API."""
    def declare(script):
        family = script.__module__.rpartition(".")[2]
        ALL.append(Scenario(f"{family}.{script.__name__}", api, script, versions, alone))
        return script
    return declare


def load() -> list[Scenario]:
    """All scenarios of the package `scenarios`."""
    package = importlib.import_module("differential.scenarios")
    for module in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"differential.scenarios.{module}")
    names = [s.name for s in ALL]
    assert len(names) == len(set(names)), "two scenarios have one name"
    return ALL
