//! What makes a server one to try things with: example data, and a receiver that is there.
//!
//! | file | what it does |
//! |---|---|
//! | [`examples`] | the example data, under the ids that `openapi.yaml` uses |
//! | [`inbox`] | a receiver on this machine, for the example webhooks |

pub mod examples;
pub mod inbox;
