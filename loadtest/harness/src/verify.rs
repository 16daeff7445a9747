//! The proof that what was written is what is read: nothing lost, nothing twice, nothing out of order, nothing
//! foreign, nothing of an aborted transaction.
//!
//! One [`Verifier`] a consumer owns the state of the partitions that it reads. In each partition a
//! producer's records have the sequences 0, 1, 2... What is missing is kept as ranges: memory grows with the
//! number of pairs of partition and producer and with the number of holes, which is bounded, never with the
//! number of records.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::stamp::{Stamp, Unreadable};

/// Holes that one pair of partition and producer remembers. A consumer that has more has long failed; those
/// that are let go of count as lost, and filling one counts as a duplicate.
const MAX_HOLES: usize = 10_000;
/// Findings that are told one by one; the others are counted.
const MAX_TOLD: usize = 20;

/// How many records broke which promise. All zero is the proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Acknowledged and never read.
    pub lost: u64,
    /// Read more than once by one group.
    pub duplicated: u64,
    /// Read after one that was written later to the same partition by the same producer.
    pub reordered: u64,
    /// Of another run, another partition, or no record of this harness.
    pub foreign: u64,
    /// Not as it was written.
    pub damaged: u64,
    /// Of a transaction that was aborted.
    pub aborted_read: u64,
    /// Offsets that do not grow.
    pub offsets_back: u64,
    /// Of these: read beyond the end that the server told when all was written.
    #[serde(default)]
    pub read_beyond: u64,
    /// Acknowledged, by their number, and beyond the end that the server told when all was written.
    #[serde(default)]
    pub unlisted: u64,
    /// Read again by a consumer group after a rebalance: no fault, groups promise at least once.
    #[serde(default)]
    pub reread: u64,
    /// The first few, in words.
    pub told: Vec<String>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        Self { reread: 0, ..self.clone() } == Self::default()
    }

    /// Whether nothing is wrong but the ends that the server told: they are below what it had acknowledged or given to
    /// read, and what lies between may not have been read.
    pub fn is_understated(&self) -> bool {
        let Self { lost, unlisted, offsets_back, read_beyond, .. } = *self;
        let wrong = unlisted > 0 || read_beyond > 0;
        let (lost, told) = (lost.saturating_sub(unlisted), Vec::new());
        let offsets_back = offsets_back.saturating_sub(read_beyond);
        let rest = Self { lost, offsets_back, unlisted: 0, read_beyond: 0, told, ..self.clone() };
        wrong && rest.is_clean()
    }

    /// Adds what another consumer found.
    pub fn add(&mut self, other: Self) {
        self.lost = self.lost.saturating_add(other.lost);
        self.duplicated = self.duplicated.saturating_add(other.duplicated);
        self.reordered = self.reordered.saturating_add(other.reordered);
        self.foreign = self.foreign.saturating_add(other.foreign);
        self.damaged = self.damaged.saturating_add(other.damaged);
        self.aborted_read = self.aborted_read.saturating_add(other.aborted_read);
        self.offsets_back = self.offsets_back.saturating_add(other.offsets_back);
        self.read_beyond = self.read_beyond.saturating_add(other.read_beyond);
        self.unlisted = self.unlisted.saturating_add(other.unlisted);
        self.reread = self.reread.saturating_add(other.reread);
        self.told.extend(other.told);
        self.told.truncate(MAX_TOLD);
    }

    fn tell(&mut self, finding: impl FnOnce() -> String) {
        if self.told.len() < MAX_TOLD {
            self.told.push(finding());
        }
    }
}

/// What a producer knows of one partition at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) producer: u32,
    pub(crate) partition: u32,
    /// Every sequence below was acknowledged (in a transaction: and committed).
    pub(crate) acknowledged: u64,
    /// No sequence from here on was ever sent. What lies between may be there or not.
    pub(crate) sent: u64,
}

/// Holds the ends that a server tells against how many records of each partition it has acknowledged. Offsets are dense
/// from 0, so that there must be room for them.
pub(crate) fn unlisted(written: &[Written], ends: &[i64]) -> Findings {
    let mut acknowledged = vec![0u64; ends.len()];
    for written in written {
        if let Some(sum) = acknowledged.get_mut(written.partition as usize) {
            *sum += written.acknowledged;
        }
    }
    let mut findings = Findings::default();
    for (partition, (acknowledged, end)) in acknowledged.iter().zip(ends).enumerate() {
        let missing = acknowledged.saturating_sub(u64::try_from(*end).unwrap_or(0));
        if missing > 0 {
            findings.unlisted += missing;
            findings.tell(|| {
                format!(
                    "partition {partition}: the server says fewer records than it acknowledged: it ends at {end}, \
                     {acknowledged} are acknowledged"
                )
            });
        }
    }
    findings
}

/// What one consumer has seen.
#[derive(Debug)]
pub(crate) struct Verifier {
    run: u64,
    /// Reads what is committed only.
    committed: bool,
    partitions: HashMap<u32, Seen>,
    /// Where a group shares the partitions: what each of its consumers has seen of each partition since it was
    /// given to it. `partitions` then has what all have seen together.
    owned: HashMap<(usize, u32), Seen>,
    findings: Findings,
}

#[derive(Debug, Default)]
struct Seen {
    /// The next offset is at least this.
    next_offset: i64,
    producers: HashMap<u32, Line>,
}

/// One producer's records in one partition.
#[derive(Debug, Default)]
struct Line {
    /// One more than the largest sequence seen.
    next: u64,
    /// Sequences below `next` that were not seen: start to end, end-exclusive.
    holes: BTreeMap<u64, u64>,
}

impl Line {
    /// Takes a sequence; what is wrong with it, if anything.
    fn take(&mut self, sequence: u64) -> Option<Wrong> {
        if sequence == self.next {
            self.next += 1;
            return None;
        }
        if sequence > self.next {
            let hole = self.next..sequence;
            self.next = sequence + 1;
            if self.holes.len() < MAX_HOLES {
                self.holes.insert(hole.start, hole.end);
            }
            return Some(Wrong::Skipped(hole.start));
        }
        let hole = self.holes.range(..=sequence).next_back().map(|(start, end)| (*start, *end));
        match hole {
            Some((start, end)) if sequence < end => {
                self.holes.remove(&start);
                if start < sequence {
                    self.holes.insert(start, sequence);
                }
                if sequence + 1 < end {
                    self.holes.insert(sequence + 1, end);
                }
                Some(Wrong::Late)
            }
            _ => Some(Wrong::Again),
        }
    }

    /// How many sequences below `end` were not seen.
    fn missing_below(&self, end: u64) -> u64 {
        let holes =
            self.holes.iter().map(|(from, to)| to.min(&end).saturating_sub(*from)).sum::<u64>();
        holes + end.saturating_sub(self.next)
    }
}

enum Wrong {
    /// Some are missing so far, from this one on.
    Skipped(u64),
    /// One that was missing.
    Late,
    Again,
}

impl Verifier {
    pub(crate) fn new(run: u64, committed: bool) -> Self {
        let (partitions, owned) = (HashMap::new(), HashMap::new());
        Self { run, committed, partitions, owned, findings: Findings::default() }
    }

    /// A consumer of a group gets a partition, and reads it from there: what was read before may come again.
    pub(crate) fn owns(&mut self, owner: usize, partition: u32, offset: i64) {
        let seen = Seen { next_offset: offset, producers: HashMap::new() };
        self.owned.insert((owner, partition), seen);
    }

    /// When all is written the server tells an end before what was read: see [`Self::shortened`].
    pub(crate) fn ends_before(&mut self, partition: u32, next: i64, end: i64) {
        self.findings.read_beyond += next.abs_diff(end);
        self.shortened(partition, next, end);
    }

    /// The log ends before what was read of it: what was readable is gone.
    pub(crate) fn shortened(&mut self, partition: u32, next: i64, end: i64) {
        self.findings.offsets_back += next.abs_diff(end);
        self.findings.tell(|| {
            format!("partition {partition}: it was read up to {next}, and now ends at {end}")
        });
        // What comes at these offsets now is told by its sequences.
        self.partitions.entry(partition).or_default().next_offset = end;
        for ((_, owned), seen) in &mut self.owned {
            if *owned == partition {
                seen.next_offset = seen.next_offset.min(end);
            }
        }
    }

    /// Takes a record; gives its stamp if it is one of this run. `owner` is who reads it, where a group shares the
    /// partitions.
    pub(crate) fn take(
        &mut self,
        owner: Option<usize>,
        partition: u32,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<Stamp> {
        let findings = &mut self.findings;
        let seen = match owner {
            None => self.partitions.entry(partition).or_default(),
            Some(owner) => self.owned.entry((owner, partition)).or_default(),
        };
        if offset < seen.next_offset {
            findings.offsets_back += 1;
            let after = seen.next_offset - 1;
            findings.tell(|| format!("partition {partition}: offset {offset} after {after}"));
        }
        seen.next_offset = seen.next_offset.max(offset.saturating_add(1));
        let stamp = match Stamp::read(key, value.unwrap_or_default()) {
            Ok(stamp) if stamp.run == self.run && stamp.partition == partition => stamp,
            Ok(_) | Err(Unreadable::Unknown) => {
                findings.foreign += 1;
                findings.tell(|| format!("partition {partition}: offset {offset} is foreign"));
                return None;
            }
            Err(Unreadable::Damaged) => {
                findings.damaged += 1;
                findings.tell(|| format!("partition {partition}: offset {offset} is damaged"));
                return None;
            }
        };
        let Stamp { producer, sequence, doomed, .. } = stamp;
        let place = || format!("partition {partition}, producer {producer}: sequence {sequence}");
        if doomed {
            // Its number belongs to a later record.
            if self.committed {
                findings.aborted_read += 1;
                findings.tell(|| format!("{} at offset {offset} was aborted", place()));
            }
            return Some(stamp);
        }
        // Who gets a partition of a group begins anywhere.
        let first = if owner.is_some() { sequence } else { 0 };
        let line = seen.producers.entry(producer);
        let line = line.or_insert_with(|| Line { next: first, holes: BTreeMap::new() });
        let wrong = line.take(sequence);
        if owner.is_some() {
            let all = self.partitions.entry(partition).or_default();
            if let Some(Wrong::Again) = all.producers.entry(producer).or_default().take(sequence) {
                findings.reread += 1;
            }
        }
        match wrong {
            None => {}
            Some(Wrong::Skipped(from)) if owner.is_some() => {
                findings.reordered += 1;
                findings.tell(|| format!("{} at offset {offset} comes before {from}", place()));
            }
            Some(Wrong::Skipped(from)) => {
                findings.tell(|| format!("{} at offset {offset} comes before {from}", place()));
            }
            Some(Wrong::Late) => findings.reordered += 1,
            Some(Wrong::Again) => {
                findings.duplicated += 1;
                findings.tell(|| format!("{} at offset {offset} comes again", place()));
            }
        }
        Some(stamp)
    }

    /// The end: holds what was seen of `partitions` against what was written to them. `is_complete`: they were
    /// read to their ends; if not, only what is missing among what was read is lost.
    pub(crate) fn finish(
        mut self,
        written: &[Written],
        partitions: &[u32],
        is_complete: bool,
    ) -> Findings {
        let mut findings = self.findings;
        let mine: std::collections::HashSet<u32> = partitions.iter().copied().collect();
        let nothing = Line::default();
        for Written { producer, partition, acknowledged, sent } in written {
            if !mine.contains(partition) {
                continue;
            }
            let seen =
                self.partitions.get_mut(partition).and_then(|seen| seen.producers.remove(producer));
            let line = seen.as_ref().unwrap_or(&nothing);
            // What was sent and not acknowledged may be there or not, but without a hole: a later batch is
            // never kept where an earlier one of the same producer is not.
            let end = if is_complete { line.next.max(*acknowledged) } else { line.next };
            let lost = line.missing_below(end);
            if lost > 0 {
                findings.lost += lost;
                findings.tell(|| {
                    format!("partition {partition}, producer {producer}: {lost} are lost, {acknowledged} acknowledged")
                });
            }
            if line.next > *sent {
                findings.foreign += line.next - sent;
                findings.tell(|| {
                    format!(
                        "partition {partition}, producer {producer}: {} was never sent",
                        line.next - 1
                    )
                });
            }
        }
        for (partition, seen) in self.partitions {
            for (producer, line) in seen.producers {
                findings.foreign += line.next;
                findings.tell(|| {
                    format!("partition {partition}: producer {producer} never wrote to it")
                });
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests;
