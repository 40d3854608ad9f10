//! The document, served as it is, and Swagger UI, which shows it; and what the derived document has in common for
//! every operation.

use axum::{
    Json,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use utoipa::{
    OpenApi as _,
    openapi::{
        HeaderBuilder, ObjectBuilder, OpenApi, RefOr,
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{ApiState, context, problem::ProblemBody, responses};
use crate::contract::OPENAPI_YAML;

#[utoipa::path(get, path = "/openapi.yaml", tag = "service", security(()), responses((status = 200, body = String, content_type = "application/yaml")))]
pub(super) async fn get_openapi_yaml() -> Response {
    // The media type of YAML is registered by RFC 9512.
    ([(CONTENT_TYPE, "application/yaml")], OPENAPI_YAML).into_response()
}

#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()), responses((status = 200, body = Object)))]
pub(super) async fn get_openapi_json(State(state): State<ApiState>) -> Json<Value> {
    Json(state.contract.document().clone())
}

/// Swagger UI at `/docs`, showing the served document; a token that was entered once is kept by the browser.
pub(super) fn swagger_ui() -> SwaggerUi {
    let config = Config::from("/openapi.json")
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .deep_linking(true);
    SwaggerUi::new("/docs").config(config)
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

/// Adds to the derived document what `context` adds to every response.
pub(super) fn finish(mut document: OpenApi) -> OpenApi {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^req_[0-7][0-9A-HJKMNP-TV-Z]{25}$"))
        .build();
    let header = HeaderBuilder::new().schema(Some(schema)).build();
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    response
                        .headers
                        .insert(responses::name(&context::REQUEST_ID), header.clone().into());
                }
            }
        }
    }
    document
}
