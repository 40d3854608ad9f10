//! The document, served as it is, and what all operations of the derived document have in common.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use utoipa::{
    OpenApi as _,
    openapi::{
        HeaderBuilder, ObjectBuilder, OpenApi, RefOr,
        path::Parameter,
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{ApiState, context, idempotency, meter, problem::ProblemBody, responses};
use crate::{
    contract::{OPENAPI_JSON, OPENAPI_YAML},
    domain::signing_vectors::{SIGNING_VECTORS, SigningVectors},
    pages::links,
};

#[utoipa::path(get, path = "/openapi.yaml", tag = "service", security(()), responses((status = 200, body = String, content_type = "application/yaml")))]
pub(super) async fn get_openapi_yaml(State(state): State<ApiState>) -> Response {
    // RFC 9512 registers the media type of YAML.
    served("application/yaml", OPENAPI_YAML, &state)
}

#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()), responses((status = 200, body = Object)))]
pub(super) async fn get_openapi_json(State(state): State<ApiState>) -> Response {
    served("application/json", OPENAPI_JSON, &state)
}

/// The document as it is; behind a prefix it names this server and its pages with it.
fn served(media_type: &'static str, document: &'static str, state: &ApiState) -> Response {
    let document = links::document_behind(state.prefix(), document);
    ([(CONTENT_TYPE, media_type)], document).into_response()
}

#[utoipa::path(get, path = "/signing-vectors.json", tag = "service", security(()), responses((status = 200, body = SigningVectors)))]
pub(super) async fn get_signing_vectors() -> Response {
    ([(CONTENT_TYPE, "application/json")], SIGNING_VECTORS).into_response()
}

/// What the derived document begins with.
pub(super) fn skeleton() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(components(schemas(ProblemBody)))]
    struct Skeleton;

    let mut document = Skeleton::openapi();
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("bearer", bearer);
    document
}

/// Adds to the derived document what `context` adds to responses: the request id to all of them, and limits to those that
/// concern an organization.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$"))
        .build();
    let header = HeaderBuilder::new().schema(Some(schema)).build();
    for (path, item) in &mut document.paths.paths {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            let is_key = |parameter: &RefOr<Parameter>| match parameter {
                RefOr::T(parameter) => parameter
                    .name
                    .eq_ignore_ascii_case(idempotency::IDEMPOTENCY_KEY.as_str()),
                RefOr::Ref(_) => false,
            };
            let takes_key = operation.parameters.iter().flatten().any(is_key);
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response {
                    if takes_key && status.starts_with('2') {
                        let schema = ObjectBuilder::new().schema_type(Type::String).build();
                        let header = HeaderBuilder::new().schema(Some(schema)).build();
                        response
                            .headers
                            .insert(responses::name(&idempotency::REPLAYED), header.into());
                    }
                    if path.starts_with("/v1") && status != "401" && !status.starts_with('5') {
                        response.headers.extend(limit_headers());
                    }
                    response
                        .headers
                        .insert(responses::name(&context::REQUEST_ID), header.clone().into());
                }
            }
        }
    }
    document
}

fn limit_headers() -> impl Iterator<Item = (String, RefOr<utoipa::openapi::Header>)> {
    [meter::RATE_LIMIT, meter::QUOTA]
        .into_iter()
        .flat_map(|[limit, remaining, reset]| {
            [
                (limit, Type::Integer),
                (remaining, Type::Integer),
                (reset, Type::String),
            ]
            .map(|(header, schema_type)| {
                let schema = ObjectBuilder::new().schema_type(schema_type).build();
                let header_object = HeaderBuilder::new().schema(Some(schema)).build();
                (responses::name(&header), header_object.into())
            })
        })
}
