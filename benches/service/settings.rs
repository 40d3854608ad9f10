//! What to measure, and how often.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use tokio::process::Command;

/// Stored deliveries for the growth figures, by default and if the whole growth is requested.
const GROWTH: [u64; 2] = [100_000, 1_000_000];

/// The settings from the environment.
pub(crate) struct Settings {
    /// The binary to measure.
    pub(crate) binary: PathBuf,
    /// URL of the PostgreSQL server, if it is measured, too.
    pub(crate) postgres: Option<String>,
    /// Runs per figure.
    pub(crate) runs: usize,
    /// About how long a run takes.
    pub(crate) run: Duration,
    /// Stored deliveries for the growth figures.
    pub(crate) growth: u64,
    /// A part of the names of the requested figures, in lower case.
    only: Option<String>,
}

impl Settings {
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, default: u64| variable(name).map_or(default, |value| value.parse().unwrap());
        let whole = variable("KALLIMA_BENCH_GROWTH").is_some_and(|value| value != "0");
        Self {
            binary: variable("KALLIMA_BENCH_BINARY")
                .unwrap_or_else(|| env!("CARGO_BIN_EXE_kallima-webhooks").to_owned())
                .into(),
            postgres: variable("TEST_DATABASE_URL"),
            runs: usize::try_from(number("KALLIMA_BENCH_RUNS", 5)).unwrap().max(1),
            run: Duration::from_secs(number("KALLIMA_BENCH_SECONDS", 3).max(1)),
            growth: GROWTH[usize::from(whole)],
            only: variable("KALLIMA_BENCH_ONLY").map(|only| only.to_lowercase()),
        }
    }

    /// Whether any of these figures is requested.
    pub(crate) fn wants(&self, names: &[&str]) -> bool {
        let Some(only) = &self.only else { return true };
        names.iter().any(|name| name.to_lowercase().contains(only))
    }

    /// Machine, versions, date and command: what a table needs to be understood later.
    pub(crate) async fn headline(&self) -> String {
        let cores = std::thread::available_parallelism().unwrap();
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let gib = kib.map_or_else(|| "?".to_owned(), |kib| format!("{:.0}", kib as f64 / 1024.0 / 1024.0));
        let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name\t: "));
        let version = output(Command::new(&self.binary).arg("--version")).await;
        let kernel = output(Command::new("uname").arg("-sr")).await;
        let date = output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])).await;
        let mut command = String::new();
        for name in ["BINARY", "RUNS", "SECONDS", "ONLY", "GROWTH"] {
            let name = format!("KALLIMA_BENCH_{name}");
            if let Ok(value) = std::env::var(&name) {
                write!(command, "{name}={value} ").unwrap();
            }
        }
        if self.postgres.is_some() {
            command.push_str("TEST_DATABASE_URL=… ");
        }
        format!(
            "{cores} cores ({}), {gib} GiB of memory, {kernel}; {version}, SQLite {} for the limits; {date}; \
             medians of {} runs; `{command}cargo bench --bench service`",
            model.unwrap_or("unknown processor"),
            rusqlite::version(),
            self.runs
        )
    }
}

async fn output(command: &mut Command) -> String {
    let output = command.output().await;
    output.map_or_else(
        |_| "?".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
