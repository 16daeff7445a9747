"""Runs the suites that are named, one after the other, and counts; see ../run."""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import re
import sys
import time
import traceback

from blackbox import servers
from suites import connect, expected, kafka_tools, kgo, librdkafka, rust, streams
from suites.work import Broken, Job

MODULES = {name: module for module in (kafka_tools, kgo, librdkafka, rust, connect, streams)
           for name in module.NAMES}
# What CI runs; the others take longer to build or to run than it has.
QUICK = ("kafka-tools", "kgo", "librdkafka", "librdkafka-consumer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="loadtest/suites/run", description=__doc__)
    parser.add_argument("--kafka-oracle", action="store_const", dest="kind", const="kafka", default="sluice")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--only", type=re.compile, metavar="REGEX")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(MODULES))
    arguments = parser.parse_args()
    names = arguments.suites or [name for name in (QUICK if arguments.quick else MODULES) if expected.recorded(name)]
    if unknown := [name for name in names if name not in MODULES]:
        parser.error(f"no suite {' '.join(unknown)}; there are {', '.join(MODULES)}")
    os.environ["SLUICE_TEST_KIND"] = arguments.kind
    servers.end_on_sigterm()
    home = pathlib.Path(os.environ["SLUICE_CLIENTS_HOME"]) / "suites"
    logs = pathlib.Path(os.environ["SLUICE_TEST_LOGS"]).resolve()
    logs.mkdir(parents=True, exist_ok=True)
    # Servers and tests must not stand in a directory of the checkout, which may change under them.
    logs.mkdir(parents=True, exist_ok=True)
    os.chdir(logs)
    passed = failed = 0
    for name in names:
        begun = time.monotonic()
        job = Job(arguments.kind, home, logs / name, arguments.quick, arguments.only, arguments.minutes)
        job.logs.mkdir(parents=True, exist_ok=True)
        try:
            MODULES[name].install(home)
            if arguments.install:
                continue
            print(f"{name}: begins", flush=True)
            seen = MODULES[name].suite(job, name)
        except Broken as broken:
            print(f"UNEXPECTED: {name} could not be run: {broken}")
            failed += 1
            continue
        except Exception:  # The other suites are still to be run.
            traceback.print_exc(file=sys.stdout)
            failed += 1
            continue
        counted = collections.Counter(did.outcome for did in seen.values())
        (logs / f"{name}.txt").write_text(
            "".join(f"{did.outcome} {test} {did.message}\n" for test, did in sorted(seen.items())))
        score = expected.score(name, arguments.kind, seen, not arguments.quick and not arguments.only)
        for remark in score.remarks:
            print(remark)
        for line in score.wrong:
            print(f"UNEXPECTED: {line}")
        print(f"{name} against {arguments.kind}: {score.right} as expected, {len(score.wrong)} not; "
              f"{counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped, "
              f"{time.monotonic() - begun:.0f} s", flush=True)
        passed += score.right
        failed += len(score.wrong)
    if arguments.install:
        return 1 if failed else 0
    print(f"reports and logs: {logs}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
