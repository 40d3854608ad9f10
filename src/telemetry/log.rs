//! Log output: a bounded buffer, written to standard error by a thread of its own.
//!
//! Logging never blocks. If nobody reads standard error (a full pipe, a stopped terminal), the buffer fills up; then lines
//! are dropped and counted, and the service goes on.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes of the log may wait to be written.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the last lines may take to be written when the process ends.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The log of this process.
static LOG: OnceLock<Log> = OnceLock::new();

/// How many lines have been dropped since the process started.
#[must_use]
pub fn lines_dropped() -> u64 {
    LOG.get().map_or(0, |log| log.0.dropped.load(Ordering::Relaxed))
}

/// Writes a line as it is, not in the log's format: the error of a failed command, for example.
pub fn say(line: &str) {
    standard_error().push(format!("{line}\n").as_bytes());
}

/// Waits until all lines are written, for a limited time, since perhaps nobody reads them.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(FLUSH_MAX);
    }
}

/// The log on standard error.
pub(super) fn standard_error() -> Log {
    LOG.get_or_init(|| Log::start(io::stderr())).clone()
}

/// Accepts lines, and has them written.
#[derive(Clone, Debug)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// There is something to write.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Whether the thread is writing lines that it has taken from the buffer.
    is_writing: bool,
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's loop: writes whatever is waiting.
    fn write_to(&self, mut target: impl Write) {
        let mut batch = Vec::new();
        let mut known_dropped = 0;
        loop {
            let lines = self.filled.wait_while(self.lines(), |lines| lines.waiting.is_empty());
            let mut lines = lines.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut lines.waiting, &mut batch);
            lines.is_writing = true;
            drop(lines);
            if target.write_all(&batch).is_err() {
                // Nobody will ever read it, and there is nowhere left to complain.
                let lost = batch.split_inclusive(|byte| *byte == b'\n').count() as u64;
                self.dropped.fetch_add(lost, Ordering::Relaxed);
                known_dropped += lost;
            }
            batch.clear();
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > known_dropped {
                tracing::warn!(
                    kallima.log.lines = dropped - known_dropped,
                    "log lines dropped: they were not read in time"
                );
                known_dropped = dropped;
            }
            self.lines().is_writing = false;
            self.emptied.notify_all();
        }
    }
}

impl Log {
    fn start(target: impl Write + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let shared = Arc::clone(&log.0);
        let thread = thread::Builder::new().name("log".to_owned());
        if thread.spawn(move || shared.write_to(target)).is_err() {
            // A process that cannot start a thread will not get far. Its lines count as dropped.
            log.0.lines().waiting = vec![0; WAITING_BYTES_MAX];
        }
        log
    }

    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lines();
        if lines.waiting.len() + line.len() > WAITING_BYTES_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.waiting.extend_from_slice(line);
        drop(lines);
        self.0.filled.notify_one();
    }

    fn flush(&self, at_most: Duration) {
        let lines = self.0.lines();
        let unwritten = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(self.0.emptied.wait_timeout_while(lines, at_most, unwritten));
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line {
            log: self.clone(),
            text: Vec::new(),
        }
    }
}

/// A line under construction; it goes to the log as a whole when this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    log: Log,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.log.push(&self.text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What is written, piece by piece; each write waits until the test takes it.
    struct Target(mpsc::SyncSender<Vec<u8>>);

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map_err(io::Error::other).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (sender, written) = mpsc::sync_channel(0);
        let log = Log::start(Target(sender));
        for number in 0..100 {
            let mut line = log.make_writer();
            write!(line, "line ").unwrap();
            writeln!(line, "{number}").unwrap();
        }
        let expected = (0..100).fold(String::new(), |text, number| text + &format!("line {number}\n"));
        let mut text = Vec::new();
        while text.len() < expected.len() {
            text.extend(written.recv_timeout(Duration::from_mins(1)).unwrap());
        }
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        log.flush(Duration::from_mins(1));
        assert!(!log.0.lines().is_writing);
    }

    #[test]
    fn where_nobody_reads_lines_are_dropped_and_counted_and_nobody_waits() {
        let (sender, _unread) = mpsc::sync_channel(0);
        let log = Log::start(Target(sender));
        let line = [b'x'; 1024];
        for _ in 0..3 * WAITING_BYTES_MAX / line.len() {
            log.push(&line);
        }
        // One buffer may be with the thread, and one is full.
        let dropped = log.0.dropped.load(Ordering::Relaxed);
        assert!(dropped >= (WAITING_BYTES_MAX / line.len()) as u64, "{dropped}");
        assert!(log.0.lines().waiting.len() <= WAITING_BYTES_MAX);
        log.flush(Duration::from_millis(10));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (sender, gone) = mpsc::sync_channel(0);
        drop(gone);
        let log = Log::start(Target(sender));
        log.push(b"one\n");
        log.push(b"two\n");
        log.flush(Duration::from_mins(1));
        assert_eq!(log.0.dropped.load(Ordering::Relaxed), 2);
    }
}
