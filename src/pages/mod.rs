//! What people read: pages as HTML, rendered from the contract, and the files that they load.
//!
//! | file | what it makes |
//! |---|---|
//! | `assets` | style sheets, scripts, the icon, Swagger UI |
//! | `swagger` | the page around Swagger UI |

pub mod assets;
pub mod swagger;
