//! The pages: each asks the operations for what it shows.

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
    response::Html,
};
use url::form_urlencoded;

use super::visit::{Id, Visit, read, shown};
use crate::{
    api::{ApiState, problem::Problem},
    domain::id::{DeliveryId, WebhookId},
    pages::dashboard::{
        deliveries::Listing,
        delivery::Whole,
        view::{Delivery, Webhook},
        webhooks,
    },
    store,
};

/// How many deliveries a page has.
const DELIVERIES: &str = "25";

/// How many attempts a page has. Each can have 4 KiB to show.
const ATTEMPTS: &str = "20";

/// All webhooks that an organization can have.
const WEBHOOKS: &str = "/v1/webhooks?limit=100";

pub(super) async fn list_webhooks(visit: Visit, State(state): State<ApiState>) -> Result<Html<String>, Problem> {
    let (found, _) = visit.list::<Webhook>(WEBHOOKS).await?;
    let health = store::webhooks::health(&state.db, visit.organization_id).await?;
    let with_health = |webhook: Webhook| {
        let health = health.get(&webhook.id).copied();
        (webhook, health)
    };
    let found: Vec<_> = found.into_iter().map(with_health).collect();
    Ok(shown(&state, webhooks::list(&visit.visitor, &found)))
}

pub(super) async fn show_webhook(
    visit: Visit,
    Id(id): Id<WebhookId>,
    State(state): State<ApiState>,
) -> Result<Html<String>, Problem> {
    let webhook: Webhook = read(&visit.get(&format!("/v1/webhooks/{id}")).await?)?;
    let latest = format!("/v1/webhook_deliveries?webhook_id={id}&limit=10");
    let (deliveries, _) = visit.list::<Delivery>(&latest).await?;
    let health = store::webhooks::health(&state.db, visit.organization_id).await?;
    let event_types: Vec<&str> = state.contract.event_type_names().collect();
    let page = webhooks::one(&visit.visitor, &webhook, health.get(&id), &deliveries, &event_types);
    Ok(shown(&state, page))
}

pub(super) async fn list_deliveries(
    visit: Visit,
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<(StatusCode, Html<String>), Problem> {
    let query: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .into_owned()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let asked = visit.list::<Delivery>(&operation_query(&query)).await;
    let (status, (deliveries, next), faults) = match asked {
        Ok(found) => (StatusCode::OK, found, Vec::new()),
        Err(problem) => match problem.sentences() {
            faults if faults.is_empty() => return Err(problem),
            faults => (problem.status(), (Vec::new(), None), faults),
        },
    };
    let (webhooks, _) = visit.list::<Webhook>(WEBHOOKS).await?;
    let event_types: Vec<&str> = state.contract.event_type_names().collect();
    let next = next.map(|after| {
        let kept = query.iter().filter(|(name, _)| name != "after");
        let mut next = with_query("/dashboard/deliveries");
        next.extend_pairs(kept).append_pair("after", &after).finish()
    });
    let listing = Listing {
        query: &query,
        webhooks: &webhooks,
        event_types: &event_types,
        deliveries: &deliveries,
        next: next.as_deref(),
        faults: &faults,
    };
    Ok((status, shown(&state, listing.page(&visit.visitor))))
}

/// The query of the page as the operation takes it.
fn operation_query(query: &[(String, String)]) -> String {
    let mut asked = with_query("/v1/webhook_deliveries");
    asked.extend_pairs(query.iter().map(|(name, value)| match name.as_str() {
        "created_after" | "created_before" => (name, instant(value)),
        _ => (name, value.clone()),
    }));
    if query.iter().all(|(name, _)| name != "limit") {
        asked.append_pair("limit", DELIVERIES);
    }
    asked.finish()
}

/// A path to which the pairs of a query are to be added.
fn with_query(path: &str) -> form_urlencoded::Serializer<'static, String> {
    form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1)
}

/// A date and time of a form, which says no offset, in UTC.
fn instant(text: &str) -> String {
    match text.len() {
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text.to_owned(),
    }
}

pub(super) async fn show_delivery(
    visit: Visit,
    Id(id): Id<DeliveryId>,
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Html<String>, Problem> {
    let path = format!("/v1/webhook_deliveries/{id}");
    let found = visit.get(&path).await?;
    let delivery: Delivery = read(&found)?;
    let attempts = with_query(&format!("{path}/attempts"))
        .extend_pairs(form_urlencoded::parse(query.unwrap_or_default().as_bytes()))
        .append_pair("limit", ATTEMPTS)
        .finish();
    let (attempts, next) = visit.list(&attempts).await?;
    let webhook = match visit.get(&format!("/v1/webhooks/{}", delivery.webhook_id)).await {
        Ok(webhook) => Some(read(&webhook)?),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => None,
        Err(problem) => return Err(problem),
    };
    let whole = Whole {
        payload: read(&found)?,
        delivery,
        webhook,
        attempts,
        next: next.map(|after| format!("/dashboard/deliveries/{id}?after={after}")),
    };
    Ok(shown(&state, whole.page(&visit.visitor)))
}
