//! Turns of transactional producers whose coordinator is on another node: the coordinator's own are not here.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sluice_model::TenantId;
use sluice_wire::Str;
use tokio::sync::OwnedMutexGuard;

/// When there are so many, those that nobody holds are dropped.
const SWEEP_AT: usize = 1024;

type Gate = tokio::sync::Mutex<()>;

/// One gate for each producer with a request under way.
#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<(TenantId, Str), Weak<Gate>>>);

impl Gates {
    /// Waits until the requests that came before are handed over. Turns are given in the order of the calls' first polls.
    pub(super) async fn turn(
        &self,
        tenant: TenantId,
        transactional_id: &Str,
    ) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.0.lock();
            if gates.len() >= SWEEP_AT {
                gates.retain(|_, gate| gate.strong_count() > 0);
            }
            let known = gates.entry((tenant, transactional_id.clone())).or_default();
            known.upgrade().unwrap_or_else(|| {
                let gate = Arc::new(Gate::default());
                *known = Arc::downgrade(&gate);
                gate
            })
        };
        // Nearly always free: then without a wait that tokio's budget could bring about.
        match Arc::clone(&gate).try_lock_owned() {
            Ok(turn) => turn,
            Err(_) => gate.lock_owned().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_kept() {
        let gates = Gates::default();
        let id = Str::from_static("t");
        let first = gates.turn(TenantId(1), &id).await;
        let mut second = Box::pin(gates.turn(TenantId(1), &id));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(gates.turn(TenantId(2), &id).await);
        drop(first);
        drop(second.await);
        for number in 0..5_000 {
            drop(gates.turn(TenantId(1), &Str::from(number.to_string())).await);
        }
        assert!(gates.0.lock().len() <= SWEEP_AT);
    }
}
