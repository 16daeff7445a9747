//! Forgets offsets that are past their retention, and empty groups that have none.

use std::sync::{Arc, Weak};

use sluice_wire::Str;

use super::cell::{Cell, CellState};
use super::journal::{Done, Write};
use super::kind::Kind;
use super::log::{LogError, LogRecord};
use super::record::Key;
use super::shared::Shared;

/// The room that the tombstones of one group are taken to need.
const ROOM_BYTES: usize = 64 << 10;

/// At most this many of a group's offsets are forgotten at a time; the rest at the next.
const MAX_TOMBSTONES: usize = 1_000;

/// Looks at all groups, time after time, until the coordinator is gone.
pub(crate) async fn run(shared: Weak<Shared>) {
    loop {
        let Some(interval) = shared.upgrade().map(|s| s.config.retention_check_interval) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = sweep(&shared).await {
            tracing::debug!(%error, "group retention is put off");
        }
    }
}

/// Looks at each group once.
pub(crate) async fn sweep(shared: &Shared) -> Result<(), LogError> {
    for tenant in shared.tenants() {
        for cell in shared.cells_of(tenant) {
            let room = shared.journal()?.room(ROOM_BYTES).await?;
            let mut state = cell.lock();
            // A commit that is under way would be forgotten by a tombstone queued behind it.
            let records = if state.removed || state.pending > 0 || state.reloading {
                Vec::new()
            } else {
                tombstones(shared, &cell, &state)
            };
            if !records.is_empty() {
                let write = Write {
                    cell: Some(Arc::clone(&cell)),
                    records,
                    done: Done::Nobody,
                    room: Some(room),
                };
                shared.queue(&mut state, write).map_err(|(_, error)| error)?;
            }
            shared.leave(&cell, state);
        }
    }
    Ok(())
}

fn tombstones(shared: &Shared, cell: &Cell, state: &CellState) -> Vec<LogRecord> {
    let (tenant, group): (_, &Str) = (cell.tenant(), cell.id());
    let group_kind = &state.kind;
    let in_use = |topic| {
        shared.topics.name(tenant, topic).is_some_and(|name| group_kind.is_subscribed(&name))
    };
    let wall_ms = shared.clock.wall_ms();
    let retention_ms = shared.config.offsets_retention_ms;
    let old = state.offsets.expired(wall_ms, retention_ms, group_kind.expiry_base(), in_use);
    // A share group's offsets are elsewhere; only an admin deletes it, as in Kafka.
    let is_kept = matches!(group_kind, Kind::Share(_));
    if old.len() == state.offsets.len() && group_kind.is_vacant() && !is_kept {
        // The group's own tombstone stands for all of its offsets.
        return vec![LogRecord { key: Key::Group { tenant, group }.encode(), value: None }];
    }
    let old = old.into_iter().take(MAX_TOMBSTONES);
    old.map(|(topic, partition)| LogRecord {
        key: Key::Offset { tenant, group, topic, partition }.encode(),
        value: None,
    })
    .collect()
}
