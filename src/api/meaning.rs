//! What a request means, checked by `validator`: rules that no schema can state, such as whether deliveries may go to a
//! URL. The shape of a body or a query is checked first, by its schema.

use serde::Deserialize as _;
use serde_json::Value;
use validator::{ValidateArgs, ValidationError, ValidationErrors};

use super::ApiState;
use crate::{
    contract::Faults,
    domain::{event_filter::UnknownEventType, fault_code::FaultCode, timestamp::Timestamp},
};

/// A part of a request whose meaning is checked against the server's state.
pub(super) trait Meaning: for<'a> ValidateArgs<'a, Args = &'a ApiState> {}

impl<T: for<'a> ValidateArgs<'a, Args = &'a ApiState>> Meaning for T {}

/// The parameter of an error that holds its code.
const CODE: &str = "code";

/// The parameter of an error that lists its locations if they are not simply the field: pairs of pointer and message.
const AT: &str = "at";

/// The error for a rule that a field breaks.
pub(super) fn broken(code: FaultCode, detail: &impl ToString) -> ValidationError {
    let mut error = ValidationError::new("fault").with_message(detail.to_string().into());
    error.add_param(CODE.into(), &code);
    error
}

/// The error for a rule that is broken at these pointers, with the message for each.
pub(super) fn broken_at(code: FaultCode, at: &[(String, String)]) -> ValidationError {
    let mut error = broken(code, &"");
    error.add_param(AT.into(), &at);
    error
}

/// Refuses an event type that is not in the catalog.
pub(super) fn known_event_type(event_type: &str, state: &ApiState) -> Result<(), ValidationError> {
    UnknownEventType::check(event_type, state.contract.event_type_names())
        .map_err(|unknown| broken(FaultCode::UnknownEventType, &unknown))
}

/// Refuses a period that is empty or ends before it starts. `at` is the pointer to its start.
pub(super) fn period(at: &str, start: Timestamp, end: Timestamp) -> Result<(), ValidationError> {
    if start < end {
        return Ok(());
    }
    let detail = format!("must be earlier than {end}, the end of the period");
    Err(broken_at(FaultCode::Range, &[(at.to_owned(), detail)]))
}

/// Adds every fault in the meaning of a part of a request: those of whole fields first, then those inside fields, each in a
/// fixed order (`validator` keeps its errors in a hash map). `at` precedes the name of a field in a pointer.
pub(super) fn check(part: &impl Meaning, at: &str, state: &ApiState, faults: &mut Faults) {
    let Err(errors) = part.validate_with_args(state) else {
        return;
    };
    for (field, error) in in_order(&errors) {
        let code = error.params.get(CODE).map(FaultCode::deserialize);
        let Some(Ok(code)) = code else {
            tracing::error!(kallima.field = field, "a rule has no code");
            continue;
        };
        match error.params.get(AT) {
            Some(at) => {
                for pair in at.as_array().into_iter().flatten() {
                    let text = |index: usize| pair.get(index).and_then(Value::as_str).unwrap_or_default().to_owned();
                    faults.add_with(text(0), || (code, text(1)));
                }
            }
            None => faults.add_with(format!("{at}/{field}"), || {
                (code, error.message.as_deref().unwrap_or_default().to_owned())
            }),
        }
    }
}

fn in_order(errors: &ValidationErrors) -> Vec<(String, &ValidationError)> {
    let by_field = errors.field_errors().into_iter();
    let mut all: Vec<_> = by_field
        .flat_map(|(field, errors)| {
            // `validator` names a raw identifier the way Rust spells it.
            let field = field.trim_start_matches("r#").to_owned();
            errors.iter().map(move |error| (field.clone(), error))
        })
        .collect();
    all.sort_by_key(|(field, error)| (error.params.contains_key(AT), field.clone()));
    all
}
