//! What a request means, judged by `validator`: rules that no schema can state, such as whether a URL may be delivered
//! to. The shape of a body is judged before, by its schema; a query has no compiled schema, so its rules are all here.

use serde_json::Value;
use validator::{ValidateArgs, ValidationError, ValidationErrors};

use super::{ApiState, extract::Faults};
use crate::domain::event_filter::UnknownEventType;

/// A request body whose meaning is judged with the server's state at hand.
pub(super) trait Meaning: for<'a> ValidateArgs<'a, Args = &'a ApiState> {}

impl<T: for<'a> ValidateArgs<'a, Args = &'a ApiState>> Meaning for T {}

/// The parameter of an error that lists where it is, if that is not simply its field: pairs of a pointer and a message.
const AT: &str = "at";

/// The error of a rule that a field breaks.
pub(super) fn broken(code: &'static str, detail: &impl ToString) -> ValidationError {
    ValidationError::new(code).with_message(detail.to_string().into())
}

/// The error of a rule that is broken at these pointers, with what is wrong at each.
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

/// Adds every fault of what `body` means: those of whole fields first, then those inside fields, each in a fixed order
/// (the errors are a hash map).
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
            // `validator` names a raw identifier as Rust writes it.
            let field = field.trim_start_matches("r#").to_owned();
            errors.iter().map(move |error| (field.clone(), error))
        })
        .collect();
    all.sort_by_key(|(field, error)| (error.params.contains_key(AT), field.clone()));
    all
}

/// The first rule that a query breaks, by the name of the parameter, and what the parameter must be.
pub(super) fn first_broken(errors: &ValidationErrors) -> Option<(String, String)> {
    let (parameter, error) = in_order(errors).into_iter().next()?;
    Some((parameter, detail(error)))
}

/// What a field must be, by the rule that it breaks.
fn detail(error: &ValidationError) -> String {
    let parameter = |name: &str| error.params.get(name).map(ToString::to_string);
    match (parameter("min"), parameter("max")) {
        (Some(min), Some(max)) => format!("must be from {min} to {max}"),
        (None, Some(max)) => format!("must be at most {max}"),
        (Some(min), None) => format!("must be at least {min}"),
        (None, None) => error.message.as_deref().unwrap_or("is not valid").to_owned(),
    }
}
