"""franz-go's kgo suite, through the Go module proxy; go.sum in kgo/ pins it.

Every test of the package runs, those without a broker too: one list for all. Group, transaction and share ETL
move KGO_TEST_RECORDS records, which the environment may set: 500,000 in a whole run, fewer in a quick one.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil

from blackbox import servers, wire
from suites.expected import Seen
from suites.work import HERE, Broken, Job, first_words, must, once, run

NAMES = ("kgo",)
RECORDS, QUICK_RECORDS = "500000", "20000"


def install(home: pathlib.Path) -> None:
    where = home / "kgo"

    def make() -> None:
        if shutil.which("go") is None:
            raise Broken("go is missing: install Go 1.21 or newer; it fetches the toolchain that kgo asks for")
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(HERE / "kgo", where)
        must(["go", "test", "-c", "-o", "kgo.test", "github.com/twmb/franz-go/pkg/kgo"], cwd=where,
             log=home / "kgo-build.log", GOFLAGS="-mod=readonly")
        # Its tests read files beside them.
        source = must(["go", "list", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kgo"], cwd=where,
                      log=home / "kgo-list.log", GOFLAGS="-mod=readonly").split()[-1]
        (where / "source").symlink_to(source)

    once(home, "kgo", (HERE / "kgo/go.sum").read_text(), make)


def suite(job: Job, _name: str) -> dict[str, Seen]:
    where = job.home / "kgo"
    records = os.environ.get("KGO_TEST_RECORDS", QUICK_RECORDS if job.quick else RECORDS)
    select = ["-test.run", job.only.pattern] if job.only else []
    with servers.new_server(servers.Options()) as server:
        wire.wait_for_coordinator(server.bootstrap)
        done = run(["nice", where / "kgo.test", "-test.v=test2json", "-test.timeout=30m",
                    "-test.parallel=6", *select],
                   cwd=where / "source", log=job.logs / "kgo.log", timeout_s=2000, KGO_SEEDS=server.bootstrap,
                   KGO_TEST_RF="1", KGO_TEST_RECORDS=records, KGO_LOG_LEVEL="none")
        server.assert_alive()
    found = outcomes(done.output)
    if done.code not in (0, 1) and not any(seen.outcome == "failed" for seen in found.values()):
        raise Broken(f"kgo's tests ended with {done.code}\n" + "\n".join(done.output.splitlines()[-30:]))
    return found


def outcomes(output: str) -> dict[str, Seen]:
    """Top-level tests only: their subtests are many and made at run time."""
    words = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
    found = {test: Seen(words[word])
             for word, test in re.findall(r"^\x16?--- (PASS|FAIL|SKIP): (\w+) \(", output, re.MULTILINE)}
    for test in re.findall(r"^\x16?=== RUN   (\w+)$", output, re.MULTILINE):
        found.setdefault(test, Seen("failed", "did not end"))
    for test, seen in found.items():
        if seen.outcome == "failed":
            # The words of all tests are mixed; what their clean-ups say is left out.
            why = re.findall(r"^ +(\w+_test\.go:\d+: (?!(?:\w+ )*deleting ).*)", output, re.MULTILINE)
            errors = re.findall(r"^ +testConsumer sendErr group=\w+: (.*)", output, re.MULTILINE)
            found[test] = Seen("failed", first_words(seen.message or " | ".join([*errors, *why])))
    return found
