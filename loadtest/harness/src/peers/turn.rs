//! One turn: one server on empty data, and the workloads that it plays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_model::{Clock, Entropy};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::Instant;

use super::home::losetup;
use super::plan::{Kind, Turn};
use super::results::{Record, Results};
use super::{Event, Options, Tell};
use crate::amount::Rate;
use crate::servers::kinds::{self, Place, Store, Volumes};
use crate::servers::{Program, Server, free_port};
use crate::workload::Search;
use crate::{first, run};

/// The first record of a server that has answered already.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// When a turn has taken so long, no other workload begins: a server that cannot keep up costs the others no time.
const TURN_LIMIT: Duration = Duration::from_secs(90);
/// As large as the file of a volume of Sluice's defaults.
const DEVICE_BYTES: u64 = 1 << 30;
/// The file of the loop device.
const DEVICE: &str = "device";

/// What a turn needs.
pub(super) struct Stage<'a> {
    pub(super) options: &'a Options,
    pub(super) clock: &'a dyn Clock,
    pub(super) entropy: &'a dyn Entropy,
    pub(super) interrupt: &'a watch::Receiver<bool>,
    pub(super) tell: &'a Tell,
}

/// What runs for a turn. Fields are dropped in this order: the server before what it stands on.
struct Scene {
    address: String,
    metrics: Option<String>,
    server: Option<Server>,
    store: Option<Server>,
    device: Option<Loop>,
    data: Data,
    _store_data: Option<Data>,
}

/// A directory that is removed when its turn ends, and whose removal reaches the disk then: the next server does not
/// pay for this one's writes.
struct Data(PathBuf);

/// A file that says whose a directory is.
const MARK: &str = "made-by-sluice-loadtest";

impl Data {
    /// Makes the directory. What a comparison that was killed has left there is removed; nothing else is. The caller
    /// knows that no other one is under way.
    async fn make(path: PathBuf) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot make {}: {error}", path.display());
        if path.exists() {
            if !path.join(MARK).exists() {
                return Err(format!(
                    "{} is there already: remove it, or name another directory with --data",
                    path.display()
                ));
            }
            detach_all(&path.join(DEVICE)).await;
            std::fs::remove_dir_all(&path).map_err(failed)?;
        }
        std::fs::create_dir_all(&path).map_err(failed)?;
        std::fs::write(path.join(MARK), "").map_err(failed)?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        rustix::fs::sync();
    }
}

/// A loop device.
struct Loop(PathBuf);

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some(losetup) = losetup() {
            let _ = std::process::Command::new(losetup).arg("--detach").arg(&self.0).status();
        }
    }
}

impl Stage<'_> {
    /// Starts the server, plays the workloads, ends it. What fails is in the record.
    pub(super) async fn play(&self, turn: &Turn, missing: &[&str], results: &Results) -> Record {
        let mut record = Record {
            round: turn.round,
            peer: turn.peer.name.clone(),
            partitions: turn.partitions,
            ..Record::default()
        };
        let begun = Instant::now();
        let mut scene = match self.start(turn, results, &mut record).await {
            Ok(scene) => scene,
            Err(failure) => {
                self.say(format!("{}: {failure}", turn.peer.name));
                record.failure = Some(failure);
                return record;
            }
        };
        let workloads = &self.options.plan.workloads;
        for (place, (name, workload)) in workloads.iter().enumerate() {
            if !missing.contains(&name.as_str()) {
                continue;
            }
            if begun.elapsed() > TURN_LIMIT {
                let limit = TURN_LIMIT.as_secs();
                let words = format!("left out: the workloads before took longer than {limit} s");
                self.say(format!("{}: {name}: {words}", turn.peer.name));
                record.left_out.insert(name.clone(), words);
                continue;
            }
            let mut workload = workload.clone();
            if let Some(search) = &mut workload.search {
                self.aim(search, turn, name, results);
            }
            workload.topic.partitions = turn.partitions;
            if let Some(consume) = &mut workload.consume {
                consume.consumers = consume.consumers.min(turn.partitions);
            }
            let pids = |server: &Option<Server>| server.as_ref().map(Server::pids);
            let options = crate::Options {
                name: name.clone(),
                workload,
                bootstrap: scene.address.clone(),
                label: turn.peer.name.clone(),
                server_pids: pids(&scene.server).unwrap_or_default(),
                store_pids: pids(&scene.store).unwrap_or_default(),
                server_metrics: scene.metrics.clone(),
                seed: None,
                keep_topic: false,
                accounts: Vec::new(),
            };
            let seconds = begun.elapsed().as_secs();
            self.say(format!("  {name} ({} of {}), after {seconds} s", place + 1, workloads.len()));
            let tell = self.tell.clone();
            let progress = move |progress: &crate::Progress| {
                tell(&Event::Progress(Box::new(progress.clone())));
            };
            let interrupt = self.interrupt.clone();
            let outcome = run(options, self.clock, self.entropy, interrupt, progress).await;
            if *self.interrupt.borrow() {
                break;
            }
            let kept = match outcome.map(|report| (report.failed.clone(), report)) {
                // How far it came is no measurement.
                Ok((Some(failed), _)) => Err(failed),
                Ok((None, report)) => {
                    for slow in &report.gave_up {
                        self.say(format!("{}: {name}: {slow}", turn.peer.name));
                    }
                    results.keep_run(turn, name, &report).map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(failure) = kept {
                self.say(format!("{}: {name}: {failure}", turn.peer.name));
                record.failed_runs.insert(name.clone(), failure);
            }
            if let Some(server) = &mut scene.server
                && !server.is_running()
            {
                let failure = format!("it has ended by itself:\n{}", server.log_tail());
                self.say(format!("{}: {failure}", turn.peer.name));
                record.failure = Some(failure);
                break;
            }
        }
        // Not in order: what it has is removed with it, and how it ends is not what is measured.
        for server in [&mut scene.server, &mut scene.store].into_iter().flatten() {
            server.kill().await;
        }
        drop(scene);
        record.seconds = begun.elapsed().as_secs_f64();
        record
    }

    /// A search begins where the last round's has ended, with small steps.
    fn aim(&self, search: &mut Search, turn: &Turn, workload: &str, results: &Results) {
        let earlier = (0..turn.round).rev().map(|round| Turn { round, ..turn.clone() });
        let reports = earlier.filter_map(|turn| results.run_of(&turn, workload));
        let mut found = reports.filter_map(|report| report.search?.records_per_second);
        if let Some(found) = found.next() {
            search.from = Rate::Records(found as u64);
            search.step_percent = search.precision_percent;
        }
    }

    fn say(&self, words: String) {
        (self.tell)(&Event::Said(words));
    }

    async fn start(
        &self,
        turn: &Turn,
        results: &Results,
        record: &mut Record,
    ) -> Result<Scene, String> {
        let name = format!("{}-{}", turn.peer.name, turn.round + 1);
        let data = Data::make(self.options.data.join(&name)).await?;
        let mut scene = Scene {
            address: turn.peer.address.clone().unwrap_or_default(),
            metrics: None,
            server: None,
            store: None,
            device: None,
            data,
            _store_data: None,
        };
        if turn.peer.kind == Kind::Other {
            return Ok(scene);
        }
        let place = |name: &str| {
            let port = self.port()?;
            let data = scene.data.0.join(name);
            std::fs::create_dir_all(&data)
                .map_err(|error| format!("cannot make {}: {error}", data.display()))?;
            // Absolute: servers have other working directories.
            let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
            let (data, logs) = (absolute(data), absolute(results.logs()));
            Ok::<_, String>(Place { name: name.to_owned(), data, logs, port })
        };
        let kind = turn.peer.kind;
        let mut store = None;
        if kind.needs_store() || (kind.is_sluice() && self.options.plan.with_store) {
            let mut place = place("s3")?;
            if let Some(elsewhere) = &self.options.store_data {
                let data = Data::make(elsewhere.join(&name)).await?;
                place.data = std::path::absolute(&data.0).unwrap_or_else(|_| data.0.clone());
                scene._store_data = Some(data);
            }
            let executable = self.options.home.store();
            let made = Store::new(&executable, &place, self.entropy);
            let (made, program) = made.map_err(|error| error.to_string())?;
            let server = Server::start(program).await.map_err(|error| error.to_string())?;
            scene.store = Some(server);
            store = Some(made);
        }
        let place = place(kind.name())?;
        let program = match kind {
            Kind::Kafka => self.kafka(&place, &[]).await?,
            Kind::KafkaFlush => self.kafka(&place, &[("log.flush.interval.messages", "1")]).await?,
            Kind::Tansu => {
                let store = store.as_ref().ok_or("it cannot run without the S3 server")?;
                kinds::tansu(&self.options.home.tansu(), &place, store)
            }
            Kind::SluiceFile | Kind::SluiceBlock | Kind::SluiceObject | Kind::Other => {
                let volumes = match kind {
                    Kind::SluiceBlock => {
                        let device = device(&scene.data.0.join(DEVICE)).await?;
                        let path = device.0.clone();
                        scene.device = Some(device);
                        Volumes::Block(path)
                    }
                    Kind::SluiceObject => Volumes::Object,
                    _ => Volumes::File,
                };
                let http_port = self.port()?;
                scene.metrics = Some(format!("http://127.0.0.1:{http_port}/metrics"));
                let sluice = &self.options.sluice;
                kinds::sluice(sluice, &place, &volumes, store.as_ref(), http_port)
            }
        };
        record.command = Some(command(&program));
        scene.address = place.address();
        let server = Server::start(program).await.map_err(|error| error.to_string())?;
        let (started, ready_after) = (server.started(), server.ready_after());
        scene.server = Some(server);
        let first = first::record(&scene.address, self.entropy, FIRST_LIMIT).await;
        let first = first.map_err(|error| format!("no record is acknowledged: {error}"))?;
        record.ready_ms = Some(ready_after.as_secs_f64() * 1000.0);
        record.first_ack_ms = Some((first - started).as_secs_f64() * 1000.0);
        Ok(scene)
    }

    fn port(&self) -> Result<u16, String> {
        free_port(self.entropy).map_err(|error| format!("there is no free port: {error}"))
    }

    async fn kafka(&self, place: &Place, settings: &[(&str, &str)]) -> Result<Program, String> {
        let jars = self.options.home.kafka_jars();
        kinds::kafka(&jars, place, self.port()?, settings, self.entropy).await
    }
}

/// What is run, without what is secret.
fn command(program: &Program) -> String {
    let mut words = Vec::new();
    for (name, value) in &program.environment {
        if !name.contains("KEY") {
            words.push(format!("{name}={value}"));
        }
    }
    words.push(program.executable.display().to_string());
    words.extend(program.args.iter().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Loop devices over a file that were left behind.
async fn detach_all(file: &Path) {
    let Some(losetup) = losetup().filter(|_| file.exists()) else { return };
    let mut command = Command::new(losetup);
    command.args(["--output", "NAME", "--noheadings", "--associated"]).arg(file);
    let Ok(output) = command.output().await else { return };
    for device in String::from_utf8_lossy(&output.stdout).lines() {
        drop(Loop(PathBuf::from(device.trim())));
    }
}

/// A loop device over a file whose blocks have all been written, as those of a real device.
async fn device(file: &Path) -> Result<Loop, String> {
    let failed = |error: std::io::Error| format!("cannot make a loop device: {error}");
    let written = file.to_owned();
    let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(&written)?;
        let zeros = vec![0; 1 << 20];
        for _ in 0..DEVICE_BYTES >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()
    });
    written.await.map_err(|error| error.to_string())?.map_err(failed)?;
    let losetup = losetup().ok_or("losetup is not installed")?;
    let mut command = Command::new(losetup);
    command.args(["--direct-io=on", "--find", "--show"]).arg(file);
    let output = command.output().await.map_err(failed)?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        return Err(format!("cannot make a loop device: {}", said(&output.stderr)));
    }
    Ok(Loop(PathBuf::from(said(&output.stdout))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Ready;

    #[tokio::test]
    async fn only_what_a_comparison_has_made_is_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kafka-1");
        let first = Data::make(path.clone()).await.expect("made");
        std::fs::write(path.join("x"), "data").expect("written");
        // It was killed.
        std::mem::forget(first);
        let second = Data::make(path.clone()).await.expect("made anew");
        assert!(!path.join("x").exists());
        drop(second);
        assert!(!path.exists());
        std::fs::create_dir(&path).expect("somebody's");
        let error = Data::make(path.clone()).await.err().expect("it is somebody's");
        assert!(error.contains("is there already") && path.exists(), "{error}");
    }

    #[test]
    fn the_command_is_told_without_what_is_secret() {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let program = Program {
            name: "s".to_owned(),
            executable: PathBuf::from("/bin/s"),
            args: vec!["up".into()],
            environment: vec![set("AWS_SECRET_ACCESS_KEY", "hush"), set("SLUICE_X", "1")],
            hidden: Vec::new(),
            directory: PathBuf::new(),
            log: PathBuf::new(),
            ready: Ready::Kafka(String::new()),
            ready_limit: Duration::ZERO,
        };
        assert_eq!(command(&program), "SLUICE_X=1 /bin/s up");
    }
}
