//! What tests are made of.

pub(crate) mod app;
pub(crate) mod beside;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod database;
pub(crate) mod history;
pub(crate) mod http2;
pub(crate) mod pages;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod validate;

pub(crate) use app::App;
pub(crate) use receiver::{Gate, Receiver, Reply};
