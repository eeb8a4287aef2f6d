//! The whole way from text to a folder of token shards, taken once for each corpus and setting.
//!
//! A prepared folder holds `tokenizer.json`, `train-*.bin`, `validation-*.bin` and `manifest.json`, which is written
//! last; the folder appears under its final name only when everything in it is complete.

use std::path::{Path, PathBuf};

use kindling_config::{RunConfig, TokenizerConfig, TokenizerKind};
use kindling_tokenizer::{BpeTrainer, CharVocab, END_OF_TEXT, PreTokenCounts, Tokenizer, TokenizerError, WordVocab};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::split::{Piece, Pieces, split};
use crate::{Corpus, CorpusStats, DataError, ShardWriter, Shards};

/// Version of the prepared folder's manifest that this crate writes. It reads those before, too.
const MANIFEST_VERSION: u32 = 2;
/// Version of what fills a folder: split, tokenizers, encoding. It is part of the folder's name.
const PREPARATION_VERSION: u32 = 1;
const FORMAT: &str = "kindling-data";
const MANIFEST: &str = "manifest.json";
const TOKENIZER: &str = "tokenizer.json";
/// Tokens a shard: 200 MB at two bytes each.
const SHARD_TOKENS: u64 = 100_000_000;

/// What happens while a corpus is prepared, for whoever shows progress.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PrepareEvent<'a> {
    /// The corpus has been read.
    Read(&'a CorpusStats),
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
}

/// A prepared folder, verified.
#[derive(Debug)]
pub struct Prepared {
    /// Where it lies.
    pub dir: PathBuf,
    /// What is in it.
    pub manifest: PreparedManifest,
    /// The tokenizer of its ids.
    pub tokenizer: Tokenizer,
    /// Tokens to train on.
    pub training: Shards,
    /// Tokens to validate on.
    pub validation: Shards,
    /// Whether it was there already.
    pub reused: bool,
}

/// What a prepared folder holds, and from what it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedManifest {
    /// Always `kindling-data`.
    pub format: String,
    /// Version of this file and of the folder.
    pub version: u32,
    /// The text it was made from.
    pub corpus: CorpusStats,
    /// Kind of tokenizer: `bpe`, `char` or `word`.
    pub tokenizer_kind: String,
    /// XXH3-128 of `tokenizer.json`.
    pub tokenizer_hash: String,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// The split that trains.
    pub training: SplitManifest,
    /// The split that validates.
    pub validation: SplitManifest,
}

/// One split of a prepared folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Documents, or parts of one.
    pub n_documents: usize,
    /// Bytes of raw text.
    pub n_bytes: u64,
    /// Tokens.
    pub n_tokens: u64,
    /// File name and XXH3-64 of the payload of each shard, in order.
    pub shards: Vec<(String, String)>,
}

impl PreparedManifest {
    /// One hash over everything that a run's mathematics depends on: tokenizer and both splits.
    pub fn data_hash(&self) -> String {
        let sums = self.training.shards.iter().chain(&self.validation.shards).map(|(_, sum)| sum.as_str());
        let text = std::iter::once(self.tokenizer_hash.as_str()).chain(sums).collect::<Vec<_>>().join(" ");
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }
}

impl Prepared {
    /// Whether a folder looks like a prepared one: its manifest is written last.
    pub fn is_complete(dir: &Path) -> bool {
        dir.join(MANIFEST).exists()
    }

    /// Opens a prepared folder and verifies every file of it.
    ///
    /// # Errors
    /// [`DataError::Damaged`] names the file and the part that does not fit.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join(MANIFEST);
        let damaged =
            |path: &Path, what, found: String, expected: String| DataError::Damaged { path: path.to_owned(), what, found, expected };
        // Format and version first: a later version may have keys that this one does not know.
        let read = fs_err::read(&path)?;
        let not_json = |error: serde_json::Error| damaged(&path, "the manifest", error.to_string(), "one that this version writes".into());
        let value: serde_json::Value = serde_json::from_slice(&read).map_err(not_json)?;
        if value["format"] != FORMAT {
            return Err(damaged(&path, "the format", value["format"].to_string(), format!("\"{FORMAT}\"")));
        }
        if !value["version"].as_u64().is_some_and(|version| (1..=u64::from(MANIFEST_VERSION)).contains(&version)) {
            return Err(DataError::Version { path, found: value["version"].to_string(), expected: MANIFEST_VERSION });
        }
        let manifest = PreparedManifest::deserialize(value).map_err(not_json)?;
        let shards = manifest.training.shards.iter().chain(&manifest.validation.shards).map(|(name, _)| name.as_str());
        if let Some(missing) = shards.chain([TOKENIZER]).map(|name| dir.join(name)).find(|path| !path.exists()) {
            return Err(damaged(&missing, "the file", "missing".into(), "there".into()));
        }
        let tokenizer_path = dir.join(TOKENIZER);
        let hash = format!("{:032x}", xxh3_128(&fs_err::read(&tokenizer_path)?));
        if hash != manifest.tokenizer_hash {
            return Err(damaged(&tokenizer_path, "the checksum", hash, manifest.tokenizer_hash));
        }
        let tokenizer = Tokenizer::load(&tokenizer_path)?;
        let open = |split: &SplitManifest| -> Result<Shards, DataError> {
            let paths: Vec<_> = split.shards.iter().map(|(name, _)| dir.join(name)).collect();
            let shards = Shards::open(&paths)?;
            if shards.n_tokens() != split.n_tokens || shards.vocab_size() != manifest.vocab_size {
                let (found, expected) = (split.n_tokens.to_string(), format!("{} as in its shards", shards.n_tokens()));
                return Err(damaged(&path, "the number of tokens", found, expected));
            }
            for ((path, (_, expected)), found) in paths.iter().zip(&split.shards).zip(shards.sums()) {
                let found = format!("{found:016x}");
                if found != *expected {
                    return Err(damaged(path, "the checksum", found, expected.clone()));
                }
            }
            Ok(shards)
        };
        let (training, validation) = (open(&manifest.training)?, open(&manifest.validation)?);
        Ok(Self { dir: dir.to_owned(), manifest, tokenizer, training, validation, reused: true })
    }

    /// Where the tokenizer lies, to be copied into a run.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.dir.join(TOKENIZER)
    }
}

/// Reads the corpus that `config` names and prepares it below `data_dir`, or opens what an earlier call prepared from
/// the same text with the same settings. `workspace` is where `cargo metadata` is asked for packages.
///
/// The tokenizer is trained on the training split alone; a character vocabulary is taken from the whole corpus, so
/// that every character has an id.
///
/// # Errors
/// [`DataError`]: unreadable text, splits that are too small, a tokenizer that cannot be made, a full disk.
pub fn prepare(
    config: &RunConfig,
    data_dir: &Path,
    workspace: &Path,
    progress: &mut dyn FnMut(PrepareEvent<'_>),
) -> Result<Prepared, DataError> {
    let corpus = Corpus::read(&config.data, workspace)?;
    progress(PrepareEvent::Read(&corpus.stats));
    let dir = data_dir.join(format!("{}-{}", config.name, key(config, &corpus)?));
    if Prepared::is_complete(&dir) {
        let prepared = Prepared::open(&dir)?;
        check_sizes(&prepared.manifest.training, &prepared.manifest.validation, config)?;
        return Ok(prepared);
    }
    let pieces = split(&corpus, &config.data, config.seed)?;
    let tokenizer = make_tokenizer(&config.tokenizer, &corpus, &pieces, progress)?;
    // Beside the final place, so that the rename stays on one disk; removed by itself if anything fails.
    fs_err::create_dir_all(data_dir)?;
    let temp = temp_dir(data_dir)?;
    let tokenizer_path = temp.path().join(TOKENIZER);
    tokenizer.save(&tokenizer_path)?;
    let total = corpus.stats.n_bytes;
    let mut done = 0;
    let mut advance = |bytes| {
        done += bytes;
        progress(PrepareEvent::Encoded { done, total });
    };
    let training = write_split(temp.path(), "train", &pieces.training, &tokenizer, &mut advance)?;
    let validation = write_split(temp.path(), "validation", &pieces.validation, &tokenizer, &mut advance)?;
    check_sizes(&training, &validation, config)?;
    let manifest = PreparedManifest {
        format: FORMAT.into(),
        version: MANIFEST_VERSION,
        corpus: corpus.stats,
        tokenizer_kind: tokenizer.kind().into(),
        tokenizer_hash: format!("{:032x}", xxh3_128(&fs_err::read(&tokenizer_path)?)),
        vocab_size: tokenizer.vocab_size(),
        training,
        validation,
    };
    let manifest_path = temp.path().join(MANIFEST);
    let mut file = fs_err::File::create(&manifest_path)?;
    std::io::Write::write_all(&mut file, &serde_json::to_vec_pretty(&manifest).expect("plain data serialises"))?;
    file.sync_all()?;
    drop(file);
    if dir.is_dir() && !Prepared::is_complete(&dir) {
        // Without a manifest it is what somebody left of a folder of the same text and settings.
        fs_err::remove_dir_all(&dir)?;
    }
    match fs_err::rename(temp.path(), &dir) {
        Ok(()) => drop(temp.keep()),
        // Another process was faster with the same text and settings.
        Err(_) if Prepared::is_complete(&dir) => {}
        Err(error) => return Err(error.into()),
    }
    if cfg!(unix) {
        // The rename itself is in the folder.
        fs_err::File::open(data_dir)?.sync_all()?;
    }
    Ok(Prepared { reused: false, ..Prepared::open(&dir)? })
}

/// Whether both splits have something to predict in windows of the model's context.
fn check_sizes(training: &SplitManifest, validation: &SplitManifest, config: &RunConfig) -> Result<(), DataError> {
    for (split, found, expected) in
        [("training", training.n_tokens, config.model.context_len as u64 + 1), ("validation", validation.n_tokens, 2)]
    {
        if found < expected {
            return Err(DataError::TooSmall { split, found, expected });
        }
    }
    Ok(())
}

/// Sixteen digits that differ whenever the prepared folder would.
fn key(config: &RunConfig, corpus: &Corpus) -> Result<String, DataError> {
    let file = match (&config.tokenizer.kind, &config.tokenizer.path) {
        // What is not all of it in one file, or is told by a name, is told apart by what comes of it.
        (TokenizerKind::File, Some(path)) if !path.ends_with("tokenizer.json") || !path.is_file() => {
            format!("{:032x}", xxh3_128(Tokenizer::open(&path.to_string_lossy())?.to_json().as_bytes()))
        }
        (TokenizerKind::File, Some(path)) => format!("{:032x}", xxh3_128(&fs_err::read(path)?)),
        _ => String::new(),
    };
    let data = &config.data;
    let split = (data.split, data.validation_fraction.to_bits(), &data.validation_packages, config.seed.stream("split"));
    let text = format!(
        "{PREPARATION_VERSION} {} {:?} {:?} {file} {split:?} {}",
        corpus.stats.hash,
        config.tokenizer.kind,
        config.tokenizer.vocab_size,
        data.paths.is_empty()
    );
    Ok(format!("{:016x}", xxh3_128(text.as_bytes()) as u64))
}

fn make_tokenizer(
    config: &TokenizerConfig,
    corpus: &Corpus,
    pieces: &Pieces<'_>,
    progress: &mut dyn FnMut(PrepareEvent<'_>),
) -> Result<Tokenizer, DataError> {
    let training: Vec<&str> = pieces.training.iter().map(|piece| piece.text).collect();
    let special_tokens = vec![END_OF_TEXT.to_owned()];
    let vocab_size = config.vocab_size.unwrap_or_default();
    match config.kind {
        TokenizerKind::Bpe => {
            let trainer = BpeTrainer { special_tokens, ..BpeTrainer::new(vocab_size) };
            let mut counts = PreTokenCounts::new(trainer.pattern.clone());
            counts
                .add(&training)
                .and_then(|()| trainer.train_with_progress(&counts, &mut |done, total| progress(PrepareEvent::Merges { done, total })))
                .map(Tokenizer::Bpe)
                .map_err(|source| DataError::Tokenizer { place: "training the tokenizer".into(), source })
        }
        TokenizerKind::Char => {
            let whole: Vec<&str> = corpus.documents.iter().map(|document| document.text.as_str()).collect();
            // One text needs no separator, and published character-level recipes have none.
            let special = if whole.len() > 1 { special_tokens } else { Vec::new() };
            Ok(Tokenizer::Char(CharVocab::build(&whole, &special)))
        }
        TokenizerKind::Word => Ok(Tokenizer::Word(WordVocab::build(&training, vocab_size, &special_tokens))),
        TokenizerKind::File => {
            let path = config.path.as_deref().expect("validated: kind `file` has a path");
            Ok(Tokenizer::open(&path.to_string_lossy())?)
        }
    }
}

/// The ids of a document: the end-of-text token first, where the vocabulary has one and the document begins here.
/// Putting it first makes every token of the text a target, the very first included.
///
/// # Errors
/// Text that the vocabulary cannot express.
pub fn encode_document(tokenizer: &Tokenizer, text: &str, begins: bool) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = Vec::new();
    ids.extend(tokenizer.end_of_text().filter(|_| begins));
    ids.extend(tokenizer.encode(text)?);
    Ok(ids)
}

fn write_split(
    dir: &Path,
    stem: &str,
    pieces: &[Piece<'_>],
    tokenizer: &Tokenizer,
    advance: &mut dyn FnMut(u64),
) -> Result<SplitManifest, DataError> {
    let mut split = SplitManifest { n_documents: pieces.len(), ..SplitManifest::default() };
    let mut open: Option<(String, ShardWriter, u64)> = None;
    let finish = |split: &mut SplitManifest, (name, writer, _): (String, ShardWriter, u64)| -> Result<(), DataError> {
        let (n_tokens, sum) = writer.finish()?;
        split.n_tokens += n_tokens;
        split.shards.push((name, format!("{sum:016x}")));
        Ok(())
    };
    // Encoded in parallel, written in order, a bounded number of documents at a time.
    for chunk in pieces.chunks(256) {
        let encoded: Vec<_> = chunk.par_iter().map(|piece| encode_document(tokenizer, piece.text, piece.begins)).collect();
        for (piece, ids) in chunk.iter().zip(encoded) {
            let ids = ids.map_err(|source| DataError::Tokenizer { place: format!("document `{}`", piece.name), source })?;
            let mut current = match open.take() {
                Some(current) => current,
                None => {
                    let name = format!("{stem}-{:05}.bin", split.shards.len());
                    let writer = ShardWriter::create(&dir.join(&name), tokenizer.vocab_size())?;
                    (name, writer, 0)
                }
            };
            current.1.write(&ids)?;
            current.2 += ids.len() as u64;
            split.n_bytes += piece.text.len() as u64;
            if current.2 >= SHARD_TOKENS {
                finish(&mut split, current)?;
            } else {
                open = Some(current);
            }
        }
        advance(chunk.iter().map(|piece| piece.text.len() as u64).sum());
    }
    if let Some(current) = open {
        finish(&mut split, current)?;
    }
    Ok(split)
}

/// A folder in `dir` that is removed by itself unless it is renamed. It becomes an ordinary one, under the user's umask.
fn temp_dir(dir: &Path) -> std::io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".preparing-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(dir).map_err(|error| std::io::Error::new(error.kind(), format!("cannot write into `{}`: {error}", dir.display())))
}
