//! What the forms of pages do: each is one operation.

use axum::{
    extract::State,
    http::Method,
    response::{Html, Redirect},
};
use serde_json::json;

use super::{
    forms::Submitted,
    visit::{Id, read, shown},
};
use crate::{
    api::{ApiState, problem::Problem},
    domain::{
        id::{DeliveryId, WebhookId},
        pass::Action,
    },
    pages::dashboard::{view::Delivery, webhooks},
};

pub(super) async fn enable_webhook(Id(id): Id<WebhookId>, form: Submitted) -> Result<Redirect, Problem> {
    let (path, body) = (format!("/v1/webhooks/{id}"), json!({ "enabled": true }));
    form.send(Action::Change, Method::PATCH, &path, Some(&body)).await?;
    Ok(Redirect::to(&format!("/dashboard/webhooks/{id}")))
}

pub(super) async fn test_webhook(Id(id): Id<WebhookId>, form: Submitted) -> Result<Redirect, Problem> {
    let (path, body) = (
        format!("/v1/webhooks/{id}/test"),
        json!({ "event_type": form.text("event_type") }),
    );
    let tested = form.send(Action::Change, Method::POST, &path, Some(&body)).await?;
    let delivery: Delivery = read(&tested)?;
    Ok(Redirect::to(&format!("/dashboard/deliveries/{}", delivery.id)))
}

/// The page with the new secret is the response itself: an address that shows a secret would show it again.
pub(super) async fn rotate_secret(
    Id(id): Id<WebhookId>,
    State(state): State<ApiState>,
    form: Submitted,
) -> Result<Html<String>, Problem> {
    let path = format!("/v1/webhooks/{id}?rotate_secret=true");
    let rotated = form.send(Action::Change, Method::PATCH, &path, None).await?;
    Ok(shown(&state, webhooks::rotated(&form.visit.visitor, &read(&rotated)?)))
}

pub(super) async fn retry_delivery(Id(id): Id<DeliveryId>, form: Submitted) -> Result<Redirect, Problem> {
    let path = format!("/v1/webhook_deliveries/{id}/retry");
    form.send(Action::Retry, Method::POST, &path, None).await?;
    Ok(Redirect::to(&format!("/dashboard/deliveries/{id}")))
}
