//! Faults that the harness injects itself, on processes that it has started: what a workload says of them, and what
//! a report does.
//!
//! One fault at a time: a [`Plan`] says which comes next, [`Injector`] does it, and the next one waits until the
//! server answers again. A [`Victim`] is what they are done to.

mod disk;
mod inject;
mod plan;
mod proxy;

pub use disk::Filler;
pub(crate) use inject::{Injector, Stage, Status, settle};
pub use inject::{Unfit, Victim};
pub(crate) use plan::Plan;
pub use proxy::{Cut, Proxy};

use serde::{Deserialize, Serialize};

use crate::amount::Time;

/// One of a workload's faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What is done.
    pub kind: Kind,
    /// When, from where the measured part of the run begins.
    pub at: Time,
    /// It is repeated after this; once if it is left out.
    pub every: Option<Time>,
    /// How long it lasts, where it ends by itself: `stop`, `fill-disk` and `cut-bucket`.
    #[serde(rename = "for")]
    pub lasts: Option<Time>,
    /// How long the server stays down after `kill` and `restart`.
    pub down: Option<Time>,
    /// How the bucket is cut off.
    pub how: Option<Cut>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// SIGKILL, then a start.
    Kill,
    /// SIGSTOP, then SIGCONT: connections stay, and nothing is answered.
    Stop,
    /// SIGTERM, then a start: what an upgrade does.
    Restart,
    /// The file system of the server's data gets full, and free again.
    FillDisk,
    /// The server cannot reach its bucket for a while.
    CutBucket,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Kill, Self::Stop, Self::Restart, Self::FillDisk, Self::CutBucket];

    /// As workloads say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::FillDisk => "fill-disk",
            Self::CutBucket => "cut-bucket",
        }
    }
}

impl Fault {
    /// What makes no sense about it.
    pub(crate) fn check(&self, wrong: &mut Vec<String>) {
        let name = self.kind.name();
        let is_restarted = matches!(self.kind, Kind::Kill | Kind::Restart);
        match self.lasts {
            Some(_) if is_restarted => {
                wrong.push(format!("fault {name}: `for` is not for it, write `down`"));
            }
            None if !is_restarted => {
                wrong.push(format!("fault {name} needs `for`: how long it lasts"));
            }
            _ => {}
        }
        if self.down.is_some() && !is_restarted {
            wrong.push(format!("fault {name}: `down` is not for it, write `for`"));
        }
        if self.how.is_some() && self.kind != Kind::CutBucket {
            wrong.push(format!("fault {name}: `how` goes with cut-bucket only"));
        }
        if self.every.is_some_and(|every| every.0.is_zero()) {
            wrong.push(format!("fault {name}: `every` must be more than 0s"));
        }
    }
}

/// A fault that was injected. Times are ms unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    /// What was done.
    pub kind: Kind,
    /// When it was there, in seconds from the run's start: the process had ended, or stood still; the bucket was out
    /// of reach, the disk full.
    pub at: f64,
    /// From the signal until the process had ended: what a `restart` takes before it counts.
    pub ending: Option<f64>,
    /// When it was over, in seconds from the run's start: the server was ready, or went on. None if it never was.
    pub until: Option<f64>,
    /// From `at` to the first acknowledgement of something that was sent after it; none if there was none.
    pub first_acknowledged: Option<f64>,
    /// The same, to the first records of a fetch.
    pub first_read: Option<f64>,
    /// The longest time without an acknowledgement, of any producer, from its beginning to the next fault.
    pub silence: Option<f64>,
}

/// Percentiles over the faults of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failover {
    /// What was done.
    pub kind: Kind,
    /// How often.
    pub count: usize,
    /// p50, p90 and the largest of [`Injected::first_acknowledged`], ms.
    pub first_acknowledged: Option<[f64; 3]>,
    /// The same of [`Injected::first_read`].
    pub first_read: Option<[f64; 3]>,
    /// The same of [`Injected::silence`].
    pub silence: Option<[f64; 3]>,
}

impl Failover {
    /// The failover figures of a run, by kind.
    pub fn of(faults: &[Injected]) -> Vec<Self> {
        let kinds: std::collections::BTreeSet<Kind> =
            faults.iter().map(|fault| fault.kind).collect();
        let one = |kind: Kind| {
            let own = || faults.iter().filter(move |fault| fault.kind == kind);
            let three = |of: fn(&Injected) -> Option<f64>| three(own().filter_map(of).collect());
            Self {
                kind,
                count: own().count(),
                first_acknowledged: three(|fault| fault.first_acknowledged),
                first_read: three(|fault| fault.first_read),
                silence: three(|fault| fault.silence),
            }
        };
        kinds.into_iter().map(one).collect()
    }
}

/// p50, p90 and the largest, by nearest rank.
fn three(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    let rank = |percent: usize| (values.len() * percent).div_ceil(100).checked_sub(1);
    Some([values[rank(50)?], values[rank(90)?], values[rank(100)?]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        assert_eq!(three(Vec::new()), None);
        assert_eq!(three(vec![7.0]), Some([7.0, 7.0, 7.0]));
        assert_eq!(three((1..=10).rev().map(f64::from).collect()), Some([5.0, 9.0, 10.0]));
    }

    #[test]
    fn figures_are_by_kind() {
        let fault = |kind, first| Injected {
            kind,
            at: 1.0,
            ending: None,
            until: Some(2.0),
            first_acknowledged: first,
            first_read: None,
            silence: first,
        };
        let all = [
            fault(Kind::Kill, Some(10.0)),
            fault(Kind::Stop, Some(5.0)),
            fault(Kind::Kill, None),
            fault(Kind::Kill, Some(30.0)),
        ];
        let figures = Failover::of(&all);
        assert_eq!(figures.len(), 2);
        assert_eq!((figures[0].kind, figures[0].count), (Kind::Kill, 3));
        assert_eq!(figures[0].first_acknowledged, Some([10.0, 30.0, 30.0]));
        assert_eq!(figures[0].first_read, None);
        assert_eq!(figures[1].silence, Some([5.0, 5.0, 5.0]));
    }
}
