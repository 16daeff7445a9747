//! What nodes of a cluster tell each other beside Kafka's own messages.

use crate::table::message;

message! {
    /// On whose behalf a node asks another: stands in the header of each request between nodes.
    mod asker, versions 0..=0, flexible 0..;

    Asker {
        tenant: i32;
        principal: Str;
        client_host: Uuid;
        client_port: u16;
        connection: i64;
        client_version: i16;
        names_are_ids: bool;
    }
}
