"""Client telemetry (KIP-714)."""

from __future__ import annotations

import uuid

from differential.scenario import scenario

ZERO = uuid.UUID(int=0)


def subscribed(s, v, label, instance, on=None):
    def keep(answer):
        # The first push comes after a random part of the interval.
        return dict(answer, PushIntervalMs=answer["PushIntervalMs"] > 0)
    return s.step(label, "GetTelemetrySubscriptions", v, on=on, keep=keep, ClientInstanceId=instance)


@scenario("GetTelemetrySubscriptions")
def get_subscriptions(s, v):
    first = subscribed(s, v, "new", ZERO)
    subscribed(s, v, "at once again", first["ClientInstanceId"])
    subscribed(s, v, "an id that nobody gave", uuid.uuid4(), on=s.connect())


@scenario("PushTelemetry")
def push(s, v):
    def go(label, on=None, **fields):
        s.step(label, "PushTelemetry", v, on=on, **{"Terminating": False, "CompressionType": 0, "Metrics": b"",
                                                    **fields})
    go("no subscription", ClientInstanceId=uuid.uuid4(), SubscriptionId=0)
    go("zero id", ClientInstanceId=ZERO, SubscriptionId=0)
    on = s.connect()
    given = s.do("GetTelemetrySubscriptions", on=on, ClientInstanceId=ZERO)
    go("wrong subscription", on=on, ClientInstanceId=given["ClientInstanceId"],
       SubscriptionId=given["SubscriptionId"] ^ 1)
    on = s.connect()
    given = s.do("GetTelemetrySubscriptions", on=on, ClientInstanceId=ZERO)
    go("compression that is not", on=on, ClientInstanceId=given["ClientInstanceId"],
       SubscriptionId=given["SubscriptionId"], CompressionType=9)
    on = s.connect()
    given = s.do("GetTelemetrySubscriptions", on=on, ClientInstanceId=ZERO)
    go("too large", on=on, ClientInstanceId=given["ClientInstanceId"], SubscriptionId=given["SubscriptionId"],
       Metrics=b"x" * 2_000_000)
    on = s.connect()
    given = s.do("GetTelemetrySubscriptions", on=on, ClientInstanceId=ZERO)
    go("last one", on=on, ClientInstanceId=given["ClientInstanceId"], SubscriptionId=given["SubscriptionId"],
       Terminating=True)
    go("after the last one", on=on, ClientInstanceId=given["ClientInstanceId"],
       SubscriptionId=given["SubscriptionId"], Terminating=True)
