//! Every state that can be reached, breadth first, so that the way to a broken rule is a shortest one.
//!
//! States are told apart by 128 bits of hash: of ten million, two are taken for one with a chance of 1 in 10^24.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::rules::{self, Rule};
use crate::steps::{Step, successors};
use crate::world::{Model, PROCESSES, World};

/// All states were seen, and every rule holds in each.
#[derive(Clone, Copy, Debug)]
pub struct Explored {
    /// How many, of those that differ by more than the names of processes.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The most steps that it takes to reach one.
    pub depth: usize,
    /// States from which some volume can never be served again, though claims are left.
    pub stuck: usize,
}

/// A rule does not hold.
#[derive(Clone, Debug)]
pub struct Broke {
    /// Which.
    pub rule: Rule,
    /// The shortest way there.
    pub way: Vec<(Step, World)>,
}

impl fmt::Display for Broke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} does not hold after {} steps:", self.rule, self.way.len())?;
        for (step, _) in &self.way {
            writeln!(f, "  {step:?}")?;
        }
        Ok(())
    }
}

type Seen = HashMap<u128, u32, BuildHasherDefault<Half>>;

/// Gives half of what is a hash already.
#[derive(Default)]
struct Half(u64);

impl Hasher for Half {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
    }
}

/// Mixes all that it is given into 128 bits.
struct Mix(u128);

impl Mix {
    fn take(&mut self, word: u64) {
        // An odd number of 128 bits without a pattern: of the digits of pi.
        let mixed =
            (self.0 ^ u128::from(word)).wrapping_mul(0x243F_6A88_85A3_08D3_1319_8A2E_0370_7345);
        self.0 = mixed ^ (mixed >> 67);
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.take(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.take(word.into());
    }

    fn write_isize(&mut self, word: isize) {
        self.take(word as u64);
    }
}

fn name_of(world: &World) -> u128 {
    let mut mix = Mix(1);
    world.hash(&mut mix);
    mix.take(0);
    mix.0
}

struct Search<'a> {
    model: &'a Model,
    symmetries: Vec<[usize; PROCESSES]>,
    seen: Seen,
    /// By number: the state before, and the how manieth of its successors it is.
    came: Vec<(u32, u16)>,
    /// Which lead where, backwards: (to, from).
    edges: Vec<(u32, u32)>,
    /// States in which each volume is served, or no claim is left.
    settled: Vec<bool>,
}

/// Explores a model to its end.
///
/// # Errors
/// The first rule that does not hold, and how to get there.
pub fn explore(model: &Model) -> Result<Explored, Box<Broke>> {
    let symmetries = match model.mutation {
        None => model.symmetries(),
        // The way to what is broken is easier to read with names that stay.
        Some(_) => vec![[0, 1, 2]],
    };
    let search = Search {
        model,
        symmetries,
        seen: Seen::default(),
        came: Vec::new(),
        edges: Vec::new(),
        settled: Vec::new(),
    };
    search.run()
}

impl Search<'_> {
    fn run(mut self) -> Result<Explored, Box<Broke>> {
        let mut layer = Vec::new();
        self.meets(&self.model.start(), (0, 0), &mut layer)?;
        let (mut depth, mut after) = (0, Vec::new());
        loop {
            let mut next = Vec::new();
            for (number, world) in layer {
                after.clear();
                successors(self.model, &world, &mut after);
                for (which, (_, world)) in (0u16..).zip(&after) {
                    let to = self.meets(world, (number, which), &mut next)?;
                    self.edges.push((to, number));
                }
            }
            if next.is_empty() {
                break;
            }
            layer = next;
            depth += 1;
        }
        let (states, steps) = (self.came.len(), self.edges.len());
        Ok(Explored { states, steps, depth, stuck: self.stuck() })
    }

    /// The number of a state, which is checked if it is a new one.
    fn meets(
        &mut self,
        world: &World,
        came: (u32, u16),
        next: &mut Vec<(u32, World)>,
    ) -> Result<u32, Box<Broke>> {
        let exchanged = self.symmetries.iter().map(|order| self.model.exchanged(world, order));
        let world = exchanged.min().unwrap_or(*world);
        let number = u32::try_from(self.came.len()).expect("fewer states than 2^32");
        let known = *self.seen.entry(name_of(&world)).or_insert(number);
        if known != number {
            return Ok(known);
        }
        self.came.push(came);
        if let Some(rule) = rules::broken(self.model, &world) {
            return Err(Box::new(Broke { rule, way: self.way_to(number) }));
        }
        let volumes = &world.volumes[..self.model.volumes];
        let is_settled = volumes
            .iter()
            .all(|volume| volume.record.epoch >= self.model.claims || rules::is_served(volume));
        self.settled.push(is_settled);
        next.push((number, world));
        Ok(number)
    }

    fn way_to(&self, mut number: u32) -> Vec<(Step, World)> {
        let mut choices = Vec::new();
        while number > 0 {
            let (before, which) = self.came[number as usize];
            choices.push(which);
            number = before;
        }
        let mut world = self.model.start();
        let (mut way, mut after) = (Vec::new(), Vec::new());
        for which in choices.into_iter().rev() {
            after.clear();
            successors(self.model, &world, &mut after);
            let (step, next) = after[usize::from(which)];
            let exchanged = self.symmetries.iter().map(|order| self.model.exchanged(&next, order));
            world = exchanged.min().unwrap_or(next);
            way.push((step, world));
        }
        way
    }

    /// How many states no settled one can be reached from.
    fn stuck(mut self) -> usize {
        self.edges.sort_unstable();
        let mut queue: Vec<u32> =
            (0..).zip(&self.settled).filter(|(_, is)| **is).map(|(at, _)| at).collect();
        while let Some(to) = queue.pop() {
            let first = self.edges.partition_point(|(other, _)| *other < to);
            for (_, from) in self.edges[first..].iter().take_while(|(other, _)| *other == to) {
                if !std::mem::replace(&mut self.settled[*from as usize], true) {
                    queue.push(*from);
                }
            }
        }
        self.settled.iter().filter(|is| !**is).count()
    }
}
