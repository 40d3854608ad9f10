//! What the derived document says of errors: which statuses an operation may answer, by what it asks for.

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
    /// Of every operation with a token: no token, not enough of one, too often, a fault of ours, not now.
    WithToken = [401, 403, 429, 500, 503];
    /// Of an operation with an id in its path: none of that id, or not an id.
    WithId = [404, 422];
    /// Of an operation with a query.
    WithQuery = [400];
    /// Of an operation with a body: not JSON, too large, another media type, not valid.
    WithBody = [400, 413, 415, 422];
    /// Of an operation that the state of things can forbid.
    WithConflict = [409];
    /// Of an operation that takes an idempotency key: not one, or used for another request or one that still runs.
    WithIdempotencyKey = [400, 409];
    /// Of an operation that can be made to wait for a version: it is another one.
    WithPrecondition = [400, 412];
    /// Of an operation that needs the database and nothing else.
    NotNow = [503];
}

/// A problem of that status, with the headers that come with it.
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

/// A header's name the way documents write it: `retry-after` is `Retry-After`.
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
