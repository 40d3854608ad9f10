//! The results as Markdown.

use std::fmt;

/// What a number counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    /// CPU seconds per 1,000.
    CpuSeconds,
    Megabytes,
    Percent,
    /// Few per second.
    Rarely,
}

/// A figure and what it is compared with.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) samples: Vec<f64>,
    pub(crate) limit: Option<Limit>,
    pub(crate) goal: String,
}

/// What the machine does without the service, or the service without a burden.
pub(crate) struct Limit {
    pub(crate) what: String,
    pub(crate) samples: Vec<f64>,
}

impl Limit {
    pub(crate) fn new(what: impl Into<String>, samples: Vec<f64>) -> Self {
        let what = what.into();
        Self { what, samples }
    }
}

/// What one operation costs.
pub(crate) struct Cost {
    pub(crate) operation: String,
    pub(crate) statements: Option<f64>,
    /// The same as counted by PostgreSQL, if it does.
    pub(crate) calls: Option<f64>,
    pub(crate) round_trips: Option<f64>,
    pub(crate) transactions: Option<f64>,
    pub(crate) bytes: Option<f64>,
}

/// All figures of an engine.
pub(crate) struct Report {
    title: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) costs: Vec<Cost>,
    pub(crate) notes: Vec<String>,
}

impl Report {
    pub(crate) fn new(title: String) -> Self {
        Self {
            title,
            figures: Vec::new(),
            costs: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a figure.
    pub(crate) fn add(&mut self, name: &str, unit: Unit, samples: Vec<f64>, limit: Option<Limit>, goal: &str) {
        self.figures.push(Figure {
            name: name.to_owned(),
            unit,
            samples,
            limit,
            goal: goal.to_owned(),
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "### {}\n", self.title)?;
        if !self.figures.is_empty() {
            writeln!(formatter, "| figure | measured (min – max) | limit | ratio | goal |")?;
            writeln!(formatter, "|---|---|---|---|---|")?;
        }
        for figure in &self.figures {
            figure.fmt(formatter)?;
        }
        if !self.costs.is_empty() {
            writeln!(
                formatter,
                "\n| each | statements | round trips | transactions | bytes written |\n|---|---|---|---|---|"
            )?;
        }
        for cost in &self.costs {
            cost.fmt(formatter)?;
        }
        for note in &self.notes {
            writeln!(formatter, "\n{note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            unit,
            samples,
            limit,
            goal,
        } = self;
        let (measured, range) = (median(samples), spread(samples));
        let measured_text = match samples.len() {
            1 => unit.text(measured),
            _ => format!(
                "{} ({} – {})",
                unit.text(measured),
                unit.text(range[0]),
                unit.text(range[1])
            ),
        };
        let (limit, ratio) = match limit {
            Some(Limit { what, samples }) => {
                let limit = median(samples);
                (format!("{what}: {}", unit.text(limit)), unit.ratio(measured, limit))
            }
            None => ("–".to_owned(), "–".to_owned()),
        };
        let goal = if goal.is_empty() { "–" } else { goal };
        writeln!(formatter, "| {name} | {measured_text} | {limit} | {ratio} | {goal} |")
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.2}"));
        let calls = self.calls.map(|calls| format!(" ({calls:.2})")).unwrap_or_default();
        writeln!(
            formatter,
            "| {} | {}{calls} | {} | {} | {} |",
            self.operation,
            text(self.statements),
            text(self.round_trips),
            text(self.transactions),
            self.bytes.map_or_else(|| "–".to_owned(), grouped)
        )
    }
}

impl Unit {
    pub(crate) fn text(self, number: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", grouped(number)),
            Self::Milliseconds if number < 100.0 => format!("{number:.2} ms"),
            Self::Milliseconds => format!("{} ms", grouped(number)),
            Self::CpuSeconds => format!("{number:.3} s"),
            Self::Megabytes => format!("{number:.0} MB"),
            Self::Percent => format!("{number:.2} %"),
            Self::Rarely => format!("{number:.1}/s"),
        }
    }

    /// How a figure compares with its limit: a share of what is reached, or a multiple of what is spent.
    fn ratio(self, measured: f64, limit: f64) -> String {
        match self {
            Self::PerSecond => format!("{:.0} %", 100.0 * measured / limit),
            _ => format!("{:.1}×", measured / limit),
        }
    }
}

/// A whole number with thousands separators.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The median.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 50)
}

/// The value that this percentage of sorted samples does not exceed.
pub(crate) fn quantile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// The smallest and the largest.
fn spread(samples: &[f64]) -> [f64; 2] {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    [least, samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)]
}
