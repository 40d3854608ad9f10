//! Organizations: the tenants.

use std::num::NonZeroU32;

use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, IntoActiveModel as _,
    PaginatorTrait as _, QueryOrder as _, QueryTrait as _, Set,
};

use super::{
    Database, StoreError,
    entity::{organization, token},
    examples::{self, Examples},
    tokens::{self, TokenRecord},
};
use crate::domain::{id::OrganizationId, limits::Limits, timestamp::Timestamp};

/// A customer of the Kallima API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// Its display name.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// How much it may use the API.
    pub limits: Limits,
}

/// Lets one node at a time check whether there is an organization, and create the first one, until its transaction
/// ends. The number is arbitrary, but must never change.
const FIRST_LOCK: &str = "SELECT pg_advisory_xact_lock(8230645551860)";

/// Creates an organization.
pub async fn create(db: &Database, organization: &Organization) -> Result<(), StoreError> {
    let row = organization::Entity::insert(row(organization));
    db.write_one(row.build(db.backend())).await?;
    Ok(())
}

/// Creates the first organization with its first token and its example data, in one transaction. Returns false and creates
/// nothing if there is an organization already; of several nodes that try at once, one succeeds.
pub async fn create_first(
    db: &Database,
    organization: &Organization,
    token: &TokenRecord,
    digest: [u8; 32],
    examples: Option<Examples>,
) -> Result<bool, StoreError> {
    let (org, inner) = (organization.id, db.clone());
    let (organization, token) = (row(organization), tokens::row(token, digest));
    let write = db.write(move |tx| {
        Box::pin(async move {
            // SQLite has one write transaction at a time.
            if tx.get_database_backend() == DbBackend::Postgres {
                tx.execute_unprepared(FIRST_LOCK).await?;
            }
            if organization::Entity::find().one(tx).await?.is_some() {
                return Ok(false);
            }
            organization::Entity::insert(organization)
                .exec_without_returning(tx)
                .await?;
            token::Entity::insert(token).exec_without_returning(tx).await?;
            if let Some(examples) = examples {
                examples::insert(&inner, tx, org, examples).await?;
            }
            Ok::<_, StoreError>(true)
        })
    });
    write.await
}

/// A new organization's row.
fn row(organization: &Organization) -> organization::ActiveModel {
    let Organization {
        id,
        name,
        created_at,
        limits,
    } = organization;
    let Limits {
        requests_per_minute_max,
        writes_per_month_max,
    } = limits;
    organization::ActiveModel {
        id: Set(*id),
        name: Set(name.clone()),
        created_at: Set(*created_at),
        requests_per_minute_max: Set(limit_column(*requests_per_minute_max)),
        writes_per_month_max: Set(limit_column(*writes_per_month_max)),
    }
}

/// Every organization, oldest first.
pub async fn list(db: &Database) -> Result<Vec<Organization>, StoreError> {
    let rows = organization::Entity::find()
        .order_by_asc(organization::Column::Id)
        .all(&db.read())
        .await?;
    let view = |row: organization::Model| Organization {
        limits: limits_of(&row),
        id: row.id,
        name: row.name,
        created_at: row.created_at,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// How much the organization may use the API; `None` if it does not exist.
pub async fn limits(db: &Database, id: OrganizationId) -> Result<Option<Limits>, StoreError> {
    let row = organization::Entity::find_by_id(id).one(&db.read()).await?;
    Ok(row.as_ref().map(limits_of))
}

/// Changes an organization's limits; an outer `None` leaves a limit as it is. Returns the limits now in force, or
/// `None` if the organization does not exist.
pub async fn change_limits(
    db: &Database,
    id: OrganizationId,
    requests_per_minute_max: Option<Option<NonZeroU32>>,
    writes_per_month_max: Option<Option<NonZeroU32>>,
) -> Result<Option<Limits>, StoreError> {
    let write = db.write(move |tx| {
        Box::pin(async move {
            let Some(before) = organization::Entity::find_by_id(id).one(tx).await? else {
                return Ok(None);
            };
            let mut row = before.clone();
            if let Some(limit) = requests_per_minute_max {
                row.requests_per_minute_max = limit_column(limit);
            }
            if let Some(limit) = writes_per_month_max {
                row.writes_per_month_max = limit_column(limit);
            }
            if row != before {
                let every_column = row.clone().into_active_model().reset_all();
                organization::Entity::update(every_column).exec(tx).await?;
            }
            Ok::<_, StoreError>(Some(limits_of(&row)))
        })
    });
    write.await
}

fn limits_of(row: &organization::Model) -> Limits {
    let limit = |column: Option<i32>| {
        column
            .and_then(|limit| u32::try_from(limit).ok())
            .and_then(NonZeroU32::new)
    };
    Limits {
        requests_per_minute_max: limit(row.requests_per_minute_max),
        writes_per_month_max: limit(row.writes_per_month_max),
    }
}

fn limit_column(limit: Option<NonZeroU32>) -> Option<i32> {
    limit.map(|limit| i32::try_from(limit.get()).unwrap_or(i32::MAX))
}

/// Whether there is none yet: a database that was just created.
pub async fn is_empty(db: &Database) -> Result<bool, StoreError> {
    Ok(organization::Entity::find().count(&db.read()).await? == 0)
}

/// Whether an organization with that id exists.
pub async fn exists(db: &Database, id: OrganizationId) -> Result<bool, StoreError> {
    Ok(organization::Entity::find_by_id(id).one(&db.read()).await?.is_some())
}
