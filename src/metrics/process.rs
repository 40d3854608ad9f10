//! What this process uses, according to Linux's `/proc`.

use std::{fs, io, time::Duration};

/// Ticks per second in `/proc`: the same on every machine (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// When it started, in seconds since 1970.
    pub start_time_s: f64,
    /// Resident memory.
    pub resident_memory_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Limit of open file descriptors.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessUse {
    /// What the process uses now.
    ///
    /// # Errors
    /// If there is no `/proc`, or it is not Linux's.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        // The program's name, in brackets, may contain anything. What follows starts with the third field.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let field = |number: usize| number_in(fields.split_whitespace().nth(number - 3));
        let (user, system, started) = (field(14)?, field(15)?, field(22)?);
        let status = fs::read_to_string("/proc/self/status")?;
        let limits = fs::read_to_string("/proc/self/limits")?;
        let boot = number_in(word_after(&fs::read_to_string("/proc/stat")?, "btime"))?;
        Ok(Self {
            cpu: Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND),
            start_time_s: (Duration::from_secs(boot) + Duration::from_millis(started * 1000 / TICKS_PER_SECOND))
                .as_secs_f64(),
            resident_memory_bytes: number_in(word_after(&status, "VmRSS:"))? * 1024,
            open_fds: fs::read_dir("/proc/self/fd")?.count() as u64,
            // `unlimited` is a word.
            max_fds: number_in(word_after(&limits, "Max open files")).unwrap_or(u64::MAX),
            threads: number_in(word_after(&status, "Threads:"))?,
        })
    }
}

/// The first word after a name at the start of a line.
fn word_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()
}

fn number_in(word: Option<&str>) -> io::Result<u64> {
    let number = word.and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc has no number there"))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_process_knows_what_it_uses() {
        let opened = fs::File::open("/proc/self/stat").unwrap();
        let used = ProcessUse::read().unwrap();
        drop(opened);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(
            used.start_time_s > now - 86_400.0 && used.start_time_s <= now + 1.0,
            "{used:?}"
        );
        assert!(used.resident_memory_bytes > 100_000 && used.threads >= 1, "{used:?}");
        assert!(used.open_fds >= 4 && used.open_fds <= used.max_fds, "{used:?}");
    }
}
