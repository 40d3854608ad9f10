//! Old rows, inserted past the store: so many that requests would take too long.

use kallima_webhooks::domain::id::OrganizationId;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend};
use uuid::Uuid;

/// The time of the first row; each further row is a millisecond later.
const SINCE_MS: u64 = 1_700_000_000_000;

/// Delivered deliveries of a webhook that is gone, each with its event: the oldest is of `job.failed`, all others of
/// `job.completed`. Returns the webhook's id.
pub(crate) async fn deliveries(beside: &DatabaseConnection, organization: OrganizationId, count: u64) -> Uuid {
    let webhook = Uuid::from_u128(7);
    let is_postgres = beside.get_database_backend() == DbBackend::Postgres;
    let literal = |id: Uuid| {
        if is_postgres {
            format!("'{id}'")
        } else {
            format!("x'{}'", id.simple())
        }
    };
    let (organization, of_webhook) = (literal(organization.as_uuid()), literal(webhook));
    let (numbers, delivery, event, payload) = if is_postgres {
        (
            format!("generate_series(1, {count}) AS n(i)"),
            format!("(lpad(to_hex({SINCE_MS} + i), 12, '0') || '70008' || lpad(to_hex(i), 15, '0'))::uuid"),
            "'evt_01' || lpad(upper(to_hex(i)), 24, '0')",
            "convert_to({}, 'UTF8')",
        )
    } else {
        (
            format!(
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n)"
            ),
            format!("unhex(printf('%012x70008%015x', {SINCE_MS} + i, i))"),
            "printf('evt_01%024X', i)",
            "CAST({} AS BLOB)",
        )
    };
    let event_type = "CASE WHEN i = 1 THEN 'job.failed' ELSE 'job.completed' END";
    let (begin, middle) = (r#"{"id":""#, r#"","object":"event","type":""#);
    let end = r#"","created_at":"2023-11-14T22:13:20+00:00","data":{}}"#;
    let text = format!("'{begin}' || {event} || '{middle}' || {event_type} || '{end}'");
    let payload = payload.replace("{}", &text);
    for insert in [
        format!(
            "INSERT INTO events (organization_id, id, event_type, payload, created_at)
             SELECT {organization}, {event}, {event_type}, {payload}, {SINCE_MS} + i FROM {numbers}"
        ),
        format!(
            "INSERT INTO deliveries (organization_id, id, webhook_id, event_id, event_type, status, attempt_count,
                                     created_at, delivered_at)
             SELECT {organization}, {delivery}, {of_webhook}, {event}, {event_type}, 'delivered', 1,
                    {SINCE_MS} + i, {SINCE_MS} + i FROM {numbers}"
        ),
    ] {
        beside.execute_unprepared(&insert).await.unwrap();
    }
    webhook
}
