//! Everything that says what a run is. Resolved once by the command line, then only read.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::check_size;
use crate::{CleanConfig, ConfigError, ExamplesConfig, LoraConfig, ModelConfig, Seed, TaskConfig, TrainConfig, toml_text};

/// A whole run: what is read, what is built, how it is trained, how it is sampled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Names the run folder unless the user gives a name: `spark` becomes `spark-1`, `spark-2`, …
    pub name: String,
    /// Every random choice follows from it.
    pub seed: Seed,
    /// The shape of the model.
    pub model: ModelConfig,
    /// How text becomes token ids.
    pub tokenizer: TokenizerConfig,
    /// What text is read, and how it is split.
    pub data: DataConfig,
    /// Steps, learning rate, optimizer, and how often to look.
    pub train: TrainConfig,
    /// How text is drawn from the model during and after training.
    pub sample: SamplingConfig,
    /// What it begins with in place of random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseConfig>,
    /// What it is trained for, where that is more than text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskConfig>,
}

/// The trained weights that a run begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseConfig {
    /// Where they are from, for people: a run's folder.
    pub run: String,
    /// XXH3-128 of their file, of which the run keeps a copy.
    pub weights_hash: String,
    /// Hold on to what the base says; nothing does by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// Train low-rank adapters beside the weights, which stay as they are; by default all weights are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
}

/// Learning without Forgetting (Li and Hoiem, arXiv:1606.09282): the loss has, beside the targets', the divergence from what the
/// base says of the new text, so that the new is learned where the base does not mind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// What the divergence counts beside the cross-entropy.
    pub weight: f64,
    /// Divides both models' logits, so that unlikely tokens count too (Hinton et al., arXiv:1503.02531). The divergence is multiplied by
    /// its square, so that its gradient is as long at any temperature.
    pub temperature: f64,
}

/// How text becomes token ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Which kind is trained, or that one is read from a file.
    pub kind: TokenizerKind,
    /// Tokens in all, special ones included. Needed by `bpe` and `word`; `char` and `file` have their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// For kind `file`: a `tokenizer.json` or another vocabulary file, or the name of a published vocabulary, such as `gpt2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// The kinds of tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// Byte-level BPE, trained on the corpus.
    Bpe,
    /// One token a character of the corpus.
    Char,
    /// The most frequent words, split at white space.
    Word,
    /// Read from `path`.
    File,
}

/// What text is read, and how it is split into training and validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Files, folders or globs. Takes precedence over `packages`.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// Cargo packages, all among the locked dependencies of the workspace, whose sources are the corpus.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Of those, the packages that are held out whole for validation.
    #[serde(default)]
    pub validation_packages: Vec<String>,
    /// Globs of files that are left out, relative to each package or folder.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How the rest is split; by default `tail` for a single document and `document` for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Share of the documents that validates, or of the bytes with `tail`, unless packages or paths are held out.
    pub validation_fraction: f64,
    /// Which windows of the training text a step takes.
    ///
    /// This and the next are left out of a file where they are the default: programs from before them read it.
    #[serde(default, skip_serializing_if = "Order::is_random")]
    pub order: Order,
    /// Tokens attend only to tokens of their own document. It needs a tokenizer with an end-of-text token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub document_mask: bool,
    /// Replace invalid UTF-8 by U+FFFD instead of refusing the file.
    #[serde(default)]
    pub lossy: bool,
    /// The field that is the text in files with a document a row.
    ///
    /// This and the next are left out of a file where they are the default: programs from before them read it.
    #[serde(default = "text_field", skip_serializing_if = "is_text")]
    pub text_field: String,
    /// Leave out rows that cannot be read, and what stands behind the damage of a packed file, and count both.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_bad: bool,
    /// Files, folders or globs whose documents validate, whatever `split` says of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation_paths: Vec<PathBuf>,
    /// Texts, each with its weight in training; with them `paths` and `packages` are empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceConfig>,
    /// What is done to the texts, and which of them are dropped. Nothing by default.
    #[serde(default, skip_serializing_if = "CleanConfig::is_off")]
    pub clean: CleanConfig,
    /// The rows of the files are examples, of which a part is learned. Without it they are texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExamplesConfig>,
    /// Names of the fields of CSV and TSV files, whose first line is then a row like all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Files, folders or globs of examples that neither train nor validate: scores are told of them. A training example with the prompt
    /// of one is an error, or left out with `skip_bad`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_paths: Vec<PathBuf>,
    /// Share of the prompts that neither train nor validate, where no files are held out for that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub test_fraction: f64,
}

fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

/// One source of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// What reports call it.
    pub name: String,
    /// Files, folders or globs.
    pub paths: Vec<PathBuf>,
    /// Its share of the training windows, relative to the other sources' weights.
    pub weight: f64,
}

fn text_field() -> String {
    "text".to_owned()
}

fn is_text(field: &str) -> bool {
    field == "text"
}

/// Which windows of the training text a step takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Windows that begin anywhere, drawn with replacement.
    #[default]
    Random,
    /// Windows that do not overlap, each once in a shuffled order, then each again in another order.
    Epoch,
}

impl Order {
    fn is_random(&self) -> bool {
        *self == Self::Random
    }
}

/// Where the border between training and validation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Whole documents, chosen by a hash of their texts.
    Document,
    /// The last part of the text; no window crosses the border.
    Tail,
}

/// How text is drawn from the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// What the text begins with.
    pub prompt: String,
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 always takes the likeliest token.
    pub temperature: f64,
    /// Only the k likeliest tokens can be drawn; 0 turns it off.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability can be drawn (Holtzman et al. 2020); 1 turns it off.
    pub top_p: f64,
}

impl RunConfig {
    /// Reads TOML text and applies `overrides` of the form `train.steps=500`; `source_name` goes into errors.
    ///
    /// # Errors
    /// Broken TOML, an unknown key (with a suggestion), a value of the wrong type, or an impossible one.
    pub fn from_toml(text: &str, source_name: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let config: Self = toml_text::parse(text, source_name, overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// The whole configuration as TOML; [`RunConfig::from_toml`] reads it back to an equal value.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("plain data serialises")
    }

    /// Every setting that a file of it has, by its whole key, such as `train.lr`, as it is written there.
    pub fn settings(&self) -> BTreeMap<String, String> {
        fn collect(prefix: &str, value: &toml::Value, settings: &mut BTreeMap<String, String>) {
            match value {
                toml::Value::Table(table) => {
                    for (key, value) in table {
                        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                        collect(&key, value, settings);
                    }
                }
                value => drop(settings.insert(prefix.to_owned(), value.to_string())),
            }
        }
        let mut settings = BTreeMap::new();
        collect("", &toml::Value::try_from(self).expect("plain data serialises"), &mut settings);
        settings
    }

    /// The adapters that are trained in place of all weights, if any are.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.base.as_ref()?.lora.as_ref()
    }

    /// Parameters that are trained, with the head tied to the token embedding.
    pub fn n_trained(&self) -> usize {
        self.lora().map_or_else(|| self.model.n_params(), |lora| lora.n_params(&self.model))
    }

    /// Floating point operations of training on one token. Beside adapters the model is frozen: its weights take part forward and in the
    /// gradients of values, which are 4 operations each; what is trained takes 6, with the gradients of weights.
    pub fn flops_per_token(&self) -> f64 {
        let without_frozen = |trained: usize| 6.0 * trained as f64 - 2.0 * self.model.n_multiplying() as f64;
        self.model.flops_per_token() + self.lora().map_or(0.0, |_| without_frozen(self.n_trained()))
    }

    /// Checks every value that can be checked without data.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first key that is impossible.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_name("name", &self.name)?;
        self.model.validate()?;
        self.tokenizer.validate()?;
        self.data.validate()?;
        self.train.validate()?;
        self.validate_task()?;
        for (key, value) in self.base.iter().flat_map(|base| base.distillation).flat_map(|distillation| {
            [("base.distillation.weight", distillation.weight), ("base.distillation.temperature", distillation.temperature)]
        }) {
            if !(value > 0.0 && value.is_finite()) {
                return Err(invalid(key, value.to_string(), "a number above 0"));
            }
        }
        if let Some(lora) = self.lora() {
            lora.validate(&self.model)?;
        }
        self.sample.validate()
    }

    /// Whether what is trained is what is measured.
    fn validate_task(&self) -> Result<(), ConfigError> {
        let (n_classes, examples) = (self.model.n_classes, self.data.examples.as_ref());
        if examples.is_some_and(|examples| examples.head && examples.labels.len() < 2) {
            return Err(invalid("data.examples.labels", "fewer than two".into(), "at least two with `data.examples.head`"));
        }
        let learned = examples.filter(|examples| examples.head).map_or(0, |examples| examples.labels.len());
        if n_classes != learned {
            let expected = format!("{learned}, as many as `data.examples` has labels for a head");
            return Err(invalid("model.n_classes", n_classes.to_string(), &expected));
        }
        let base = self.base.as_ref().filter(|_| n_classes > 0);
        if base.is_some_and(|base| base.lora.is_some() || base.distillation.is_some()) {
            return Err(invalid(
                "model.n_classes",
                n_classes.to_string(),
                "0 with adapters or distillation: they know no classification head",
            ));
        }
        let Some(task) = &self.task else { return Ok(()) };
        task.validate()?;
        let same = |examples: &ExamplesConfig| {
            (&examples.prompt, &examples.completion, &examples.labels) == (&task.prompt, &task.target, &task.labels)
        };
        if !examples.is_some_and(same) {
            return Err(invalid(
                "data.examples",
                "not the task's".into(),
                "its `prompt`, `target` and `labels`: change them in the task's file",
            ));
        }
        Ok(())
    }
}

impl TokenizerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        match self.kind {
            TokenizerKind::Bpe | TokenizerKind::Word => {
                let least = if self.kind == TokenizerKind::Bpe { 257 } else { 2 };
                match self.vocab_size {
                    Some(size) if (least..=1 << 24).contains(&size) => Ok(()),
                    found => Err(invalid(
                        "tokenizer.vocab_size",
                        found.map_or("missing".into(), |n| n.to_string()),
                        &format!("a whole number from {least} to {}", 1 << 24),
                    )),
                }
            }
            TokenizerKind::Char => Ok(()),
            TokenizerKind::File if self.path.is_some() => Ok(()),
            TokenizerKind::File => {
                Err(invalid("tokenizer.path", "missing".into(), "the path of a `tokenizer.json`, or the name of a published vocabulary"))
            }
        }
    }
}

impl DataConfig {
    /// What is read where nothing but paths are known.
    pub fn of_paths(paths: Vec<PathBuf>, lossy: bool, skip_bad: bool) -> Self {
        Self {
            paths,
            packages: Vec::new(),
            validation_packages: Vec::new(),
            exclude: Vec::new(),
            split: None,
            validation_fraction: 0.1,
            order: Order::default(),
            document_mask: false,
            lossy,
            text_field: text_field(),
            skip_bad,
            validation_paths: Vec::new(),
            sources: Vec::new(),
            clean: CleanConfig::default(),
            examples: None,
            columns: Vec::new(),
            test_paths: Vec::new(),
            test_fraction: 0.0,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let has_own = !self.paths.is_empty() || !self.packages.is_empty();
        if !self.sources.is_empty() && has_own {
            let expected = "either `data.sources`, or `data.paths` and `data.packages`";
            return Err(invalid("data.sources", "texts here and in `data.paths` or `data.packages` too".into(), expected));
        }
        if !self.sources.is_empty() && self.split == Some(Split::Tail) {
            // All of the tail would be of the last source.
            return Err(invalid("data.split", "`tail`, with `data.sources`".into(), "`document`, or `data.validation_paths`"));
        }
        for (i, source) in self.sources.iter().enumerate() {
            if !(source.weight > 0.0 && source.weight.is_finite()) {
                return Err(invalid("data.sources.weight", source.weight.to_string(), "a number above 0"));
            }
            if source.paths.is_empty() {
                return Err(invalid("data.sources.paths", "empty".into(), "at least one file, folder or glob"));
            }
            if self.sources[..i].iter().any(|other| other.name == source.name) {
                return Err(invalid("data.sources.name", format!("`{}` twice", source.name), "a name of its own for each source"));
            }
        }
        self.clean.validate()?;
        if self.examples.is_some() {
            let invalid = |key, found: &str, expected| Err(invalid(key, format!("{found}, with `data.examples`"), expected));
            if self.order != Order::Epoch {
                return invalid("data.order", "`random`", "`epoch`: examples are taken whole, each once an epoch");
            }
            if self.split == Some(Split::Tail) {
                return invalid("data.split", "`tail`", "`document`, or `data.validation_paths`");
            }
            if !self.clean.drops_repeats_alone() {
                return invalid("data.clean", "more than `dedup = \"exact\"`", "examples that are clean, and of its keys `dedup` alone");
            }
        }
        if self.examples.as_ref().is_some_and(|examples| examples.head && examples.turns.is_some()) {
            return Err(invalid("data.examples.turns", "given, with `data.examples.head`".into(), "none: a head answers once, at the end"));
        }
        if self.examples.as_ref().is_some_and(|examples| examples.head && examples.learn_prompt) {
            return Err(invalid("data.examples.learn_prompt", "true, with `data.examples.head`".into(), "false: a head predicts no text"));
        }
        if self.examples.is_none() && (!self.test_paths.is_empty() || self.test_fraction > 0.0) {
            let key = if self.test_paths.is_empty() { "data.test_fraction" } else { "data.test_paths" };
            return Err(invalid(key, "given".into(), "none but with `data.examples`"));
        }
        if !self.test_paths.is_empty() && self.test_fraction > 0.0 {
            return Err(invalid("data.test_fraction", self.test_fraction.to_string(), "0 with `data.test_paths`"));
        }
        let is_share = self.test_fraction > 0.0 && self.test_fraction + self.validation_fraction < 1.0;
        if self.test_fraction != 0.0 && !is_share {
            let expected = "a share, at least 0, that leaves something beside `data.validation_fraction`";
            return Err(invalid("data.test_fraction", self.test_fraction.to_string(), expected));
        }
        if self.sources.is_empty() && !has_own {
            return Err(ConfigError::Invalid {
                key: "data.paths",
                found: "empty, and so is `data.packages`".into(),
                expected: "at least one file, folder, glob or package".into(),
                hint: Some("pass `--data PATH`".into()),
            });
        }
        if !(self.validation_fraction > 0.0 && self.validation_fraction < 1.0) {
            return Err(invalid("data.validation_fraction", self.validation_fraction.to_string(), "a share above 0 and below 1"));
        }
        match self.validation_packages.iter().find(|name| !self.packages.contains(name)) {
            Some(name) => Err(invalid("data.validation_packages", format!("`{name}`"), "names that `data.packages` has too")),
            None => Ok(()),
        }
    }
}

impl SamplingConfig {
    /// Checks temperature, top-p and the number of tokens.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_size("sample.max_new_tokens", self.max_new_tokens, 1 << 30)?;
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(invalid("sample.temperature", self.temperature.to_string(), "0 or a number above it"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(invalid("sample.top_p", self.top_p.to_string(), "above 0 and at most 1"));
        }
        Ok(())
    }
}

/// Whether a folder can be called by it.
pub(crate) fn check_name(key: &'static str, name: &str) -> Result<(), ConfigError> {
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Ok(());
    }
    Err(invalid(key, format!("`{name}`"), "letters, digits, `-`, `_` and `.`, beginning with a letter or digit"))
}

pub(crate) fn invalid(key: &'static str, found: String, expected: &str) -> ConfigError {
    ConfigError::Invalid { key, found, expected: expected.to_owned(), hint: None }
}
