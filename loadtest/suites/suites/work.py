"""What every suite needs: where things lie, installing once, and running a program that may hang.

A suite is a module with `NAMES` (the lists it fills), `install(home)` and `run(job)`. It owns the
server it starts and the processes of its tests; a program is ended by its process group, which
was made here.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from blackbox import waiting
from suites.expected import Seen

HERE = pathlib.Path(__file__).resolve().parent.parent
CLIENTS = HERE.parent / "clients"


class Broken(RuntimeError):
    """The suite could not be installed or run at all; the text says why."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of one suite."""

    kind: str  # sluice or kafka
    home: pathlib.Path  # what is installed
    logs: pathlib.Path  # an own directory for this suite's logs
    quick: bool
    only: re.Pattern[str] | None
    minutes: float

    def wants(self, test: str) -> bool:
        return self.only is None or self.only.search(test) is not None


@dataclasses.dataclass(frozen=True)
class Done:
    """How a program ended; `code` is None when it was ended here, after its time."""

    code: int | None
    output: str
    seconds: float


def once(home: pathlib.Path, name: str, pinned: str, make) -> None:
    """Runs `make()` unless it has succeeded before with the same `pinned`; one process at a time."""
    home.mkdir(parents=True, exist_ok=True)
    stamp = home / f"{name}.stamp"
    with open(home / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == pinned:
            return
        stamp.unlink(missing_ok=True)
        make()
        stamp.write_text(pinned)


def must(command: list[object], *, log: pathlib.Path, cwd: pathlib.Path | None = None,
         timeout_s: float = 1800, **environment: str) -> str:
    """Runs a command of an installation; its output goes to `log` and is returned. Raises Broken."""
    done = run(command, log=log, cwd=cwd, timeout_s=timeout_s, **environment)
    if done.code != 0:
        tail = "\n".join(done.output.splitlines()[-30:])
        raise Broken(f"{' '.join(map(str, command))} ended with {done.code}\n{tail}")
    return done.output


def run(command: list[object], *, log: pathlib.Path, timeout_s: float,
        cwd: pathlib.Path | None = None, **environment: str) -> Done:
    """Runs a program in a process group of its own, its output in `log`; ends the group after `timeout_s`."""
    begun = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as out:
        child = subprocess.Popen([str(word) for word in command], cwd=cwd, stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                 env={**os.environ, **environment})
        try:
            code: int | None = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # Nobody of the group is left.
            child.wait()
    return Done(code, log.read_text(errors="replace"), time.monotonic() - begun)


def until(condition, timeout_s: float, words, every_s: float = 0.25) -> None:
    """Waits for `condition()`; raises AssertionError with what `words()` then says."""
    try:
        waiting.until(condition, timeout_s, "", every_s)
    except AssertionError as error:
        raise AssertionError(f"{words()} {error}") from None


def say(line: str) -> None:
    """One whole line of the report, from any thread."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def first_words(text: str, limit: int = 300) -> str:
    return " ".join(text.split())[:limit]


def cargo_outcomes(output: str, prefix: str = "") -> dict[str, Seen]:
    """What `cargo test` printed, by test; ignored tests are `skipped`."""
    words = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    found = {}
    for test, outcome in re.findall(r"^test (\S+)(?: - should panic)? \.\.\. .*?(ok|FAILED|ignored)\b",
                                    output, re.MULTILINE | re.DOTALL):
        if outcome == "FAILED":
            why = re.search(rf"^---- {re.escape(test)} stdout ----\n(.*?)^(?:note:|$)", output,
                            re.MULTILINE | re.DOTALL)
            found[prefix + test] = Seen("failed", first_words(why.group(1)) if why else "")
        else:
            found[prefix + test] = Seen(words[outcome])
    return found
