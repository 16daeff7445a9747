"""One cluster for all cases that leave it whole; what was measured is printed at the end."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import Iterator

import pytest

from blackbox import servers
from cluster.load import Load
from cluster.net import Loopback, Namespaces, Unavailable
from cluster.rig import Cluster, Shape

servers.end_on_sigterm()

# Whether cases take the time that they are meant to take, not what CI has for them.
LONG = os.environ.get("SLUICE_CLUSTER_LONG") == "1"
HERE = pathlib.Path(__file__).resolve().parent

_measured: list[tuple[str, dict[str, float]]] = []


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> tuple[str, ...]:
    """The producers there are; that of franz-go is built from its source here."""
    if shutil.which("go") is None and "SLUICE_KGO_PRODUCER" not in os.environ:
        print("CLUSTER WITHOUT FRANZ-GO: there is no go to build its producer with")
        return ("librdkafka", "java")
    if "SLUICE_KGO_PRODUCER" not in os.environ:
        binary = tmp_path_factory.mktemp("kgo") / "producer"
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "kgo", check=True,
                       env={**os.environ, "GOFLAGS": "-mod=readonly"})
        os.environ["SLUICE_KGO_PRODUCER"] = str(binary)
    return ("librdkafka", "java", "franz-go")


def network() -> Loopback | Namespaces:
    try:
        return Namespaces()
    except Unavailable as e:
        print(f"CLUSTER WITHOUT NETWORK NAMESPACES, nothing is cut: {e}")
        return Loopback()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with Cluster(Shape(), network()) as cluster:
        cluster.wait_until_owned()
        yield cluster


@pytest.fixture
def cluster(shared_cluster) -> Iterator[Cluster]:
    """The shared cluster, whole before and after the case."""
    shared_cluster.mend()
    yield shared_cluster
    shared_cluster.mend()


@pytest.fixture
def cutting(cluster) -> Namespaces:
    if not cluster.net.can_cut:
        pytest.skip("NOTHING CAN BE CUT HERE: network namespaces need root (CAP_NET_ADMIN) and iproute2")
    return cluster.net


@dataclasses.dataclass
class Case:
    """What is done to the cluster, and the load that goes on meanwhile."""

    name: str
    load: Load

    @contextmanager
    def measured(self, what: str | None = None) -> Iterator[None]:
        """Until everything goes on after what is done within."""
        since = time.monotonic()
        yield
        self.load.goes_on()
        _measured.append((what or self.name, self.load.longest_gaps(since, time.monotonic())))


@pytest.fixture(scope="session")
def loads(shared_cluster) -> Iterator[list[Load]]:
    """The one that goes on through all cases; another one follows where one has failed."""
    made: list[Load] = []
    yield made
    for load in made:
        load.kill()


@pytest.fixture
def case(cluster, loads, kinds, request) -> Case:
    if not loads or loads[-1].has_failed():
        loads.append(Load(cluster.bootstrap, f"load{len(loads)}", kinds=kinds))
    loads[-1].goes_on()
    return Case(request.node.name.removeprefix("test_"), loads[-1])


def pytest_terminal_summary(terminalreporter) -> None:
    if not _measured:
        return
    names = list(_measured[0][1])
    terminalreporter.write_line("longest time, s, in which some partition acknowledged nothing to a producer:")
    terminalreporter.write_line("| case | " + " | ".join(names) + " |")
    terminalreporter.write_line("| --- |" + " ---: |" * len(names))
    for case, gaps in _measured:
        terminalreporter.write_line(f"| {case} | " + " | ".join(f"{gaps[name]:.2f}" for name in names) + " |")
