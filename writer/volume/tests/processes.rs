//! What needs a process of its own: one that is killed in the middle of its writes, and one that counts its
//! threads and files. Both start this test's binary again, with a role in the environment.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::{
    AppendError, CreateOptions, Engine, FileVolume, FrameBuf, OpenError, OpenOptions, Recovery,
    Volume,
};

const ROLE: &str = "SLUICE_TEST_ROLE";
const ID: VolumeId = VolumeId(3);

/// Runs the test `name` of this binary in a process of its own.
fn again(name: &str, role: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a process knows its binary"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("SLUICE_TEST_PATH", path);
    command
}

fn path() -> PathBuf {
    std::env::var_os("SLUICE_TEST_PATH").expect("set with the role").into()
}

/// Opens, as soon as the owner before is gone.
async fn open(path: &Path, epoch: u32, engine: Engine) -> Box<dyn Recovery> {
    let options = OpenOptions { queue_depth: 32, engine, ..OpenOptions::default() };
    loop {
        match FileVolume::open(path, ID, VolumeEpoch(epoch), options).await {
            Err(OpenError::Locked) => tokio::time::sleep(Duration::from_millis(2)).await,
            opened => return opened.expect("the volume is sound"),
        }
    }
}

/// A payload that tells its number all over.
fn frame(number: u64) -> FrameBuf {
    let bytes = number.to_le_bytes().repeat(1 + (number as usize * 613) % 3000);
    let mut frame = FrameBuf::with_capacity(bytes.len());
    frame.push(&bytes).expect("it is small enough");
    frame
}

/// Appends at depth 32 without an end, and prints the number of each frame that is durable.
async fn append_for_ever(volume: Arc<dyn Volume>, first: u64) {
    let (say, mut tickets) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut out = std::io::stdout();
        while let Some((number, ticket)) = tickets.recv().await {
            let ticket: sluice_volume::Ticket = ticket;
            ticket.await.expect("nobody else has the volume");
            writeln!(out, "durable {number}").expect("someone reads");
        }
    });
    for number in first.. {
        let mut next = frame(number);
        let ticket = loop {
            next = match volume.append(next) {
                Ok(ticket) => break ticket,
                Err(AppendError::Busy(back)) => back,
                Err(other) => panic!("{other}"),
            };
            tokio::task::yield_now().await;
        };
        say.send((number, ticket)).expect("the printer lives");
    }
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_durable_is_found() {
    if let Ok(role) = std::env::var(ROLE) {
        let mut words = role.split(' ');
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok());
        let (epoch, first, threads) = (number(), number(), number());
        let engine = if threads == Some(1) { Engine::Threads } else { Engine::Auto };
        let recovery = open(&path(), epoch.expect("the role names it"), engine).await;
        let volume = recovery.finish().await.expect("the log is sound");
        return append_for_ever(volume, first.expect("the role names it").into()).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 128 << 20)).await.unwrap();
    let name = "what_a_killed_process_was_told_is_durable_is_found";
    let mut known = 0;
    for round in 0..6_u32 {
        let role = format!("{} {known} {}", 2 * round + 1, round % 2);
        let mut child = again(name, &role, &path).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let durable = |line: String| {
            // The harness says other things, on the same line even.
            line.split("durable ").nth(1).and_then(|number| number.parse::<u64>().ok())
        };
        let mut last = None;
        while last < Some(known + 200) {
            last = durable(lines.next().unwrap().unwrap()).or(last);
        }
        child.kill().unwrap();
        // What it had said before it died counts too, but for a line that was cut short.
        for line in lines.map_while(Result::ok) {
            last =
                durable(line).filter(|number| last.is_none_or(|last| *number == last + 1)).or(last);
        }
        child.wait().unwrap();
        let mut recovery = open(&path, 2 * round + 2, Engine::Auto).await;
        let mut found = 0;
        while let Some(recovered) = recovery.next().await.unwrap() {
            assert_eq!(recovered.payload, frame(found).payload(), "frame {found}");
            found += 1;
        }
        assert!(Some(found) > last, "{found} found, {last:?} was durable");
        known = found;
        // Clean every second time, so that both kinds of end are met.
        let volume = recovery.finish().await.unwrap();
        if round % 2 == 0 {
            volume.close().await.unwrap();
        }
    }
}

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("a process knows itself").count()
}

#[tokio::test]
async fn a_thousand_openings_leave_no_thread_and_no_file() {
    let name = "a_thousand_openings_leave_no_thread_and_no_file";
    if std::env::var(ROLE).is_err() {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = dir.path().join("volume");
        FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 1 << 20)).await.unwrap();
        assert!(again(name, "count", &path).stdout(Stdio::null()).status().unwrap().success());
        return;
    }
    let (mut threads, mut files) = (0, 0);
    for epoch in 1..=1000 {
        let volume = open(&path(), epoch, Engine::Auto).await.finish().await.unwrap();
        let ticket = volume.append(frame(1)).unwrap();
        let end = ticket.await.unwrap().end;
        volume.trim(end, 0).await.unwrap();
        // Every tenth is let go of as a crash does.
        if epoch % 10 != 0 {
            volume.close().await.unwrap();
        }
        drop(volume);
        if epoch == 20 {
            // By now the runtime has all the threads that it needs.
            (threads, files) = (count("task"), count("fd"));
        }
    }
    // The last one may be about to end.
    for _ in 0..1000 {
        if count("task") <= threads && count("fd") <= files {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("threads {threads} -> {}, files {files} -> {}", count("task"), count("fd"));
}
