//! DescribeTransactions and ListTransactions: looks, without changes.

use sluice_model::{StreamId, TenantId};
use sluice_wire::{ErrorCode, Str};

use super::TransactionCoordinator;
use super::state::State;

/// The longest pattern that is compiled, in bytes, and the memory that one may take.
const MAX_PATTERN_BYTES: usize = 1_024;
const MAX_PATTERN_MEMORY: usize = 256 << 10;

/// Names that Kafka knows and no id is ever seen in.
const PASSING_STATES: [&str; 2] = ["Dead", "PrepareEpochFence"];

/// One transactional id in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The longest that a transaction may be open.
    pub timeout_ms: i32,
    /// Wall time when the transaction began, ms; -1 for none.
    pub started_ms: i64,
    /// Who may write.
    pub producer_id: i64,
    /// Under which epoch.
    pub producer_epoch: i16,
    /// What the open transaction has written to, in order.
    pub streams: Vec<StreamId>,
}

/// Which ids are wanted. Empty filters let all pass.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Kafka's names of states.
    pub states: Vec<Str>,
    /// Producer ids.
    pub producer_ids: Vec<i64>,
    /// Only transactions that have been open for longer than this; negative for all.
    pub longer_than_ms: i64,
    /// An RE2 pattern for the whole id.
    pub pattern: Option<Str>,
}

/// One transactional id in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id.
    pub transactional_id: Str,
    /// Who may write.
    pub producer_id: i64,
    /// Kafka's name of the state.
    pub state: &'static str,
}

impl TransactionCoordinator {
    /// DescribeTransactions, one id of it.
    pub fn describe(
        &self,
        tenant: TenantId,
        transactional_id: &str,
    ) -> Result<Described, ErrorCode> {
        self.shared.check_active()?;
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let cell = self.shared.cell(tenant, transactional_id);
        let cell = cell.ok_or(ErrorCode::TransactionalIdNotFound)?;
        let state = cell.lock();
        let durable = state.machine.durable().ok_or(ErrorCode::TransactionalIdNotFound)?;
        Ok(Described {
            state: durable.state.name(),
            timeout_ms: durable.timeout_ms,
            started_ms: durable.started_ms,
            producer_id: durable.producer_id,
            producer_epoch: durable.epoch,
            streams: durable.streams.iter().copied().collect(),
        })
    }

    /// ListTransactions: the ids that pass, in order, and the state filters that are no state's name.
    pub fn list(
        &self,
        tenant: TenantId,
        wanted: &Listing,
    ) -> Result<(Vec<Listed>, Vec<Str>), ErrorCode> {
        self.shared.check_active()?;
        let pattern = wanted.pattern.as_deref().filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(compiled).transpose()?;
        let is_known = |name: &Str| {
            State::NAMES.iter().any(|(_, known)| **name == **known)
                || PASSING_STATES.contains(&&**name)
        };
        let unknown = wanted.states.iter().filter(|name| !is_known(name)).cloned().collect();
        let now_ms = self.shared.clock.wall_ms();
        let mut found = Vec::new();
        for cell in self.shared.cells_of(tenant) {
            let state = cell.lock();
            let Some(durable) = state.machine.durable() else { continue };
            let name = durable.state.name();
            let open_ms = now_ms.saturating_sub(durable.started_ms);
            let passes = (wanted.states.is_empty() || wanted.states.iter().any(|s| **s == *name))
                && (wanted.producer_ids.is_empty()
                    || wanted.producer_ids.contains(&durable.producer_id))
                && (wanted.longer_than_ms < 0 || open_ms > wanted.longer_than_ms)
                && pattern.as_ref().is_none_or(|pattern| pattern.is_match(&cell.id));
            if passes {
                found.push(Listed {
                    transactional_id: cell.id.clone(),
                    producer_id: durable.producer_id,
                    state: name,
                });
            }
        }
        Ok((found, unknown))
    }
}

/// A pattern for a whole id. The engine takes linear time for any pattern, as RE2 does.
fn compiled(pattern: &str) -> Result<regex::Regex, ErrorCode> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(ErrorCode::InvalidRegularExpression);
    }
    // The pattern alone has to be one: it may not close the group around it.
    let alone = |text: &str| regex::RegexBuilder::new(text).size_limit(MAX_PATTERN_MEMORY).build();
    alone(pattern)
        .and_then(|_| alone(&format!(r"\A(?:{pattern})\z")))
        .map_err(|_| ErrorCode::InvalidRegularExpression)
}
