//! Corpora to token shards to batches. Knows nothing of tensors or models.
//!
//! [`prepare`] reads text block by block, cleans and splits it, trains or loads a tokenizer, and writes checksummed token shards, once
//! for each combination of corpus and settings; [`Shards`] maps them into memory; [`BatchSampler`] makes the batch of a step,
//! a pure function of (seed, step), from windows of [`Part`]s of them, or from [`PackedRows`] of examples; [`windows`] covers a split with every target once; [`audit`]
//! looks for what is doubtful about a corpus; [`memorised`] for what of a sample stands in it.

mod aligned;
mod audit;
mod batch;
mod block;
mod clean;
mod count;
mod error;
mod examples;
mod files;
mod manifest;
mod memorised;
mod mmap;
mod near;
mod packages;
mod packing;
mod parquet_rows;
mod prepare;
mod read;
mod report;
mod rows;
mod scan;
mod shard;
mod shards;
mod stretch;
mod words;
mod workplace;
mod write;

pub use audit::{Audit, AuditOptions, Overlap, Personal, Repeats, audit};
pub use batch::{Batch, BatchOptions, BatchSampler, Part, n_windows, windows};
pub use block::has_rows;
pub use count::{count_files, for_each_text};
pub use error::DataError;
pub use examples::{Fields, MarkedToken, Templates};
pub use manifest::{Prepared, PreparedManifest, ShardManifest, SourceManifest, SplitManifest};
pub use memorised::{Memorised, MemorisedSpan, memorised};
pub use packing::{PackedRows, PackingStats};
pub use prepare::{Preparation, PrepareEvent, prepare, rebuild};
pub use read::{ReadOptions, read_document};
pub use report::{CleaningStep, CorpusStats, StepReport};
pub use rows::{PlainRow, RowOverlap, RowsOf, TestRow, TestRows, overlap, read_plain_rows, read_rows};
pub use shard::{SHARD_VERSION, ShardWriter};
pub use shards::Shards;
pub use stretch::Place;
pub use write::encode_document;
