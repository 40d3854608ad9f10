//! What a request means, checked by `validator`: rules that no schema can state, such as whether deliveries may go to a
//! URL. The shape of a body is checked before, by its schema; a query has no compiled schema, so all its rules are here.

use serde_json::Value;
use validator::{ValidateArgs, ValidationError, ValidationErrors};

use super::{ApiState, extract::Faults};
use crate::domain::event_filter::UnknownEventType;

/// A request body whose meaning is checked against the server's state.
pub(super) trait Meaning: for<'a> ValidateArgs<'a, Args = &'a ApiState> {}

impl<T: for<'a> ValidateArgs<'a, Args = &'a ApiState>> Meaning for T {}

/// The parameter of an error that lists its locations if they are not simply the field: pairs of pointer and message.
const AT: &str = "at";

/// The error for a rule that a field breaks.
pub(super) fn broken(code: &'static str, detail: &impl ToString) -> ValidationError {
    ValidationError::new(code).with_message(detail.to_string().into())
}

/// The error for a rule that is broken at these pointers, with the message for each.
pub(super) fn broken_at(code: &'static str, at: &[(String, String)]) -> ValidationError {
    let mut error = ValidationError::new(code);
    error.add_param(AT.into(), &at);
    error
}

/// Refuses an event type that is not in the catalog.
pub(super) fn known_event_type(event_type: &str, state: &ApiState) -> Result<(), ValidationError> {
    UnknownEventType::check(event_type, state.contract.event_type_names())
        .map_err(|unknown| broken("unknown_event_type", &unknown))
}

/// Adds every fault in the meaning of `body`: those of whole fields first, then those inside fields, each in a fixed order
/// (`validator` keeps its errors in a hash map).
pub(super) fn judge(body: &impl Meaning, state: &ApiState, faults: &mut Faults) {
    let Err(errors) = body.validate_with_args(state) else {
        return;
    };
    for (field, error) in in_order(&errors) {
        match error.params.get(AT) {
            Some(at) => {
                for pair in at.as_array().into_iter().flatten() {
                    let text = |index: usize| pair.get(index).and_then(Value::as_str).unwrap_or_default().to_owned();
                    faults.add_with(text(0), || (error.code.clone(), text(1)));
                }
            }
            None => faults.add_with(format!("/{field}"), || (error.code.clone(), detail(error))),
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

/// The first parameter of a query that breaks a rule, and what it must be.
pub(super) fn first_broken(errors: &ValidationErrors) -> Option<(String, String)> {
    let (parameter, error) = in_order(errors).into_iter().next()?;
    Some((parameter, detail(error)))
}

/// What a field must be, according to the rule that it breaks.
fn detail(error: &ValidationError) -> String {
    let parameter = |name: &str| error.params.get(name).map(ToString::to_string);
    match (parameter("min"), parameter("max")) {
        (Some(min), Some(max)) => format!("must be from {min} to {max}"),
        (None, Some(max)) => format!("must be at most {max}"),
        (Some(min), None) => format!("must be at least {min}"),
        (None, None) => error.message.as_deref().unwrap_or("is not valid").to_owned(),
    }
}
