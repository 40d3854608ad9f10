//! openapi.yaml is the source of truth: the code says the same, and the server serves it as it is.

mod compatibility;
mod coverage;
mod diff;
mod document;
mod entities;
mod headers;
mod normalize;
mod obligations;
mod problems;
mod prose;
mod walks;
