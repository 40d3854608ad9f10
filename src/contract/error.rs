//! Why openapi.yaml cannot be used.

/// A document that this program cannot use; found at start, never later.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// Its JSON is not laid out as an OpenAPI document.
    #[error("openapi.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A part that must be there is not.
    #[error("openapi.yaml has no {0}")]
    Missing(String),
    /// A schema that cannot be compiled.
    #[error("openapi.yaml, schema {name}: {cause}")]
    Schema {
        /// The schema's name.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
}
