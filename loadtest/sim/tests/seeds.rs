//! The simulation itself: seeds hold, a seed repeats to the byte, and the mutants still fit the code. Each
//! run has a process of its own, as its randomness wants; `make simulate` runs as many as one likes.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-sim"));
    command.args(arguments).env("RUST_BACKTRACE", "0").output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn seeds_hold() {
    let run = simulate(&["--seeds", "40"]);
    assert!(run.status.success(), "{}{}", text(&run.stdout), text(&run.stderr));
}

#[test]
fn a_seed_repeats_to_the_byte() {
    for seed in ["3", "17"] {
        let arguments = ["--seed", seed, "--trace"];
        let (first, second) = (simulate(&arguments), simulate(&arguments));
        let (first, second) = (text(&first.stdout), text(&second.stdout));
        let parts = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(parts, None, "seed {seed}: here the two part");
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.lines().count() > 300, "seed {seed} does something: {first}");
    }
}

#[test]
fn seeds_differ() {
    let hash =
        |seed| text(&simulate(&["--seed", seed]).stdout).split(' ').nth(1).map(str::to_owned);
    assert_ne!(hash("1"), hash("2"));
}

#[test]
fn mutants_fit_the_code() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/mutants/run");
    let check = Command::new(script).arg("--check").output().expect("python3 is there");
    assert!(check.status.success(), "{}", text(&check.stderr));
}
