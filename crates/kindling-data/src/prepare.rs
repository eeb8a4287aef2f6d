//! The whole way from text to a folder of token shards, taken once for each corpus and setting.
//!
//! A prepared folder holds `tokenizer.json`, `train-*.bin`, `validation-*.bin` and `manifest.json`, which is written
//! last; the folder appears under its final name only when everything in it is complete. Until then it is a hidden one, in which the
//! next call goes on where this one was stopped or killed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use kindling_config::{DataConfig, RunConfig, TokenizerKind};
use kindling_tokenizer::{BpeTrainer, CharVocab, Characters, END_OF_TEXT, PreTokenCounts, Tokenizer, WordCounts, WordVocab};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::clean::Cleaner;
use crate::examples;
use crate::files::Files;
use crate::manifest::{
    EXAMPLES_VERSION, FORMAT, MANIFEST, MANIFEST_VERSION, Prepared, PreparedManifest, ShardManifest, SplitManifest, TASK_VERSION,
    TOKENIZER, hash_of,
};
use crate::scan::{Corpus, Scan, Side, scan};
use crate::stretch::{SafeCut, for_each_stretch_batch};
use crate::workplace::{Workplace, sync_folder, write_synced};
use crate::write::{Writing, beside, rewrite_shard, write_splits};
use crate::{CorpusStats, DataError, StepReport};

/// Version of what fills a folder: split, tokenizers, encoding. It is part of the folder's name.
const PREPARATION_VERSION: u32 = 2;
/// Tokens a shard: 200 MB at two bytes each.
const SHARD_TOKENS: u64 = 100_000_000;

/// What is prepared, and where.
#[derive(Clone, Copy, Debug)]
pub struct Preparation<'a> {
    /// Says what is read, how it is cleaned and split, and which tokenizer encodes it.
    pub config: &'a RunConfig,
    /// The folder of prepared folders.
    pub data_dir: &'a Path,
    /// Where `cargo metadata` is asked for packages.
    pub workspace: &'a Path,
    /// Whether to stop: what is finished stays, and the next call goes on behind it.
    pub stop: &'a AtomicBool,
}

/// What happens while a corpus is prepared, for whoever shows progress.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PrepareEvent<'a> {
    /// Bytes of files read, the first time.
    Reading {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The corpus has been read.
    Read {
        /// What was found, and what was left out.
        stats: &'a CorpusStats,
        /// What cleaning did.
        cleaning: &'a [StepReport],
    },
    /// Another process prepares the same; this one waits for it.
    Waiting,
    /// So many shards are there from an earlier call.
    GoingOn {
        /// How many.
        n_shards: usize,
    },
    /// Bytes of text that a tokenizer is made from.
    Counted {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
    /// Merges of the tokenizer learned so far.
    Merges {
        /// Done.
        done: usize,
        /// In all.
        total: usize,
    },
    /// Bytes of text turned into tokens.
    Encoded {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
    /// A shard is damaged or gone, and is written again.
    Rebuilding {
        /// What is wrong with it.
        damage: &'a DataError,
    },
}

/// Tells of progress, as [`prepare`] does.
type ProgressFn<'a> = dyn FnMut(PrepareEvent<'_>) + 'a;

/// Reads the corpus that a configuration names and prepares it, or opens what an earlier call prepared from
/// the same text with the same settings; a shard of that which is damaged is written again.
///
/// The tokenizer is trained on the training split alone; a character vocabulary is taken from the whole corpus, so
/// that every character has an id. Memory does not grow with the length of the texts; with the number of documents by a byte, and by
/// more where duplicates are looked for.
///
/// # Errors
/// [`DataError`]: unreadable text, splits that are too small, a tokenizer that cannot be made, a full disk, a stop.
pub fn prepare(preparation: &Preparation<'_>, progress: &mut ProgressFn<'_>) -> Result<Prepared, DataError> {
    prepare_in_shards(preparation, SHARD_TOKENS, None, progress)
}

/// Writes the damaged shards of a prepared folder again and opens it, if the text and the settings are still those that it was
/// prepared from.
///
/// # Errors
/// As [`Prepared::open`] if they are not, or as [`prepare()`].
pub fn rebuild(preparation: &Preparation<'_>, dir: &Path, progress: &mut ProgressFn<'_>) -> Result<Prepared, DataError> {
    // What came by a pipe does not come again.
    if Files::reads_standard_input(&preparation.config.data) {
        return Prepared::open(dir);
    }
    prepare_in_shards(preparation, SHARD_TOKENS, Some(dir), progress)
}

/// With `only`, in no other folder than that.
fn prepare_in_shards(
    preparation: &Preparation<'_>,
    shard_tokens: u64,
    only: Option<&Path>,
    progress: &mut ProgressFn<'_>,
) -> Result<Prepared, DataError> {
    let Preparation { config, data_dir, workspace, .. } = *preparation;
    let cleaner = Cleaner::new(&config.data.clean).map_err(|unknown| DataError::Language { found: unknown.found, known: unknown.known })?;
    let vocabulary = vocabulary_key(config)?;
    let files = Files::of(&config.data, workspace, data_dir)?;
    let corpus = Corpus { files, config: &config.data, cleaner };
    let total = corpus.files.n_bytes;
    let scan = scan(&corpus, &mut |done| {
        progress(PrepareEvent::Reading { done, total });
        preparation.go_on()
    })?;
    progress(PrepareEvent::Read { stats: &scan.stats, cleaning: &scan.cleaning });
    let name = format!("{}-{}", config.name, key(config, &vocabulary, &scan, shard_tokens));
    let dir = data_dir.join(&name);
    if let Some(only) = only.filter(|only| **only != dir) {
        return Prepared::open(only);
    }
    // Nothing need be written where all is well.
    match Prepared::is_complete(&dir).then(|| Prepared::open(&dir)) {
        Some(Ok(prepared)) => {
            check_sizes(&prepared.manifest.training, &prepared.manifest.validation, config)?;
            return Ok(prepared);
        }
        None | Some(Err(DataError::Damaged { .. })) => {}
        Some(Err(error)) => return Err(error),
    }
    let workplace = Workplace::take(data_dir, &name, &mut || progress(PrepareEvent::Waiting))?;
    let prepared = if Prepared::is_complete(&dir) {
        let opened = open_or_rebuild(preparation, &corpus, &scan, &dir, progress);
        workplace.remove()?;
        let opened = opened?;
        check_sizes(&opened.manifest.training, &opened.manifest.validation, config)?;
        opened
    } else {
        if dir.is_dir() {
            // Without a manifest it is what somebody left of a folder of the same text and settings.
            fs_err::remove_dir_all(&dir)?;
        }
        let filled = fill(preparation, &corpus, &scan, &workplace, shard_tokens, progress)
            .and_then(|manifest| check_sizes(&manifest.training, &manifest.validation, config).map(|()| manifest));
        let manifest = match filled {
            Ok(manifest) => manifest,
            Err(error) => {
                // A stop, a full disk: there is something to go on behind. Any other mistake would only come again.
                if !(matches!(error, DataError::Stopped | DataError::Io(_)) && workplace.has_progress()) {
                    workplace.remove()?;
                }
                return Err(error);
            }
        };
        write_synced(&workplace.dir.join(MANIFEST), &serde_json::to_vec_pretty(&manifest).expect("plain data serialises"))?;
        workplace.rename(&dir)?;
        Prepared { reused: false, ..Prepared::open(&dir)? }
    };
    Ok(prepared)
}

impl Preparation<'_> {
    fn go_on(&self) -> Result<(), DataError> {
        if self.stop.load(Ordering::Relaxed) { Err(DataError::Stopped) } else { Ok(()) }
    }
}

/// Makes all that is missing of a folder, but for the manifest.
fn fill(
    preparation: &Preparation<'_>,
    corpus: &Corpus<'_>,
    scan: &Scan,
    workplace: &Workplace,
    shard_tokens: u64,
    progress: &mut ProgressFn<'_>,
) -> Result<PreparedManifest, DataError> {
    let finished = workplace.finished()?;
    let path = workplace.dir.join(TOKENIZER);
    let tokenizer = match finished.tokenizer {
        Some(tokenizer) => {
            progress(PrepareEvent::GoingOn { n_shards: finished.training.len() + finished.validation.len() });
            tokenizer
        }
        None => {
            let tokenizer = make_tokenizer(preparation, corpus, scan, progress)?;
            tokenizer.save(&path)?;
            tokenizer
        }
    };
    let has_examples = preparation.config.data.examples.is_some();
    if has_examples && tokenizer.end_of_text().is_none() {
        return Err(DataError::NoEndOfText);
    }
    let tokenizer_hash = hash_of(&path)?;
    workplace.note(&tokenizer_hash, &finished.training, &finished.validation)?;
    let writing = Writing { corpus, scan, tokenizer: &tokenizer, dir: &workplace.dir, shard_tokens };
    let mut encoded = |done, total| {
        progress(PrepareEvent::Encoded { done, total });
        preparation.go_on()
    };
    let (training, validation) =
        write_splits(&writing, (finished.training, finished.validation), &mut encoded, &|training, validation| {
            workplace.note(&tokenizer_hash, training, validation)
        })?;
    Ok(PreparedManifest {
        format: FORMAT.into(),
        version: match &preparation.config.data.examples {
            Some(examples) if examples.head || scan.stats.test_documents > 0 => TASK_VERSION,
            Some(_) => EXAMPLES_VERSION,
            None => MANIFEST_VERSION,
        },
        examples: has_examples,
        corpus: scan.stats.clone(),
        cleaning: scan.cleaning.clone(),
        tokenizer_kind: tokenizer.kind().into(),
        tokenizer_hash,
        vocab_size: tokenizer.vocab_size(),
        training,
        validation,
    })
}

/// Opens a complete folder; shards of it that are damaged are written again, each by itself.
fn open_or_rebuild(
    preparation: &Preparation<'_>,
    corpus: &Corpus<'_>,
    scan: &Scan,
    dir: &Path,
    progress: &mut ProgressFn<'_>,
) -> Result<Prepared, DataError> {
    let manifest = PreparedManifest::read(dir)?;
    let tokenizer = manifest.tokenizer(dir)?;
    let sides = [(Side::Training, &manifest.training), (Side::Validation, &manifest.validation)];
    let shards = sides.into_iter().flat_map(|(side, split)| split.shards.iter().map(move |shard| (side, shard)));
    let damaged: Vec<(Side, &ShardManifest, DataError)> =
        shards.filter_map(|(side, shard)| shard.damage(dir).map(|damage| (side, shard, damage))).collect();
    let writing = Writing { corpus, scan, tokenizer: &tokenizer, dir, shard_tokens: 0 };
    for (side, shard, damage) in damaged {
        progress(PrepareEvent::Rebuilding { damage: &damage });
        let path = beside(dir, shard);
        let rewritten = rewrite_shard(&writing, side, shard, &path, &mut |done, total| {
            progress(PrepareEvent::Encoded { done, total });
            preparation.go_on()
        });
        if let Err(error) = rewritten {
            let _ = fs_err::remove_file(&path);
            // What is wrong with the shard says more than why it could not be written.
            return Err(if matches!(error, DataError::Damaged { .. } | DataError::Version { .. }) { damage } else { error });
        }
        fs_err::rename(&path, dir.join(&shard.file))?;
        sync_folder(dir)?;
    }
    Prepared::open(dir)
}

/// Whether both splits have something to predict in windows of the model's context.
fn check_sizes(training: &SplitManifest, validation: &SplitManifest, config: &RunConfig) -> Result<(), DataError> {
    // Examples are as long as they are: two tokens make one.
    let expected = if config.data.examples.is_some() { 2 } else { config.model.context_len as u64 + 1 };
    for (split, found, expected) in [("training", training.n_tokens, expected), ("validation", validation.n_tokens, 2)] {
        if found < expected {
            return Err(DataError::TooSmall { split, found, expected });
        }
    }
    match training.sources.iter().find(|source| source.n_tokens < expected) {
        Some(source) => Err(DataError::SmallSource { name: source.name.clone(), found: source.n_tokens, expected }),
        None => Ok(()),
    }
}

/// What tells a vocabulary apart that is not made from the corpus.
fn vocabulary_key(config: &RunConfig) -> Result<String, DataError> {
    Ok(match (&config.tokenizer.kind, &config.tokenizer.path) {
        // What is not all of it in one file, or is told by a name, is told apart by what comes of it.
        (TokenizerKind::File, Some(path)) if !path.ends_with("tokenizer.json") || !path.is_file() => {
            format!("{:032x}", xxh3_128(Tokenizer::open(&path.to_string_lossy())?.to_json().as_bytes()))
        }
        (TokenizerKind::File, Some(path)) => format!("{:032x}", xxh3_128(&fs_err::read(path)?)),
        _ => String::new(),
    })
}

/// Sixteen digits that differ whenever the prepared folder would.
fn key(config: &RunConfig, vocabulary: &str, scan: &Scan, shard_tokens: u64) -> String {
    let DataConfig { split, validation_fraction, validation_packages, sources, clean, paths, .. } = &config.data;
    let weights: Vec<_> = sources.iter().map(|source| (&source.name, source.weight.to_bits())).collect();
    // What is held out by its place.
    let mut sides = Xxh3::new();
    scan.sides.iter().for_each(|side| sides.update(&[side.map_or(0, |side| 1 + side as u8)]));
    let text = format!(
        "{PREPARATION_VERSION} {} {:?} {:?} {vocabulary} {:?} {:?} {:?} {weights:?} {shard_tokens} {:016x} {:016x}",
        scan.stats.hash,
        config.tokenizer.kind,
        config.tokenizer.vocab_size,
        (split, validation_fraction.to_bits(), validation_packages),
        clean,
        paths.is_empty(),
        sides.digest(),
        scan.sources,
    );
    // What comes of the templates is in the hash of the corpus; that it is examples is not.
    let text = match &config.data.examples {
        Some(examples) if examples.head => format!("{text} examples {:?}", examples.labels),
        Some(examples) if examples.learn_prompt => text + " examples and prompts",
        Some(_) => text + " examples",
        None => text,
    };
    format!("{:016x}", xxh3_128(text.as_bytes()) as u64)
}

fn make_tokenizer(
    preparation: &Preparation<'_>,
    corpus: &Corpus<'_>,
    scan: &Scan,
    progress: &mut ProgressFn<'_>,
) -> Result<Tokenizer, DataError> {
    let config = &preparation.config.tokenizer;
    let special_tokens = vec![END_OF_TEXT.to_owned()];
    let vocab_size = config.vocab_size.unwrap_or_default();
    match config.kind {
        TokenizerKind::Bpe => {
            let trainer = BpeTrainer { special_tokens, ..BpeTrainer::new(vocab_size) };
            let mut counts = PreTokenCounts::new(trainer.pattern.clone());
            let failed = |source| DataError::Tokenizer { place: "training the tokenizer".into(), source };
            let safe_cut: &SafeCut<'_> = &|text| trainer.pattern.last_safe_cut(text.as_bytes());
            let mut count = |texts: &[&str]| counts.add(texts).map_err(failed);
            count_texts(preparation, corpus, scan, true, safe_cut, progress, &mut count)?;
            let bpe = trainer.train_with_progress(&counts, &mut |done, total| progress(PrepareEvent::Merges { done, total }));
            bpe.map(Tokenizer::Bpe).map_err(failed)
        }
        TokenizerKind::Char => {
            let mut characters = Characters::default();
            count_texts(preparation, corpus, scan, false, &|text| Some(text.len()), progress, &mut |texts| {
                characters.add(texts);
                Ok(())
            })?;
            // One text needs no separator, and published character-level recipes have none.
            let special = if scan.stats.n_documents > 1 { special_tokens } else { Vec::new() };
            Ok(Tokenizer::Char(CharVocab::from_characters(&characters, &special)))
        }
        TokenizerKind::Word => {
            let mut counts = WordCounts::default();
            count_texts(preparation, corpus, scan, true, &WordCounts::last_safe_cut, progress, &mut |texts| {
                counts.add(texts);
                Ok(())
            })?;
            Ok(Tokenizer::Word(WordVocab::from_counts(&counts, vocab_size, &special_tokens)))
        }
        TokenizerKind::File => {
            let path = config.path.as_deref().expect("validated: kind `file` has a path");
            Ok(Tokenizer::open(&path.to_string_lossy())?)
        }
    }
}

/// Hands over what a tokenizer is made from, a batch at a time: the training split, or all of the corpus.
fn count_texts(
    preparation: &Preparation<'_>,
    corpus: &Corpus<'_>,
    scan: &Scan,
    training_alone: bool,
    safe_cut: &SafeCut<'_>,
    progress: &mut ProgressFn<'_>,
    count: &mut dyn FnMut(&[&str]) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let total = scan.stats.n_bytes;
    for_each_stretch_batch(corpus, scan, safe_cut, &mut |stretches, done| {
        let wanted = stretches.iter().filter(|stretch| !training_alone || stretch.side == Side::Training);
        let wanted: Vec<&str> = wanted.map(|stretch| &*stretch.text).collect();
        if preparation.config.data.examples.is_some() {
            let texts: Vec<String> = wanted.into_iter().flat_map(examples::texts).collect();
            count(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        } else {
            count(&wanted)?;
        }
        progress(PrepareEvent::Counted { done, total });
        preparation.go_on()
    })
}

#[cfg(test)]
mod tests;
