//! Where share groups stand: told, set and forgotten for the admin's requests. Whether a group may be
//! changed (it must be empty) is checked before.

use sluice_model::{StreamId, TenantId};
use sluice_wire::Str;

use super::Shares;
use super::key::ShareKey;
use super::partition::Stored;
use crate::group::log::LogError;

/// Where a share group stands in a stream, as far as that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The stream.
    pub stream: StreamId,
    /// The first offset that is not done; -1 if the group has not begun.
    pub start: i64,
    /// The stream's leader epoch when the state was written.
    pub leader_epoch: i32,
    /// Offsets after the start that are done.
    pub done: u64,
}

impl Shares {
    /// Where a group stands in all streams that it has state of, by topic id and partition.
    pub fn standings(&self, tenant: TenantId, group: &Str) -> Vec<Standing> {
        let cells = self.shared.cells_of_group(tenant, group);
        let standings = cells.iter().filter_map(|cell| {
            let state = cell.lock();
            state.stored.as_ref().map(|stored| Standing {
                stream: cell.key.stream,
                start: stored.start,
                leader_epoch: stored.leader_epoch,
                done: stored.done(),
            })
        });
        standings.collect()
    }

    /// Sets where a group stands; all that is known of what it was given there is forgotten. The caller has
    /// checked that the streams are the tenant's.
    pub async fn set_starts(
        &self,
        tenant: TenantId,
        group: &Str,
        starts: &[(StreamId, i64)],
    ) -> Result<(), LogError> {
        for (stream, start) in starts {
            let key = ShareKey { group: group.clone(), stream: *stream };
            loop {
                let limit = self.shared.limits.max_partitions;
                let cell = self.shared.cell_or_new(tenant, &key, limit);
                let cell = cell.ok_or(LogError::Full)?;
                let _fetching = cell.fetching.lock().await;
                let state_epoch = {
                    let mut state = cell.lock();
                    if state.removed {
                        continue;
                    }
                    state.unload();
                    state.stored.as_ref().map_or(0, |stored| stored.state_epoch.saturating_add(1))
                };
                let leader_epoch = self.shared.leader_epoch(*stream);
                let stored = Stored { state_epoch, leader_epoch, start: *start, runs: Vec::new() };
                self.shared.replace(&cell, Some(stored)).await?;
                break;
            }
        }
        Ok(())
    }

    /// Forgets a group's state in those streams that `which` is true for.
    pub async fn forget_streams(
        &self,
        tenant: TenantId,
        group: &Str,
        which: impl Fn(StreamId) -> bool + Send,
    ) -> Result<(), LogError> {
        for cell in self.shared.cells_of_group(tenant, group) {
            if which(cell.key.stream) {
                self.forget(&cell).await?;
            }
        }
        Ok(())
    }
}
