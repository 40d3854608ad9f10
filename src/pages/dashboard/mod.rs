//! The dashboard: webhooks with their health, deliveries, attempts, and forms that act on them. It works without scripts, and
//! has none. Whatever customers and receivers have written is shown as text: `maud` escapes it.
//!
//! | file | what it makes |
//! |---|---|
//! | `view` | what the API says, as the pages read it |
//! | `layout` | what surrounds every page; the page of an error |
//! | `parts` | what pages have in common: states, times, forms |
//! | `sign_in` | the pages for those who are not signed in |
//! | `webhooks`, `deliveries`, `delivery` | the pages of these names |

pub mod deliveries;
pub mod delivery;
mod layout;
mod parts;
pub mod sign_in;
pub mod view;
pub mod webhooks;

pub use layout::{Refusal, Visitor};

/// What a page needs of a browser: its own style sheet, and forms that are sent to this server.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";
