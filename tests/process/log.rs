//! The log of a process: every line is kept, and an unexpected WARN or ERROR fails the test.

use std::{
    io::{BufRead as _, BufReader, PipeReader},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use crate::support::app::eventually;

/// What a process writes to standard error.
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    #[expect(dead_code, reason = "held so that the pipe stays open")]
    unread: Option<PipeReader>,
    announced: Vec<Announced>,
}

/// A text that makes a log line acceptable.
struct Announced {
    text: String,
    /// Whether such a line must come.
    is_due: bool,
}

impl Log {
    /// Keeps all that comes from a pipe.
    pub(super) fn read(pipe: PipeReader) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                kept.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Self {
            lines,
            reader: Some(reader),
            unread: None,
            announced: Vec::new(),
        }
    }

    /// Keeps the pipe open, and reads nothing.
    pub(super) fn unread(pipe: PipeReader) -> Self {
        Self {
            lines: Arc::default(),
            reader: None,
            unread: Some(pipe),
            announced: Vec::new(),
        }
    }

    /// What it has written so far.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Expects a WARN or ERROR with this text before the process ends.
    pub(crate) fn expect(&mut self, text: &str) {
        self.announce(text, true);
    }

    /// Allows WARN or ERROR lines with this text.
    pub(crate) fn allow(&mut self, text: &str) {
        self.announce(text, false);
    }

    fn announce(&mut self, text: &str, is_due: bool) {
        let text = text.to_owned();
        self.announced.push(Announced { text, is_due });
    }

    /// Waits for a line with this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> impl Future<Output = String> {
        eventually(async move || {
            let lines = self.lines.lock().unwrap();
            lines.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// Waits until the process has closed it.
    pub(super) fn wait_for_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }

    /// Waits for the end, and returns what is wrong with all that was written.
    pub(super) fn close(&mut self) -> Vec<String> {
        self.wait_for_end();
        let lines = self.lines.lock().unwrap();
        let is_unannounced = |line: &&String| !self.announced.iter().any(|known| line.contains(&known.text));
        let mut faults: Vec<_> = lines
            .iter()
            .filter(|line| is_trouble(line))
            .filter(is_unannounced)
            .cloned()
            .collect();
        for Announced { text, .. } in self.announced.iter().filter(|announced| announced.is_due) {
            if !lines.iter().any(|line| is_trouble(line) && line.contains(text)) {
                faults.push(format!("no WARN or ERROR says {text:?}"));
            }
        }
        faults
    }
}

/// Whether a line of the log is a WARN or an ERROR, in either format, or the last words of a process that failed.
pub(super) fn is_trouble(line: &str) -> bool {
    let level = match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => line["level"].as_str().unwrap_or_default().to_owned(),
        Err(_) => line.split_whitespace().nth(1).unwrap_or_default().to_owned(),
    };
    matches!(level.as_str(), "WARN" | "ERROR") || line.starts_with("error: ") || line.contains(" panicked at ")
}

#[test]
fn a_warning_is_seen_in_either_format() {
    let human = "2026-11-24T12:00:00.000000Z  WARN kallima_webhooks::server: too little";
    let json = r#"{"timestamp":"2026-11-24T12:00:00Z","level":"ERROR","target":"x","message":"failed"}"#;
    for line in [human, json, "error: no", "thread 'main' panicked at src/main.rs"] {
        assert!(is_trouble(line), "{line}");
    }
    for line in [
        "2026-11-24T12:00:00.000000Z  INFO kallima_webhooks::server: no WARN here",
        r#"{"timestamp":"2026-11-24T12:00:00Z","level":"INFO","target":"x","message":"ERROR is a word"}"#,
        "   0: a frame of a backtrace",
        "",
    ] {
        assert!(!is_trouble(line), "{line}");
    }
}
