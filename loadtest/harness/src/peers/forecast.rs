//! When a comparison will be done: from how long the turns of each server took so far.

use std::collections::HashMap;

use super::plan::Turn;
use super::results::Record;

/// A turn of a server of which nothing is known takes about this.
const USUAL_SECONDS: f64 = 65.0;

/// What turns took, by server.
#[derive(Debug, Default)]
pub(super) struct Forecast(HashMap<String, (f64, u32)>);

impl Forecast {
    /// What is known of the turns that were played before.
    pub(super) fn new(played: impl Iterator<Item = Record>) -> Self {
        let mut forecast = Self::default();
        played.for_each(|record| forecast.learn(&record));
        forecast
    }

    /// A turn was played.
    pub(super) fn learn(&mut self, record: &Record) {
        // Who did not start says nothing about how long a turn takes.
        if record.seconds > 0.0 {
            let (seconds, turns) = self.0.entry(record.peer.clone()).or_default();
            *seconds += record.seconds;
            *turns += 1;
        }
    }

    /// How long the next turn of a server will take.
    pub(super) fn seconds(&self, peer: &str) -> f64 {
        let of = |(seconds, turns): &(f64, u32)| seconds / f64::from(*turns);
        self.0.get(peer).map_or(USUAL_SECONDS, of)
    }
}

/// What is done, what comes, and when all will be done. `left` begins with the turn that begins now.
pub(super) fn words(done: usize, all: usize, left: &[&Turn], seconds: f64, now_ms: i64) -> String {
    let name = |turn: &Turn| {
        let Turn { round, peer, partitions } = turn;
        format!("{}, {partitions} partitions, round {}", peer.name, round + 1)
    };
    let mut words = format!("{done} of {all} turns are done");
    if let Some(now) = left.first() {
        words.push_str(&format!("; now {}", name(now)));
    }
    if let Some(next) = left.get(1) {
        words.push_str(&format!("; next {}", name(next)));
    }
    let minutes = (now_ms + (seconds * 1000.0) as i64).rem_euclid(86_400_000) / 60_000;
    let (hour, minute) = (minutes / 60, minutes % 60);
    let left = (seconds / 60.0).ceil();
    words.push_str(&format!("; {left} min left, until about {hour:02}:{minute:02} UTC"));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Kind, Peer};

    #[test]
    fn what_is_left_is_told_from_what_each_server_took() {
        let record =
            |peer: &str, seconds| Record { peer: peer.to_owned(), seconds, ..Record::default() };
        let played = [record("kafka", 50.0), record("kafka", 70.0), record("tansu", 0.0)];
        let mut forecast = Forecast::new(played.into_iter());
        assert_eq!((forecast.seconds("kafka"), forecast.seconds("tansu")), (60.0, USUAL_SECONDS));
        forecast.learn(&record("tansu", 100.0));
        assert_eq!(forecast.seconds("tansu"), 100.0);
        let turn = |kind, partitions| Turn { round: 1, peer: Peer::started(kind), partitions };
        let (first, second) = (turn(Kind::Kafka, 3), turn(Kind::Tansu, 100));
        // 23:59:30.
        let now_ms = 86_400_000 * 20_000 - 30_000;
        assert_eq!(
            words(4, 6, &[&first, &second], 160.0, now_ms),
            "4 of 6 turns are done; now kafka, 3 partitions, round 2; next tansu, 100 partitions, round 2; \
             3 min left, until about 00:02 UTC"
        );
    }
}
