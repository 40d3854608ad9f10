//! Who is signed in, and the requests to the operations that a page or a form makes for them.

use axum::{
    Extension, Router,
    body::{Body, Bytes, to_bytes},
    extract::{FromRequestParts, Path, rejection::ExtensionRejection},
    http::{
        Extensions, HeaderMap, HeaderValue, Method, Request,
        header::{CONTENT_TYPE, LINK},
        request::Parts,
    },
    response::{Html, IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_service::Service as _;

use super::cookies::{Cookie, form_token};
use crate::{
    api::{
        ApiState, auth::PassHolder, context::Client, idempotency::IDEMPOTENCY_KEY, limits::RequestPermit, meter::Meter,
        problem::Problem, public_address::PublicAddress,
    },
    domain::{
        id::OrganizationId,
        pass::{Action, Pass, PassKind},
        token::Scope,
    },
    pages::{
        dashboard::{Visitor, sign_in},
        links::WebPage,
    },
    store::{StoreError, secrets::passes, tokens},
    telemetry::spans::RequestSpan,
};

/// The operations of the API.
#[derive(Clone)]
pub(super) struct Operations(pub(super) Router);

/// A request of somebody who is signed in. The pass of the session is opened, and its token looked up, for each.
pub(super) struct Visit {
    pub(super) organization_id: OrganizationId,
    /// What pages show of the session.
    pub(super) visitor: Visitor,
    pass: Pass,
    operations: Operations,
    /// What the request brings along: its permit, its meter, where it came from.
    extensions: Extensions,
}

impl FromRequestParts<ApiState> for Visit {
    /// A problem, or a page for whoever comes from another site.
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Response> {
        let Ok(address) = PublicAddress::from_request_parts(parts, state).await;
        let Some(cookie) = Cookie::Session.of(&parts.headers, &address) else {
            if parts.method == Method::GET && is_from_elsewhere(&parts.headers) {
                let path = parts.uri.path_and_query().map_or("/dashboard", |path| path.as_str());
                return Err(shown(state, sign_in::arrival(path)).into_response());
            }
            return Err(Problem::unauthorized().into_response());
        };
        let form_token = form_token(cookie);
        let pass = passes::open(&state.db, PassKind::Session, cookie, state.clock.now());
        let visit = Self::of(parts, state, pass, form_token).await;
        visit.map_err(Problem::into_response)
    }
}

/// Whether a link on another site has led here. A browser withholds cookies that are `SameSite=Strict` then.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    matches!(site, Some(b"cross-site" | b"same-site"))
}

impl Visit {
    async fn of(parts: &mut Parts, state: &ApiState, pass: Option<Pass>, form_token: String) -> Result<Self, Problem> {
        let now = state.clock.now();
        let pass = pass.ok_or_else(Problem::unauthorized)?;
        let holder = tokens::find_holder(&state.db, pass.token_digest, now).await?;
        let holder = holder.ok_or_else(Problem::unauthorized)?;
        let organization_id = holder.organization_id.ok_or_else(Problem::unauthorized)?;
        let extensions = carried(&parts.extensions);
        if let Some(permit) = extensions.get::<RequestPermit>() {
            permit.exchange_for(&state.requests, Some(organization_id))?;
        }
        let operations = Extension::<Operations>::from_request_parts(parts, state).await;
        let Extension(operations) = operations.map_err(|_: ExtensionRejection| Problem::internal_error())?;
        let visitor = Visitor {
            form_token,
            key: format!("dashboard-{}", state.clock.new_uuid()),
            access: pass.access,
            may_write: holder.scopes.contains(Scope::WebhooksWrite),
            expires_at: pass.expires_at,
        };
        Ok(Self {
            organization_id,
            visitor,
            pass,
            operations,
            extensions,
        })
    }

    /// What an operation answers to a `GET`.
    pub(super) async fn get(&self, path_and_query: &str) -> Result<Bytes, Problem> {
        let (body, _) = self.call(Action::Show, Method::GET, path_and_query, None, None).await?;
        Ok(body)
    }

    /// A page of a list, and where the next one begins, if there is one.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path_and_query: &str,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let (body, headers) = self.call(Action::Show, Method::GET, path_and_query, None, None).await?;
        Ok((read(&body)?, after(&headers)))
    }

    /// Does something, once per key.
    pub(super) async fn send(
        &self,
        action: Action,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
        key: &str,
    ) -> Result<Bytes, Problem> {
        let (body, _) = self.call(action, method, path_and_query, body, Some(key)).await?;
        Ok(body)
    }

    async fn call(
        &self,
        action: Action,
        method: Method,
        path_and_query: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> Result<(Bytes, HeaderMap), Problem> {
        let mut request = Request::builder().method(method).uri(path_and_query);
        if let Some(key) = key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = request.body(body);
        let mut request =
            request.map_err(|_| Problem::bad_request("The request is too long, or holds what no header can."))?;
        *request.extensions_mut() = self.extensions.clone();
        request.extensions_mut().insert(PassHolder {
            token_digest: self.pass.token_digest,
            scopes: self.pass.access.scopes(action),
        });
        let Ok(mut response) = self.operations.clone().0.call(request).await;
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            return Err(problem);
        }
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await;
        let body = body.map_err(|cause| StoreError::Corrupt(format!("the answer of an operation: {cause}")))?;
        Ok((body, parts.headers))
    }
}

/// A page as this server shows it.
pub(super) fn shown(state: &ApiState, page: WebPage) -> Html<String> {
    Html(page.behind(state.prefix()))
}

/// Reads what an operation answered.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|cause| Problem::from(StoreError::from(cause)))
}

/// The cursor in the `Link` of a page.
fn after(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (_, query) = link.split_once('>')?.0.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(name, _)| name == "after")
        .map(|(_, after)| after.into_owned())
}

/// The extensions of a browser's request that are those of its requests to the operations as well.
fn carried(of: &Extensions) -> Extensions {
    fn carry<T: Clone + Send + Sync + 'static>(of: &Extensions, carried: &mut Extensions) {
        if let Some(extension) = of.get::<T>() {
            carried.insert(extension.clone());
        }
    }
    let mut carried = Extensions::new();
    carry::<Client>(of, &mut carried);
    carry::<Meter>(of, &mut carried);
    carry::<RequestPermit>(of, &mut carried);
    carry::<RequestSpan>(of, &mut carried);
    carried
}

/// The id in a path. What is no id is the id of nothing.
pub(super) struct Id<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Problem::no_such_page())
    }
}
