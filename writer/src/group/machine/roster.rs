//! The members of one group, and the counts over them that joins and syncs are decided by.
//!
//! Always holds: `joining` and `owing` count the members that await a join answer and that have not
//! sent SyncGroup in this generation; `supported` counts the members per protocol name; `statics`
//! maps each instance id to the one member that holds it. Fields that are counted change only here.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_wire::Str;

use super::{Tick, Ticket};

/// One assignment strategy that a member offers, in the member's order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: Str,
    pub(crate) metadata: Bytes,
}

/// One member. Strings and bytes are owned copies, so that no request frame is kept alive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Str,
    /// Set for static members (KIP-345).
    pub(crate) instance: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    pub(crate) assignment: Bytes,
    /// The parked SyncGroup.
    pub(crate) syncing: Option<Ticket>,
    /// The member has never been told its id, so it cannot send heartbeats.
    pub(crate) is_new: bool,
    /// When the member is given up unless it is heard of; `None` while it waits for an answer.
    pub(crate) deadline: Option<Tick>,
    protocols: Vec<Protocol>,
    joining: Option<Ticket>,
    owes_sync: bool,
}

impl Member {
    pub(crate) fn new(
        id: Str,
        instance: Option<Str>,
        (client_id, client_host): (Str, Str),
        (rebalance_timeout_ms, session_timeout_ms): (i32, i32),
        protocols: Vec<Protocol>,
    ) -> Self {
        Self {
            id,
            instance,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            assignment: Bytes::new(),
            syncing: None,
            is_new: false,
            deadline: None,
            protocols,
            joining: None,
            owes_sync: false,
        }
    }

    pub(crate) fn protocols(&self) -> &[Protocol] {
        &self.protocols
    }

    pub(crate) fn joining(&self) -> Option<Ticket> {
        self.joining
    }

    /// The member's metadata for `protocol`, empty if it does not offer that.
    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        self.protocols
            .iter()
            .find(|offered| Some(&*offered.name) == protocol)
            .map_or_else(Bytes::new, |offered| offered.metadata.clone())
    }

    /// A member that is parked in a join or sync cannot send heartbeats, unless it is new: then a
    /// lost connection must not keep it forever.
    pub(crate) fn satisfies_heartbeat(&self) -> bool {
        !self.is_new && (self.joining.is_some() || self.syncing.is_some())
    }
}

/// The members, by id.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Boxed: a map's node has room for eleven, and most groups have one or two.
    members: BTreeMap<Str, Box<Member>>,
    statics: BTreeMap<Str, Str>,
    supported: BTreeMap<Str, usize>,
    joining: usize,
    owing: usize,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many members await a join answer.
    pub(crate) fn joining(&self) -> usize {
        self.joining
    }

    /// How many members have not sent SyncGroup in this generation.
    pub(crate) fn owing(&self) -> usize {
        self.owing
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Member> {
        self.members.get(id).map(|member| &**member)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Member> {
        self.members.get_mut(id).map(|member| &mut **member)
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    /// In the order of member ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values().map(|member| &**member)
    }

    pub(crate) fn ids(&self, wanted: impl Fn(&Member) -> bool) -> Vec<Str> {
        self.iter().filter(|member| wanted(member)).map(|member| member.id.clone()).collect()
    }

    /// The member that holds an instance id.
    pub(crate) fn static_member(&self, instance: &str) -> Option<&Str> {
        self.statics.get(instance)
    }

    /// Adds a member under an id that is not taken, and an instance id that is not either.
    pub(crate) fn insert(&mut self, member: Member) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.joining += usize::from(member.joining.is_some());
        self.owing += usize::from(member.owes_sync);
        self.count_protocols(&member.protocols);
        let replaced = self.members.insert(member.id.clone(), Box::new(member));
        assert!(replaced.is_none(), "member ids are unique in a group");
    }

    /// Removes a member; the caller answers what it had parked.
    pub(crate) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.statics.remove(&**instance);
        }
        self.joining -= usize::from(member.joining.is_some());
        self.owing -= usize::from(member.owes_sync);
        self.uncount_protocols(&member.protocols);
        Some(*member)
    }

    /// Parks a JoinGroup; gives back the one it replaces.
    pub(crate) fn park_join(&mut self, id: &str, ticket: Ticket) -> Option<Ticket> {
        let member = self.members.get_mut(id)?;
        let replaced = member.joining.replace(ticket);
        self.joining += usize::from(replaced.is_none());
        replaced
    }

    /// Takes the parked JoinGroup, to answer it.
    pub(crate) fn take_join(&mut self, id: &str) -> Option<Ticket> {
        let ticket = self.members.get_mut(id)?.joining.take();
        self.joining -= usize::from(ticket.is_some());
        ticket
    }

    pub(crate) fn set_owes_sync(&mut self, id: &str, owes: bool) {
        if let Some(member) = self.members.get_mut(id) {
            self.owing -= usize::from(member.owes_sync);
            self.owing += usize::from(owes);
            member.owes_sync = owes;
        }
    }

    pub(crate) fn forgive_syncs(&mut self) {
        self.members.values_mut().for_each(|member| member.owes_sync = false);
        self.owing = 0;
    }

    pub(crate) fn owing_ids(&self) -> Vec<Str> {
        self.ids(|member| member.owes_sync)
    }

    pub(crate) fn set_protocols(&mut self, id: &str, protocols: Vec<Protocol>) {
        let Some(mut member) = self.members.remove(id) else { return };
        self.uncount_protocols(&member.protocols);
        self.count_protocols(&protocols);
        member.protocols = protocols;
        self.members.insert(member.id.clone(), member);
    }

    fn count_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_protocols(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supported.get_mut(&*protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(&*protocol.name);
                }
            }
        }
    }

    /// Whether every member offers the protocol.
    pub(crate) fn all_support(&self, protocol: &str) -> bool {
        self.supported.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol that most members would choose among those that all of them offer. Between
    /// equals the smallest name wins (Kafka leaves that open).
    pub(crate) fn vote(&self) -> Option<Str> {
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|offered| self.all_support(&offered.name))?;
            *votes.entry(&choice.name).or_default() += 1;
        }
        votes.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    /// The longest rebalance timeout of all members, in ms.
    pub(crate) fn rebalance_timeout_ms(&self) -> i32 {
        self.iter().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }
}
