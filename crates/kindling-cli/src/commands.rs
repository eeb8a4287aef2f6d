//! One file a command; each calls the library and prints.

pub(crate) mod apply;
pub(crate) mod chat;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod finetune;
pub(crate) mod generate;
pub(crate) mod merge;
pub(crate) mod prepare;
mod preview;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod task;
pub(crate) mod tokenizer;
pub(crate) mod train;
