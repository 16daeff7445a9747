"""The integration tests that the crates rdkafka (over librdkafka 2.12) and rskafka (a client of its own) ship.

Their sources come out of cargo's registry cache and are built in a copy, with the Cargo.lock of each
crate and the Rust that is here: a file that names another one is left out, and what that Rust no longer
builds is of a newer version.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil

from blackbox import servers, wire
from suites import packages
from suites.expected import Seen
from suites.work import Broken, Job, cargo_outcomes, must, once, run

NAMES = ("rust-rdkafka", "rskafka")
CRATES = {"rust-rdkafka": ("rdkafka", "0.39.0"), "rskafka": ("rskafka", "0.6.0")}
# One process of real Kafka answers the same with one thread; more make the tests' own time limits tight.
TIMEOUT_S = 1200
# Of the locked versions: rsasl 2.2.0 is refused by Rust since 1.87.
NEWER = {"rskafka": ("rsasl", "2.3.1")}


def _manifest() -> str:
    wanted = "".join(f'{name} = {{ version = "={version}", default-features = false }}\n'
                     for name, version in CRATES.values())
    return '[package]\nname = "fetched"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n' + wanted


def install(home: pathlib.Path) -> None:
    where = home / "rust"

    def make() -> None:
        shutil.rmtree(where, ignore_errors=True)
        (where / "fetch/src").mkdir(parents=True)
        (where / "fetch/src/lib.rs").touch()
        (where / "fetch/Cargo.toml").write_text(_manifest())
        must(["cargo", "fetch"], cwd=where / "fetch", log=home / "rust-fetch.log")
        known = json.loads(must(["cargo", "metadata", "--format-version=1", "--offline", "--quiet"],
                                cwd=where / "fetch", log=home / "rust-metadata.log"))
        for name, (crate, version) in CRATES.items():
            (source,) = (pathlib.Path(p["manifest_path"]).parent for p in known["packages"]
                         if (p["name"], p["version"]) == (crate, version))
            shutil.copytree(source, where / name, ignore=shutil.ignore_patterns("rust-toolchain*"))
            if name in NEWER:
                package, precise = NEWER[name]
                must(["cargo", "update", "-p", package, "--precise", precise],
                     cwd=where / name, log=home / f"{name}-update.log")
            _build(home, name)

    packages.need(home, ("g++", "build-essential"), ("make", "build-essential"), ("cmake", "cmake"))
    if shutil.which("cargo") is None:
        raise Broken("cargo is missing: install Rust")
    once(home, "rust", _manifest(), make)


def _cargo(home: pathlib.Path) -> dict[str, str]:
    return {"CARGO_TARGET_DIR": os.fspath(home / "rust/target"), "CARGO_TERM_COLOR": "never"}


def _build(home: pathlib.Path, name: str) -> None:
    must(["nice", "cargo", "test", "--no-run", "--locked"], cwd=home / "rust" / name,
         log=home / f"{name}-build.log", **_cargo(home))


def suite(job: Job, name: str) -> dict[str, Seen]:
    select = [] if job.only is None else [job.only.pattern]
    partitions = 3  # rdkafka's own compose file says so.
    with servers.new_server(servers.Options(partitions=partitions, auto_create=name != "rskafka")) as server:
        wire.wait_for_coordinator(server.bootstrap)
        done = run(["nice", "cargo", "test", "--locked", "--offline", "--no-fail-fast", "--",
                    "--test-threads=2", *select],
                   cwd=job.home / "rust" / name, log=job.logs / f"{name}.log", timeout_s=TIMEOUT_S,
                   KAFKA_HOST=server.bootstrap, KAFKA_VERSION="4.3", KAFKA_CONNECT=server.bootstrap,
                   TEST_INTEGRATION="1", TEST_BROKER_IMPL="kafka", **_cargo(job.home))
        server.assert_alive()
    found = cargo_outcomes(done.output)
    if done.code is None or not found:
        raise Broken(f"{name}'s tests ended with {done.code}\n" + "\n".join(done.output.splitlines()[-30:]))
    return found
