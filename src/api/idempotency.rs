//! `Idempotency-Key`: a request that is sent twice is done once (after the IETF's draft-ietf-httpapi-idempotency-key-header).
//!
//! A 2xx response is kept for a day and sent again to a client that repeats the request with the same key. A refused
//! request (4xx) has done nothing, so its key is free again: a corrected request may use it.
//!
//! A write of one transaction keeps its response in that transaction ([`Submission::once`]): both are committed, or
//! neither. A write that needs an attempt or several transactions holds its key by a lease ([`Submission::once_leased`]).
//! If it fails (5xx), it may have done something already, so the key stays bound to the same request, which may be repeated
//! at once. If the node dies, another run takes the key over when the lease ends, which outlasts the longest request. Ids
//! derive from the key's `seed`, so the second run finds what the first one created.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts},
    response::Response,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::IntoParams;
use uuid::Uuid;

use super::{ApiState, meter::Meter, problem::Problem};
use crate::{
    domain::{id::OrganizationId, idempotency_key::IdempotencyKey},
    store::{
        StoreError,
        idempotency::{self, Begun},
        once::{Keyed, Once, Request},
    },
};

/// The header in which a client names a request.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that marks a response as a replay.
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

/// The idempotency key of a request, if it has one, with the digest that tells whether two requests are the same.
#[derive(Debug)]
pub(super) struct Submission(Option<(IdempotencyKey, [u8; 32])>);

/// A response that can be stored with an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Kept {
    /// A response with a JSON body.
    pub(super) fn json(
        status: StatusCode,
        headers: &[(HeaderName, String)],
        body: &impl Serialize,
    ) -> Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(StoreError::from)?;
        Ok(Self::of(status, headers, body))
    }

    /// A response whose body is JSON that has been serialized already.
    pub(super) fn written(status: StatusCode, headers: &[(HeaderName, String)], json: &Bytes) -> Result<Self, Problem> {
        let body = str::from_utf8(json).map_err(|cause| unreadable(&cause))?;
        Ok(Self::of(status, headers, body.to_owned()))
    }

    fn of(status: StatusCode, headers: &[(HeaderName, String)], body: String) -> Self {
        let json = (CONTENT_TYPE.to_string(), "application/json".to_owned());
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.clone()));
        Self {
            status: status.as_u16(),
            headers: headers.chain([json]).collect(),
            body,
        }
    }

    fn into_response(self, is_replayed: bool) -> Result<Response, Problem> {
        let Self { status, headers, body } = self;
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        if is_replayed {
            response = response.header(REPLAYED, "true");
        }
        response.body(Body::from(body)).map_err(|cause| unreadable(&cause))
    }
}

fn unreadable(cause: &impl ToString) -> Problem {
    Problem::from(StoreError::Corrupt(format!(
        "idempotency_keys.response: {}",
        cause.to_string()
    )))
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

    /// Two requests are the same if method, path, query and the bytes of the body are.
    pub(super) fn new(key: Option<IdempotencyKey>, parts: &Parts, body: &[u8]) -> Self {
        let fingerprint = || {
            let mut digest = Sha256::new();
            let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
            // None of the first three can hold a NUL.
            for part in [parts.method.as_str().as_bytes(), path.as_bytes(), query.as_bytes()] {
                digest.update(part);
                digest.update([0]);
            }
            digest.update(body);
            digest.finalize().into()
        };
        Self(key.map(|key| (key, fingerprint())))
    }

    /// Runs a write of one transaction once, within the organization's quota. `write` performs it, and stores the response
    /// in its transaction if it is given a key. `respond` turns the result into the response.
    pub(super) async fn once<T, R, W, F>(
        self,
        state: &ApiState,
        meter: &Meter,
        organization_id: OrganizationId,
        respond: R,
        write: W,
    ) -> Result<Response, Problem>
    where
        T: Send + 'static,
        R: Fn(&T) -> Result<Kept, Problem> + Send + Sync + 'static,
        W: FnOnce(Option<Keyed<T>>) -> F + Send,
        F: Future<Output = Result<Once<T>, StoreError>> + Send,
    {
        let respond = Arc::new(respond);
        let key = self.0.map(|(key, fingerprint)| {
            let respond = Arc::clone(&respond);
            Keyed {
                request: Request {
                    organization_id,
                    key,
                    fingerprint,
                },
                respond: Arc::new(move |done: &T| serde_json::to_vec(&respond(done).ok()?).ok()),
            }
        });
        let mut before = None;
        if let Some(Keyed { request, .. }) = key.as_ref().filter(|_| meter.has_quota()) {
            // A stored response is returned even when the quota is used up.
            before = idempotency::kept(&state.db, request, state.clock.now()).await?;
        }
        if let Some(kept) = before {
            return replay(&kept);
        }
        let done = meter.write(state, async {
            match write(key).await? {
                Once::Now(done) => respond(&done)?.into_response(false),
                // The write was counted when it was made.
                Once::Before(kept) => {
                    before = Some(kept);
                    Err(Problem::still_running())
                }
                Once::Running => Err(Problem::still_running()),
                Once::Mismatch => Err(Problem::idempotency_mismatch()),
            }
        });
        let done = done.await;
        match before {
            Some(kept) => replay(&kept),
            None => done,
        }
    }

    /// Runs once, within the organization's quota, a write that needs an attempt or several transactions. `work` derives
    /// its ids from the seed it is given, so that a second run after a crash finds what the first one created.
    pub(super) async fn once_leased<W>(
        self,
        state: &ApiState,
        meter: &Meter,
        organization_id: OrganizationId,
        work: W,
    ) -> Result<Response, Problem>
    where
        W: AsyncFnOnce(Uuid) -> Result<Response, Problem>,
    {
        let seed = state.clock.new_uuid();
        let Self(Some((key, fingerprint))) = self else {
            return meter.write(state, work(seed)).await;
        };
        let request = Request {
            organization_id,
            key,
            fingerprint,
        };
        let run = match idempotency::begin(&state.db, request, seed, state.key_lease, state.clock.now()).await? {
            Begun::Run(run) => run,
            Begun::Done(kept) => return replay(&kept),
            Begun::Running => return Err(Problem::still_running()),
            Begun::Mismatch => return Err(Problem::idempotency_mismatch()),
        };
        let (settled, answer) = match meter.write(state, work(run.seed)).await {
            Ok(response) => {
                let (kept, response) = keep(response).await?;
                (idempotency::finish(&state.db, &run, &kept).await, Ok(response))
            }
            Err(problem) if problem.is_refusal() => (idempotency::release(&state.db, &run).await, Err(problem)),
            Err(problem) => (idempotency::pause(&state.db, &run).await, Err(problem)),
        };
        // The write is done. Once the lease has ended, the next run finds what this one created.
        if let Err(error) = settled {
            tracing::warn!(exception.message = %error, "idempotency key not released: it is held until its lease ends");
        }
        answer
    }
}

/// A response, and the bytes to store for it.
async fn keep(response: Response) -> Result<(Vec<u8>, Response), Problem> {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.map_err(|cause| unreadable(&cause))?;
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
    let kept = serde_json::to_vec(&kept).map_err(|cause| unreadable(&cause))?;
    Ok((kept, Response::from_parts(parts, Body::from(bytes))))
}

/// The stored response, marked as a replay.
fn replay(kept: &[u8]) -> Result<Response, Problem> {
    let kept: Kept = serde_json::from_slice(kept).map_err(|cause| unreadable(&cause))?;
    kept.into_response(true)
}
