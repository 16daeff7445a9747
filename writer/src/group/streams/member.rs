//! One member: what it said of itself, what it has, and when it is given up.

use std::collections::{BTreeMap, BTreeSet};

use sluice_wire::Str;
use sluice_wire::messages::streams_group_describe_response as describe;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;

use super::tasks::{Held, Tasks, described};
use crate::group::GroupCaller;
use crate::group::machine::Tick;

/// What a member says of itself. Copies, so that no request's frame is kept alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) rack: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    /// How long it may take to give up tasks; -1 if it never said.
    pub(crate) rebalance_timeout_ms: i32,
    /// Of the topology that it runs.
    pub(crate) topology_epoch: i32,
    /// Members of one process share its disk: no two of them have the same task.
    pub(crate) process: Str,
    /// Host and port for interactive queries.
    pub(crate) endpoint: Option<(Str, u16)>,
    pub(crate) tags: BTreeMap<Str, Str>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            rack: None,
            client_id: Str::default(),
            client_host: Str::default(),
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process: Str::default(),
            endpoint: None,
            tags: BTreeMap::new(),
        }
    }
}

impl Profile {
    /// With what the request says in place of what was said before; what it leaves out stays.
    pub(crate) fn updated(
        &self,
        caller: &GroupCaller,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Self {
        let copy = |text: &Str| Str::from(&**text);
        let tags = request
            .client_tags
            .as_ref()
            .map(|tags| tags.iter().map(|tag| (copy(&tag.key), copy(&tag.value))).collect());
        let endpoint = request.user_endpoint.as_ref();
        Self {
            rack: request.rack_id.as_ref().map(copy).or_else(|| self.rack.clone()),
            client_id: copy(&caller.client_id),
            client_host: copy(&caller.client_host),
            rebalance_timeout_ms: match request.rebalance_timeout_ms {
                -1 => self.rebalance_timeout_ms,
                timeout_ms => timeout_ms,
            },
            topology_epoch: request.topology.as_ref().map_or(self.topology_epoch, |t| t.epoch),
            process: request.process_id.as_ref().map_or_else(|| self.process.clone(), copy),
            endpoint: endpoint
                .map(|endpoint| (copy(&endpoint.host), endpoint.port))
                .or_else(|| self.endpoint.clone()),
            tags: tags.unwrap_or_else(|| self.tags.clone()),
        }
    }
}

/// Where a member is on its way to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has what it shall have under its epoch.
    Stable,
    /// It was told to give up tasks and has not said that it did.
    Unrevoked,
    /// Tasks of its target are not free yet.
    Unreleased,
}

/// What a member has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) progress: Progress,
    pub(crate) epoch: i32,
    /// The epoch before: a member whose answer was lost still sends it.
    pub(crate) previous_epoch: i32,
    pub(crate) assigned: Held,
    /// Told to be given up; others do not get these yet.
    pub(crate) revoking: Held,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            progress: Progress::Stable,
            epoch: 0,
            previous_epoch: 0,
            assigned: Held::default(),
            revoking: Held::default(),
        }
    }
}

impl Current {
    /// It has all of the target of this assignment epoch.
    pub(crate) fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.progress == Progress::Stable && self.epoch == assignment_epoch
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) profile: Profile,
    pub(crate) current: Current,
    /// When it is given up unless it is heard of.
    pub(crate) session: Tick,
    /// When it is given up unless it has given up its tasks.
    pub(crate) revoke_by: Option<Tick>,
}

impl Member {
    /// The earlier of its two deadlines.
    pub(crate) fn deadline(&self) -> Tick {
        self.revoke_by.map_or(self.session, |revoke_by| revoke_by.min(self.session))
    }

    pub(crate) fn describe(&self, id: &Str, target: Option<&Tasks>) -> describe::Member {
        let Profile { rack, client_id, client_host, process, endpoint, tags, .. } = &self.profile;
        let assigned = &self.current.assigned;
        let none = BTreeSet::new();
        let (active, standby) = target.map_or((&none, &none), |t| (&t.active, &t.standby));
        describe::Member {
            member_id: id.clone(),
            member_epoch: self.current.epoch,
            instance_id: None,
            rack_id: rack.clone(),
            client_id: client_id.clone(),
            client_host: client_host.clone(),
            topology_epoch: self.profile.topology_epoch,
            process_id: process.clone(),
            user_endpoint: endpoint.clone().map(|(host, port)| describe::Endpoint { host, port }),
            client_tags: tags
                .iter()
                .map(|(key, value)| describe::KeyValue { key: key.clone(), value: value.clone() })
                .collect(),
            assignment: describe::Assignment {
                active_tasks: described(assigned.active.keys()),
                standby_tasks: described(assigned.standby.iter()),
                ..Default::default()
            },
            target_assignment: describe::Assignment {
                active_tasks: described(active.iter()),
                standby_tasks: described(standby.iter()),
                ..Default::default()
            },
            ..Default::default()
        }
    }
}
