//! File descriptors: connections get what the engine can spare. Without a limit, a thousand idle clients would leave none
//! for deliveries, and every receiver would look unreachable.

use std::io;

/// What else is open: the log, the database's files, key files, name resolution, the trace collector, commands such as
/// `doctor` in this process.
const OTHERS: u64 = 64;

/// A server that can accept fewer connections than this is not worth starting.
const CONNECTIONS_MIN: u64 = 16;

/// Raises the soft limit of open files to the hard one, and returns it.
///
/// # Errors
/// If the system refuses.
pub fn raise_limit() -> io::Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX)
}

/// Files that one database connection may have open: SQLite's has the database, its write-ahead log and that log's index.
const FILES_PER_DATABASE_CONNECTION: u64 = 3;

/// What the rest of the node needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve {
    /// Maximum number of attempts in progress, each with a connection.
    pub(super) attempts: u64,
    /// Maximum number of connections to the database.
    pub(super) database: u64,
    /// Maximum number of connections for metrics.
    pub(super) metrics: u64,
}

/// The limit of open files leaves no room for connections.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and at least {needed} are needed: raise it (ulimit -n, LimitNOFILE), or lower \
     --attempts-max or --database-connections-max"
)]
pub struct TooFewFiles {
    /// The limit in force.
    limit: u64,
    /// The lowest limit that suffices.
    needed: u64,
}

/// How many API connections fit below the limit of open files; at most `wanted`.
pub(super) fn connections_max(limit: u64, wanted: usize, reserve: Reserve) -> Result<usize, TooFewFiles> {
    let Reserve {
        attempts,
        database,
        metrics,
    } = reserve;
    let needed = attempts + FILES_PER_DATABASE_CONNECTION * database + metrics + OTHERS;
    let left = limit.saturating_sub(needed);
    // An attempt may try two addresses at once, and a receiver's connection is kept for the next attempt. If there is
    // not enough for that, half of what is left is.
    let left = (left / 2).max(left.saturating_sub(attempts));
    if left < CONNECTIONS_MIN {
        let needed = needed + 2 * CONNECTIONS_MIN;
        return Err(TooFewFiles { limit, needed });
    }
    let connections = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
    if connections < wanted {
        tracing::warn!(
            kallima.files.max = limit,
            kallima.connections.max = connections,
            kallima.connections.wanted = wanted,
            kallima.attempts.max = attempts,
            "the limit of open files (ulimit -n, LimitNOFILE) leaves fewer connections than --connections-max"
        );
    } else {
        tracing::info!(
            kallima.files.max = limit,
            kallima.connections.max = connections,
            kallima.attempts.max = attempts,
            "open files suffice"
        );
    }
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs 512 + 3 × 10 + 32 + 64 = 638 files besides connections.
    const RESERVE: Reserve = Reserve {
        attempts: 512,
        database: 10,
        metrics: 32,
    };

    #[test]
    fn connections_fit_below_the_limit_with_all_else() {
        for (limit, expected) in [
            (u64::MAX, 4096),
            (10_000, 4096),
            (638 + 512 + 4096, 4096),
            (638 + 512 + 4095, 4095),
            (638 + 1024, 512),
            (1024, 193),
            (638 + 32, 16),
        ] {
            assert_eq!(connections_max(limit, 4096, RESERVE).unwrap(), expected, "{limit}");
        }
    }

    #[test]
    fn a_limit_that_leaves_no_connections_is_refused() {
        for limit in [0, 256, 669] {
            let refused = connections_max(limit, 4096, RESERVE).unwrap_err().to_string();
            assert!(
                refused.contains("670") && refused.contains(&limit.to_string()),
                "{refused}"
            );
        }
    }
}
