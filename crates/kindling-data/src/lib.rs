//! Corpora to token shards to batches. Knows nothing of tensors or models.
//!
//! [`prepare`] reads text, splits it, trains or loads a tokenizer, and writes checksummed token shards, once for
//! each combination of corpus and settings; [`Shards`] maps them into memory; [`BatchSampler`] makes the batch of a step,
//! a pure function of (seed, step); [`windows`] covers a split with every target once.

mod batch;
mod corpus;
mod count;
mod error;
mod files;
mod mmap;
mod packages;
mod prepare;
mod read;
mod shard;
mod shards;
mod split;

pub use batch::{Batch, BatchSampler, n_windows, windows};
pub use corpus::{Corpus, CorpusStats, Document};
pub use count::{count_files, for_each_text};
pub use error::DataError;
pub use prepare::{PrepareEvent, Prepared, PreparedManifest, SplitManifest, encode_document, prepare};
pub use read::{ReadOptions, read_document};
pub use shard::{SHARD_VERSION, ShardWriter};
pub use shards::Shards;
