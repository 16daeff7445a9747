//! The one node that moves volumes to even out what writers carry: elected through the catalog, for as long as its lease
//! lives. It only says who shall have a volume; the owner hands it over.
//!
//! It keeps still while something is going on: a node has just gone or joined, a writer has not said for a while what
//! it carries, a volume is served by nobody. It moves few volumes at once and few in a minute, and none twice in
//! a short time. Two that both think that they are elected do no harm: moves are bounded, and safe at any time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::store::StoreError;
use sluice_catalog::{Change, Decision, RegistrationState};
use sluice_model::{NodeId, VolumeId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::Instant;

use crate::balance::{Move, Policy, Situation, decide};
use crate::members::MembersParts;

/// Moves at once, at most.
const AT_ONCE: usize = 2;
/// Moves in a minute, at most.
const A_MINUTE: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// How long nothing is moved after a node has gone: it may come back.
const QUIET: Duration = Duration::from_secs(10);
/// How long a volume stays where it came to.
const REST: Duration = Duration::from_secs(30);

/// Takes part in the election, and moves volumes while elected, for ever.
pub(crate) async fn run(parts: Arc<MembersParts>) {
    let mut balancer = Balancer {
        changes: parts.catalog.subscribe(),
        quiet_until: Instant::now(),
        heard: BTreeMap::new(),
        moved: VecDeque::new(),
        parts,
    };
    loop {
        tokio::time::sleep(balancer.parts.options.balance_every).await;
        balancer.listen();
        if let Err(error) = balancer.look().await {
            tracing::debug!(%error, "the balancer could not reach the catalog");
        }
    }
}

struct Balancer {
    parts: Arc<MembersParts>,
    changes: broadcast::Receiver<Change>,
    quiet_until: Instant,
    /// The last report of each writer, and when it was seen first.
    heard: BTreeMap<NodeId, (u64, Instant)>,
    /// The moves of the last minute, the newest last.
    moved: VecDeque<(Instant, VolumeId)>,
}

impl Balancer {
    /// Takes notice of nodes that went.
    fn listen(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(Change::NodeGone(_)) | Err(TryRecvError::Lagged(_)) => {
                    self.quiet_until = Instant::now() + QUIET;
                }
                Ok(_) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let parts = Arc::clone(&self.parts);
        let is_live = *parts.node.state().borrow() == RegistrationState::Live;
        let elected = parts.options.balance && is_live && parts.node.campaign().await?;
        parts.metrics.balancer.set(i64::from(elected));
        let now = Instant::now();
        while self.moved.front().is_some_and(|(at, _)| now - *at >= MINUTE) {
            self.moved.pop_front();
        }
        let Some(situation) = self.situation(now) else { return Ok(()) };
        if !elected || !parts.catalog.is_balancing() || now < self.quiet_until {
            return Ok(());
        }
        let under_way = situation.volumes.iter().filter(|volume| volume.wanted.is_some()).count();
        let at_most =
            AT_ONCE.saturating_sub(under_way).min(A_MINUTE.saturating_sub(self.moved.len()));
        let moves = decide(&situation, Policy::default(), at_most);
        if moves.is_empty() {
            return Ok(());
        }
        for one in &moves {
            self.begin(one, now).await?;
        }
        let at_ms = parts.clock.wall_ms();
        let decided = moves.iter().map(|one| {
            let Move { volume, from, to, .. } = *one;
            Decision { at_ms, volume, from, to, why: one.why() }
        });
        parts.catalog.note_decisions(&Vec::from_iter(decided)).await
    }

    async fn begin(&mut self, one: &Move, now: Instant) -> Result<(), StoreError> {
        use sluice_catalog::WantVolumeError;
        tracing::info!(
            volume = one.volume.0,
            from = one.from.0,
            to = one.to.0,
            from_carries = one.before.0,
            to_carries = one.before.1,
            why = one.why(),
            "the balancer moves a volume"
        );
        match self.parts.catalog.want_volume(one.volume, Some(one.to)).await {
            Ok(()) => {
                self.parts.metrics.moves.inc();
                self.moved.push_back((now, one.volume));
                Ok(())
            }
            // It was taken out meanwhile.
            Err(WantVolumeError::NotFound(_)) => Ok(()),
            Err(WantVolumeError::Unavailable(error)) => Err(error),
        }
    }

    /// What there is to even out; none while something is going on.
    fn situation(&mut self, now: Instant) -> Option<Situation> {
        let catalog = &self.parts.catalog;
        let (loads, drains) = (catalog.loads(), catalog.drains());
        let nodes = catalog.nodes();
        let alive: Vec<_> = nodes.iter().filter(|node| node.spec.roles.writer).collect();
        let volumes = catalog.volumes();
        self.heard.retain(|node, _| alive.iter().any(|writer| writer.spec.id == *node));
        let mut is_settled = true;
        for writer in &alive {
            let said = loads.get(&writer.spec.id).map_or(0, |load| load.sequence);
            let heard = self.heard.entry(writer.spec.id).or_insert((said, now));
            if heard.0 != said {
                *heard = (said, now);
            }
            // One that says nothing is about to be given up; one that is new has said nothing yet.
            let silent = self.parts.node.lease().max(self.parts.options.report_every * 2);
            is_settled &= said > 0 && now - heard.1 <= silent;
        }
        is_settled &= volumes.iter().all(|volume| {
            let is_served = volume.owner.is_some_and(|o| alive.iter().any(|w| w.spec.id == o));
            is_served || !alive.iter().any(|writer| volume.spec.is_reached_by(&writer.spec))
        });
        let writers = alive.iter().filter(|writer| !drains.contains_key(&writer.spec.id));
        let writers = writers.map(|writer| writer.spec.clone()).collect();
        let resting = self.moved.iter().filter(|(at, _)| now - *at < REST).map(|(_, id)| *id);
        let resting = resting.collect();
        is_settled.then_some(Situation { writers, loads, volumes, resting })
    }
}
