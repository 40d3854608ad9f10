//! The first start: a database without organizations gets one, a token for it, and in development examples.

use std::error::Error;

use super::{organization, token};
use crate::{
    clock::Clock,
    config::{DatabaseOptions, ServeOptions},
    contract::Contract,
    domain::{
        id::OrganizationId,
        limits::Limits,
        token::{Scopes, Token},
    },
    sandbox::{examples, inbox::Inbox},
    store::{self, Database, organizations, tokens},
};

/// What a start finds.
pub(super) enum FirstStart {
    /// There are organizations, or another node has just made one. In development the oldest of them.
    NotFirst(Option<OrganizationId>),
    /// There is no organization, and none was to be made.
    Empty,
    /// The first organization was made, and this is its token.
    Made(Token),
}

/// A database without organizations gets one and a token, so that the API can be used at once. On PostgreSQL, where a
/// log may be kept and read by many, only where that is asked for.
pub(super) async fn run(
    options: &ServeOptions,
    database: &DatabaseOptions,
    db: &Database,
    clock: &Clock,
    inbox: Option<&Inbox>,
) -> Result<FirstStart, Box<dyn Error>> {
    if !organizations::is_empty(db).await? {
        return not_first(options, db, clock, inbox).await;
    }
    if !(database.is_sqlite() || options.dev || options.bootstrap) {
        return Ok(FirstStart::Empty);
    }
    let organization = organization::new(clock, "default", Limits::default());
    let token = options.dev_token.clone().unwrap_or_else(token::generate);
    let record = token::record(clock, Some(organization.id), "first token", Scopes::all());
    let examples = match inbox {
        Some(inbox) => {
            let setting = examples::Setting {
                organization_id: organization.id,
                token_id: record.id,
                webhook_id: examples::WEBHOOK,
                secret: None,
                is_subscribed: false,
                inbox: inbox.url.clone(),
                now: clock.now(),
            };
            examples::examples(&Contract::load()?, &setting)
        }
        None => None,
    };
    let is_made = organizations::create_first(db, &organization, &record, token.digest(), examples).await?;
    if is_made {
        return Ok(FirstStart::Made(token));
    }
    not_first(options, db, clock, inbox).await
}

/// The organizations are there already: the examples, if they are among them, deliver to this server's inbox, and the
/// oldest organization has the token that was given.
async fn not_first(
    options: &ServeOptions,
    db: &Database,
    clock: &Clock,
    inbox: Option<&Inbox>,
) -> Result<FirstStart, Box<dyn Error>> {
    if let Some(inbox) = inbox {
        store::examples::follow_inbox(db, &[examples::WEBHOOK, examples::WEBHOOK_TO_DELETE], &inbox.url).await?;
    }
    if !options.dev {
        return Ok(FirstStart::NotFirst(None));
    }
    let oldest = organizations::list(db)
        .await?
        .first()
        .map(|organization| organization.id);
    if let Some(given) = &options.dev_token
        && tokens::find_holder(db, given.digest(), clock.now()).await?.is_none()
        && let Some(oldest) = oldest
    {
        let record = token::record(clock, Some(oldest), "dev token", Scopes::all());
        let created = tokens::create(db, &record, given.digest()).await;
        created.map_err(|cause| format!("--dev-token (KALLIMA_DEV_TOKEN): revoked, or not to be created: {cause}"))?;
    }
    Ok(FirstStart::NotFirst(oldest))
}
