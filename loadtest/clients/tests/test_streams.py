"""Kafka Streams: its own group protocol (KIP-1071), and exactly-once processing under crashes.

Input is random words. The application sends every count of every word, so what it came to is checked
against what was acknowledged to the producer: with exactly-once processing the counts of a word are
1, 2, 3 and so on up to how often it was written; with at-least-once processing the last count is at
least that.
"""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from confluent_kafka.admin import AdminClient

from blackbox import servers, waiting
from blackbox.servers import Options
from blackbox.streams import WORDS, App, Feeder, Output
from conftest import create

PARTITIONS = 4
#: The stateless subtopology and the counting one, as Kafka Streams numbers them.
TASKS = {f"{subtopology}_{p}" for subtopology in (0, 1) for p in range(PARTITIONS)}
COUNTING = {task for task in TASKS if task.startswith("1_")}
#: A member that is gone is noticed soon.
SOON = Options(streams_session_timeout_ms=6_000, streams_heartbeat_interval_ms=500)


class Work:
    """Topics, a feeder, and the instances of one application over a server that may be restarted."""

    def __init__(self, server: servers.Server, **settings: object):
        self.server = server
        self.topics = ("lines", "upper", "counts")
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        for topic in self.topics:
            create(admin, topic, PARTITIONS)
        self.settings = settings
        self.feeder = Feeder(server.bootstrap, "lines")
        self.apps: list[App] = []

    def app(self) -> App:
        app = App(self.server.bootstrap, "counter", self.topics, **self.settings)
        self.apps.append(app)
        return app

    def lose(self, app: App) -> None:
        app.close()
        self.apps.remove(app)

    def finish(self) -> tuple[dict[str, list[str]], int]:
        """Ends the input and waits until all of it has been counted: (counts of each word, capital
        lines)."""
        self.feeder.stop()
        counts = Output(self.server.bootstrap, "counts")
        upper = Output(self.server.bootstrap, "upper")
        try:
            counts.read_until(lambda: counts.reach(self.feeder.words), 120, "not all words were counted")
            lines = lambda: sum(len(values) for values in upper.values.values())
            upper.read_until(lambda: lines() >= self.feeder.lines, 60, "lines are missing")
            # What comes too much would come now.
            counts.read(1)
            upper.read(0.5)
            return counts.values, lines()
        finally:
            counts.close()
            upper.close()

    def close(self) -> None:
        for app in self.apps:
            app.close()


@pytest.fixture
def work(own_server):
    made = []

    def make(options: Options = SOON, **settings: object) -> Work:
        work = Work(own_server(options), **settings)
        made.append(work)
        return work

    yield make
    for work in made:
        work.close()


def shares_all(apps: list[App]) -> bool:
    """Each task is active on one of the apps, and all apps have some."""
    active = [set(app.ask("tasks")["active"]) for app in apps]
    together = [task for tasks in active for task in tasks]
    return all(active) and sorted(together) == sorted(TASKS)


def settled(app: App) -> dict | None:
    group = app.ask("describe")
    return group if group["state"] == "Stable" else None


def check_exactly_once(work: Work) -> None:
    counts, lines = work.finish()
    assert set(counts) == set(WORDS)
    for word, values in counts.items():
        assert values == [str(n + 1) for n in range(work.feeder.words[word])], word
    assert lines == work.feeder.lines


def test_the_streams_protocol_shares_tasks_and_survives_loss(work):
    run = work(**{"group.protocol": "streams"})
    first = run.app().wait_running()
    waiting.until(lambda: shares_all([first]), 60, "one has all", every_s=0.5)
    second = run.app().wait_running()
    waiting.until(lambda: shares_all([first, second]), 60, "two share", every_s=0.5)
    group = waiting.until(lambda: settled(first), 60, "a stable group", every_s=0.5)
    assert group["epoch"] == group["assignment"] and len(group["members"]) == 2
    tasks = [task for member in group["members"].values() for task in member["active"]]
    assert sorted(tasks) == sorted(TASKS)

    # The server crashes: nobody is asked to give anything up.
    run.server.restart(crash=True)
    time.sleep(3)
    again = waiting.until(lambda: settled(first), 60, "the group again", every_s=0.5)
    assert again == group

    # One instance crashes: its session ends, and the other has everything.
    run.lose(second)
    waiting.until(lambda: shares_all([first]), 60, "one has all again", every_s=0.5)

    counts, lines = run.finish()
    # At least once: what a crash made it do again may be there twice.
    for word, wanted in run.feeder.words.items():
        assert int(counts[word][-1]) >= wanted
        assert {int(n) for n in counts[word]} >= set(range(1, wanted + 1)), word
    assert lines >= run.feeder.lines


def test_standbys_lie_elsewhere_and_take_over(work):
    options = Options(streams_session_timeout_ms=6_000, streams_heartbeat_interval_ms=500,
                      streams_standbys=1)
    run = work(options, **{"group.protocol": "streams"})
    apps = [run.app().wait_running(), run.app().wait_running()]

    def whole() -> bool:
        told = [app.ask("tasks") for app in apps]
        standby = [task for tasks in told for task in tasks["standby"]]
        return shares_all(apps) and sorted(standby) == sorted(COUNTING) \
            and all(not set(t["active"]) & set(t["standby"]) for t in told)

    waiting.until(whole, 90, "standbys of all counting tasks", every_s=0.5)
    run.lose(apps.pop())
    waiting.until(lambda: shares_all(apps), 60, "one has all", every_s=0.5)
    run.finish()


def test_an_application_that_leaves_is_empty_and_can_be_deleted(work):
    run = work(**{"group.protocol": "streams"})
    app = run.app().wait_running()
    waiting.until(lambda: shares_all([app]), 60, "one has all", every_s=0.5)
    admin = AdminClient({"bootstrap.servers": run.server.bootstrap})
    with pytest.raises(Exception, match="(?i)not.*empty"):
        admin.delete_consumer_groups(["counter"])["counter"].result(20)
    app.stop()
    # A dynamic member leaves the group when its application is closed, or its session ends.
    def deleted() -> bool:
        try:
            admin.delete_consumer_groups(["counter"])["counter"].result(20)
            return True
        except Exception:  # noqa: BLE001  Not empty yet.
            return False
    waiting.until(deleted, 30, "an empty group", every_s=0.5)


@pytest.mark.parametrize("protocol", ["classic", "streams"])
def test_exactly_once_through_crashes(work, protocol, minutes):
    """The server is killed, an instance is killed, the server stops in order, and so on at random; what was
    written until then is counted before the next. Each count is sent once."""
    options = Options(min_session_timeout_ms=2_000, streams_session_timeout_ms=2_000,
                      streams_heartbeat_interval_ms=300)
    run = work(options, **{"group.protocol": protocol, "processing.guarantee": "exactly_once_v2",
                           # What a killed instance leaves open hides what follows for as long.
                           "transaction.timeout.ms": 3_000,
                           **({"session.timeout.ms": 2_000, "heartbeat.interval.ms": 300}
                              if protocol == "classic" else {})})
    for app in [run.app(), run.app()]:
        app.wait_running()
    luck = random.Random(7)

    def kill_an_instance() -> None:
        run.lose(luck.choice(run.apps))
        run.app()

    ways = [lambda: run.server.restart(crash=True), kill_an_instance, lambda: run.server.restart()]
    until, done = time.monotonic() + minutes * 60, 0
    with contextlib.closing(Output(run.server.bootstrap, "counts")) as counts:
        while done < len(ways) or time.monotonic() < until:
            time.sleep(luck.uniform(0, 1))
            way = ways[done] if done < len(ways) else luck.choice(ways)
            way()
            written = run.feeder.written()
            counts.read_until(lambda: counts.reach(written), 120, "what was written is not counted")
            done += 1
    check_exactly_once(run)
