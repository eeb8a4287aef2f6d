//! What can go wrong between a text file and a batch.

use std::path::PathBuf;

use kindling_tokenizer::TokenizerError;
use thiserror::Error;

/// A corpus, shard or prepared folder that cannot be used.
#[derive(Debug, Error)]
pub enum DataError {
    /// Reading or writing failed; the message names the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A path or glob that matches nothing.
    #[error("`{}` matches no file", .0.display())]
    NotFound(PathBuf),
    /// A glob that cannot be parsed.
    #[error("`{pattern}` is not a glob: {message}")]
    Glob {
        /// The pattern as given.
        pattern: String,
        /// What the parser says.
        message: String,
    },
    /// No text at all.
    #[error("`{0}` holds no text")]
    Empty(String),
    /// A file with NUL bytes.
    #[error("`{}` is not text: byte {offset} is NUL", path.display())]
    Binary {
        /// The file.
        path: PathBuf,
        /// Where the first NUL byte is.
        offset: u64,
    },
    /// A file that is not UTF-8.
    #[error("`{}` is not UTF-8: line {line}, byte {offset} of the file is 0x{byte:02x}", path.display())]
    Utf8 {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Offset in the file, from 0.
        offset: u64,
        /// The byte there.
        byte: u8,
    },
    /// A packed file, or one in a format of its own, that is damaged or something else.
    #[error("`{}` cannot be read: {message}", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// What its reader says.
        message: String,
    },
    /// A row that is no document.
    #[error("`{}`, line {line}: {message}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1; of a Parquet file the row.
        line: u64,
        /// What was found, and what was expected.
        message: String,
    },
    /// A table without the column that is the text.
    #[error("`{}` has no field `{field}`, found {found}", path.display())]
    NoField {
        /// The file.
        path: PathBuf,
        /// The field asked for.
        field: String,
        /// The fields that there are.
        found: String,
    },
    /// A template of `data.examples` that is none.
    #[error("`data.examples.{key}` is no template: {message}")]
    Template {
        /// Which one: its key in `data.examples`.
        key: &'static str,
        /// What its engine says.
        message: String,
    },
    /// A file without rows, where each row is to be an example.
    #[error("`{}` has no rows, and with `data.examples` each row is an example", .0.display())]
    NoRows(PathBuf),
    /// Files whose lines belong together and that have unequal numbers of them.
    #[error("`{}` ends after {n_lines} lines, and `{}` goes on: line N of each belongs together", short.display(), long.display())]
    Unaligned {
        /// The file that ends first.
        short: PathBuf,
        /// Lines that it has.
        n_lines: usize,
        /// Another one.
        long: PathBuf,
    },
    /// A training example that is tested with too.
    #[error("`{}`, line {line}: its prompt stands in the test split too, expected prompts that no test knows", path.display())]
    TestOverlap {
        /// The file of the training example.
        path: PathBuf,
        /// The line, from 1; of a Parquet file the row.
        line: u64,
    },
    /// A share of the examples that none falls into.
    #[error("none of {n_documents} examples is in the test split, which is to be {test_fraction} of them")]
    NoTests {
        /// Examples that there are.
        n_documents: usize,
        /// The share.
        test_fraction: f64,
    },
    /// Files of a test that are all that there is to train on.
    #[error("nothing is left to train on: all of {0} is tested with too")]
    AllTested(String),
    /// Files without a row to test with.
    #[error("`{0}` holds no row of the test split")]
    NoTestRows(String),
    /// Examples begin and end with a token that the vocabulary does not have.
    #[error("the tokenizer has no end-of-text token, which examples begin and end with")]
    NoEndOfText,
    /// `cargo metadata` did not answer.
    #[error("cannot ask cargo for the locked packages: {0}")]
    Cargo(String),
    /// A package that is not among the locked dependencies, or whose sources are not on this machine.
    #[error("package `{0}` is not among the locked dependencies that cargo has placed on this machine")]
    Package(String),
    /// Too few tokens for one window.
    #[error("the {split} split has {found} tokens, expected at least {expected}{}", if *.split == "training" { " (one context and its last target)" } else { "" })]
    TooSmall {
        /// `training` or `validation`.
        split: &'static str,
        /// Tokens there.
        found: u64,
        /// Tokens needed.
        expected: u64,
    },
    /// Too few tokens of a source for one window.
    #[error("the source `{name}` has {found} training tokens, expected at least {expected} (one context and its last target)")]
    SmallSource {
        /// As the configuration calls it.
        name: String,
        /// Tokens there.
        found: u64,
        /// Tokens needed.
        expected: u64,
    },
    /// A document alone cannot be split by documents.
    #[error("the corpus has {0} document, expected at least 2 to split by whole documents")]
    OneDocument(usize),
    /// Documents, of which cleaning leaves none.
    #[error("cleaning drops all {0} documents")]
    AllDropped(usize),
    /// Files that are not what they were a moment ago.
    #[error("the corpus changed while it was prepared")]
    Changed,
    /// The caller wanted a stop.
    #[error("preparation stopped")]
    Stopped,
    /// A language without a list of stop words.
    #[error("there is no list of stop words for `{found}`, expected one of {known}")]
    Language {
        /// As given.
        found: String,
        /// The codes of those that there are.
        known: String,
    },
    /// A shard or a manifest that is damaged or foreign.
    #[error("`{}` is damaged: {what} is {found}, expected {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that does not fit.
        what: &'static str,
        /// As found.
        found: String,
        /// As expected.
        expected: String,
    },
    /// A file of another version.
    #[error("`{}` is of version {found}, expected {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// As found.
        found: String,
        /// The version that this program reads.
        expected: u32,
    },
    /// The file of a tokenizer; the message names it.
    #[error("{0}")]
    TokenizerFile(#[from] TokenizerError),
    /// The tokenizer refuses a text.
    #[error("{place}: {source}")]
    Tokenizer {
        /// The document.
        place: String,
        /// Why.
        source: TokenizerError,
    },
}

impl DataError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            // The command knows what an I/O error means for its folders.
            Self::Io(_) => return None,
            Self::NotFound(_) => "check the spelling; a glob needs quotes, so that the shell leaves it alone".into(),
            Self::Glob { .. } => "for example `--data 'texts/**/*.txt'`".into(),
            Self::Empty(_) => {
                "files that are empty, hidden, excluded, in a `.gitignore`, or symbolic links in a folder do not count".into()
            }
            Self::Binary { .. } => "pass text: plain text, Markdown or source files".into(),
            Self::Utf8 { .. } => "convert the file (`iconv -f latin1 -t utf-8`), or pass `--lossy` to replace such bytes by U+FFFD".into(),
            Self::Packed { .. } => {
                "the file is damaged, or is not what its name says: take it again from where it was made, or pass `--skip-bad` to go on \
                 without what stands behind the damage"
                    .into()
            }
            Self::Row { .. } => {
                "correct the row, name another field with `--text-field` (of examples with `--prompt-template` and `--completion-template`), or pass `--skip-bad` to leave such rows out".into()
            }
            Self::NoField { .. } => {
                "name the field that is the text with `--text-field`, or its number if the first row has no names".into()
            }
            Self::Template { .. } => {
                "a template of Jinja, such as `{{ question }}`: its variables are the fields of the row, or `role` for what messages begin \
                 and end with"
                    .into()
            }
            Self::NoRows(_) => "pass JSON lines (`.jsonl`), CSV, TSV or Parquet, or leave other files out with `data.exclude`".into(),
            Self::Unaligned { .. } => "take both files from one place; a line that one of them lacks moves all behind it".into(),
            Self::TestOverlap { .. } => "take such rows out of the training file, or pass `--skip-bad` to leave them out of training".into(),
            Self::AllTested(_) => "name other files to train on, or leave `test` out and hold a share of the rows out".into(),
            Self::NoTestRows(_) => "give a file with rows, or a larger share".into(),
            Self::NoTests { .. } => "give more rows, hold a file of rows out with `test`, or raise `test_fraction`".into(),
            Self::NoEndOfText => "take a base whose tokenizer has `<|endoftext|>`, such as one of kind `bpe`".into(),
            Self::Cargo(_) => "run inside the workspace with cargo on the PATH, or pass `--data PATH`".into(),
            Self::Package(_) => "build first (`cargo build --release`), correct `data.packages`, or pass `--data PATH`".into(),
            Self::TooSmall { split: "training", .. } => "pass more text, or lower `model.context_len`".into(),
            Self::TooSmall { .. } => "pass more text, hold more of it out, or raise `data.validation_fraction`".into(),
            Self::SmallSource { .. } => "give the source more text, take it out of `data.sources`, or lower `model.context_len`".into(),
            Self::OneDocument(_) => "use `--set data.split=tail`, or pass several documents; examples cannot be cut".into(),
            Self::AllDropped(_) => "`data.clean` asks for too much: see its `min_chars` and `max_chars`".into(),
            Self::Changed => "let nothing write to its files meanwhile, and prepare it again".into(),
            Self::Stopped => "the same command goes on behind what is finished".into(),
            Self::Language { .. } => "name the languages in `data.clean.stop_words`, such as `[\"en\", \"zh\"]`".into(),
            Self::Version { .. } => "delete the prepared folder; the next run writes it anew".into(),
            Self::Damaged { .. } => "delete the prepared folder; the next run writes it anew".into(),
            Self::TokenizerFile(source) | Self::Tokenizer { source, .. } => return source.hint(),
        })
    }
}
