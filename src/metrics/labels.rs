//! The labels of metrics. None holds an id, so the number of series is bounded.

use prometheus_client::encoding::EncodeLabelSet;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($label:ident: $kind:ty),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name {
            $(pub(super) $label: $kind),*
        }
    )*};
}

labels! {
    /// Requests by operation and the status of their answer.
    Requests { operation: &'static str, status: u16 }
    /// One operation of openapi.yaml.
    Operation { operation: &'static str }
    /// Attempts by what they were made for, and what they came to.
    Attempts { trigger: &'static str, outcome: &'static str }
    /// One kind of write that shares transactions with others of its kind.
    Write { write: &'static str }
    /// One pool of connections.
    PoolName { pool: &'static str }
    /// Connections of a pool by what they do.
    Connections { pool: &'static str, state: &'static str }
    /// Pending deliveries by what they wait for.
    Pending { state: &'static str }
    /// Why something was done or refused.
    Reason { reason: &'static str }
}
