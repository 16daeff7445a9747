"""Starts both servers, runs every scenario at every version on both, compares, counts.

    python3 -m differential [--only PATTERN]... [--kafka-alone] [--page] [--jobs N] [--verbose]

A scenario at a version is one test. So is each API version that Sluice announces: some scenario must
have compared an answer of it; so is each place of the table of accepted differences: it must have shown;
so is the page. A scenario that needs what one side does not announce has failed. The last line is
"N passed, N failed".
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import sys
import threading
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from blackbox import servers  # noqa: E402  (found through the line above)

from differential import accepted, page, scenario  # noqa: E402
from differential.compare import Difference, differences  # noqa: E402
from differential.normal import Names, taken_apart  # noqa: E402
from differential.schema import Catalogue  # noqa: E402
from differential.side import Server, Side  # noqa: E402

# Not for tenants to call yet, or between brokers: ARCHITECTURE of issue 4.
SECURITY = {
    "SaslHandshake", "SaslAuthenticate", "DescribeAcls", "CreateAcls", "DeleteAcls",
    "CreateDelegationToken", "RenewDelegationToken", "ExpireDelegationToken", "DescribeDelegationToken",
    "DescribeClientQuotas", "AlterClientQuotas", "DescribeUserScramCredentials",
    "AlterUserScramCredentials",
}
# In every name: a server that runs already may have those of an earlier run.
STAMP = f"{time.time_ns() // 1_000_000 % 10**8:x}"
OPTIONS = servers.Options(auto_create=True, partitions=1, node_id=1, min_session_timeout_ms=100)


class Kafka(servers.Kafka):
    """The oracle with what the scenarios need."""

    SETTINGS = (
        "group.coordinator.rebalance.protocols=classic,consumer,share,streams",
        "unstable.api.versions.enable=false",
        "group.max.session.timeout.ms=1800000",
        "metric.reporters=TelemetryTaker",
    )

    def command(self) -> list[str]:
        command = super().command()
        for setting in self.SETTINGS:
            command += ["--set", setting]
        return command


class Outcome:
    """What all runs have shown. Not for use by several threads at once but through `add`."""

    def __init__(self, verbose: bool):
        self.passed = self.failed = 0
        self.covered: set[tuple[str, int]] = set()
        self.shown: set[accepted.Where] = set()
        self.accepted_count = 0
        self.unexpected: dict[tuple, list[Difference]] = collections.defaultdict(list)
        self.broken: list[str] = []
        self._lock = threading.Lock()
        self._verbose = verbose

    def check(self, right: bool, text: str) -> None:
        with self._lock:
            if right:
                self.passed += 1
            else:
                self.failed += 1
                self.broken.append(text)

    def add(self, name: str, found: list[Difference], seen: set[tuple[str, int]]) -> None:
        with self._lock:
            self.covered |= seen
            bad = 0
            for difference in found:
                where = accepted.find(difference)
                if where is None:
                    bad += 1
                    key = (difference.scenario, difference.step, difference.path,
                           repr(difference.kafka)[:200], repr(difference.ours)[:200])
                    self.unexpected[key].append(difference)
                else:
                    self.shown.add(where)
                    self.accepted_count += 1
            if bad:
                self.failed += 1
            else:
                self.passed += 1
            if self._verbose:
                print(f"{'differs' if bad else 'same'}: {name}", flush=True)


def run_side(script, server: Server, prefix: str, version: int):
    """The side with its transcript, and what ended the script if something did."""
    side = Side(server, prefix)
    try:
        script(side, version)
        return side, None
    except Exception as error:  # noqa: BLE001  (any failure of a script is one failed test)
        return side, f"{server.kind}: {error!r}\n{traceback.format_exc()}"
    finally:
        side.close()


@dataclasses.dataclass
class Comparison:
    """What one run of a scenario at a version has shown."""

    found: list[Difference]
    seen: set[tuple[str, int]]
    broken: list[str]  # What kept the answers from being compared to the end.

    def wrong(self) -> bool:
        return bool(self.broken) or any(accepted.find(d) is None for d in self.found)


def compare_once(one: scenario.Scenario, version: int, kafka: Server, sluice: Server, attempt: str) -> Comparison:
    prefix = f"{STAMP}{attempt}-{one.name.replace('.', '-').replace('_', '-')}-v{version}"
    name = f"{one.name} v{version}"
    result = Comparison([], set(), [])
    with concurrent.futures.ThreadPoolExecutor(2) as pair:
        left = pair.submit(run_side, one.script, kafka, prefix, version)
        right = pair.submit(run_side, one.script, sluice, prefix, version)
        (theirs, their_error), (ours, our_error) = left.result(), right.result()
    if their_error or our_error:
        result.broken.append(f"{name}: {their_error or ''}{our_error or ''}")
        # What was answered before is worth seeing.
    names = [Names(s.server.host, s.server.port, prefix, s.topics) for s in (theirs, ours)]
    theirs, ours = theirs.transcript, ours.transcript
    for (label, api, at, answer), (label2, api2, at2, answer2) in zip(theirs, ours):
        if (label, api, at) != (label2, api2, at2):
            result.broken.append(f"{name}: the scripts went apart: {label}, {label2}")
            return result
        normal = [n.normal(taken_apart(a)) for n, a in zip(names, (answer, answer2))]
        result.seen.add((api, at))
        result.found += [Difference(one.name, label, api, at, path, place, a, b)
                         for path, place, a, b in differences(*normal)]
    if not result.broken and len(theirs) != len(ours):
        result.broken.append(f"{name}: the scripts went apart after {len(result.found)} differences: "
                             f"{len(theirs)} and {len(ours)} steps")
    return result


def run_both(one: scenario.Scenario, version: int, kafka: Server, sluice: Server,
             outcome: Outcome) -> None:
    """One test. What differs is run again, with new names.

    Kafka answers some requests before what was asked has reached every part of it (a topic is there and the
    group coordinator does not know it yet), so that on a busy machine it differs from itself. A
    difference counts unless two more runs, one after the other, show none.
    """
    result = compare_once(one, version, kafka, sluice, "")
    if result.wrong():
        more = []
        for attempt in ("b", "c"):
            more.append(compare_once(one, version, kafka, sluice, attempt))
            if more[-1].wrong():
                break
        else:
            unlike = [str(d) for d in result.found if accepted.find(d) is None] + result.broken
            print(f"ONCE IN THREE: {one.name} v{version}: {unlike[0]}", flush=True)
            result = more[-1]
    for text in result.broken:
        outcome.check(False, text)
    if result.found or not result.broken:
        outcome.add(f"{one.name} v{version}", result.found, result.seen)


def versions(kafka: Server, api: str) -> range:
    """What Kafka serves: Produce is announced from 0 on (KAFKA-18659), and its schema begins later."""
    low, high = kafka.announced.get(api, (0, -1))
    return range(max(low, kafka.catalogue.request(api).versions.first), high + 1)


def run_all(chosen, kafka: Server, sluice: Server, jobs: int, outcome: Outcome) -> None:
    together, alone = [], []
    for one in chosen:
        for version in one.versions or versions(kafka, one.api):
            (alone if one.alone else together).append((one, version))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda each: run_both(*each, kafka, sluice, outcome), together))
    for each in alone:
        run_both(*each, kafka, sluice, outcome)


def coverage(kafka: Server, sluice: Server, outcome: Outcome) -> None:
    """Each announced version of each API was compared."""
    for api, (low, high) in sorted(sluice.announced.items()):
        if api in SECURITY or api not in kafka.announced:
            continue
        for version in range(low, high + 1):
            # Produce below 3 is announced for old librdkafka alone (KAFKA-18659) and served by nobody.
            outcome.check((api, version) in outcome.covered or (api == "Produce" and version < 3),
                          f"coverage: no scenario compares {api} v{version}, which is announced")


def table(sluice: Server, outcome: Outcome) -> None:
    """Each accepted difference has shown."""
    for entry in accepted.ACCEPTED:
        for where in entry.where:
            if not entry.mend:
                outcome.check(where in outcome.shown, f"accepted differences: '{entry.what}' no longer shows in "
                                                      f"{where.api} {where.path} {where.scenario} {where.step}: "
                                                      f"take it out")
        if entry.mend:
            shows = any(where in outcome.shown for where in entry.where)
            print(f"TO BE MENDED: {entry.what}: " + ("shows" if shows else "no longer shows: take it out"))


def report(outcome: Outcome, kafka: Server, sluice: Server) -> None:
    steps: dict[tuple[str, str], list[list[Difference]]] = collections.defaultdict(list)
    for differing in outcome.unexpected.values():
        steps[differing[0].scenario, differing[0].step].append(differing)
    for each in steps.values():
        # One cause shows in many fields: the first few tell.
        for differing in each[:6]:
            at = sorted({d.version for d in differing})
            print(f"DIFFERS: {differing[0]}  (v{','.join(map(str, at))})")
        if len(each) > 6:
            print(f"DIFFERS: {each[0][0].scenario}: {each[0][0].step}: {len(each) - 6} more")
    for text in outcome.broken:
        print(f"FAILED: {text}")
    for api in sorted(set(sluice.announced) - set(kafka.announced)):
        print(f"NOT ANNOUNCED by Kafka, so not compared: {api}")
    print(f"{outcome.accepted_count} accepted differences, {len(outcome.covered)} versions of "
          f"{len({a for a, _ in outcome.covered})} APIs compared")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", action="append", default=[], metavar="PATTERN",
                           help="scenarios, as family.name; the checks of a full run are left out")
    arguments.add_argument("--page", action="store_true", help="write docs/kafka-compatibility.md; no run")
    arguments.add_argument("--show", action="store_true", help="print Kafka's answers of each step")
    arguments.add_argument("--kafka", metavar="HOST:PORT", help="a Kafka that runs already")
    arguments.add_argument("--sluice", metavar="HOST:PORT",
                           help="a Sluice that runs already (or 'kafka': compare Kafka with itself)")
    arguments.add_argument("--jobs", type=int, default=4)
    arguments.add_argument("--verbose", action="store_true")
    given = arguments.parse_args()
    if given.page:
        page.PATH.write_text(page.text())
        return 0
    servers.end_on_sigterm()
    home = pathlib.Path(os.environ["SLUICE_ORACLE_HOME"])
    catalogue = Catalogue(next((home / "lib").glob("kafka-clients-*.jar")))
    chosen = [s for s in scenario.load()
              if not given.only or any(fnmatch.fnmatchcase(s.name, p) for p in given.only)]
    outcome = Outcome(given.verbose)
    started: list[servers.Server] = []

    def place(address: str | None, kind: type[servers.Server]) -> tuple[str, int]:
        if address:
            host, _, port = address.rpartition(":")
            return host, int(port)
        started.append(kind(OPTIONS))
        return servers.HOST, started[-1].port

    kafka_at = place(given.kafka, Kafka)
    sluice_at = kafka_at if given.sluice == "kafka" else place(given.sluice, servers.Sluice)
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda s: s.start(), started))
        kafka = Server("kafka", *kafka_at, catalogue)
        sluice = Server("sluice", *sluice_at, catalogue)
        begun = time.monotonic()
        for server in (kafka, sluice):
            side = Side(server, f"warm-{time.time_ns()}")
            side.coordinator()
            side.close()
        if given.show:
            show(chosen, kafka)
            return 0
        run_all(chosen, kafka, sluice, given.jobs, outcome)
        for server in started:
            outcome.check(server.alive, f"{server.kind} has ended by itself\n{server.log_tail()}")
    finally:
        for server in started:
            server.close()
    if not given.only:
        coverage(kafka, sluice, outcome)
        table(sluice, outcome)
        outcome.check(page.PATH.exists() and page.PATH.read_text() == page.text(),
                      "docs/kafka-compatibility.md is not current: loadtest/differential/run --page")
    report(outcome, kafka, sluice)
    print(f"{time.monotonic() - begun:.0f} s")
    print(f"{outcome.passed} passed, {outcome.failed} failed")
    return 0 if outcome.failed == 0 else 1


def show(chosen, kafka: Server) -> None:
    """Kafka's answers, for whoever writes a scenario."""
    for one in chosen:
        for version in one.versions or versions(kafka, one.api):
            stamp = time.time_ns() % 10**9
            prefix = f"show{stamp}-v{version}"
            side, error = run_side(one.script, kafka, prefix, version)
            names = Names(kafka.host, kafka.port, prefix, side.topics)
            for label, api, at, answer in side.transcript:
                print(f"{one.name} {label}: {api} v{at}: "
                      f"{json.dumps(names.normal(taken_apart(answer)))}")
            if error:
                print(f"{one.name} v{version}: {error}")


if __name__ == "__main__":
    sys.exit(main())
