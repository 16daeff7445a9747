//! What of Kafka's protocol is served: the table that `sluice apis` prints and docs/kafka-apis.md holds.
//! Made from the dispatch table, so that it cannot say anything else than the server does.

use std::fmt::Write;
use std::ops::RangeInclusive;

use sluice_wire::ApiKey;

const HEAD: &str = "\
# Kafka APIs

Printed by `sluice apis`; a test checks that this file is current. What is not served is not announced.

| key | API | served | Kafka 4.3 |
| ---: | --- | --- | --- |
";

const DIFFERENCES: &str = "
## Where we differ from Apache Kafka, and why

| what | here | why |
| --- | --- | --- |
| acks | acks=0 and acks=1 are made as durable as acks=all; acks=0 gets no answer | there is one kind of append |
| replicas | every partition has one replica, its owner; a replication factor above 1 is refused (INVALID_REPLICATION_FACTOR), as by one broker | durability comes from the volume and the bucket |
| compressed batches | records are inflated and checked at produce only for compacted topics; otherwise header and checksum are | inflating costs more than all else |
| largest batch | about 6.8 MiB, whatever max.message.bytes says (MESSAGE_TOO_LARGE) | one batch must fit one frame of the log |
| fetch sessions | one to each connection, which ends with it; Kafka's may be gone on with on another connection | a client that comes back on another connection is told that there is none, and begins anew |
| __consumer_offsets | an empty internal topic, from the first FindCoordinator for a group on | committed offsets do not lie in a topic |
| leader epoch | grows at each start | it is the epoch of the volume's owner |
| cleanup.policy=compact | as Kafka's cleaner does, on what is in the bucket; what is not uploaded yet is the active segment | records go to the bucket by `upload.*`, not by `segment.bytes` and `segment.ms` |
| compression.lz4.level | without effect: lz4 has one level here | the codec in use has no other |
| client telemetry | always served; what clients push becomes the operator's metrics, by tenant and metric | Kafka serves it when a plugin is there to receive it |
| match patterns of client metrics | without look-around and back-references (INVALID_CONFIG) | patterns take time linear in the text |
| bounds of group configs | Kafka's default bounds, widened to the operator's defaults (groups.defaults) | the broker configs that hold them are read at a start |
| transactions | described without the groups that they commit offsets of | committed offsets do not lie in a topic |
| segment.*, flush.*, index.*, file.delete.delay.ms, preallocate, unclean.leader.election.enable | accepted, checked and reported, without effect | there are no segment files |
| group.initial.rebalance.delay.ms | 0 by default, as in Kafka's sample configuration | groups.initial_rebalance_delay sets it |
| streams groups: lost answers | a member that says it lacks tasks it was given is given them again; Kafka tells them once | a lost answer must not leave a task idle |
| streams groups: repartition topics | fixed partition counts have to agree only within one copartition group | two joins of one application are no business of each other |
| streams groups: size | at most 5,000 members and 100,000 tasks a group | what a tenant can make the coordinator hold is bounded |
| share sessions | when there are too many, those that were idle for two minutes make room; Kafka refuses new ones | a client whose connection hangs half open must not keep others out |
| share.auto.offset.reset | where a group begins is stored with its first fetch, and shown from then on; Kafka stores it with the first acknowledgement | a crash must not move a group that began at the end |
| broker configs | those that Kafka changes dynamically can be set, for this tenant alone; what is about listeners, connections and the machine is refused (INVALID_REQUEST), and what is about parts that are not here is kept and shown, without effect | the server is shared, and its machine the operator's |

## As in Apache Kafka, where one may expect otherwise

| what | Kafka 4.3, and here |
| --- | --- |
| rack.id of consumers | is shown in descriptions; the assignors uniform and range take no notice of it |
| REBOOTSTRAP_REQUIRED (KIP-1102) | clients understand it and brokers never send it; it is for proxies |
";

/// The page.
pub(crate) fn reference() -> String {
    let mut out = HEAD.to_owned();
    for api in ApiKey::ALL.iter().filter(|api| !api.is_between_brokers()) {
        let served =
            sluice_gateway::served(*api).map_or_else(|| "-".to_owned(), |range| text(&range));
        let row = (api.code(), api.name(), served, text(&api.versions()));
        let (code, name, served, kafka) = row;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {code} | {name} | {served} | {kafka} |");
    }
    out.push_str(DIFFERENCES);
    out
}

fn text(range: &RangeInclusive<i16>) -> String {
    if range.start() == range.end() {
        return range.start().to_string();
    }
    format!("{}-{}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_current() {
        let committed = include_str!("../docs/kafka-apis.md");
        assert!(
            committed == super::reference(),
            "docs/kafka-apis.md is not current: run `make docs`"
        );
    }
}
