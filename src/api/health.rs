//! `/healthz` and `/readyz`: for load balancers and orchestrators.

use std::sync::atomic::Ordering;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ApiState, problem::Problem, responses::Unavailable};
use crate::store::readiness::Unready;

/// The state of the service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    status: HealthStatus,
}

/// The state of the service, in one word.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthStatus {
    Ok,
    Ready,
}

#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses((status = 200, body = Health)))]
pub(super) async fn get_liveness() -> Json<Health> {
    Json(Health {
        status: HealthStatus::Ok,
    })
}

#[utoipa::path(
    get, path = "/readyz", tag = "service", security(()),
    responses((status = 200, body = Health), Unavailable),
)]
pub(super) async fn get_readiness(State(state): State<ApiState>) -> Result<Json<Health>, Problem> {
    if state.stopping.load(Ordering::SeqCst) {
        return Err(Problem::stopping());
    }
    match state.db.unready() {
        Some(Unready::Clock(_)) => {
            return Err(Problem::unready(
                "The clocks of this node and of the database differ too much.",
            ));
        }
        Some(Unready::Keys(_)) => {
            return Err(Problem::unready(
                "The master keys of this node cannot open the signing secrets.",
            ));
        }
        Some(Unready::Database) => {
            return Err(Problem::unready(
                "The database has accepted no write of this node for three seconds.",
            ));
        }
        None => {}
    }
    Ok(Json(Health {
        status: HealthStatus::Ready,
    }))
}
