"""librdkafka's own test-runner, built from the sources that its npm package carries.

Each test number is a process of its own, since a test that runs out of time ends the runner. All tests
that need a broker run once with the classic group protocol and once with `consumer` (KIP-848), as two
suites: `librdkafka` and `librdkafka-consumer`. Tests against librdkafka's own mock broker, and those that
cut the client's sockets, say nothing about a server and are left out.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil

from blackbox import servers, wire
from suites import jars, packages
from suites.expected import Seen
from suites.work import Done, Job, first_words, must, once, run, say

NAMES = ("librdkafka", "librdkafka-consumer")
PACKAGE = "@confluentinc/kafka-javascript@1.10.1"  # librdkafka 2.15.1
# The longest test takes a minute and a half against Kafka; the runner's own limits are looser.
TIMEOUT_S = 900
# They wait more than they work. The runner itself would run five.
AT_A_TIME = 4
# Numbers with many sub-tests, of which one that cannot pass would hide the others.
SPLIT = ("0081", "0113")
# The runner's scenario "noautocreate": these have a server on which asking for a topic does not make it.
NO_AUTO_CREATE = ("0045_subscribe_update_non_exist_and_partchange", "0045_subscribe_update_topic_remove",
                  "0107_topic_recreate", "0111_delay_create_topics")
# Of each area one that is quick: produce, consume, groups, offsets, transactions, admin, share groups.
QUICK = re.compile(r"^(0001|0003|0005|0011|0012|0017|0022|0029|0030|0040|0052|0070|0073|0085|0092|0099|"
                   r"0103|0109|0112|0115|0125|0129|0137|0140|0175)_")


def install(home: pathlib.Path) -> None:
    where = home / "librdkafka"

    def make() -> None:
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(parents=True)
        must(["npm", "install", "--no-fund", "--no-audit", "--ignore-scripts", "--omit=dev",
              "--prefix", where, PACKAGE], log=home / "librdkafka-npm.log")
        source = where / "node_modules" / PACKAGE.rpartition("@")[0] / "deps/librdkafka"
        shutil.move(source, where / "source")
        shutil.rmtree(where / "node_modules")
        # Two tests compare with programs in Java, and with Kafka's scripts.
        must(["make", "-C", where / "source/tests/java", f"KAFKA_JARS={jars.oracle_lib()}"],
             log=home / "librdkafka-java.log")
        for name, command in (
                ("configure", ["./configure", "--disable-curl", "--disable-gssapi"]),
                ("libs", ["make", "-j2", "libs"]),
                ("tests", ["make", "-j2", "-C", "tests", "build"])):
            must(command, cwd=where / "source", log=home / f"librdkafka-{name}.log")

    packages.need(home, ("g++", "build-essential"), ("make", "build-essential"), ("npm", "npm"),
                  ("openssl/ssl.h", "libssl-dev"), ("zlib.h", "zlib1g-dev"), ("zstd.h", "libzstd-dev"),
                  ("rapidjson/document.h", "rapidjson-dev"))
    jars.install(home)
    once(home, "librdkafka", f"{PACKAGE}, Java programs, RapidJSON", make)


@dataclasses.dataclass(frozen=True)
class Case:
    """One process of the runner: the tests of one number, or one sub-test of a number that is split."""

    number: str
    names: tuple[str, ...]
    subtest: str = ""
    auto_create: bool = True

    @property
    def log_name(self) -> str:
        return "-".join(filter(None, (self.number, self.subtest, "" if self.auto_create else "no-auto-create")))


def cases(source: pathlib.Path) -> list[Case]:
    """All that needs a broker, from the runner's own table."""
    table = re.search(r"^struct test tests\[\] = \{(.*?)^\s*\{NULL\}", (source / "tests/test.c").read_text(),
                      re.MULTILINE | re.DOTALL).group(1)
    names: dict[str, list[str]] = {}
    for name, flags in re.findall(r"_TEST\(\s*(\w+),\s*([\w |]+)", table):
        if not re.search(r"TEST_F_(LOCAL|SOCKEM|MANUAL|KNOWN_ISSUE\b)", flags) and not name.endswith("_mock"):
            names.setdefault(name[:4], []).append(name)
    found = []
    for number, tests in names.items():
        if number in SPLIT:
            (test,) = tests
            found += [Case(number, (f"{test}/{sub}",), sub) for sub in subtests(source, number)]
        else:
            for auto_create in (True, False):
                if its := tuple(test for test in tests if (test not in NO_AUTO_CREATE) == auto_create):
                    found.append(Case(number, its, auto_create=auto_create))
    return found


def subtests(source: pathlib.Path, number: str) -> list[str]:
    """The functions of a test's source that are sub-tests, but for those against the mock broker."""
    (path,) = (source / "tests").glob(f"{number}-*.c*")
    function, found = "", []
    for line in path.read_text().splitlines():
        if begins := re.match(r"(?:static )?(?:\w+ \*?)?(\w+)\(", line):
            function = begins.group(1)
        elif re.search(r"\bSUB_TEST(0|_QUICK)?\(", line) and function not in found:
            found.append(function)
    return [name for name in found if "mock" not in name]


def outcomes(case: Case, names: list[str], done: Done) -> dict[str, Seen]:
    """What the runner's summary says of each test; without a summary it failed."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.output)
    said = dict(re.findall(rf"^\|\s+({case.number}_\w+)\s+\|\s+(\w+)", text, re.MULTILINE))
    why = re.findall(r"^### Test \"(?!<MAIN>)(.*?)(?:^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    skips = re.findall(r"WARN: SKIPPING TEST: (.*)", text)
    begun = re.findall(rf"\] \[ {case.subtest}:\d+.*", text)
    if case.subtest and done.code == 0 and not [line for line in begun if ": SKIP" not in line]:
        return {name: Seen("skipped", first_words(" ".join(begun) or "not run in this mode")) for name in names}
    found = {}
    for name in names:
        state = said.get(name.partition("/")[0], "no summary")
        if state == "PASSED" and done.code == 0:
            found[name] = Seen("passed")
        elif state == "SKIPPED":
            found[name] = Seen("skipped", first_words(" ".join(skips) or "not run in this mode"))
        else:
            ended = "ran out of time" if done.code is None else f"ended with {done.code}"
            found[name] = Seen("failed", first_words(f"{ended}: {why[0] if why else ''}"))
    return found


def suite(job: Job, name: str) -> dict[str, Seen]:
    source = job.home / "librdkafka/source"
    environment = {"LD_LIBRARY_PATH": f"{source / 'src'}:{source / 'src-cpp'}", "TEST_KAFKA_VERSION": "4.3.0",
                   "KAFKA_PATH": os.fspath(job.home / "kafka")}
    if name == "librdkafka-consumer":
        environment["TEST_CONSUMER_GROUP_PROTOCOL"] = "consumer"
    found: dict[str, Seen] = {}
    with (servers.new_server(servers.Options(partitions=4)) as usual,
          servers.new_server(servers.Options(partitions=4, auto_create=False)) as strict):
        for server in (usual, strict):
            wire.wait_for_coordinator(server.bootstrap)
            # The runner's limits are for a machine that does nothing else.
            (job.logs / f"{server.port}.conf").write_text(
                f"metadata.broker.list={server.bootstrap}\ntest.timeout.multiplier=3\n")

        def one(case: Case, names: list[str]) -> dict[str, Seen]:
            server = usual if case.auto_create else strict
            chosen = {"SUBTESTS": f"{case.subtest}:"} if case.subtest else {}
            if not case.auto_create:
                chosen["TEST_SCENARIO"] = "noautocreate"
            done = run(["nice", "./test-runner", "-p1", "-E", "-L"], cwd=source / "tests",
                       log=job.logs / f"{case.log_name}.log", timeout_s=TIMEOUT_S, BROKERS=server.bootstrap,
                       RDKAFKA_TEST_CONF=os.fspath(job.logs / f"{server.port}.conf"), TESTS=case.number,
                       **environment, **chosen)
            did = outcomes(case, names, done)
            say(f"  {case.log_name}: {' '.join(did[n].outcome for n in names)}, {done.seconds:.0f} s")
            return did

        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            running = []
            for case in cases(source):
                names = [n for n in case.names if job.wants(n) and (not job.quick or QUICK.match(n))]
                if names:
                    running.append(pool.submit(one, case, names))
            for test in running:
                found |= test.result()
        for server in (usual, strict):
            server.assert_alive()
    return found
