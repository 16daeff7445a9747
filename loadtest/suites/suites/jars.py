"""Kafka's jars, and what runs them: the oracle's (broker and tools), and ours (Connect, Streams' test programs).

Also a tree that looks like Kafka's distribution (bin/kafka-topics.sh and so on) for suites that call
Kafka's scripts. Every JVM here is small, compiles little, and logs warnings to stderr alone.
"""

from __future__ import annotations

import os
import pathlib
import shutil

from suites import packages
from suites.work import CLIENTS, HERE, must, once

LOGGING = """\
status = warn
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRefs = err
rootLogger.appenderRef.err.ref = err
"""
SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
}


def install(home: pathlib.Path) -> None:
    """The oracle's jars, ours in `home`/java, and the tree of scripts in `home`/kafka."""
    packages.need(home, ("javac", "openjdk-17-jdk-headless"), ("mvn", "maven"))
    must([CLIENTS / "kafka-oracle", "install"], log=home / "oracle-install.log")
    pom = HERE / "java/pom.xml"

    def make() -> None:
        shutil.rmtree(home / "java", ignore_errors=True)
        must(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", "-DincludeScope=runtime",
              f"-DoutputDirectory={home / 'java/lib'}"], log=home / "java-jars.log")
        (home / "java/log4j2.properties").write_text(LOGGING)
        _scripts(home)

    once(home, "java", pom.read_text() + LOGGING + repr(SCRIPTS), make)


def oracle_lib() -> pathlib.Path:
    home = os.environ.get("SLUICE_ORACLE_HOME") or os.path.join(os.environ["SLUICE_CLIENTS_HOME"], "oracle")
    return pathlib.Path(home) / "lib"


def java(home: pathlib.Path, lib: pathlib.Path, heap: str = "256m") -> list[str]:
    """The command up to the class's name."""
    return ["java", "-Xms32m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={home / 'java/log4j2.properties'}", "-cp", f"{lib}/*"]


def tool(home: pathlib.Path, name: str) -> list[str]:
    """The command of one of Kafka's tools, by its class."""
    return [*java(home, oracle_lib()), name]


def _scripts(home: pathlib.Path) -> None:
    tree = home / "kafka"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    (tree / "libs").symlink_to(oracle_lib())
    *options, _cp, classpath = java(home, oracle_lib())
    run = f'exec {" ".join(options)} -cp "${{CLASSPATH:+$CLASSPATH:}}{classpath}"'
    for name, main in {**SCRIPTS, "kafka-run-class.sh": ""}.items():
        path = tree / "bin" / name
        path.write_text(f'#!/bin/sh\n{run} {main} "$@"\n')
        path.chmod(0o755)
