//! What Linux knows about a process: CPU time, memory, bytes written.

use std::{fs, time::Duration};

/// `/proc` counts CPU time in hundredths of a second, whatever the kernel's own clock (Linux's `USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// The fields of `/proc/PID/stat` after the name, which may contain anything.
struct Stat(Vec<u64>);

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = text.rsplit_once(") ")?;
        // The first one is the state, a letter; some of the later ones may be negative.
        Some(Self(
            fields
                .split_whitespace()
                .skip(1)
                .map(|field| field.parse().unwrap_or(0))
                .collect(),
        ))
    }

    fn parent(&self) -> u32 {
        u32::try_from(self.0[0]).unwrap_or(0)
    }

    /// `utime` and `stime`, and those of children that have ended.
    fn ticks(&self) -> [u64; 2] {
        [self.0[10] + self.0[11], self.0[12] + self.0[13]]
    }
}

fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// CPU time that a process has used, in user and kernel mode.
///
/// # Panics
/// If there is no such process.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = Stat::of(pid).unwrap_or_else(|| panic!("process {pid} has ended"));
    time(stat.ticks()[0])
}

/// CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu(std::process::id())
}

/// CPU time of a process and all its children, including those that have ended.
pub(crate) fn family_cpu(pid: u32) -> Option<Duration> {
    let parent = Stat::of(pid)?;
    let mut ticks = parent.ticks().iter().sum::<u64>();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let child = child.and_then(Stat::of).filter(|child| child.parent() == pid);
        ticks += child.map_or(0, |child| child.ticks()[0]);
    }
    Some(time(ticks))
}

/// The parent of a process whose program has this name.
pub(crate) fn parent_of(pid: u32, name: &str) -> Option<u32> {
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (program.trim() == name)
        .then(|| Stat::of(pid))
        .flatten()
        .map(|stat| stat.parent())
}

/// Resident memory of a process, in megabytes of 2²⁰ bytes.
pub(crate) fn memory_mb(pid: u32) -> f64 {
    field(&format!("/proc/{pid}/status"), "VmRSS:") as f64 / 1024.0
}

/// Bytes that a process has written to file systems on disk.
pub(crate) fn bytes_written(pid: u32) -> u64 {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

/// The number after a name at the start of a line.
fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{path} has no {name}"))
}
