//! A receiver on this machine: where the example webhooks deliver to. That of `--dev` accepts whatever arrives; that of a
//! sandbox keeps it too, says whether its signatures are right, and answers as a test has set.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use hyper::body::Frame;
use tokio::{net::TcpListener, task::JoinSet};

use super::mailbox::{Answer, Arrival, Mailbox};
use crate::{
    clock::Clock,
    domain::{
        destination::Destination,
        id::{DeliveryId, WebhookId},
        verification::{Scheme, SignedHeaders, TOLERANCE_S, verify},
    },
    store::{Database, sandbox},
};

/// How large a body may be: an event and its envelope.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// An inbox, open until it is dropped.
#[derive(Debug)]
pub struct Inbox {
    /// The URL that webhooks deliver to.
    pub url: Destination,
    _serving: JoinSet<()>,
}

/// What a sandbox's inbox keeps arrivals with.
#[derive(Clone, Debug)]
pub struct Keeper {
    /// Where they are kept.
    pub mailbox: Arc<Mailbox>,
    /// Where the secrets are.
    pub db: Database,
    /// The sandbox's clock.
    pub clock: Clock,
}

impl Inbox {
    /// Opens an inbox at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Where nothing can be listened to.
    pub async fn open(keeper: Option<Keeper>) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let url = format!("http://{}/inbox", listener.local_addr()?);
        let url = Destination::from_stored(&url).map_err(io::Error::other)?;
        let router = match keeper {
            Some(keeper) => Router::new().fallback(keep).with_state(keeper),
            None => Router::new().fallback(accept),
        };
        let router = router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::warn!(exception.message = %error, "the inbox of the example webhooks is closed");
            }
        });
        Ok(Self { url, _serving: serving })
    }
}

/// Reads the whole request, so that its sender is not cut off.
async fn accept(_body: Bytes) -> Response {
    respond(&Answer::default())
}

async fn keep(State(keeper): State<Keeper>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let (webhook_id, fault) = check(&keeper, &headers, &body).await;
    let answer = keeper.mailbox.next_answer();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let arrival = Arrival {
        number: 0,
        received_at: keeper.clock.now(),
        method: method.to_string(),
        path: uri.to_string(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
        payload: serde_json::from_slice(&body).ok(),
        webhook_id,
        verified: fault.is_none(),
        fault,
        answer: answer.clone(),
    };
    keeper.mailbox.keep(arrival);
    tokio::time::sleep(answer.delay()).await;
    respond(&answer)
}

/// Whose delivery it is, and what is wrong with its signatures.
async fn check(keeper: &Keeper, headers: &HeaderMap, body: &[u8]) -> (Option<WebhookId>, Option<String>) {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(id) = header("kallima-delivery").and_then(|id| id.parse::<DeliveryId>().ok()) else {
        return (None, Some("there is no header Kallima-Delivery with an id".to_owned()));
    };
    match sandbox::secret_of(&keeper.db, id).await {
        Ok(Some((webhook_id, secret))) => {
            let now_s = keeper.clock.real().as_unix_seconds();
            let signed = SignedHeaders::read(|name| header(name).map(ToOwned::to_owned));
            let refusal = |scheme| {
                let refusal = verify(scheme, &secret, &signed, body, now_s, TOLERANCE_S).err()?;
                Some(format!("{scheme}: {refusal}"))
            };
            (Some(webhook_id), Scheme::ALL.into_iter().find_map(refusal))
        }
        Ok(None) => (
            None,
            Some("there is no such delivery, or its webhook is gone".to_owned()),
        ),
        Err(error) => (None, Some(format!("the secret could not be read: {error}"))),
    }
}

/// A body that fails, which ends its connection.
struct CutOff;

impl hyper::body::Body for CutOff {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(Some(Err(io::Error::other("closed as scripted"))))
    }
}

fn respond(answer: &Answer) -> Response {
    let Answer {
        status,
        delay_ms: _,
        retry_after_s,
        body,
        close,
        times: _,
    } = answer;
    let mut response = if *close {
        Body::new(CutOff).into_response()
    } else {
        body.clone().into_response()
    };
    *response.status_mut() = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
    }
    response
}
