//! The faults of a request, collected within limits.

use std::{borrow::Cow, collections::HashSet};

use crate::domain::fault_code::FaultCode;

/// How many faults of a request are listed; further ones are counted.
pub const FAULTS_MAX: usize = 100;

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: a JSON Pointer (RFC 6901) into the body, or `path/` or `query/` and a parameter's name.
    pub pointer: String,
    /// What kind of fault.
    pub code: FaultCode,
    /// What is wrong, for people.
    pub detail: Cow<'static, str>,
}

/// The faults found so far, one per pointer: the first check that rejects a value has the clearest message.
///
/// Adding one takes the same time however many there are, and past [`FAULTS_MAX`] it costs no more than its pointer.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<Fault>,
    pointers: HashSet<String>,
    more: usize,
}

impl Faults {
    /// Adds a fault, unless its pointer has one already.
    pub fn add(&mut self, pointer: &str, code: FaultCode, detail: &impl ToString) {
        self.add_with(pointer.to_owned(), || (code, detail.to_string()));
    }

    /// Adds a fault, unless its pointer has one already. Its code and detail are only computed if it is listed.
    pub fn add_with<D: Into<Cow<'static, str>>>(&mut self, pointer: String, describe: impl FnOnce() -> (FaultCode, D)) {
        if self.pointers.contains(&pointer) {
            return;
        }
        if self.is_full() {
            self.pointers.insert(pointer);
            self.more += 1;
            return;
        }
        self.pointers.insert(pointer.clone());
        let (code, detail) = describe();
        self.listed.push(Fault {
            pointer,
            code,
            detail: detail.into(),
        });
    }

    /// Counts faults that are known to have pointers of their own and that need not be listed.
    pub fn count(&mut self, more: usize) {
        self.more = self.more.saturating_add(more);
    }

    /// Adds the faults that another check has found.
    pub fn extend(&mut self, found: Self) {
        let (listed, more) = found.into_parts();
        for Fault { pointer, code, detail } in listed {
            self.add_with(pointer, || (code, detail));
        }
        self.count(more);
    }

    /// Whether further faults are only counted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.listed.len() >= FAULTS_MAX
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.more == 0
    }

    /// The first of them, at most [`FAULTS_MAX`].
    #[must_use]
    pub fn listed(&self) -> &[Fault] {
        &self.listed
    }

    /// The first of them, and how many more there are.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Fault>, usize) {
        (self.listed, self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_has_one_fault() {
        let mut faults = Faults::default();
        for round in 0..3 {
            for field in 0..150 {
                faults.add_with(format!("/{field}"), || (FaultCode::Type, format!("round {round}")));
            }
        }
        let (listed, more) = faults.into_parts();
        assert_eq!((listed.len(), more), (FAULTS_MAX, 50));
        assert!(listed.iter().all(|fault| fault.detail == "round 0"));
    }
}
