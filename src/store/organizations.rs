//! Organizations: the tenants.

use sea_orm::{ActiveModelTrait as _, EntityTrait as _, PaginatorTrait as _, QueryOrder as _, Set};
use uuid::Uuid;

use super::{Database, StoreError, entity::organization};
use crate::domain::timestamp::Timestamp;

/// A customer of the Kallima API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Makes an organization.
pub async fn create(db: &Database, organization: &Organization) -> Result<(), StoreError> {
    let Organization { id, name, created_at } = organization;
    let row = organization::ActiveModel {
        id: Set(*id),
        name: Set(name.clone()),
        created_at: Set(created_at.as_millis()),
    };
    row.insert(&db.write).await?;
    Ok(())
}

/// Every organization, oldest first.
pub async fn list(db: &Database) -> Result<Vec<Organization>, StoreError> {
    let rows = organization::Entity::find()
        .order_by_asc(organization::Column::Id)
        .all(&db.read)
        .await?;
    let view = |row: organization::Model| Organization {
        id: row.id,
        name: row.name,
        created_at: Timestamp::from_millis(row.created_at),
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Whether there is none yet: a database that was just made.
pub async fn is_empty(db: &Database) -> Result<bool, StoreError> {
    Ok(organization::Entity::find().count(&db.read).await? == 0)
}

/// Whether there is one of that id.
pub async fn exists(db: &Database, id: Uuid) -> Result<bool, StoreError> {
    Ok(organization::Entity::find_by_id(id).one(&db.read).await?.is_some())
}
