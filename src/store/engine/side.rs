//! Who uses a database.

use strum::{IntoStaticStr, VariantArray};

/// Who uses the database. Each has connections of its own, so that neither the API nor the engine can starve the other,
/// and nothing can starve the heartbeat or publishing.
///
/// Its text is the name of its pool in metrics.
#[derive(Clone, Copy, Debug, IntoStaticStr, PartialEq, Eq, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub(in crate::store) enum Side {
    /// Requests, and the command line.
    Api,
    /// The delivery engine.
    Delivery,
    /// The node's heartbeat.
    Heartbeat,
    /// Batches of publications.
    Publication,
}
