//! DescribeGroups, ListGroups, DeleteGroups.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};
use sluice_wire::messages::list_groups_request::ListGroupsRequest;
use sluice_wire::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::oneshot;

use super::commits::wait;
use super::journal::{Done, Write};
use super::log::{LogError, LogRecord};
use super::record::Key;
use super::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    /// DescribeGroups, versions 0 to 6.
    pub async fn describe_groups(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        let groups = request.groups.into_iter().map(|id| self.describe(caller, version, id));
        DescribeGroupsResponse { groups: groups.collect(), ..Default::default() }
    }

    fn describe(&self, caller: &GroupCaller, version: i16, group_id: Str) -> DescribedGroup {
        if let Err(code) = self.shared.check_active() {
            return DescribedGroup { group_id, error_code: code.code(), ..Default::default() };
        }
        let found = self.shared.with_group(caller.tenant, &group_id, |_, state| {
            let classic = state.kind.classic();
            classic
                .map(|group| group.describe(&group_id))
                .ok_or_else(|| format!("Group {group_id} is not a classic group."))
        });
        let found = found.unwrap_or_else(|| Err(format!("Group {group_id} not found.")));
        found.unwrap_or_else(|message| {
            // KIP-1043: from version 6 an absent group is an error, before it is a dead one.
            let is_error = version >= 6;
            let error_message = is_error.then(|| Str::from(message));
            let code = if is_error { ErrorCode::GroupIdNotFound } else { ErrorCode::None };
            DescribedGroup {
                error_code: code.code(),
                error_message,
                group_id,
                group_state: Str::from_static("Dead"),
                ..Default::default()
            }
        })
    }

    /// ListGroups, versions 0 to 5, sorted by id. Filters are not case-sensitive; empty ones let all
    /// through.
    pub async fn list_groups(
        &self,
        caller: &GroupCaller,
        request: ListGroupsRequest,
    ) -> ListGroupsResponse {
        if let Err(code) = self.shared.check_active() {
            return ListGroupsResponse { error_code: code.code(), ..Default::default() };
        }
        let passes = |filter: &[Str], value: &str| {
            filter.is_empty() || filter.iter().any(|name| name.trim().eq_ignore_ascii_case(value))
        };
        let mut groups = Vec::new();
        for cell in self.shared.cells_of(caller.tenant) {
            let state = cell.lock();
            let (name, kind) = (state.kind.state_name(), state.kind.type_name());
            let wanted =
                passes(&request.types_filter, kind) && passes(&request.states_filter, name);
            if wanted && !state.removed {
                groups.push(ListedGroup {
                    group_id: cell.id().clone(),
                    protocol_type: state.kind.protocol_type(),
                    group_state: Str::from_static(name),
                    group_type: Str::from_static(kind),
                });
            }
        }
        ListGroupsResponse { groups, ..Default::default() }
    }

    /// DeleteGroups, versions 0 to 2: empty groups, with their offsets; each once, however often it is named.
    /// Answers when that is durable.
    pub async fn delete_groups(
        &self,
        caller: &GroupCaller,
        request: DeleteGroupsRequest,
    ) -> DeleteGroupsResponse {
        let mut results = Vec::with_capacity(request.groups_names.len());
        let mut seen = HashSet::new();
        for group_id in request.groups_names {
            if !seen.insert(group_id.clone()) {
                continue;
            }
            let code = self.delete_group(caller, &group_id).await.err();
            let error_code = code.unwrap_or(ErrorCode::None).code();
            results.push(DeletableGroupResult { group_id, error_code });
        }
        DeleteGroupsResponse { results, ..Default::default() }
    }

    async fn delete_group(&self, caller: &GroupCaller, group_id: &Str) -> Result<(), ErrorCode> {
        let shared = &self.shared;
        shared.check_active()?;
        let key = Key::Group { tenant: caller.tenant, group: group_id }.encode();
        let journal = shared.journal().map_err(LogError::code)?;
        let room = journal.room(key.len()).await.map_err(LogError::code)?;
        let queued = shared.with_group(caller.tenant, group_id, |cell, state| {
            if !state.kind.is_vacant() {
                return Err(ErrorCode::NonEmptyGroup);
            }
            let (done, durable) = oneshot::channel();
            let write = Write {
                cell: Some(Arc::clone(cell)),
                records: vec![LogRecord { key, value: None }],
                done: Done::Caller(done),
                room: Some(room),
            };
            shared.queue(state, write).map_err(|(_, error)| error.code())?;
            Ok(durable)
        });
        let durable = queued.unwrap_or(Err(ErrorCode::GroupIdNotFound))?;
        wait(durable).await.map_err(LogError::code)
    }
}
