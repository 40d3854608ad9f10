//! What the derived document says about errors: which statuses an operation may return, depending on what it takes.

use std::collections::BTreeMap;

use axum::http::{HeaderName, header};
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, HeaderBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, ResponseBuilder, SchemaFormat,
        schema::Type,
    },
};

use super::problem::PROBLEM_JSON;

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

/// Declares groups of error statuses, each a type that `#[utoipa::path]` takes among its responses.
macro_rules! groups {
    ($($(#[$meta:meta])* $name:ident = [$($status:literal),+];)*) => {$(
        $(#[$meta])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> Responses {
                [$($status),+].into_iter().map(problem).collect()
            }
        }
    )*};
}

groups! {
    /// Of every operation with a token: no valid token, missing scope, too many requests, a fault of ours, unavailable.
    WithToken = [401, 403, 429, 500, 503];
    /// Of an operation with an id in its path: unknown, or malformed.
    WithId = [404, 422];
    /// Of an operation with a query: malformed, or it names something that cannot exist.
    WithQuery = [400, 422];
    /// Of an operation without a query, and without anything else that makes it a bad request: there is one all the same.
    WithNoQuery = [400];
    /// Of an operation with a body: not JSON, too large, another media type, invalid.
    WithBody = [400, 413, 415, 422];
    /// Of an operation that can conflict with the current state.
    WithConflict = [409];
    /// Of an operation that takes an idempotency key: malformed, or in use for another request or for one still running.
    WithIdempotencyKey = [400, 409];
    /// Of an operation that takes `If-Match`: the version is another one.
    WithPrecondition = [400, 412];
    /// Of an operation that only needs the database.
    Unavailable = [503];
}

/// A problem with this status, and the headers that come with it.
fn problem(status: u16) -> (String, RefOr<utoipa::openapi::Response>) {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let response = ResponseBuilder::new().content(PROBLEM_JSON, content);
    let text = ObjectBuilder::new().schema_type(Type::String);
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(0));
    let with = |response: ResponseBuilder, header: HeaderName, schema: ObjectBuilder| {
        response.header(name(&header), HeaderBuilder::new().schema(Some(schema)).build())
    };
    let response = match status {
        401 => with(response, header::WWW_AUTHENTICATE, text),
        409 | 429 | 503 => with(response, header::RETRY_AFTER, seconds),
        _ => response,
    };
    (status.to_string(), RefOr::T(response.build()))
}

/// A header's name as documents spell it: `Retry-After` for `retry-after`.
pub(super) fn name(header: &HeaderName) -> String {
    let capitalized = |word: &str| match (word, word.split_at_checked(1)) {
        ("www", _) => "WWW".to_owned(),
        ("ratelimit", _) => "RateLimit".to_owned(),
        (_, Some((first, rest))) => first.to_ascii_uppercase() + rest,
        _ => String::new(),
    };
    header
        .as_str()
        .split('-')
        .map(capitalized)
        .collect::<Vec<_>>()
        .join("-")
}
