//! What is wrong with one part of a request, in one word for programs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The whole catalog of fault codes, as `errors[].code` shows them; openapi.yaml says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// Another JSON type, or another kind of parameter.
    Type,
    /// Not written as the format asks.
    Format,
    /// Not written as the pattern asks.
    Pattern,
    /// Not one of the words.
    Enum,
    /// Too few characters.
    MinLength,
    /// Too many characters.
    MaxLength,
    /// Too many entries.
    MaxItems,
    /// Too small a number.
    Minimum,
    /// Too large a number.
    Maximum,
    /// Absent.
    Required,
    /// A member that the body does not have.
    UnknownField,
    /// A member that only the service writes.
    ReadOnly,
    /// A member that appears more than once.
    DuplicateField,
    /// A parameter that the operation does not have.
    UnknownParameter,
    /// A parameter that appears more than once.
    DuplicateParameter,
    /// No event type of the catalog.
    UnknownEventType,
    /// An event type that only the service publishes.
    ReservedEventType,
    /// A span that ends before it begins.
    Range,
    /// Not an organization that the token may name.
    Organization,
    /// A URL that is too long in its ASCII form.
    TooLong,
    /// No URL.
    InvalidUrl,
    /// A URL that does not use `https`.
    HttpsRequired,
    /// A URL with a user name or password.
    UserInfo,
    /// A URL with a fragment.
    Fragment,
    /// A URL with a port that the service does not deliver to.
    PortRefused,
    /// A URL with a host that the service does not deliver to.
    AddressRefused,
}
