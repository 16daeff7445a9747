"""Whatever fails, clients see a pause at most: three writers, two gateways, etcd and S3, each its own process.

Producers of three kinds, idempotent and transactional, and a group of consumers go on all the while. In the end, which
is the last test, everything is read and held against what was acknowledged: nothing lost, twice, or out of order.
"""

from __future__ import annotations

import time

import pytest

from cluster.conftest import LONG

long_only = pytest.mark.skipif(not LONG, reason="for make test-cluster")


def test_a_writer_is_killed(cluster, case):
    victim = cluster.first_owner()
    with case.measured():
        victim.kill()
        cluster.wait_until_owned({node.number for node in cluster.writers if node is not victim})
    with case.measured("the writer is back"):
        victim.start()


def test_two_of_three_writers_are_killed_at_once(cluster, case):
    first = cluster.first_owner()
    victims = [first, next(node for node in cluster.writers if node is not first)]
    with case.measured():
        for victim in victims:
            victim.kill()
        cluster.wait_until_owned({node.number for node in cluster.writers if node not in victims})
    for victim in victims:
        victim.start()


def test_a_writer_stands_still_and_wakes_up(cluster, case):
    """Gateways have requests on their way to it when it stops, which it finds when it wakes up: not one of them may
    be acknowledged that is not where the next owner has it."""
    victim = cluster.first_owner()
    epochs = cluster.owners()
    with case.measured():
        victim.hang()
        begun = time.monotonic()
        cluster.wait_until_owned({node.number for node in cluster.writers if node is not victim})
        case.load.goes_on()
        time.sleep(max(0.0, (30 if LONG else 6) - (time.monotonic() - begun)))
        victim.wake()
    now = cluster.owners()
    assert any(now[volume][1] > epoch for volume, (_, epoch) in epochs.items())
    victim.assert_alive()


def test_a_writer_is_cut_from_etcd(cluster, cutting, case):
    victim = cluster.first_owner()
    with case.measured():
        cutting.cut(victim.name, "etcd")
        cluster.wait_until_owned({node.number for node in cluster.writers if node is not victim})
        case.load.goes_on()
        cutting.heal()


@long_only
def test_a_writer_is_cut_from_the_bucket(cluster, cutting, case):
    victim = cluster.first_owner()
    with case.measured():
        cutting.cut(victim.name, "s3")
        time.sleep(30 if LONG else 6)
        cutting.heal()


@long_only
def test_a_writer_is_cut_from_the_gateways(cluster, cutting, case):
    victim = cluster.first_owner()
    with case.measured():
        for gateway in cluster.gateways:
            cutting.cut(victim.name, gateway.name)
        time.sleep(30 if LONG else 6)
        cutting.heal()


def test_etcd_is_down(cluster, case):
    """What is owned is served all the while."""
    with case.measured():
        cluster.etcd.kill()
        end = time.monotonic() + (60 if LONG else 8)
        while time.monotonic() < end:
            case.load.goes_on(20)
        cluster.etcd.start()
    with case.measured("etcd is back"):
        cluster.wait_until_owned()


def test_a_gateway_is_killed(cluster, case):
    victim = cluster.gateways[0]
    with case.measured():
        victim.kill()
        case.load.goes_on()
    victim.start()


def test_all_are_killed_and_started(cluster, case):
    with case.measured():
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()


def test_nodes_are_restarted_one_after_the_other(cluster, case):
    """In `make test` a writer and a gateway stand for all."""
    nodes = cluster.nodes if LONG else [cluster.first_owner(), cluster.gateways[0]]
    with case.measured():
        for node in nodes:
            node.restart()
            cluster.wait_until_owned()
            case.load.goes_on()


def test_all_that_was_acknowledged_is_there_once_and_in_order(cluster, case):
    verdict = case.load.end()
    assert verdict.plain >= len(case.load.records.acked) > 0
    assert verdict.transactional >= len(case.load.transactions.committed) > 0
    assert case.load.transactions.aborted
