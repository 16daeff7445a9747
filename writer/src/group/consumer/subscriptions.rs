//! What the members of a group subscribe to, counted; and which topics that comes to now.

use std::collections::{BTreeMap, BTreeSet};

use sluice_wire::Str;
use twox_hash::XxHash3_128;

use super::regex;
use crate::group::machine::Tick;
use crate::group::modern::Turn;

/// A group with regular expressions looks through the tenant's topics at most this often.
const REFRESH_MS: i32 = 1_000;

/// Counted over all members.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    names: BTreeMap<Str, u32>,
    expressions: BTreeMap<Str, Expression>,
    /// The version of the tenant's topics that `expressions` were matched with.
    version: Option<u64>,
    refreshed_at: Option<Tick>,
}

#[derive(Debug, Default)]
struct Expression {
    members: u32,
    /// Names that match, ascending.
    names: Vec<Str>,
    /// It has not been matched yet.
    is_new: bool,
}

impl Subscriptions {
    /// A member subscribes to these names, and to what this expression matches (empty: nothing).
    pub(crate) fn add(&mut self, names: &[Str], expression: &Str) {
        for name in names {
            *self.names.entry(name.clone()).or_default() += 1;
        }
        if !expression.is_empty() {
            let new = || Expression { is_new: true, ..Expression::default() };
            self.expressions.entry(expression.clone()).or_insert_with(new).members += 1;
        }
    }

    /// Takes back what was [added](Self::add).
    pub(crate) fn remove(&mut self, names: &[Str], expression: &str) {
        for name in names {
            if let Some(count) = self.names.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.names.remove(name);
                }
            }
        }
        if let Some(known) = self.expressions.get_mut(expression) {
            known.members -= 1;
            if known.members == 0 {
                self.expressions.remove(expression);
            }
        }
    }

    /// Whether a member uses the expression.
    pub(crate) fn uses(&self, expression: &str) -> bool {
        self.expressions.contains_key(expression)
    }

    /// Whether a member subscribes to the name, as of the last refresh.
    pub(crate) fn contains(&self, name: &str) -> bool {
        let matches =
            |e: &Expression| e.names.binary_search_by(|known| (**known).cmp(name)).is_ok();
        self.names.contains_key(name) || self.expressions.values().any(matches)
    }

    /// The names that an expression matches, as of the last refresh.
    pub(crate) fn matched(&self, expression: &str) -> &[Str] {
        self.expressions.get(expression).map_or(&[], |known| &known.names)
    }

    /// Brings the expressions up to the tenant's topics as they are now. True if topics have changed
    /// in any way since the last time, or an expression has been matched.
    pub(crate) fn refresh(&mut self, turn: &Turn<'_>) -> bool {
        let version = turn.topics.version(turn.tenant);
        let has_new = self.expressions.values().any(|expression| expression.is_new);
        let changed = self.version != Some(version);
        if !changed && !has_new {
            return false;
        }
        if changed && !has_new && !self.expressions.is_empty() {
            let due = self.refreshed_at.map(|at| at.after(REFRESH_MS));
            if due.is_some_and(|due| turn.now < due) {
                return false;
            }
        }
        if !self.expressions.is_empty() {
            let names = turn.topics.names(turn.tenant);
            for (pattern, expression) in &mut self.expressions {
                if changed || expression.is_new {
                    expression.names = regex::matching(pattern, &names);
                    expression.is_new = false;
                }
            }
            self.refreshed_at = Some(turn.now);
        }
        self.version = Some(version);
        true
    }

    /// The next refresh says that topics have changed: nobody has compared their hash yet.
    pub(crate) fn look_again(&mut self) {
        self.version = None;
    }

    /// A hash of the subscribed topics that exist, with their ids and numbers of partitions.
    pub(crate) fn hash(&self, turn: &Turn<'_>) -> u64 {
        let matched = self.expressions.values().flat_map(|expression| &expression.names);
        let all: BTreeSet<&Str> = self.names.keys().chain(matched).collect();
        let mut bytes = Vec::with_capacity(all.len() * 40);
        for name in all {
            if let Some(shape) = turn.topics.find(turn.tenant, name) {
                // An id is another for another topic of the name, so the name need not go in.
                bytes.extend_from_slice(&shape.id.0);
                bytes.extend_from_slice(&shape.partitions.to_be_bytes());
            }
        }
        // Half of it tells as well.
        (XxHash3_128::oneshot(&bytes) >> 64) as u64
    }
}
