//! An HTTP client that validates every response against openapi.yaml.

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

use super::validate;

static VALIDATOR: LazyLock<validate::ResponseValidator> = LazyLock::new(validate::ResponseValidator::new);

/// A request under construction.
pub(crate) struct Ask {
    method: Method,
    base: String,
    path: String,
    prefix: String,
    headers: Vec<(String, String)>,
    body: Bytes,
    is_http2: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct ApiResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Ask {
    pub(crate) fn new(method: &str, base: &str, path: &str) -> Self {
        let method = method.parse().unwrap();
        Self {
            method,
            base: base.to_owned(),
            path: path.to_owned(),
            prefix: String::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            is_http2: false,
        }
    }

    /// Asks a server that a proxy serves under this prefix, which is then the beginning of its `Location`.
    pub(crate) fn behind(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Speaks HTTP/2, as one that knows that the server does.
    pub(crate) fn http2(mut self) -> Self {
        self.is_http2 = true;
        self
    }

    /// Replaces the token.
    pub(crate) fn token(mut self, token: &str) -> Self {
        self.headers.retain(|(name, _)| name != "authorization");
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Takes the token away.
    pub(crate) fn anonymous(mut self) -> Self {
        self.headers.retain(|(name, _)| name != "authorization");
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.text(&body.to_string())
    }

    /// A JSON body, sent verbatim.
    pub(crate) fn text(self, body: &str) -> Self {
        self.header("content-type", "application/json").bytes(body)
    }

    /// A body without a media type.
    pub(crate) fn bytes(mut self, body: &str) -> Self {
        self.body = Bytes::copy_from_slice(body.as_bytes());
        self
    }

    /// Sends the request, and validates the response.
    pub(crate) async fn send(self) -> ApiResponse {
        self.try_send().await.expect("the server answers")
    }

    /// Sends the request, and validates the response if there is one.
    pub(crate) async fn try_send(self) -> Option<ApiResponse> {
        let Self {
            method,
            base,
            path,
            prefix,
            headers,
            body,
            is_http2,
        } = self;
        // A connection per request: a pool would be shared by tests whose runtimes end at different times.
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .http2_only(is_http2)
            .build_http();
        let mut request = Request::builder().method(method.clone()).uri(format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let head = client.request(request.body(Full::new(body)).unwrap()).await.ok()?;
        let (parts, body) = head.into_parts();
        let response = ApiResponse {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.ok()?.to_bytes(),
        };
        let mut checked = response.clone();
        if let Some(location) = response.header("location").filter(|_| !prefix.is_empty()) {
            let location = location.strip_prefix(&prefix).expect("it begins with the prefix");
            checked.headers.insert("location", location.parse().unwrap());
        }
        VALIDATOR.check(&method, &path, &checked);
        Some(response)
    }
}

impl ApiResponse {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("not JSON ({cause}): {:?}", self.body))
    }

    /// The body as JSON. Fails unless the status is this one.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The body. Fails unless it is a problem with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(&self, status: u16, code: &str) -> Value {
        let problem = self.expect(status);
        assert_eq!(problem["code"], code, "{problem}");
        problem
    }

    /// The pointers of a 422, in order.
    #[track_caller]
    pub(crate) fn expect_faults(&self) -> Vec<String> {
        let problem = self.expect_problem(422, "validation_error");
        let errors = problem["errors"].as_array().unwrap();
        errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}
