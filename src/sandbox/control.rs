//! The operations under `/sandbox/`.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{
    examples::{self, Setting},
    failures::Failure,
    mailbox::{Answer, Arrival},
    requests::{Body, Checked, Parameters},
    state::Sandbox,
};
use crate::{
    api::problem::{Problem, ProblemCode},
    domain::{
        event::{Envelope, Publication},
        timestamp::Timestamp,
    },
    store::{
        events,
        sandbox::{self, Rest},
    },
};

/// How long an advance may take, however much is due on its way.
const ADVANCE_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a reset waits for attempts in progress, which would otherwise arrive after it.
const RESET_WAIT_MAX: Duration = Duration::from_millis(500);

/// The pause between two looks at whether the engine is at rest.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// The document of the operations under `/sandbox/`, as JSON. The build makes it of `openapi.yaml` beside this file.
pub const OPENAPI_JSON: &str = include_str!(concat!(env!("OUT_DIR"), "/sandbox.json"));

pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI_JSON).into_response()
}

#[derive(Serialize)]
pub(super) struct Time {
    now: Timestamp,
}

pub(super) async fn clock(State(sandbox): State<Sandbox>) -> Json<Time> {
    let now = sandbox.parts.clock.now();
    Json(Time { now })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Advance {
    seconds: u64,
}

impl Checked for Advance {
    const SCHEMA: &'static str = "Advance";
}

impl Checked for Failure {
    const SCHEMA: &'static str = "Failure";
}

impl Checked for Vec<Answer> {
    const SCHEMA: &'static str = "Answers";
}

/// Moves the clock from one due attempt to the next: each is made at its time, and what follows from it happens on the
/// way.
pub(super) async fn advance(
    State(sandbox): State<Sandbox>,
    Body(Advance { seconds }): Body<Advance>,
) -> Result<Json<Time>, Problem> {
    let _turn = sandbox.turn.lock().await;
    let (db, clock) = (&sandbox.parts.db, &sandbox.parts.clock);
    let (began, until) = (Instant::now(), clock.now().plus(Duration::from_secs(seconds)));
    while clock.now() < until || sandbox::rest(db, clock.now()).await? == Rest::Busy {
        if began.elapsed() > ADVANCE_TIME_MAX {
            let detail = format!(
                "Attempts were still due or in progress after {} s: the clock is at {}, not yet at {until}. Advance it \
                 again, by the rest.",
                ADVANCE_TIME_MAX.as_secs(),
                clock.now()
            );
            return Err(Problem::of_sandbox(ProblemCode::ServiceUnavailable, detail, Some(1)));
        }
        let now = clock.now();
        match sandbox::rest(db, now).await? {
            Rest::Busy => tokio::time::sleep(LOOK_PAUSE).await,
            Rest::Until(next) => {
                let next = next.map_or(until, |next| next.min(until));
                clock.advance(next.since(now));
                sandbox::clock_moved(db);
            }
        }
    }
    let now = clock.now();
    Ok(Json(Time { now }))
}

/// Puts everything back to how it was at the start, but for the clock.
pub(super) async fn reset(State(sandbox): State<Sandbox>) -> Result<StatusCode, Problem> {
    let _turn = sandbox.turn.lock().await;
    let parts = &sandbox.parts;
    let setting = Setting {
        now: parts.clock.now(),
        ..parts.setting.clone()
    };
    let examples = parts
        .has_examples
        .then(|| examples::examples(&parts.contract, &setting));
    sandbox.failures.set(None);
    parts.mailbox.script(Vec::new());
    sandbox::reset(&parts.db, setting.organization_id, examples.flatten()).await?;
    sandbox.limiter.forget();
    let began = Instant::now();
    while parts.db.load().is_some_and(|(running, _)| running > 0) && began.elapsed() < RESET_WAIT_MAX {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    parts.mailbox.reset();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    event_type: Option<String>,
    #[serde(default)]
    at_least: usize,
    #[serde(default)]
    wait_ms: u64,
}

/// What arrived, oldest first.
pub(super) async fn arrivals(
    State(sandbox): State<Sandbox>,
    Parameters(Wanted {
        event_type,
        at_least,
        wait_ms,
    }): Parameters<Wanted>,
) -> Result<Json<Vec<Arrival>>, Problem> {
    let is_wanted = |arrival: &Arrival| {
        let of_type = arrival.headers.get("kallima-event");
        event_type.is_none() || of_type == event_type.as_ref()
    };
    let mailbox = &sandbox.parts.mailbox;
    mailbox
        .wait_for(at_least, is_wanted, Duration::from_millis(wait_ms))
        .await;
    let mut arrivals = mailbox.arrivals();
    arrivals.retain(is_wanted);
    Ok(Json(arrivals))
}

pub(super) async fn empty(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.parts.mailbox.empty();
    StatusCode::NO_CONTENT
}

/// Replaces what the inbox answers next.
pub(super) async fn script(
    State(sandbox): State<Sandbox>,
    Body(answers): Body<Vec<Answer>>,
) -> Result<Json<Vec<Answer>>, Problem> {
    sandbox.parts.mailbox.script(answers);
    Ok(Json(sandbox.parts.mailbox.scripted()))
}

pub(super) async fn scripted(State(sandbox): State<Sandbox>) -> Json<Vec<Answer>> {
    Json(sandbox.parts.mailbox.scripted())
}

/// Publishes the example of an event type as a new event.
pub(super) async fn trigger(
    State(sandbox): State<Sandbox>,
    Path(event_type): Path<String>,
) -> Result<(StatusCode, Json<Envelope>), Problem> {
    let parts = &sandbox.parts;
    let Some(known) = parts.contract.event_type(&event_type) else {
        let detail = format!("There is no event type {event_type:?}: GET /v1/event_types lists them.");
        return Err(Problem::of_sandbox(ProblemCode::NotFound, detail, None));
    };
    let failed = |cause: serde_json::Error| {
        tracing::error!(exception.message = %cause, "the example of an event type cannot be published");
        Problem::internal_error()
    };
    let (id, now) = (parts.clock.new_event_id(), parts.clock.now());
    let envelope = Envelope::new(id, &event_type, now, &known.example["data"]).map_err(failed)?;
    let publication = Publication::new(parts.setting.organization_id, envelope.clone()).map_err(failed)?;
    events::record(&parts.db, publication, None).await?;
    Ok((StatusCode::ACCEPTED, Json(envelope)))
}

/// Lets the next requests of the API fail.
pub(super) async fn fail(State(sandbox): State<Sandbox>, Body(failure): Body<Failure>) -> Json<Failure> {
    sandbox.failures.set(Some(failure));
    Json(failure)
}

/// Answers a request of the API with the next failure, if there is one.
pub(super) async fn failing(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    match path.starts_with("/v1/").then(|| sandbox.failures.next()).flatten() {
        Some(failure) => failure.problem().into_response(),
        None => next.run(request).await,
    }
}
