//! The task that takes and hands over: it alone decides for its node, by looking at the whole catalog after each change.
//!
//! ```text
//!   changes of the catalog, losses, ends of jobs, time
//!        │
//!        ▼
//!     review ──▶ claim an orphan ──────▶ served
//!        │                                │
//!        └─────▶ hand over, settle ◀──────┘
//! ```
//!
//! A review has no memory but of what it cannot see: since when a volume is an orphan, in which order nodes claim it,
//! what was tried and failed, what is under way. A volume has one job at a time.

mod job;
mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::{Change, RegistrationState, Volume};
use sluice_model::{NodeId, VolumeEpoch, VolumeId};
use sluice_writer::{Loss, TakeTerms};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use self::job::{Done, Outcome, Take};
use self::view::View;
use crate::members::{End, MembersParts};
use crate::plan::{Order, Orphan, plan};

/// The longest time between two looks.
const TICK: Duration = Duration::from_secs(1);
/// The first pause after a take that failed; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After a claim that another was first with.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A node that an operator drains hands over so many volumes at once.
const DRAINED_AT_ONCE: usize = 2;

/// What a keeper is told.
pub(crate) enum Command {
    /// Hand over all that others can have; told when it is done.
    Leave { until: Instant, done: oneshot::Sender<()> },
}

/// A volume that nobody serves.
struct Watched {
    /// As the catalog has it; another epoch or owner makes another orphan of it.
    epoch: VolumeEpoch,
    owner: Option<NodeId>,
    wanted: Option<NodeId>,
    /// Since when it is one, as far as this node knows.
    since: Instant,
    order: Order,
}

/// Takes of a volume that failed one after the other.
struct Tries {
    failures: u32,
    not_before: Instant,
}

struct Leaving {
    until: Instant,
    done: Option<oneshot::Sender<()>>,
}

/// The keeper of one node.
pub(crate) struct Keeper {
    parts: Arc<MembersParts>,
    changes: broadcast::Receiver<Change>,
    losses: broadcast::Receiver<Loss>,
    registration: watch::Receiver<RegistrationState>,
    commands: mpsc::UnboundedReceiver<Command>,
    settled: watch::Sender<bool>,
    /// When nodes were seen to go.
    gone: HashMap<NodeId, Instant>,
    orphans: BTreeMap<VolumeId, Watched>,
    tries: BTreeMap<VolumeId, Tries>,
    busy: BTreeMap<VolumeId, Id>,
    jobs: JoinSet<Done>,
    /// Volumes that are being handed over, and to whom.
    promised: BTreeMap<VolumeId, NodeId>,
    /// Volumes that were taken in this life of the node, and when last.
    ours: BTreeMap<VolumeId, Instant>,
    leaving: Option<Leaving>,
    end: Option<End>,
}

impl Keeper {
    pub(crate) fn new(
        parts: Arc<MembersParts>,
        commands: mpsc::UnboundedReceiver<Command>,
        settled: watch::Sender<bool>,
    ) -> Self {
        Self {
            changes: parts.catalog.subscribe(),
            losses: parts.writer.losses(),
            registration: parts.node.state(),
            commands,
            settled,
            gone: HashMap::new(),
            orphans: BTreeMap::new(),
            tries: BTreeMap::new(),
            busy: BTreeMap::new(),
            jobs: JoinSet::new(),
            promised: BTreeMap::new(),
            ours: parts.writer.volumes().into_iter().map(|(id, _)| (id, Instant::now())).collect(),
            leaving: None,
            end: None,
            parts,
        }
    }

    fn me(&self) -> NodeId {
        self.parts.spec.id
    }

    /// Returns when the process may not go on.
    pub(crate) async fn run(mut self) -> End {
        loop {
            let next = self.review();
            if let Some(end) = self.end {
                return end;
            }
            if self.busy.is_empty() {
                self.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
            }
            while !self.something(next).await {}
        }
    }

    /// Waits for something; whether it calls for a review.
    async fn something(&mut self, next: Instant) -> bool {
        tokio::select! {
            change = self.changes.recv() => {
                let mut matters = self.saw(change);
                // Many come at once when a node dies; one look is enough for them all.
                loop {
                    let more = match self.changes.try_recv() {
                        Ok(change) => Ok(change),
                        Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                            Err(broadcast::error::RecvError::Lagged(missed))
                        }
                        Err(_) => return matters,
                    };
                    matters |= self.saw(more);
                }
            }
            // Whatever it says, what is served is looked at again. The writer outlives its senders.
            _ = self.losses.recv() => true,
            // Its sender goes with the registration.
            Ok(()) = self.registration.changed() => true,
            Some(done) = self.jobs.join_next_with_id() => {
                self.done(done);
                true
            }
            Some(Command::Leave { until, done }) = self.commands.recv() => {
                self.leaving = Some(Leaving { until, done: Some(done) });
                true
            }
            () = tokio::time::sleep_until(next) => true,
        }
    }

    fn saw(&mut self, change: Result<Change, broadcast::error::RecvError>) -> bool {
        match change {
            Ok(Change::NodeGone(node)) => {
                tracing::warn!(node = node.spec.id.0, "a node is gone");
                self.gone.insert(node.spec.id, Instant::now());
                true
            }
            Ok(Change::NodeChanged(node)) => {
                self.gone.remove(&node.spec.id);
                true
            }
            Ok(Change::VolumeChanged(_) | Change::VolumeGone(_)) => true,
            Ok(
                Change::TopicCreated(_)
                | Change::TopicChanged { .. }
                | Change::TopicReplaced { .. }
                | Change::TopicDeleted(_)
                | Change::MoveChanged(_)
                | Change::MoveGone(_),
            ) => false,
            Err(_) => true,
        }
    }

    /// Looks at everything and begins what is due. Gives when to look again at the latest.
    fn review(&mut self) -> Instant {
        let now = Instant::now();
        let mut next = now + TICK;
        let mut state = *self.registration.borrow_and_update();
        if self.parts.node.is_replaced() {
            state = RegistrationState::Replaced;
        }
        self.parts.metrics.lease_live.set(i64::from(state == RegistrationState::Live));
        match state {
            RegistrationState::Replaced => self.end = Some(End::Replaced),
            RegistrationState::Lapsed => self.fence_shared_files(),
            RegistrationState::Live => {
                let view = View::of(&self.parts, self.leaving.is_some());
                self.parts.metrics.nodes.set(view.nodes as i64);
                let orphans = self.sort(&view, now);
                self.watch(&orphans, &view, now);
                for volume in &orphans {
                    if let Some(due) = self.consider(volume, &view, now) {
                        next = next.min(due);
                    }
                }
                self.tell_what_is_left(&view, now);
            }
        }
        next
    }

    /// Tends to what is served here; gives what nobody serves, by id.
    fn sort(&mut self, view: &View, now: Instant) -> Vec<Arc<Volume>> {
        let mut handing_over = 0;
        let mut orphans = Vec::new();
        for volume in &view.volumes {
            let id = volume.spec.id;
            if self.busy.contains_key(&id) {
                handing_over += usize::from(view.served.contains_key(&id));
            } else if view.served.contains_key(&id) {
                handing_over += usize::from(self.tend(volume, view, handing_over, now));
            } else if view.is_orphan(volume) {
                orphans.push(Arc::clone(volume));
            }
        }
        orphans
    }

    /// Begins to hand a volume over that another shall have; whether it did.
    fn tend(&mut self, volume: &Volume, view: &View, handing_over: usize, now: Instant) -> bool {
        let id = volume.spec.id;
        let me = self.me();
        if self.tries.get(&id).is_some_and(|tries| tries.not_before > now) {
            return false;
        }
        let to = match volume.wanted {
            Some(wanted) if wanted == me || !view.accepts(wanted, &volume.spec) => {
                let settle = job::settle(&self.parts, id, wanted);
                self.spawn(id, settle);
                return false;
            }
            Some(wanted) => wanted,
            None => {
                let all_at_once = self.leaving.is_some() || handing_over < DRAINED_AT_ONCE;
                if !view.is_drained || !all_at_once {
                    return false;
                }
                let Some(other) = view.other(volume, &self.pending(view)) else { return false };
                other
            }
        };
        let flush = match &self.leaving {
            // Closing and giving up take their time, too.
            Some(leaving) => leaving.until.saturating_duration_since(now) / 2,
            None => self.parts.options.flush,
        };
        let flush = flush.min(self.parts.options.flush);
        let hand_over = job::hand_over(&self.parts, id, volume.wanted, to, flush);
        self.spawn(id, hand_over);
        self.promised.insert(id, to);
        self.orphans.remove(&id);
        true
    }

    /// Volumes that nodes will get, as far as it is decided.
    fn pending(&self, view: &View) -> BTreeMap<NodeId, usize> {
        let mut pending = BTreeMap::new();
        let planned = self.orphans.values().filter_map(|watched| watched.order.first());
        let wanted = view.volumes.iter().filter(|volume| volume.wanted != volume.owner);
        let wanted = wanted.filter_map(|volume| Some((volume.spec.id, volume.wanted?)));
        // What was promised just now may not be seen in the catalog yet.
        let promised: BTreeMap<VolumeId, NodeId> =
            self.promised.iter().map(|(id, to)| (*id, *to)).chain(wanted).collect();
        for node in planned.chain(promised.into_values()) {
            *pending.entry(node).or_default() += 1;
        }
        pending
    }

    /// Keeps in mind since when these are orphans, and in which order nodes claim them.
    fn watch(&mut self, orphans: &[Arc<Volume>], view: &View, now: Instant) {
        let mut old = std::mem::take(&mut self.orphans);
        let mut new = Vec::new();
        let mut planned: BTreeMap<NodeId, usize> = BTreeMap::new();
        for volume in orphans {
            let id = volume.spec.id;
            let known = old
                .remove(&id)
                .filter(|watched| (watched.epoch, watched.owner) == (volume.epoch, volume.owner));
            let since = known.as_ref().map(|watched| watched.since);
            let stays = known.filter(|watched| {
                let first = watched.order.first();
                watched.wanted == volume.wanted
                    && first.is_some_and(|first| view.accepts(first, &volume.spec))
            });
            match stays {
                Some(watched) => {
                    if let Some(first) = watched.order.first() {
                        *planned.entry(first).or_default() += 1;
                    }
                    self.orphans.insert(id, watched);
                }
                None => new.push((volume, since)),
            }
        }
        let writers = view.candidates(&planned);
        let specs = new.iter().map(|(v, _)| Orphan { spec: &v.spec, wanted: v.wanted });
        let mut orders = plan(&Vec::from_iter(specs), &writers);
        for (volume, since) in new {
            let gone = volume.owner.and_then(|owner| self.gone.get(&owner).copied());
            let watched = Watched {
                epoch: volume.epoch,
                owner: volume.owner,
                wanted: volume.wanted,
                since: since.or(gone).unwrap_or(now),
                order: orders.remove(&volume.spec.id).unwrap_or_default(),
            };
            self.orphans.insert(volume.spec.id, watched);
        }
        let reached = orphans.iter().filter(|v| v.spec.is_reached_by(&self.parts.spec)).count();
        self.parts.metrics.orphans.set(reached as i64);
    }

    /// Claims an orphan if that is due; else tells when it is, if ever.
    fn consider(&mut self, volume: &Arc<Volume>, view: &View, now: Instant) -> Option<Instant> {
        let (id, me) = (volume.spec.id, self.me());
        if self.leaving.is_some() || !volume.spec.is_reached_by(&self.parts.spec) {
            return None;
        }
        let watched = self.orphans.get(&id)?;
        let turn = watched.order.delay(me);
        let is_ours = volume.owner == Some(me);
        let is_for_another = turn.is_none()
            || volume
                .wanted
                .is_some_and(|wanted| wanted != me && watched.order.first() == Some(wanted));
        let paused = self.tries.get(&id).map(|tries| tries.not_before).filter(|end| *end > now);
        if paused.is_some() {
            return paused;
        }
        if is_ours && is_for_another && !view.is_lone {
            // Nobody claims what seems to have a living owner.
            let give_up = job::give_up(&self.parts, id, volume.epoch);
            self.spawn(id, give_up);
            return None;
        }
        let mut due = watched.since + if is_ours { Duration::ZERO } else { turn? };
        let taken = self.ours.get(&id).copied();
        if is_ours && let Some(taken) = taken {
            // One that is lost again and again is not taken back without a rest.
            due = due.max(taken + FIRST_PAUSE);
        }
        let was_given_up = volume.owner.is_none() || (is_ours && taken.is_some());
        if volume.spec.is_shared_file() && !was_given_up {
            let lease = self.parts.node.lease();
            due = due.max(watched.since + lease + lease / 10);
        }
        if due > now {
            return Some(due);
        }
        self.claim(volume, now);
        None
    }

    fn claim(&mut self, volume: &Arc<Volume>, now: Instant) {
        let id = volume.spec.id;
        let place = match (self.parts.locate)(&volume.spec) {
            Ok(place) => place,
            Err(why) => {
                self.failed(id, &why);
                return;
            }
        };
        let since = self.orphans.remove(&id).map_or(now, |watched| watched.since);
        let cause = match volume.owner {
            Some(owner) if owner == self.me() => "return",
            Some(_) => "orphan",
            None if volume.wanted == Some(self.me()) => "move",
            None if volume.epoch == VolumeEpoch(0) => "new",
            None => "orphan",
        };
        let tenure = volume.spec.is_shared_file().then(|| self.parts.node.tenure());
        let patience = self.parts.options.patience;
        let terms = TakeTerms { patience, expected: Some(volume.epoch), tenure };
        let detect = now.saturating_duration_since(since);
        let overruled = volume.wanted.filter(|wanted| *wanted != self.me());
        let take = Take { place, terms, from: volume.owner, overruled, cause, detect };
        let take = job::take(&self.parts, take);
        self.spawn(id, take);
    }

    fn spawn(&mut self, id: VolumeId, job: impl Future<Output = Outcome> + Send + 'static) {
        let task = self.jobs.spawn(async move { Done { volume: id, outcome: job.await } });
        self.busy.insert(id, task.id());
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        let Done { volume, outcome } = match done {
            Ok((_, done)) => done,
            Err(gone) => {
                // The panic was logged; the volume may be tried again.
                self.busy.retain(|_, task| *task != gone.id());
                return;
            }
        };
        self.busy.remove(&volume);
        self.promised.remove(&volume);
        match outcome {
            Outcome::Served => {
                self.ours.insert(volume, Instant::now());
                self.tries.remove(&volume);
            }
            Outcome::Foreign => self.end = Some(End::Foreign),
            Outcome::NotTaken(why) => self.failed(volume, &why),
            // Let go of: what comes next is seen in the catalog.
            Outcome::Elsewhere | Outcome::Noted => drop(self.tries.remove(&volume)),
            Outcome::Overtaken => {
                // Lookups may not show yet who was first.
                let not_before = Instant::now() + LOOK_AGAIN;
                let failures = self.tries.get(&volume).map_or(0, |tries| tries.failures);
                self.tries.insert(volume, Tries { failures, not_before });
            }
            Outcome::NotNoted(why) => {
                tracing::warn!(
                    volume = volume.0,
                    why,
                    "a change of owner was not begun; trying again"
                );
                self.pause(volume);
            }
        }
    }

    fn failed(&mut self, volume: VolumeId, why: &str) {
        self.parts.metrics.failures.inc();
        let pause = self.pause(volume);
        let again_s = pause.as_secs();
        tracing::warn!(volume = volume.0, why, again_s, "a volume was not taken; trying again");
    }

    fn pause(&mut self, volume: VolumeId) -> Duration {
        let failures = self.tries.get(&volume).map_or(0, |tries| tries.failures);
        let pause = (FIRST_PAUSE * 2u32.pow(failures.min(6))).min(LONGEST_PAUSE);
        let not_before = Instant::now() + pause;
        self.tries.insert(volume, Tries { failures: failures.saturating_add(1), not_before });
        pause
    }

    /// Others may claim them from now on, and their medium may let two write.
    fn fence_shared_files(&self) {
        for (id, epoch) in self.parts.writer.volumes() {
            let shared = self.parts.catalog.volume(id).is_some_and(|v| v.spec.is_shared_file());
            if shared {
                tracing::warn!(
                    volume = id.0,
                    "this node's lease may have ended: serving it no more"
                );
                self.parts.writer.fence(id, epoch);
            }
        }
    }

    /// Says when this node has nothing left: that it may go, or that it must.
    fn tell_what_is_left(&mut self, view: &View, now: Instant) {
        let pending = self.pending(view);
        if let Some(leaving) = &mut self.leaving {
            let more = || {
                let served = view.volumes.iter().filter(|v| view.served.contains_key(&v.spec.id));
                served.into_iter().any(|volume| view.other(volume, &pending).is_some())
            };
            let is_over = now >= leaving.until || (self.busy.is_empty() && !more());
            if is_over && let Some(done) = leaving.done.take() {
                // Nobody waiting is no error.
                let _ = done.send(());
            }
            return;
        }
        let hopeless = |volume: &Arc<Volume>| {
            self.tries.get(&volume.spec.id).is_some_and(|tries| tries.failures > 0)
        };
        if self.parts.options.alone
            && view.served.is_empty()
            && !view.volumes.is_empty()
            && view.volumes.iter().all(hopeless)
        {
            self.end = Some(End::NothingLeft);
        }
    }
}
