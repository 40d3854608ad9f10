//! `organization create|list|limits|usage`.

use std::num::NonZeroU32;

use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CommandResult,
    table::{Table, counted, optional, print_json},
    unknown_organization,
};
use crate::{
    clock::Clock,
    domain::{
        id::OrganizationId,
        limits::{LIMIT_MAX, Limits},
    },
    store::{
        Database, StoreError,
        organizations::{self, Organization},
        overview::{self, COUNTED_MAX, Usage},
    },
};

#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// Create an organization.
    Create {
        /// Its name, for people (at most 100 characters).
        #[arg(long, value_parser = super::token::parse_name)]
        name: String,
        /// Its limits.
        #[arg(long, value_enum, default_value_t = Plan::Unlimited)]
        plan: Plan,
    },
    /// List the organizations with their limits.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Change and show the limits of an organization; running servers apply them within 5 seconds.
    Limits {
        /// The organization's id, as `organization list` shows it.
        id: OrganizationId,
        /// Requests per minute, reads and writes together; `none` means unlimited.
        #[arg(long, value_name = "N|none", value_parser = parse_limit)]
        requests_per_minute: Option<Limit>,
        /// Writes per calendar month (UTC); `none` means unlimited.
        #[arg(long, value_name = "N|none", value_parser = parse_limit)]
        writes_per_month: Option<Limit>,
    },
    /// Show what organizations use: webhooks, writes this month, events in the last 24 hours, pending deliveries.
    Usage {
        /// The organization's id, as `organization list` shows it (default: all of them).
        id: Option<OrganizationId>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What an organization uses, as JSON.
#[derive(Serialize)]
struct UsageRow {
    organization_id: OrganizationId,
    organization: String,
    #[serde(flatten)]
    usage: Usage,
    requests_per_minute_max: Option<NonZeroU32>,
    writes_per_month_max: Option<NonZeroU32>,
}

/// The limits that a new organization starts with.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Plan {
    /// No limits.
    Unlimited,
    /// 60 requests per minute, 25,000 writes per month.
    Team,
}

/// A given limit; `None` is unlimited. A type of its own, because clap takes an `Option` for an optional argument.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit(Option<NonZeroU32>);

fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let limit = parse_number(text).map_err(|wrong| format!("{wrong}, or none"))?;
    Ok(Limit(Some(limit)))
}

/// Reads a limit that is one.
pub(super) fn parse_number(text: &str) -> Result<NonZeroU32, String> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &NonZeroU32| number.get() <= LIMIT_MAX);
    number.ok_or_else(|| format!("must be a number from 1 to {LIMIT_MAX}"))
}

impl OrganizationCommand {
    pub(super) async fn run(self, db: &Database, clock: &Clock) -> CommandResult {
        match self {
            Self::Create { name, plan } => {
                let limits = match plan {
                    Plan::Unlimited => Limits::default(),
                    Plan::Team => Limits::TEAM,
                };
                let organization = create(db, clock, &name, limits).await?;
                println!("{}", organization.id);
            }
            Self::List { json } => {
                let organizations = organizations::list(db).await?;
                if json {
                    return print_json(&organizations.iter().map(as_json).collect::<Vec<_>>());
                }
                let mut table = Table::new(["ID", "CREATED", "REQUESTS/MINUTE", "WRITES/MONTH", "NAME"]);
                for organization in organizations {
                    table.row(row(organization));
                }
                print!("{}", table.lines());
            }
            Self::Limits {
                id,
                requests_per_minute,
                writes_per_month,
            } => {
                let (rate, quota) = (requests_per_minute.map(|it| it.0), writes_per_month.map(|it| it.0));
                let Some(limits) = organizations::change_limits(db, id, rate, quota).await? else {
                    return Err(unknown_organization(id).into());
                };
                println!("{id}  {}", described(limits));
            }
            Self::Usage { id, json } => show_usage(db, clock, id, json).await?,
        }
        Ok(())
    }
}

async fn show_usage(db: &Database, clock: &Clock, id: Option<OrganizationId>, json: bool) -> CommandResult {
    let mut organizations = organizations::list(db).await?;
    organizations.retain(|organization| id.is_none_or(|id| id == organization.id));
    if let Some(id) = id.filter(|_| organizations.is_empty()) {
        return Err(unknown_organization(id).into());
    }
    let mut rows = Vec::new();
    for Organization { id, name, limits, .. } in organizations {
        rows.push(UsageRow {
            organization_id: id,
            organization: name,
            usage: overview::usage(db, id, clock.now()).await?,
            requests_per_minute_max: limits.requests_per_minute_max,
            writes_per_month_max: limits.writes_per_month_max,
        });
    }
    if json {
        return print_json(&rows);
    }
    let mut table = Table::new([
        "ORGANIZATION",
        "WEBHOOKS",
        "WRITES THIS MONTH",
        "OF",
        "EVENTS 24 H",
        "PENDING",
        "NAME",
    ]);
    for row in rows {
        table.row([
            row.organization_id.to_string(),
            row.usage.webhooks.to_string(),
            // Nobody counts them where there is no quota.
            optional(row.writes_per_month_max.map(|_| row.usage.writes_this_month)),
            optional(row.writes_per_month_max),
            counted(row.usage.events_last_day, COUNTED_MAX),
            counted(row.usage.deliveries_pending, COUNTED_MAX),
            row.organization,
        ]);
    }
    print!("{}", table.lines());
    Ok(())
}

/// An organization's row in the list.
fn row(organization: Organization) -> [String; 5] {
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
    [
        id.to_string(),
        created_at.to_string(),
        number(requests_per_minute_max),
        number(writes_per_month_max),
        name,
    ]
}

fn as_json(organization: &Organization) -> Value {
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
    json!({
        "id": id,
        "name": name,
        "created_at": created_at,
        "requests_per_minute": requests_per_minute_max,
        "writes_per_month": writes_per_month_max,
    })
}

/// A limit in words.
fn number(limit: Option<NonZeroU32>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// Limits in words.
fn described(limits: Limits) -> String {
    let Limits {
        requests_per_minute_max,
        writes_per_month_max,
    } = limits;
    format!(
        "[requests/minute: {}, writes/month: {}]",
        number(requests_per_minute_max),
        number(writes_per_month_max)
    )
}

/// Creates an organization with this name.
async fn create(db: &Database, clock: &Clock, name: &str, limits: Limits) -> Result<Organization, StoreError> {
    let organization = new(clock, name, limits);
    organizations::create(db, &organization).await?;
    Ok(organization)
}

/// An organization with this name, not stored yet.
pub(super) fn new(clock: &Clock, name: &str, limits: Limits) -> Organization {
    Organization {
        id: clock.new_id(),
        name: name.to_owned(),
        created_at: clock.now(),
        limits,
    }
}
