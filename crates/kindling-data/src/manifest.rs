//! A prepared folder: what its manifest says, and whether its files are what they were. Writes nothing but manifests.

use std::path::{Path, PathBuf};

use kindling_config::Seed;
use kindling_tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::shard::Shard;
use crate::{BatchOptions, BatchSampler, CorpusStats, DataError, Part, Place, Shards, StepReport};

/// Version of the manifest of prepared text. Those before are read, too.
pub(crate) const MANIFEST_VERSION: u32 = 3;
/// Version of the manifest of prepared examples, which programs that know none must not take for text.
pub(crate) const EXAMPLES_VERSION: u32 = 4;
/// The version of folders of examples some of which are held out for tests, or whose completions are classes.
pub(crate) const TASK_VERSION: u32 = 5;
pub(crate) const FORMAT: &str = "kindling-data";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

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
    /// What each step of cleaning did, in the order in which they were taken.
    #[serde(default)]
    pub cleaning: Vec<StepReport>,
    /// Kind of tokenizer: `bpe`, `char` or `word`.
    pub tokenizer_kind: String,
    /// XXH3-128 of `tokenizer.json`.
    pub tokenizer_hash: String,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Whether the shards hold examples, and so marks beside the ids; since version 4.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub examples: bool,
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
    /// Bytes of text.
    pub n_bytes: u64,
    /// Tokens.
    pub n_tokens: u64,
    /// The shards, in order.
    pub shards: Vec<ShardManifest>,
    /// The sources of a mixture, whose tokens follow each other in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceManifest>,
}

/// One source of a mixture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceManifest {
    /// As the configuration calls it.
    pub name: String,
    /// As the configuration has it.
    pub weight: f64,
    /// Documents.
    pub n_documents: usize,
    /// Bytes of text.
    pub n_bytes: u64,
    /// Tokens.
    pub n_tokens: u64,
}

/// One shard of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "AnyShard")]
pub struct ShardManifest {
    /// Its name in the folder.
    pub file: String,
    /// XXH3-64 of its payload.
    pub sum: String,
    /// Tokens.
    pub n_tokens: u64,
    /// Where the first of its stretches of text begins and the last one ends; manifests before version 3 do not say it.
    pub range: Option<(Place, Place)>,
    /// Tokens of each source of a mixture.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_tokens: Vec<u64>,
}

/// A shard as all versions have written it.
#[derive(Deserialize)]
#[serde(untagged)]
enum AnyShard {
    /// Versions 1 and 2.
    NameAndSum(String, String),
    Whole(WholeShard),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeShard {
    file: String,
    sum: String,
    n_tokens: u64,
    range: Option<(Place, Place)>,
    #[serde(default)]
    source_tokens: Vec<u64>,
}

impl From<AnyShard> for ShardManifest {
    fn from(shard: AnyShard) -> Self {
        match shard {
            AnyShard::NameAndSum(file, sum) => Self { file, sum, n_tokens: 0, range: None, source_tokens: Vec::new() },
            AnyShard::Whole(WholeShard { file, sum, n_tokens, range, source_tokens }) => Self { file, sum, n_tokens, range, source_tokens },
        }
    }
}

impl PreparedManifest {
    /// One hash over everything that a run's mathematics depends on: tokenizer and both splits.
    pub fn data_hash(&self) -> String {
        let sums = self.training.shards.iter().chain(&self.validation.shards).map(|shard| shard.sum.as_str());
        let text = std::iter::once(self.tokenizer_hash.as_str()).chain(sums).collect::<Vec<_>>().join(" ");
        format!("{:032x}", xxh3_128(text.as_bytes()))
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// A file that is not there, is no manifest, or is of another version.
    pub(crate) fn read(dir: &Path) -> Result<Self, DataError> {
        let path = dir.join(MANIFEST);
        // Format and version first: a later version may have keys that this one does not know.
        let read = fs_err::read(&path)?;
        let not_json = |error: serde_json::Error| damaged(&path, "the manifest", error.to_string(), "one that this version writes".into());
        let value: serde_json::Value = serde_json::from_slice(&read).map_err(not_json)?;
        if value["format"] != FORMAT {
            return Err(damaged(&path, "the format", value["format"].to_string(), format!("\"{FORMAT}\"")));
        }
        if !value["version"].as_u64().is_some_and(|version| (1..=u64::from(TASK_VERSION)).contains(&version)) {
            return Err(DataError::Version { path, found: value["version"].to_string(), expected: TASK_VERSION });
        }
        Self::deserialize(value).map_err(not_json)
    }

    /// The tokenizer of a folder, if it is the one that this manifest means.
    pub(crate) fn tokenizer(&self, dir: &Path) -> Result<Tokenizer, DataError> {
        let path = dir.join(TOKENIZER);
        if !path.exists() {
            return Err(damaged(&path, "the file", "missing".into(), "there".into()));
        }
        let hash = hash_of(&path)?;
        if hash != self.tokenizer_hash {
            return Err(damaged(&path, "the checksum", hash, self.tokenizer_hash.clone()));
        }
        Ok(Tokenizer::load(&path)?)
    }
}

impl SplitManifest {
    /// The stretches of the tokens that batches are drawn from: each source, or all of them.
    pub fn parts(&self) -> Vec<Part> {
        if self.sources.is_empty() {
            return vec![Part { start: 0, end: self.n_tokens, weight: 1.0 }];
        }
        let mut start = 0;
        let part = |source: &SourceManifest| {
            let part = Part { start, end: start + source.n_tokens, weight: source.weight };
            start = part.end;
            part
        };
        self.sources.iter().map(part).collect()
    }
}

impl ShardManifest {
    /// Why a file is not this shard, if it is not.
    pub(crate) fn damage(&self, dir: &Path) -> Option<DataError> {
        let path = dir.join(&self.file);
        if !path.exists() {
            return Some(damaged(&path, "the file", "missing".into(), "there".into()));
        }
        match Shard::open(&path) {
            Ok(shard) => {
                let found = format!("{:016x}", shard.sum);
                (found != self.sum).then(|| damaged(&path, "the checksum", found, self.sum.clone()))
            }
            Err(error) => Some(error),
        }
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
        let manifest = PreparedManifest::read(dir)?;
        let tokenizer = manifest.tokenizer(dir)?;
        let open = |split: &SplitManifest| -> Result<Shards, DataError> {
            let paths: Vec<_> = split.shards.iter().map(|shard| dir.join(&shard.file)).collect();
            if let Some(missing) = paths.iter().find(|path| !path.exists()) {
                return Err(damaged(missing, "the file", "missing".into(), "there".into()));
            }
            let shards = Shards::open(&paths)?;
            let shards = if manifest.examples { shards.of_examples() } else { shards };
            for ((path, shard), found) in paths.iter().zip(&split.shards).zip(shards.sums()) {
                let found = format!("{found:016x}");
                if found != shard.sum {
                    return Err(damaged(path, "the checksum", found, shard.sum.clone()));
                }
            }
            let of_sources: u64 = split.sources.iter().map(|source| source.n_tokens).sum();
            if !split.sources.is_empty() && of_sources != split.n_tokens {
                let found = format!("{of_sources} of all sources");
                return Err(damaged(&dir.join(MANIFEST), "the number of tokens", found, split.n_tokens.to_string()));
            }
            if shards.n_tokens() != split.n_tokens || shards.vocab_size() != manifest.vocab_size {
                let (found, expected) = (split.n_tokens.to_string(), format!("{} as in its shards", shards.n_tokens()));
                return Err(damaged(&dir.join(MANIFEST), "the number of tokens", found, expected));
            }
            Ok(shards)
        };
        let (training, validation) = (open(&manifest.training)?, open(&manifest.validation)?);
        Ok(Self { dir: dir.to_owned(), manifest, tokenizer, training, validation, reused: true })
    }

    /// What makes batches of `parts` of the training split: of windows, or of whole examples where it holds such.
    ///
    /// # Errors
    /// [`DataError::TooSmall`] if a part has no room for a window, or no example.
    pub fn sampler(&self, parts: &[Part], options: BatchOptions, seed: Seed) -> Result<BatchSampler, DataError> {
        match self.manifest.examples {
            true => BatchSampler::of_examples(&self.training, parts, options, seed),
            false => BatchSampler::new(parts, options, seed),
        }
    }

    /// Where the tokenizer lies, to be copied into a run.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.dir.join(TOKENIZER)
    }
}

/// XXH3-128 of a file, in hexadecimal.
pub(crate) fn hash_of(path: &Path) -> std::io::Result<String> {
    Ok(format!("{:032x}", xxh3_128(&fs_err::read(path)?)))
}

fn damaged(path: &Path, what: &'static str, found: String, expected: String) -> DataError {
    DataError::Damaged { path: path.to_owned(), what, found, expected }
}
