//! Watching a run: a row about each second, and where its phases begin. Whoever holds the lock may add a row; a
//! phase begins with a row of its own, so that rows never span two phases.

use crate::process::{Machine, Usage};
use crate::report::{BucketCost, Cost, Moved, Phase, Row};
use crate::scrape::Bucket;
use crate::stats::{Counts, Latencies, Stats};

/// What has been seen so far.
#[derive(Debug)]
pub(crate) struct Observer {
    start_us: u64,
    last_us: u64,
    server_pids: Vec<u32>,
    store_pids: Vec<u32>,
    last_server: Option<Usage>,
    last_store: Option<Usage>,
    last_client: Usage,
    is_client_here: bool,
    last_machine: Option<Machine>,
    rows: Vec<Row>,
    phases: Vec<Begun>,
}

/// A phase that has begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) name: String,
    pub(crate) measured: bool,
    /// Records a second; none if it goes as fast as it can.
    pub(crate) offered: Option<f64>,
    /// The bucket's counts when it began.
    pub(crate) bucket: Option<Bucket>,
    /// The server was started anew in it: what it counts began from 0.
    pub(crate) renewed: bool,
}

impl Observer {
    /// `client` is what producers and consumers have used so far; `is_client_here` whether on this machine.
    pub(crate) fn new(
        now_us: u64,
        server_pids: Vec<u32>,
        store_pids: Vec<u32>,
        client: Usage,
        is_client_here: bool,
    ) -> Self {
        Self {
            start_us: now_us,
            last_us: now_us,
            last_server: usage(&server_pids),
            last_store: usage(&store_pids),
            server_pids,
            store_pids,
            last_client: client,
            is_client_here,
            last_machine: Machine::now(),
            rows: Vec::new(),
            phases: Vec::new(),
        }
    }

    /// Adds a row about the time since the last one. `client` is what producers and consumers have used so far.
    pub(crate) fn observe(&mut self, stats: &Stats, now_us: u64, client: Usage) -> Row {
        let second = stats.take_second();
        let seconds = now_us.saturating_sub(self.last_us) as f64 / 1e6;
        let (server, store) = (usage(&self.server_pids), usage(&self.store_pids));
        let machine = Machine::now();
        let three = |latencies: &Latencies| {
            (latencies.count() > 0).then(|| {
                [latencies.percentile_ms(50.0), latencies.percentile_ms(99.0), latencies.max_ms()]
            })
        };
        let Counts { written, written_bytes, read, read_bytes, retries, commits, aborts } =
            second.counts;
        let row = Row {
            at: now_us.saturating_sub(self.start_us) as f64 / 1e6,
            seconds,
            phase: self.phases.len().saturating_sub(1),
            written: (written, written_bytes),
            read: (read, read_bytes),
            produce: three(&second.produce),
            end_to_end: three(&second.end_to_end),
            retries,
            transactions: (commits, aborts),
            server_cpu: since(self.last_server, server),
            store_cpu: since(self.last_store, store),
            store_rss: store.map(|usage| (usage.rss_bytes, usage.rss_peak_bytes)),
            server_rss: server.map(|usage| (usage.rss_bytes, usage.rss_peak_bytes)),
            client_cpu: client.cpu_seconds - self.last_client.cpu_seconds,
            client_rss: (client.rss_bytes, client.rss_peak_bytes),
            machine_cpu: machine
                .zip(self.last_machine)
                .map(|(now, before)| now.busy_seconds - before.busy_seconds),
        };
        self.last_us = now_us;
        (self.last_server, self.last_store) = (server, store);
        (self.last_client, self.last_machine) = (client, machine);
        self.rows.push(row);
        row
    }

    /// A phase has begun now; the one before ends.
    pub(crate) fn begin(&mut self, stats: &Stats, now_us: u64, client: Usage, begun: Begun) {
        self.observe(stats, now_us, client);
        self.phases.push(begun);
    }

    /// The server was started anew, and has these processes now.
    pub(crate) fn renewed(&mut self, server_pids: Vec<u32>) {
        self.server_pids = server_pids;
        self.last_server = Some(Usage::default());
        if let Some(phase) = self.phases.last_mut() {
            phase.renewed = true;
        }
    }

    /// The phase that is under way.
    pub(crate) fn phase(&self) -> usize {
        self.phases.len().saturating_sub(1)
    }

    /// Records acknowledged in a phase so far.
    pub(crate) fn written_in(&self, phase: usize) -> (u64, f64) {
        let rows = self.rows.iter().filter(|row| row.phase == phase);
        rows.fold((0, 0.0), |(records, seconds), row| {
            (records + row.written.0, seconds + row.seconds)
        })
    }

    /// The end: all phases and rows. `bucket` is the bucket's counts now.
    pub(crate) fn finish(&self, stats: &Stats, bucket: Option<Bucket>) -> (Vec<Phase>, Vec<Row>) {
        let ends = self.phases.iter().skip(1).map(|next| next.bucket).chain([bucket]);
        let phases = (0..).zip(self.phases.iter().zip(ends)).map(|(index, (begun, end))| {
            let mut phase = self.summary(index, begun, end);
            phase.latencies(&stats.phase(index));
            phase
        });
        // What came before the first phase is preparation.
        let rows = self.rows.iter().skip(1).copied();
        (phases.collect(), rows.collect())
    }

    fn summary(&self, index: usize, begun: &Begun, bucket_end: Option<Bucket>) -> Phase {
        let rows: Vec<&Row> = self.rows.iter().skip(1).filter(|row| row.phase == index).collect();
        let seconds = rows.iter().map(|row| row.seconds).sum::<f64>();
        let sum = |of: fn(&Row) -> u64| rows.iter().map(|row| of(row)).sum::<u64>();
        let written = Moved::new(sum(|row| row.written.0), sum(|row| row.written.1), seconds);
        let read = Moved::new(sum(|row| row.read.0), sum(|row| row.read.1), seconds);
        // While it is down there is nothing to count.
        let server_cpu = rows.iter().filter_map(|row| row.server_cpu).reduce(|sum, row| sum + row);
        let store_cpu: Option<f64> = rows.iter().map(|row| row.store_cpu).sum();
        let client_cpu: f64 = rows.iter().map(|row| row.client_cpu).sum();
        let machine_cpu: Option<f64> = rows.iter().map(|row| row.machine_cpu).sum();
        let cost = |cpu: f64, rss: fn(&Row) -> Option<(u64, u64)>| {
            let rss = || rows.iter().filter_map(|row| rss(row));
            Cost {
                rss_max_bytes: rss().map(|(now, _)| now).max().unwrap_or(0),
                rss_peak_bytes: rss().map(|(_, peak)| peak).max().unwrap_or(0),
                ..Cost::new(cpu, &written, &read)
            }
        };
        let server = server_cpu.filter(|_| !self.server_pids.is_empty());
        let server = server.map(|cpu| cost(cpu, |row| row.server_rss));
        let store = store_cpu.filter(|_| !self.store_pids.is_empty());
        let store = store.map(|cpu| cost(cpu, |row| row.store_rss));
        let client = cost(client_cpu, |row| Some(row.client_rss));
        let (cpus, ..) = crate::process::describe();
        // Only where all of the server's processes are known.
        let server_here = server.as_ref().filter(|_| self.is_client_here);
        let others = machine_cpu.zip(server_here).map(|(machine, server)| {
            let store = store.as_ref().map_or(0.0, |store| store.cpu_seconds);
            ((machine - server.cpu_seconds - store - client_cpu) / (seconds * cpus as f64))
                .clamp(0.0, 1.0)
        });
        let bucket = begun.bucket.zip(bucket_end).filter(|_| !begun.renewed);
        Phase {
            name: begun.name.clone(),
            measured: begun.measured,
            seconds,
            offered: begun.offered,
            written,
            read,
            produce: None,
            end_to_end: None,
            lateness: None,
            commit: None,
            transactions: (sum(|row| row.transactions.0), sum(|row| row.transactions.1)),
            retries: sum(|row| row.retries),
            server,
            store,
            client,
            others_share: others,
            tenants: Vec::new(),
            bucket: bucket.map(|(begin, end)| BucketCost::new(end - begin, &written)),
        }
    }
}

/// CPU-seconds from one look to the next. Processes that were started anew count from 0.
fn since(before: Option<Usage>, now: Option<Usage>) -> Option<f64> {
    let before = before.map_or(0.0, |before| before.cpu_seconds);
    now.map(|now| (now.cpu_seconds - before).max(0.0))
}

fn usage(pids: &[u32]) -> Option<Usage> {
    if pids.is_empty() { None } else { Usage::of(pids) }
}
