//! `conform`: sends a receiver what it must accept and what it must refuse, and says whether it does.

use std::{path::PathBuf, time::Instant};

use clap::{Args, ValueEnum};

use super::{
    ReceiverOptions, SecretOption,
    check::{Check, Group, Rows, Verdict},
    conform_cases::{Case, Cases},
    described, example, junit, outcome,
};
use crate::{
    cli::{CommandResult, color},
    clock::Clock,
    contract::Contract,
    delivery::{HeaderSpelling, sender::Sender},
    domain::{
        outcome::{ErrorWord, Outcome},
        verification::Scheme,
    },
};

/// After so many checks in a row without an answer the others are not tried: the receiver is not there.
const UNANSWERED_MAX: usize = 3;

#[derive(Args, Debug)]
pub(in crate::cli) struct ConformOptions {
    #[command(flatten)]
    receiver: ReceiverOptions,

    #[command(flatten)]
    secret: SecretOption,

    /// Which signatures the receiver must check. Each delivery carries both, so one is enough.
    #[arg(long, value_enum, default_value_t = Schemes::Any)]
    scheme: Schemes,

    /// The event type that is sent.
    #[arg(long, default_value = "humanization.completed")]
    event_type: String,

    /// Also write the report to this file, as `JUnit` XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// Which signatures a receiver must check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Schemes {
    /// At least one of them.
    Any,
    /// `Kallima-Signature`.
    Kallima,
    /// `webhook-signature`.
    Standard,
    /// Each of them.
    Both,
}

impl Schemes {
    fn demands(self, scheme: Scheme) -> bool {
        match self {
            Self::Any => false,
            Self::Kallima => scheme == Scheme::Kallima,
            Self::Standard => scheme == Scheme::StandardWebhooks,
            Self::Both => true,
        }
    }
}

/// Makes every check, and fails where one did.
pub(in crate::cli) async fn run(options: ConformOptions, clock: &Clock) -> CommandResult {
    let contract = Contract::load()?;
    let cases = Cases {
        secret: &options.secret.secret,
        event_type: &options.event_type,
        data: example::data(&contract, &options.event_type)?,
        contract: &contract,
        clock,
    };
    let mut examination = Examination::new(&options, cases.name_width())?;
    println!("Checking {}\n", options.receiver.url);
    examination.rows.print_head();
    examination.check(&cases.delivered()).await?;
    let checked = examination.schemes(&cases).await?;
    let refused = checked.into_iter().flat_map(|scheme| cases.refused(scheme));
    let rest = cases.accepted().into_iter().chain(refused);
    for case in rest.chain(cases.refused_always()) {
        examination.check(&case).await?;
    }
    if let Some(path) = &options.junit {
        junit::write(path, options.receiver.url.as_str(), &examination.checks)?;
    }
    examination.conclude()
}

/// The checks of one receiver, as far as they were made.
struct Examination<'a> {
    options: &'a ConformOptions,
    lower_case: Sender,
    title_case: Sender,
    rows: Rows,
    checks: Vec<Check>,
    /// Checks in a row that had no answer.
    unanswered: usize,
}

impl<'a> Examination<'a> {
    fn new(options: &'a ConformOptions, name_width: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let lower_case = options.receiver.sender()?;
        Ok(Self {
            options,
            title_case: lower_case.spelling(HeaderSpelling::TitleCase),
            lower_case,
            rows: Rows { name_width },
            checks: Vec::new(),
            unanswered: 0,
        })
    }

    /// Finds out which signatures the receiver checks, and whether they are those that it must check.
    async fn schemes(&mut self, cases: &Cases<'_>) -> Result<Vec<Scheme>, Box<dyn std::error::Error>> {
        let mut made = Vec::new();
        for scheme in Scheme::ALL {
            made.push((scheme, self.make(&cases.signed_by(scheme)).await?));
        }
        let is_accepted = |check: &Check| check.verdict == Verdict::Passed;
        let is_any = made.iter().any(|(_, check)| is_accepted(check));
        let mut checked = Vec::new();
        for (scheme, mut check) in made {
            if is_accepted(&check) {
                checked.push(scheme);
            } else if is_any && !self.options.scheme.demands(scheme) && check.answer.starts_with('4') {
                check.verdict = Verdict::Skipped("it checks the other signature, and one is enough".to_owned());
            }
            self.add(check);
        }
        if checked.is_empty() {
            checked.extend(Scheme::ALL);
        }
        Ok(checked)
    }

    /// Makes a check and prints it.
    async fn check(&mut self, case: &Case<'_>) -> CommandResult {
        let check = self.make(case).await?;
        self.add(check);
        Ok(())
    }

    fn add(&mut self, check: Check) {
        self.rows.print(&check);
        self.checks.push(check);
    }

    /// Sends what a case has, up to the first answer that is wrong.
    async fn make(&mut self, case: &Case<'_>) -> Result<Check, Box<dyn std::error::Error>> {
        let began = Instant::now();
        let (mut verdict, mut answer) = (Verdict::Passed, String::new());
        if self.unanswered >= UNANSWERED_MAX {
            verdict = Verdict::Failed(format!("not tried, since {UNANSWERED_MAX} in a row had no answer"));
        }
        for parcel in case.parcels()? {
            if verdict != Verdict::Passed {
                break;
            }
            let sender = match parcel.spelling {
                HeaderSpelling::LowerCase => &self.lower_case,
                HeaderSpelling::TitleCase => &self.title_case,
            };
            let exchange = sender.post(&self.options.receiver.url, &parcel.headers, parcel.body);
            let outcome = outcome(exchange.await)?;
            self.unanswered = if outcome.response_status.is_some() {
                0
            } else {
                self.unanswered + 1
            };
            verdict = check(case.group, &outcome);
            answer = described(&outcome);
        }
        Ok(Check {
            group: case.group,
            name: case.name.clone(),
            verdict,
            answer,
            took: began.elapsed(),
        })
    }

    /// Prints how many checks failed; an error where any did.
    fn conclude(&self) -> CommandResult {
        let count = |is_counted: fn(&Verdict) -> bool| {
            let counted = self.checks.iter().filter(|check| is_counted(&check.verdict));
            counted.count()
        };
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let passed = count(|verdict| *verdict == Verdict::Passed);
        if failed > 0 {
            return Err(format!("{failed} of {} checks failed", self.checks.len()).into());
        }
        anstream::println!("\n{}", color::good(format!("All {passed} checks passed.")));
        Ok(())
    }
}

/// Whether an answer is what it must be.
fn check(group: Group, outcome: &Outcome) -> Verdict {
    let failed = |must: &str| Verdict::Failed(must.to_owned());
    if outcome.error == Some(ErrorWord::Timeout) {
        return failed("it must answer within 15 seconds, or the service tries again");
    }
    let Some(status) = outcome.response_status else {
        return failed("it must answer");
    };
    match (group, status) {
        (Group::Accepts, 200..=299) if outcome.error.is_none() => Verdict::Passed,
        (Group::Accepts, 200..=299) => failed("its answer must be whole"),
        (Group::Accepts, _) => failed("it must answer 2xx, or the service tries again"),
        (Group::Refuses, 410) => failed("410 makes the service disable the webhook: answer 400 or 401"),
        (Group::Refuses, 400..=499) => Verdict::Passed,
        (Group::Refuses, 200..=299) => failed("it must refuse this: anybody could have sent it"),
        (Group::Refuses, _) => failed("it must refuse this with 4xx: it is the sender's fault, and must be caught"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked_by_what_the_service_would_make_of_them() {
        let answered = |status| Outcome {
            response_status: Some(status),
            ..Outcome::default()
        };
        let is_passed = |group, status| check(group, &answered(status)) == Verdict::Passed;
        for (status, accepts, refuses) in [
            (200, true, false),
            (204, true, false),
            (301, false, false),
            (400, false, true),
            (401, false, true),
            (403, false, true),
            (410, false, false),
            (500, false, false),
            (503, false, false),
        ] {
            assert_eq!(is_passed(Group::Accepts, status), accepts, "{status}");
            assert_eq!(is_passed(Group::Refuses, status), refuses, "{status}");
        }
        let silent = Outcome {
            error: Some(ErrorWord::Timeout),
            ..Outcome::default()
        };
        for group in [Group::Accepts, Group::Refuses] {
            assert!(matches!(check(group, &silent), Verdict::Failed(must) if must.contains("15 seconds")));
            assert!(matches!(check(group, &Outcome::default()), Verdict::Failed(_)));
        }
        let broken = Outcome {
            error: Some(ErrorWord::ConnectionClosed),
            ..answered(200)
        };
        assert!(matches!(check(Group::Accepts, &broken), Verdict::Failed(must) if must.contains("whole")));
    }
}
