"""Waiting for a condition with a deadline, instead of sleeping for luck."""

from __future__ import annotations

import os
import time
from typing import Callable, TypeVar

T = TypeVar("T")

# A condition that comes true late is no fault of what is tested: machines of CI are slower, at times by
# far. Only a wait that fails takes longer for it.
PATIENCE = float(os.environ.get("SLUICE_TEST_PATIENCE", "3"))


def deadline(timeout_s: float) -> float:
    """When, on the monotonic clock, who waits `timeout_s` gives up."""
    return time.monotonic() + timeout_s * PATIENCE


def until(condition: Callable[[], T], timeout_s: float, what: str, every_s: float = 0.05) -> T:
    """Calls `condition` until it is true; returns its value.

    Raises AssertionError with `what` and the last value when `timeout_s` has passed, PATIENCE times.
    """
    end = deadline(timeout_s)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s * PATIENCE:g} s: {what} (last seen: {value!r})")
        time.sleep(every_s)
