//! What a check of both signatures found.

use serde_json::{Value, json};

use crate::{
    cli::color,
    domain::{
        secret::Secret,
        verification::{self, Refusal, Scheme, SignedHeaders},
    },
};

/// What was found by one scheme.
#[derive(Debug)]
pub(in crate::cli) struct Finding {
    pub(in crate::cli) scheme: Scheme,
    pub(in crate::cli) verdict: Result<(), Refusal>,
    /// The header with the signature, if it was there.
    received: Option<String>,
    /// The mistake that would explain a mismatch.
    hint: Option<&'static str>,
}

/// Checks both signatures as a receiver with this clock should.
pub(in crate::cli) fn findings(
    secret: &Secret,
    headers: &SignedHeaders,
    body: &[u8],
    now_s: i64,
    tolerance_s: u64,
) -> [Finding; 2] {
    Scheme::ALL.map(|scheme| {
        let received = match scheme {
            Scheme::Kallima => &headers.kallima_signature,
            Scheme::StandardWebhooks => &headers.webhook_signature,
        };
        let verdict = verification::verify(scheme, secret, headers, body, now_s, tolerance_s);
        let is_mismatch = matches!(verdict, Err(Refusal::Mismatch { .. }));
        let hint = || verification::likely_cause(scheme, secret, headers, body);
        Finding {
            scheme,
            hint: is_mismatch.then(hint).flatten(),
            received: received.clone(),
            verdict,
        }
    })
}

/// Whether the request is from the service: a signature verifies, and none that is there is wrong.
pub(in crate::cli) fn is_genuine(findings: &[Finding]) -> bool {
    let is_wrong = |finding: &Finding| finding.received.is_some() && finding.verdict.is_err();
    findings.iter().any(|finding| finding.verdict.is_ok()) && !findings.iter().any(is_wrong)
}

impl Finding {
    /// What was found, in lines, the first one in color.
    pub(in crate::cli) fn lines(&self) -> Vec<String> {
        let name = format!("{:<18}", self.scheme.to_string());
        let refusal = match &self.verdict {
            Ok(()) => return vec![format!("{}  {name} verifies", color::good("ok    "))],
            Err(refusal) if self.received.is_none() => return vec![format!("-       {name} {refusal}")],
            Err(refusal) => refusal,
        };
        let mut lines = vec![format!("{}  {name} {refusal}", color::bad("FAILED"))];
        if let Refusal::Mismatch { expected } = refusal {
            let received = self.received.as_deref().unwrap_or_default();
            lines.push(format!("        expected           {expected}"));
            lines.push(format!("        received           {received}"));
        }
        lines.extend(self.hint.map(|hint| format!("        hint               {hint}")));
        lines
    }

    /// What was found, for programs.
    pub(in crate::cli) fn as_json(&self) -> Value {
        let refusal = self.verdict.as_ref().err();
        let expected = match refusal {
            Some(Refusal::Mismatch { expected }) => Some(expected),
            _ => None,
        };
        json!({
            "scheme": self.scheme.to_string(),
            "verified": refusal.is_none(),
            "reason": refusal.map(Refusal::reason),
            "detail": refusal.map(ToString::to_string),
            "expected": expected,
            "received": self.received,
            "hint": self.hint,
        })
    }
}
