//! Stretches to token shards, both sides at once; with a range of places, one shard alone. Decides nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use kindling_config::SourceConfig;
use kindling_tokenizer::{Tokenizer, TokenizerError};
use rayon::prelude::*;

use crate::examples::{self, encode_example};
use crate::manifest::{ShardManifest, SourceManifest, SplitManifest};
use crate::scan::{Corpus, Scan, Side};
use crate::shard::packed;
use crate::stretch::{Place, Stretch, for_each_stretch_batch};
use crate::{DataError, MarkedToken, ShardWriter};

/// Tells the bytes of text that have been encoded, of how many in all; an error ends the writing.
pub(crate) type EncodedFn<'a> = dyn FnMut(u64, u64) -> Result<(), DataError> + 'a;
/// Is told of shards that are safely on disk.
pub(crate) type SettledFn<'a> = dyn Fn(&[ShardManifest], &[ShardManifest]) -> Result<(), DataError> + Sync + 'a;

/// The ids of a document: the end-of-text token first, where the vocabulary has one and the document begins here.
/// Putting it first makes every token of the text a target, the very first included.
///
/// # Errors
/// Text that the vocabulary cannot express.
pub fn encode_document(tokenizer: &Tokenizer, text: &str, begins: bool) -> Result<Vec<u32>, TokenizerError> {
    let ids = tokenizer.encode(text)?;
    match tokenizer.end_of_text().filter(|_| begins) {
        Some(end_of_text) => Ok([&[end_of_text], &ids[..]].concat()),
        None => Ok(ids),
    }
}

/// What is encoded, with what, and where to.
pub(crate) struct Writing<'a> {
    pub(crate) corpus: &'a Corpus<'a>,
    pub(crate) scan: &'a Scan,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) dir: &'a Path,
    /// A shard ends with the first stretch that fills it with so many tokens.
    pub(crate) shard_tokens: u64,
}

impl Writing<'_> {
    /// How many values a token has in a shard.
    fn n_values(&self) -> usize {
        let n = self.tokenizer.vocab_size();
        if self.corpus.config.examples.is_some() { MarkedToken::count(n) } else { n }
    }

    /// Bytes of what a stretch says.
    fn n_text_bytes(&self, stretch: &Stretch) -> u64 {
        match self.corpus.config.examples {
            Some(_) => examples::texts(&stretch.text).iter().map(|text| text.len() as u64).sum(),
            None => stretch.text.len() as u64,
        }
    }

    /// A stretch as it stands in a shard.
    fn encode(&self, stretch: &Stretch) -> Result<Vec<u8>, TokenizerError> {
        let tokens = if let Some(examples) = &self.corpus.config.examples {
            let learn_prompt = examples.learn_prompt && stretch.side == Side::Training;
            encode_example(self.tokenizer, &stretch.text, examples, learn_prompt)?.into_iter().map(|token| token.0).collect()
        } else {
            encode_document(self.tokenizer, &stretch.text, stretch.begins)?
        };
        Ok(packed(&tokens, self.n_values()))
    }
}

/// Writes what is missing of both sides behind the shards that are there, which are the first of each.
pub(crate) fn write_splits(
    writing: &Writing<'_>,
    there: (Vec<ShardManifest>, Vec<ShardManifest>),
    encoded: &mut EncodedFn<'_>,
    settled: &SettledFn<'_>,
) -> Result<(SplitManifest, SplitManifest), DataError> {
    let n_sources = writing.corpus.config.sources.len();
    let mut counts = (Counts::new(n_sources), Counts::new(0));
    let from = (end_of(&there.0), end_of(&there.1));
    let mut sides = Sides {
        training: SideWriter::new(writing, "train", there.0, n_sources),
        validation: SideWriter::new(writing, "validation", there.1, 0),
        settled,
    };
    let mut wanted = |stretch: &Stretch| {
        let (counts, from) = match stretch.side {
            Side::Training => (&mut counts.0, from.0),
            Side::Validation => (&mut counts.1, from.1),
        };
        counts.add(stretch, writing.n_text_bytes(stretch));
        stretch.place >= from
    };
    let mut write = |batch: Vec<Encoded>| batch.into_iter().try_for_each(|stretch| sides.write(stretch));
    let written = for_each_encoded_batch(writing, encoded, &mut wanted, &mut write);
    // Also after a stop or a mistake: what is finished is to be found.
    let settled = sides.settle();
    written.and(settled)?;
    sides.training.finish_shard()?;
    sides.validation.finish_shard()?;
    sides.settle()?;
    let sources = &writing.corpus.config.sources;
    Ok((counts.0.manifest(sides.training.shards, sources), counts.1.manifest(sides.validation.shards, &[])))
}

/// Up to where shards go.
fn end_of(shards: &[ShardManifest]) -> Place {
    shards.last().and_then(|shard| shard.range).map_or(Place::default(), |(_, end)| end)
}

/// Documents and bytes of a side, and of each source of it.
struct Counts {
    all: (usize, u64),
    sources: Vec<(usize, u64)>,
}

impl Counts {
    fn new(n_sources: usize) -> Self {
        Self { all: (0, 0), sources: vec![(0, 0); n_sources] }
    }

    fn add(&mut self, stretch: &Stretch, n_text_bytes: u64) {
        // The second part of a document that the border cuts is a document on its side.
        let begins = usize::from(stretch.begins || self.all.0 == 0);
        for (n_documents, n_bytes) in std::iter::once(&mut self.all).chain(self.sources.get_mut(stretch.source)) {
            *n_documents += begins;
            *n_bytes += n_text_bytes;
        }
    }

    fn manifest(&self, shards: Vec<ShardManifest>, sources: &[SourceConfig]) -> SplitManifest {
        let of_source = |(i, (source, &(n_documents, n_bytes))): (usize, (&SourceConfig, &(usize, u64)))| SourceManifest {
            name: source.name.clone(),
            weight: source.weight,
            n_documents,
            n_bytes,
            n_tokens: shards.iter().filter_map(|shard| shard.source_tokens.get(i)).sum(),
        };
        SplitManifest {
            n_documents: self.all.0,
            n_bytes: self.all.1,
            n_tokens: shards.iter().map(|shard| shard.n_tokens).sum(),
            sources: sources.iter().zip(&self.sources).enumerate().map(of_source).collect(),
            shards,
        }
    }
}

/// Writes one shard again, to `path`; what it should be is told by its line in the manifest.
pub(crate) fn rewrite_shard(
    writing: &Writing<'_>,
    side: Side,
    shard: &ShardManifest,
    path: &Path,
    encoded: &mut EncodedFn<'_>,
) -> Result<(), DataError> {
    let Some((start, end)) = shard.range else {
        return Err(DataError::Version { path: path.to_owned(), found: "1 or 2".into(), expected: 3 });
    };
    let mut writer = ShardWriter::create(path, writing.n_values())?;
    let mut wanted = |stretch: &Stretch| stretch.side == side && (start..end).contains(&stretch.place);
    for_each_encoded_batch(writing, encoded, &mut wanted, &mut |batch| batch.iter().try_for_each(|(_, packed)| writer.append(packed)))?;
    let (_, sum) = writer.finish()?;
    let sum = format!("{sum:016x}");
    if sum != shard.sum {
        return Err(DataError::Damaged { path: path.to_owned(), what: "the checksum", found: sum, expected: shard.sum.clone() });
    }
    Ok(())
}

/// A stretch without its text, and its ids as they stand in a shard.
type Encoded = (Stretch, Vec<u8>);

/// Encodes the stretches that are wanted, and hands them over in their order while the next are encoded.
fn for_each_encoded_batch(
    writing: &Writing<'_>,
    encoded: &mut EncodedFn<'_>,
    wanted: &mut dyn FnMut(&Stretch) -> bool,
    write: &mut (dyn FnMut(Vec<Encoded>) -> Result<(), DataError> + Send),
) -> Result<(), DataError> {
    let Writing { corpus, scan, tokenizer, .. } = *writing;
    let mut waiting: Vec<Encoded> = Vec::new();
    let total = scan.stats.n_bytes;
    for_each_stretch_batch(corpus, scan, &|text| tokenizer.last_safe_cut(text), &mut |mut stretches, done| {
        stretches.retain(|stretch| wanted(stretch));
        let before = std::mem::take(&mut waiting);
        let (next, written) = rayon::join(
            || {
                let encode = |stretch: Stretch| -> Result<Encoded, DataError> {
                    let packed = writing
                        .encode(&stretch)
                        .map_err(|source| DataError::Tokenizer { place: format!("document `{}`", stretch.origin.name(corpus)), source })?;
                    Ok((stretch, packed))
                };
                stretches.into_par_iter().map(encode).collect::<Vec<_>>()
            },
            || write(before),
        );
        written?;
        // The first mistake in the order of the corpus, whatever thread found one first.
        waiting = next.into_iter().collect::<Result<_, _>>()?;
        encoded(done, total)
    })?;
    write(waiting)
}

/// Both sides, as they are written.
struct Sides<'a> {
    training: SideWriter<'a>,
    validation: SideWriter<'a>,
    settled: &'a SettledFn<'a>,
}

impl<'a> Sides<'a> {
    fn of(&mut self, side: Side) -> &mut SideWriter<'a> {
        match side {
            Side::Training => &mut self.training,
            Side::Validation => &mut self.validation,
        }
    }

    fn write(&mut self, (stretch, packed): Encoded) -> Result<(), DataError> {
        if self.of(stretch.side).write(&stretch, &packed)? {
            self.settle()?;
            self.of(stretch.side).finish_shard()?;
        }
        Ok(())
    }

    /// Waits for the disk, and tells which shards are on it.
    fn settle(&mut self) -> Result<(), DataError> {
        for side in [&mut self.training, &mut self.validation] {
            if let Some(syncing) = side.syncing.take() {
                syncing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
        }
        (self.settled)(&self.training.shards, &self.validation.shards)
    }
}

struct SideWriter<'a> {
    dir: &'a Path,
    stem: &'static str,
    /// How many values a token has.
    n_values: usize,
    shard_tokens: u64,
    n_sources: usize,
    shards: Vec<ShardManifest>,
    open: Option<OpenShard>,
    /// The shard before is on its way to the disk.
    syncing: Option<JoinHandle<io::Result<()>>>,
}

struct OpenShard {
    name: String,
    writer: ShardWriter,
    range: (Place, Place),
    source_tokens: Vec<u64>,
}

impl<'a> SideWriter<'a> {
    fn new(writing: &Writing<'a>, stem: &'static str, shards: Vec<ShardManifest>, n_sources: usize) -> Self {
        let (n_values, shard_tokens) = (writing.n_values(), writing.shard_tokens);
        Self { dir: writing.dir, stem, n_values, shard_tokens, n_sources, shards, open: None, syncing: None }
    }

    /// Appends a stretch; says whether the shard is full.
    fn write(&mut self, stretch: &Stretch, packed: &[u8]) -> Result<bool, DataError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let name = format!("{}-{:05}.bin", self.stem, self.shards.len());
                let writer = ShardWriter::create(&self.dir.join(&name), self.n_values)?;
                OpenShard { name, writer, range: (stretch.place, stretch.place), source_tokens: vec![0; self.n_sources] }
            }
        };
        let before = open.writer.n_tokens();
        open.writer.append(packed)?;
        open.range.1 = stretch.end();
        if let Some(source) = open.source_tokens.get_mut(stretch.source) {
            *source += open.writer.n_tokens() - before;
        }
        let is_full = open.writer.n_tokens() >= self.shard_tokens;
        self.open = Some(open);
        Ok(is_full)
    }

    /// Ends the shard that is open. The one before must have settled.
    fn finish_shard(&mut self) -> Result<(), DataError> {
        let Some(OpenShard { name, writer, range, source_tokens }) = self.open.take() else { return Ok(()) };
        let (n_tokens, sum, file) = writer.finish_unsynced()?;
        // The disk is slower than the encoder is: the next shard need not wait for it.
        self.syncing = Some(std::thread::spawn(move || file.sync_all()));
        self.shards.push(ShardManifest { file: name, sum: format!("{sum:016x}"), n_tokens, range: Some(range), source_tokens });
        Ok(())
    }
}

/// Where a shard is written that takes another's place.
pub(crate) fn beside(dir: &Path, shard: &ShardManifest) -> PathBuf {
    dir.join(format!(".rebuilding-{}", shard.file))
}
