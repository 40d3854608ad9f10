//! A report in the XML of `JUnit`, which CI servers show.

use std::{fs, path::Path};

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::check::{Check, Verdict};

/// Writes the checks to a file. Fails where it cannot be written.
pub(super) fn write(path: &Path, url: &str, checks: &[Check]) -> Result<(), Box<dyn std::error::Error>> {
    let mut suite = TestSuite::new(url);
    suite.add_test_cases(checks.iter().map(case));
    let mut report = Report::new("kallima-webhooks conform");
    report.add_test_suite(suite);
    fs::write(path, report.to_string()?).map_err(|cause| format!("cannot write {}: {cause}", path.display()).into())
}

fn case(check: &Check) -> TestCase {
    let status = match &check.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
        Verdict::Failed(reason) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(match check.answer.as_str() {
                "" => reason.clone(),
                answer => format!("{reason} (the answer: {answer})"),
            });
            status
        }
    };
    let mut case = TestCase::new(check.name.as_str(), status);
    case.set_classname(check.group.to_string()).set_time(check.took);
    case
}
