"""docs/kafka-compatibility.md, made of the table of accepted differences."""

from __future__ import annotations

import pathlib

from differential.accepted import ACCEPTED
from differential.normal import BLANK, IDS, TEXTS

PATH = pathlib.Path(__file__).resolve().parents[3] / "docs" / "kafka-compatibility.md"


def text() -> str:
    lines = [
        "# Compatibility with Apache Kafka",
        "",
        "Made by `loadtest/differential/run --page` of loadtest/differential/differential/accepted.py; the test",
        "fails when this page is not current, when a difference shows that is not here, and when one that is here",
        "no longer shows.",
        "",
        "`loadtest/differential/run` starts Apache Kafka 4.3.0 and Sluice on loopback, sends the same requests to",
        "both at every version of every API that Sluice announces, and compares the answers field by field, and",
        "whether the connection is kept. Messages are encoded and decoded by Kafka's own schemas. Which APIs and",
        "versions are announced is in [kafka-apis.md](kafka-apis.md).",
        "",
        "## Accepted differences",
        "",
        "| what | Kafka | Sluice | why | shows in |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in sorted(ACCEPTED, key=lambda entry: entry.mend):
        apis = sorted({w.api for w in entry.where})
        what = f"**to be mended:** {entry.what}" if entry.mend else entry.what
        cells = (what, entry.kafka, entry.here, entry.why, ", ".join(apis))
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    lines += [
        "",
        "## What is not compared literally",
        "",
        "| fields | how |",
        "| --- | --- |",
        f"| {', '.join(sorted(IDS))}; ids inside member ids | by identity: the first id seen is the first on both sides, the same again is the same |",
        f"| {', '.join(sorted(BLANK))} | whether there is one |",
        f"| {', '.join(sorted(TEXTS))} | whether there is a text; its words are ours |",
        "| Host, Port | must be the address that the client was given |",
        "| arrays of structures | without order, by their key |",
        "| record batches | taken apart; everything in them but the leader epoch literally, checksums checked |",
        "",
    ]
    return "\n".join(lines)
