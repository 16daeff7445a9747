//! Which fault comes when. Pure.

use std::time::Duration;

use super::Fault;

/// The faults of a workload in the order of time. Times count from where the measured part begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Those that are still to come, with when.
    ahead: Vec<(Duration, Fault)>,
}

impl Plan {
    pub(crate) fn new(faults: &[Fault]) -> Self {
        Self { ahead: faults.iter().map(|fault| (fault.at.0, fault.clone())).collect() }
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.ahead.iter().map(|(at, _)| *at).min()
    }

    /// Takes the next one, of those due at the same time the first in the file. `now` is when it is begun: one that
    /// has waited for others is repeated its time after that, so that nothing piles up.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Fault> {
        let at = self.next_at()?;
        let place = self.ahead.iter().position(|(other, _)| *other == at)?;
        let fault = self.ahead[place].1.clone();
        match fault.every {
            Some(every) => self.ahead[place].0 = at.max(now) + every.0,
            None => drop(self.ahead.remove(place)),
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;
    use crate::amount::Time;

    fn fault(kind: Kind, at_s: u64, every_s: Option<u64>) -> Fault {
        let every = every_s.map(|every| Time(Duration::from_secs(every)));
        let at = Time(Duration::from_secs(at_s));
        Fault { kind, at, every, lasts: None, down: None, how: None }
    }

    #[test]
    fn faults_come_in_order_and_again_and_never_pile_up() {
        let mut plan = Plan::new(&[
            fault(Kind::Kill, 10, Some(10)),
            fault(Kind::Stop, 15, None),
            fault(Kind::Restart, 10, None),
        ]);
        let mut seen = Vec::new();
        for now in [10, 11, 15, 45, 46, 55] {
            let at = plan.next_at().map(|at| at.as_secs());
            let kind = plan.take(Duration::from_secs(now)).map(|fault| fault.kind);
            seen.push((at, kind));
        }
        let expected = [
            (10, Kind::Kill),
            (10, Kind::Restart),
            (15, Kind::Stop),
            (20, Kind::Kill),
            (55, Kind::Kill),
            (65, Kind::Kill),
        ];
        assert_eq!(seen, expected.map(|(at, kind)| (Some(at), Some(kind))));
        let mut once = Plan::new(&[fault(Kind::Stop, 1, None)]);
        assert!(once.take(Duration::from_secs(1)).is_some());
        assert_eq!((once.next_at(), once.take(Duration::ZERO)), (None, None));
    }
}
