//! `token create|list|revoke`.

use clap::Subcommand;
use rand::{rand_core::UnwrapErr, rngs::SysRng};
use serde_json::{Value, json};

use super::{
    CommandResult,
    table::{Table, print_json},
    unknown_organization,
};
use crate::{
    clock::Clock,
    domain::{
        id::{OrganizationId, TokenId},
        token::{Scope, Scopes, Token},
    },
    store::{
        Database, StoreError, organizations,
        tokens::{self, TokenRecord},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it; it is not shown again.
    Create {
        /// The organization it acts for.
        #[arg(long, required_unless_present = "platform")]
        organization: Option<OrganizationId>,
        /// Create a platform token: it belongs to no organization, and each event it publishes names one.
        #[arg(long, conflicts_with = "organization")]
        platform: bool,
        /// Its name, for people (at most 100 characters).
        #[arg(long, default_value = "token", value_parser = parse_name)]
        name: String,
        /// What it may do: webhooks:read, webhooks:write, events:publish (may be repeated; default: all).
        #[arg(long = "scope", value_delimiter = ',')]
        scopes: Vec<Scope>,
    },
    /// List tokens by id, name and scopes, and when each was last used (up to a minute behind).
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token, effective at once (on PostgreSQL: within 2 seconds).
    Revoke {
        /// The token's id, as `token list` shows it.
        id: TokenId,
    },
}

impl TokenCommand {
    pub(super) async fn run(self, db: &Database, clock: &Clock) -> CommandResult {
        match self {
            Self::Create {
                organization,
                platform: _,
                name,
                scopes,
            } => {
                if let Some(id) = organization
                    && !organizations::exists(db, id).await?
                {
                    return Err(unknown_organization(id).into());
                }
                let scopes = if scopes.is_empty() {
                    Scopes::all()
                } else {
                    scopes.into_iter().collect()
                };
                let (token, record) = create(db, clock, organization, &name, scopes).await?;
                println!("{}", token.expose());
                eprintln!("Token {} ({}). It is not shown again.", record.id, record.scopes);
            }
            Self::List { json } => {
                let records = tokens::list(db).await?;
                if json {
                    return print_json(&records.iter().map(as_json).collect::<Vec<_>>());
                }
                let mut table = Table::new(["ID", "CREATED", "ORGANIZATION", "STATE", "LAST USED", "SCOPES", "NAME"]);
                for record in records {
                    table.row(row(record));
                }
                print!("{}", table.lines());
            }
            Self::Revoke { id } => {
                if !tokens::revoke(db, id, clock.now()).await? {
                    return Err(format!("there is no valid token {id}; see `token list`").into());
                }
                println!("Token {id} is revoked.");
            }
        }
        Ok(())
    }
}

/// A token's row in the list.
fn row(record: TokenRecord) -> [String; 7] {
    let TokenRecord {
        id,
        organization_id,
        name,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    } = record;
    [
        id.to_string(),
        created_at.to_string(),
        organization_id.map_or_else(|| "platform".to_owned(), |id| id.to_string()),
        revoked_at.map_or_else(|| "valid".to_owned(), |at| format!("revoked {at}")),
        last_used_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
        scopes
            .iter()
            .map(|scope| scope.to_string())
            .collect::<Vec<_>>()
            .join(","),
        name,
    ]
}

fn as_json(record: &TokenRecord) -> Value {
    let TokenRecord {
        id,
        organization_id,
        name,
        scopes,
        created_at,
        revoked_at,
        last_used_at,
    } = record;
    json!({
        "id": id,
        "organization_id": organization_id,
        "name": name,
        "scopes": scopes.iter().map(|scope| scope.to_string()).collect::<Vec<_>>(),
        "created_at": created_at,
        "revoked_at": revoked_at,
        "last_used_at": last_used_at,
    })
}

/// Creates a token.
async fn create(
    db: &Database,
    clock: &Clock,
    organization_id: Option<OrganizationId>,
    name: &str,
    scopes: Scopes,
) -> Result<(Token, TokenRecord), StoreError> {
    let (token, record) = (generate(), record(clock, organization_id, name, scopes));
    tokens::create(db, &record, token.digest()).await?;
    Ok((token, record))
}

/// A new token.
pub(super) fn generate() -> Token {
    Token::generate(&mut UnwrapErr(SysRng))
}

/// The record to store for a new token.
pub(super) fn record(
    clock: &Clock,
    organization_id: Option<OrganizationId>,
    name: &str,
    scopes: Scopes,
) -> TokenRecord {
    TokenRecord {
        id: clock.new_id(),
        organization_id,
        name: name.to_owned(),
        scopes,
        created_at: clock.now(),
        revoked_at: None,
        last_used_at: None,
    }
}

/// A name of 1 to 100 characters, as the database requires.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if (1..=100).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err("must have 1 to 100 characters".to_owned())
    }
}
