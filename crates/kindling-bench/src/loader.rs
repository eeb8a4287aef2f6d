//! What it takes to make a batch, in this process.

use std::time::Instant;

use anyhow::Context;
use kindling_config::{Order, Seed};
use kindling_data::{BatchOptions, BatchSampler, Part, ShardWriter, Shards};
use kindling_kernels::stream;

use crate::process::middle;
use crate::shape::Shape;

/// Tokens to choose from, of two bytes each: more than a processor's caches hold.
const TOKENS: u64 = 1 << 24;
/// Batches that are timed in each order.
const BATCHES: u64 = 1000;

/// Seconds to make a batch of the shape from random ids, documents told apart: the median in random order, and in epochs.
pub(crate) fn batch_seconds(shape: Shape) -> anyhow::Result<[f64; 2]> {
    let [.., context_len, batch_size, vocab_size] = shape.sizes();
    let folder = tempfile::tempdir().context("cannot make a folder for the tokens")?;
    let path = folder.path().join("train.bin");
    let mut writer = ShardWriter::create(&path, vocab_size)?;
    writer.write(&(0..TOKENS).map(|i| (stream(1, &[i]) % vocab_size as u64) as u32).collect::<Vec<_>>())?;
    writer.finish()?;
    let shards = Shards::open(&[path])?;
    let parts = [Part { start: 0, end: TOKENS, weight: 1.0 }];
    let median = |order: Order| -> anyhow::Result<f64> {
        let options = BatchOptions { context_len, batch_size, order, document_token: Some(0) };
        let sampler = BatchSampler::new(&parts, options, Seed(1337))?;
        let time = |step| {
            let start = Instant::now();
            std::hint::black_box(sampler.batch_at(&shards, step));
            start.elapsed().as_secs_f64()
        };
        Ok(middle((0..BATCHES).map(time).collect()))
    };
    Ok([median(Order::Random)?, median(Order::Epoch)?])
}
