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


CLIENT_METRICS, SET, DELETE = 16, 0, 1


def subscribe(s, name, **configs):
    answer = s.do("IncrementalAlterConfigs", ValidateOnly=False, Resources=[
        {"ResourceType": CLIENT_METRICS, "ResourceName": name, "Configs": [
            {"Name": key.replace("_", "."), "ConfigOperation": SET if value else DELETE, "Value": value}
            for key, value in configs.items()]}])
    assert answer["Responses"][0]["ErrorCode"] == 0, answer


@scenario("GetTelemetrySubscriptions", alone=True)
def get_matching_subscriptions(s, v):
    """Subscriptions are the whole cluster's: this one is for a client id of this scenario's alone."""
    name, client = s.name("sub"), s.name("client")
    subscribe(s, name, metrics="org.apache.kafka.producer.,org.apache.kafka.consumer.coordinator",
              interval_ms="30000", match=f"client_id={client}")

    def told(client_id):
        return s.do("GetTelemetrySubscriptions", on=s.connect(client_id), ClientInstanceId=ZERO)
    # Kafka's brokers learn of it a moment later.
    s.until("the subscription holds", lambda: told(client)["RequestedMetrics"])
    whole = s.connect(client)
    given = s.step("of this client", "GetTelemetrySubscriptions", v, on=whole, ClientInstanceId=ZERO, keep=lambda a: dict(
        a, RequestedMetrics=sorted(a["RequestedMetrics"]), PushIntervalMs=0 < a["PushIntervalMs"] <= 30_000 * 1.5))
    subscribed(s, v, "of another", ZERO, on=s.connect(s.name("another")))

    def go(label, **fields):
        s.step(label, "PushTelemetry", v, on=whole, **{
            "ClientInstanceId": given["ClientInstanceId"], "SubscriptionId": given["SubscriptionId"],
            "Terminating": False, "CompressionType": 0, "Metrics": b"", **fields})
    go("empty")
    go("at once again")
    subscribe(s, name, metrics=None, interval_ms=None, match=None)


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
