//! Who uses a database.

/// Who uses the database. Each has connections of its own, so that neither the API nor the engine can starve the other,
/// and nothing can starve the heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Side {
    /// Requests, and the command line.
    Api,
    /// The delivery engine.
    Delivery,
    /// The node's heartbeat.
    Heartbeat,
}

impl Side {
    /// Every side.
    pub(in crate::store) const ALL: [Self; 3] = [Self::Api, Self::Delivery, Self::Heartbeat];

    /// The name of its pool in metrics.
    pub(in crate::store) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Delivery => "delivery",
            Self::Heartbeat => "heartbeat",
        }
    }
}
