//! What Sluice wants to reach beside Apache Kafka at its defaults, and whether it has.

use serde::{Deserialize, Serialize};

use super::report::Compared;

/// The server that goals are set against.
pub(super) const BASE: &str = "kafka";

/// A goal: a figure's ratio to the base server's.
struct Goal {
    figure: &'static str,
    words: &'static str,
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const GOALS: &[Goal] = &[
    goal("produce-cpu", "CPU of produce at most 1/3", Bound::AtMost(1.0 / 3.0)),
    goal("fetch-cpu", "CPU of tail fetch at most 1/3", Bound::AtMost(1.0 / 3.0)),
    goal("max-rate", "most at p99 <= 50 ms at least 2 x", Bound::AtLeast(2.0)),
    goal("tail-p99", "p99 at most the same", Bound::AtMost(1.0)),
    goal("catch-up-rate", "catching up at least 5 x", Bound::AtLeast(5.0)),
    goal("rss", "RSS at most 1/4", Bound::AtMost(0.25)),
    goal("first-ack", "start to first ack at most 1/20", Bound::AtMost(0.05)),
];

const fn goal(figure: &'static str, words: &'static str, bound: Bound) -> Goal {
    Goal { figure, words, bound }
}

/// How one server stands to one goal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The goal, in words.
    pub goal: String,
    /// The figure that it is about.
    pub figure: String,
    /// The number of partitions.
    pub partitions: u32,
    /// The server.
    pub peer: String,
    /// The ratio of the medians; none if it was not measured, because the server was too slow or has failed.
    pub ratio: Option<f64>,
    /// Its median, and that of the server that it is held against.
    pub medians: [Option<f64>; 2],
    /// Whether it is reached.
    pub is_met: bool,
    /// Whether one of the two medians is too noisy to be believed.
    pub too_noisy: bool,
}

impl Judged {
    /// `0.32, met`
    pub(super) fn verdict(&self) -> String {
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let verdict = if self.is_met { "met" } else { "missed" };
        let noise = if self.too_noisy { ", noisy" } else { "" };
        format!("{ratio}, {verdict}{noise}")
    }
}

/// Judges the servers of these names by figures that have a base. Who was begun and did not come to a figure has missed it.
pub(super) fn judge(figures: &[Compared], names: &[&str]) -> Vec<Judged> {
    let mut all = Vec::new();
    for goal in GOALS {
        for compared in figures.iter().filter(|compared| compared.figure == goal.figure) {
            let of = |name: &str| compared.peers.iter().find(|measured| measured.peer == name);
            let Some(base) = of(BASE) else { continue };
            for name in names {
                let measured = of(name);
                let ratio = measured.and_then(|measured| measured.ratio);
                let both = [measured, Some(base)];
                // What is measured as a difference may come out below 0: too little to be seen.
                let is_unseen = measured.is_some_and(|measured| measured.spread.median < 0.0);
                let is_met = match (goal.bound, ratio) {
                    (Bound::AtMost(bound), Some(ratio)) => ratio <= bound,
                    (Bound::AtLeast(bound), Some(ratio)) => ratio >= bound,
                    (Bound::AtMost(_), None) => is_unseen,
                    (Bound::AtLeast(_), None) => false,
                };
                all.push(Judged {
                    goal: goal.words.to_owned(),
                    figure: goal.figure.to_owned(),
                    partitions: compared.partitions,
                    peer: (*name).to_owned(),
                    ratio,
                    medians: both.map(|one| Some(one?.spread.median)),
                    is_met,
                    too_noisy: both.into_iter().flatten().any(|one| one.spread.is_too_noisy()),
                });
            }
        }
    }
    all
}
