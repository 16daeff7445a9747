//! What processes and the machine have used, as Linux tells in `/proc`.

use std::fs;
use std::ops::Add;

use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};

/// What some processes have used together, up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time, all threads, in seconds.
    pub(crate) cpu_seconds: f64,
    /// Resident memory now.
    pub(crate) rss_bytes: u64,
    /// The most that it ever was.
    pub(crate) rss_peak_bytes: u64,
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            rss_peak_bytes: self.rss_peak_bytes + other.rss_peak_bytes,
        }
    }
}

/// What of the machine's processors was used, up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Machine {
    /// By whomever.
    pub(crate) busy_seconds: f64,
}

impl Usage {
    /// Of these processes; none if one of them is not there.
    pub(crate) fn of(pids: &[u32]) -> Option<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            sum.cpu_seconds += cpu_ticks(&stat)? as f64 / clock_ticks_per_second() as f64;
            sum.rss_bytes += kilobytes(&status, "VmRSS:")? << 10;
            sum.rss_peak_bytes += kilobytes(&status, "VmHWM:")? << 10;
        }
        Some(sum)
    }
}

impl Machine {
    pub(crate) fn now() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        Some(Self { busy_seconds: busy_ticks(&stat)? as f64 / clock_ticks_per_second() as f64 })
    }
}

/// Whether a process stands still by a signal, or is not there.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, after)| after.trim_start().chars().next());
    // proc(5): T is stopped, t by a debugger, Z a process that has ended.
    matches!(state, None | Some('T' | 't' | 'Z'))
}

/// proc(5): utime and stime are the 14th and 15th field; the 2nd is in parentheses and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A process, those of its group, and all that they have started.
pub(crate) fn family(leader: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![leader] };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // What ends meanwhile is left out.
    let all: Vec<(u32, u32, u32)> = pids
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            parent_and_group(&stat).map(|(parent, group)| (pid, parent, group))
        })
        .collect();
    let mut family: Vec<u32> =
        all.iter().filter(|(.., group)| *group == leader).map(|(pid, ..)| *pid).collect();
    if !family.contains(&leader) {
        family.push(leader);
    }
    let mut seen = 0;
    while seen < family.len() {
        let parent = family[seen];
        let children: Vec<u32> =
            all.iter().filter(|(_, of, _)| *of == parent).map(|(pid, ..)| *pid).collect();
        family.extend(
            children.into_iter().filter(|child| !family.contains(child)).collect::<Vec<_>>(),
        );
        seen += 1;
    }
    family
}

/// proc(5): the 4th and the 5th field.
fn parent_and_group(stat: &str) -> Option<(u32, u32)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// proc(5): user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user's already.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> =
        line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some(ticks.iter().take(8).sum::<u64>() - ticks.get(3)? - ticks.get(4)?)
}

/// Tells machines apart, until they start anew; empty if it is not known. Containers on one machine share it.
pub(crate) fn machine_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// What this machine is, for the report.
pub(crate) fn describe() -> (usize, u64, String, String) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory_bytes = kilobytes(&memory, "MemTotal:").unwrap_or(0) << 10;
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or_else(String::new, |(_, model)| model.trim().to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (cpus, memory_bytes, model, kernel.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        let stat = "7 (a) b ((1) S 1 7 7 0 -1 4194560 1 2 3 4 120 30 5 6 20 0 1 0 99 1 1";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(parent_and_group(stat), Some((1, 7)));
        assert_eq!(kilobytes("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(busy_ticks("cpu  10 1 5 1000 50 0 2 3 0 0\ncpu0 1\n"), Some(21));
    }

    #[test]
    fn this_process_has_memory_and_a_missing_one_is_told() {
        let usage = Usage::of(&[std::process::id()]).expect("this process is there");
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes >= usage.rss_bytes);
        assert_eq!(Usage::of(&[std::process::id(), u32::MAX]), None);
        assert!(Machine::now().is_some_and(|machine| machine.busy_seconds > 0.0));
    }
}
