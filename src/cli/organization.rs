//! `organization create|list`.

use clap::Subcommand;

use super::CommandResult;
use crate::{
    clock::Clock,
    store::{
        Database, StoreError,
        organizations::{self, Organization},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// Make an organization.
    Create {
        /// What people call it (at most 100 characters).
        #[arg(long, value_parser = super::token::parse_name)]
        name: String,
    },
    /// List the organizations.
    List,
}

impl OrganizationCommand {
    pub(super) async fn run(self, db: &Database, clock: &Clock) -> CommandResult {
        match self {
            Self::Create { name } => {
                let organization = create(db, clock, &name).await?;
                println!("{}", organization.id);
            }
            Self::List => {
                for Organization { id, name, created_at } in organizations::list(db).await? {
                    println!("{id}  {created_at}  {name}");
                }
            }
        }
        Ok(())
    }
}

/// Makes an organization of that name.
pub(super) async fn create(db: &Database, clock: &Clock, name: &str) -> Result<Organization, StoreError> {
    let organization = Organization {
        id: clock.new_uuid(),
        name: name.to_owned(),
        created_at: clock.now(),
    };
    organizations::create(db, &organization).await?;
    Ok(organization)
}
