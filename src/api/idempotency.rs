//! `Idempotency-Key`: a request that is sent twice is done once (after the IETF's draft-ietf-httpapi-idempotency-key-header).
//!
//! A response of 2xx is kept for a day and sent again to whoever sends the same request with the same key. What was refused
//! (4xx) has done nothing, so that its key is free again: a mended request may use it. What failed (5xx) may have done
//! something, so that its key stays with the same request, which may be sent again at once. A run that dies with its node
//! is taken over when its lease ends. Every run makes what it makes under ids that derive from the key's `seed`: the
//! second one finds the event or the webhook of the first.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
    response::Response,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{ApiState, limits::Meter, problem::Problem};
use crate::{
    domain::idempotency_key::IdempotencyKey,
    store::{
        StoreError,
        idempotency::{self, Begun, Request},
    },
};

/// The header that names a request.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header of a response that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The header, for the document.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "a schema")]
pub(super) struct IdempotencyKeyHeader {
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    idempotency_key: String,
}

/// A request with a body: its key, if it has one, and what makes it the same as another.
#[derive(Debug)]
pub(super) struct Submission {
    key: Option<IdempotencyKey>,
    fingerprint: [u8; 32],
}

/// A response as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// What is to be done for a submission.
#[derive(Debug)]
pub(super) enum Run {
    /// It has no key.
    Unnamed(Uuid),
    /// It is the first with its key, or the first of that request that comes to an end.
    First(idempotency::Run),
    /// It was done before.
    Replay(Response),
}

impl Submission {
    /// The key of a request.
    pub(super) fn key_of(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => return Ok(None),
            (Some(value), None) => value.to_str().ok().and_then(IdempotencyKey::parse),
            (Some(_), Some(_)) => None,
        };
        let malformed = || {
            Problem::bad_request(
                "The header Idempotency-Key must be sent once, with 1 to 255 printable ASCII characters.",
            )
        };
        key.map(Some).ok_or_else(malformed)
    }

    /// What makes a request the same: method, path, query and the bytes of the body.
    pub(super) fn new(key: Option<IdempotencyKey>, parts: &Parts, body: &[u8]) -> Self {
        let mut digest = Sha256::new();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        // None of the first three can hold a NUL.
        for part in [parts.method.as_str().as_bytes(), path.as_bytes(), query.as_bytes()] {
            digest.update(part);
            digest.update([0]);
        }
        digest.update(body);
        Self {
            key,
            fingerprint: digest.finalize().into(),
        }
    }

    /// Begins to do what is asked, unless that was done before.
    pub(super) async fn begin(self, state: &ApiState, organization_id: Uuid) -> Result<Run, Problem> {
        let Self { key, fingerprint } = self;
        let seed = state.clock.new_uuid();
        let Some(key) = key else {
            return Ok(Run::Unnamed(seed));
        };
        let request = Request {
            organization_id,
            key,
            fingerprint,
        };
        match idempotency::begin(&state.db, request, seed, state.lease, state.clock.now()).await? {
            Begun::Run(run) => Ok(Run::First(run)),
            Begun::Done(kept) => replay(&kept).map(Run::Replay),
            Begun::Running => Err(Problem::still_running()),
            Begun::Mismatch => Err(Problem::idempotency_mismatch()),
        }
    }
}

impl Run {
    /// What the id of the thing that is made derives from. Of a replay, which makes nothing, it is the nil UUID.
    pub(super) fn seed(&self) -> Uuid {
        match self {
            Self::Unnamed(seed) => *seed,
            Self::First(run) => run.seed,
            Self::Replay(_) => Uuid::nil(),
        }
    }

    /// Does `work` within the organization's quota, and keeps the response; or, where that was done before, answers with
    /// what was kept, and `work` is never begun.
    pub(super) async fn complete(
        self,
        state: &ApiState,
        meter: &Meter,
        work: impl Future<Output = Result<Response, Problem>> + Send,
    ) -> Result<Response, Problem> {
        match self {
            Self::Unnamed(_) => meter.write(state, work).await,
            Self::Replay(response) => Ok(response),
            Self::First(run) => {
                let (settled, answer) = match meter.write(state, work).await {
                    Ok(response) => {
                        let (kept, response) = keep(response).await?;
                        (idempotency::finish(&state.db, &run, &kept).await, Ok(response))
                    }
                    Err(problem) if problem.is_refusal() => (idempotency::release(&state.db, &run).await, Err(problem)),
                    Err(problem) => (idempotency::pause(&state.db, &run).await, Err(problem)),
                };
                // What is done is done. The next run, when the lease has ended, finds what this one has made.
                if let Err(error) = settled {
                    tracing::warn!(%error, "an idempotency key is held until its lease ends");
                }
                answer
            }
        }
    }
}

/// A response, and as it is kept.
async fn keep(response: Response) -> Result<(Vec<u8>, Response), Problem> {
    let (parts, body) = response.into_parts();
    let unreadable = |cause: String| Problem::from(StoreError::Corrupt(format!("a response of ours: {cause}")));
    let bytes = to_bytes(body, usize::MAX)
        .await
        .map_err(|cause| unreadable(cause.to_string()))?;
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let kept = Kept {
        status: parts.status.as_u16(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    let kept = serde_json::to_vec(&kept).map_err(|cause| unreadable(cause.to_string()))?;
    Ok((kept, Response::from_parts(parts, Body::from(bytes))))
}

/// The response that was kept, which says that it was given before.
fn replay(kept: &[u8]) -> Result<Response, Problem> {
    let unreadable = |cause: String| Problem::from(StoreError::Corrupt(format!("idempotency_keys.response: {cause}")));
    let Kept { status, headers, body } = serde_json::from_slice(kept).map_err(|cause| unreadable(cause.to_string()))?;
    let mut response = Response::builder().status(status).header(REPLAYED, "true");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response
        .body(Body::from(body))
        .map_err(|cause| unreadable(cause.to_string()))
}
