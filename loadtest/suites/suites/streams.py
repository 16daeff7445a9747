"""Kafka Streams' own smoke test (kafka-streams' test jar) with exactly_once_v2, under crashes.

Its driver generates data for 90 s, waits for the results of a dozen aggregations and compares them with what they
must be. Processors run one after the other, each over the state of the one before, and are killed; so is
the server, once. The driver's own verdict counts.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess

from confluent_kafka.admin import AdminClient, NewTopic

from blackbox import servers, wire
from suites import jars
from suites.expected import Seen
from suites.work import Job, first_words, say, until

NAMES = ("streams",)
SMOKE = "org.apache.kafka.streams.tests.StreamsSmokeTest"
TOPICS = ("echo", "data", "min", "min-suppressed", "min-raw", "max", "sum", "sws-raw", "sws-suppressed", "dif", "cnt",
          "avg", "wcnt", "tagg")


def install(home: pathlib.Path) -> None:
    jars.install(home)


def suite(job: Job, _name: str) -> dict[str, Seen]:
    return {protocol: one(job, protocol) for protocol in ("classic", "streams") if job.wants(protocol)}


def one(job: Job, protocol: str) -> Seen:
    """The smoke test with the classic group protocol, or with that of KIP-1071."""
    logs = job.logs / protocol
    logs.mkdir(exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    with servers.new_server(servers.Options(auto_create=False)) as server:
        wire.wait_for_coordinator(server.bootstrap)
        config = logs / "streams.properties"
        text = {"bootstrap.servers": server.bootstrap, "processing.guarantee": "exactly_once_v2",
                "state.dir": logs / "state", "session.timeout.ms": 10_000, "acks": "all"}
        if protocol == "streams":
            del text["session.timeout.ms"]
            text["group.protocol"] = "streams"
        config.write_text("".join(f"{key}={value}\n" for key, value in text.items()))

        def begin(name: str, *arguments: str) -> tuple[subprocess.Popen[bytes], pathlib.Path]:
            log = logs / f"{name}.log"
            with open(log, "wb") as out:
                process = subprocess.Popen(
                    ["nice", *jars.java(job.home, job.home / "java/lib", heap="512m"), SMOKE, os.fspath(config),
                     *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
            started.append(process)
            return process, log

        try:
            admin = AdminClient({"bootstrap.servers": server.bootstrap})
            for created in admin.create_topics([NewTopic(topic, 5, 1) for topic in TOPICS]).values():
                created.result(30)
            driver, verdict = begin("driver", "run")
            for number, ending in enumerate(("killed", "stopped", "stays")):
                processor, log = begin(f"processor-{number}", "process")
                until(lambda log=log: "processed" in log.read_text(errors="replace"), 120,
                                   lambda log=log: f"{log.name} processes nothing\n{tail(log)}")
                say(f"  {protocol}: processor {number} works, it is {ending}")
                if ending == "killed":
                    processor.kill()
                    processor.wait()
                    server.restart(crash=True)
                elif ending == "stopped":
                    processor.send_signal(signal.SIGTERM)
                    processor.wait(60)
            driver.wait(600)
            server.assert_alive()
            said = verdict.read_text(errors="replace")
            if "SUCCESS" in said:
                return Seen("passed")
            return Seen("failed", first_words(f"the driver says: {said[-600:]}"))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return Seen("failed", first_words(str(error)))
        finally:
            for process in started:
                process.kill()
                process.wait()


def tail(log: pathlib.Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
