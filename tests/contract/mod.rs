//! openapi.yaml is the source of truth: the code agrees with it, and the server serves it verbatim.

mod compatibility;
mod coverage;
mod diff;
mod document;
mod entities;
mod failures;
mod headers;
mod normalize;
mod obligations;
mod problems;
mod prose;
mod walks;
