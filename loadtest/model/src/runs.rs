//! What is explored: small enough for every test run, and larger for `make model`.

use crate::world::{Kind, Model, Policy};

/// Three nodes and a volume that any of them claims at any time: nothing may depend on good manners.
pub const ANYTHING: Model = Model {
    nodes: &[0, 1, 2],
    volumes: 1,
    kind: Kind::Object,
    policy: Policy::Anything,
    claims: 3,
    records: 2,
    crashes: 1,
    expiries: 0,
    moves: 1,
    mutation: None,
};

/// Three nodes that claim what nobody owns who is known to live; a lease ends too early.
pub const ORPHANS: Model =
    Model { policy: Policy::Orphans, records: 1, crashes: 0, expiries: 1, ..ANYTHING };

/// The same, and a node dies.
pub const DEATHS: Model = Model { crashes: 1, moves: 0, ..ORPHANS };

/// A process that was thought to be dead has the node id of the one that took its place.
pub const TWINS: Model = Model { nodes: &[0, 0, 1], records: 1, ..ANYTHING };

/// Two volumes, two nodes.
pub const TWO_VOLUMES: Model =
    Model { nodes: &[0, 1], volumes: 2, claims: 2, expiries: 0, crashes: 1, moves: 0, ..ORPHANS };

/// By name, within seconds. A reservation and a seal differ only in what happens to what is put behind them, so
/// where nothing is broken one stands for both.
pub fn quick() -> Vec<(&'static str, Model)> {
    let file = |model| Model { kind: Kind::File, ..model };
    vec![
        ("anything", Model { records: 1, ..ANYTHING }),
        ("anything, file", file(ANYTHING)),
        ("orphans", ORPHANS),
        ("orphans, file", file(ORPHANS)),
        ("deaths", DEATHS),
        ("deaths, file", file(DEATHS)),
        ("twins", TWINS),
        ("twins, file", file(TWINS)),
        ("two volumes, file", file(TWO_VOLUMES)),
    ]
}

/// By name; minutes and gigabytes.
pub fn deep() -> Vec<(&'static str, Model)> {
    vec![
        ("anything, 2 records", ANYTHING),
        ("two volumes", TWO_VOLUMES),
        ("two volumes, a lease ends", Model { expiries: 1, ..TWO_VOLUMES }),
        ("anything, 3 records", Model { records: 3, ..ANYTHING }),
        ("anything, 3 records, file", Model { records: 3, kind: Kind::File, ..ANYTHING }),
        ("twins, 2 records", Model { records: 2, ..TWINS }),
        ("deaths, and a move", Model { moves: 1, ..DEATHS }),
        ("deaths, and a move, file", Model { moves: 1, kind: Kind::File, ..DEATHS }),
    ]
}
