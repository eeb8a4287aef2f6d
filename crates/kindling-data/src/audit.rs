//! What is doubtful about a corpus: documents that repeat, data of persons and keys, validation text that is in the training text too.
//! Changes nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use kindling_config::{DataConfig, Redaction};
use rayon::prelude::*;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::clean::Cleaner;
use crate::clean::redact::Redactor;
use crate::examples;
use crate::files::Files;
use crate::near::{NearIndex, Signature};
use crate::scan::{Corpus, Scan, Side, scan};
use crate::stretch::{Origin, Stretch, for_each_stretch_batch};
use crate::words::{Runs, for_each_word};
use crate::{CorpusStats, DataError, StepReport};

/// What is looked for, and how much of it is shown.
#[derive(Clone, Copy, Debug)]
pub struct AuditOptions {
    /// Words that a passage of the validation text must share with the training text to count as contamination (GPT-3: 13; Brown et
    /// al. 2020, appendix C).
    pub ngram: usize,
    /// The Jaccard similarity from which on two documents are nearly the same.
    pub near_similarity: f64,
    /// Examples of each finding.
    pub n_examples: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { ngram: 13, near_similarity: 0.8, n_examples: 5 }
    }
}

/// What was found. All of it is about the texts as they are after the configured cleaning.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// What was read, and what was left out.
    pub corpus: CorpusStats,
    /// What cleaning did before.
    pub cleaning: Vec<StepReport>,
    /// Documents whose text an earlier one has.
    pub exact: Repeats,
    /// Documents whose words an earlier one has nearly, without those of `exact`.
    pub near: Repeats,
    /// E-mail addresses, telephone numbers, IP addresses, keys: each kind that was found.
    pub personal: Vec<Personal>,
    /// Passages of the validation text that the training text has.
    pub overlap: Overlap,
}

/// Documents that repeat an earlier one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repeats {
    /// How many.
    pub n_documents: usize,
    /// Bytes of their text.
    pub n_bytes: u64,
    /// Of them, those that are on the other side than the document they repeat.
    pub across_the_split: usize,
    /// Some of them, each with the document that it repeats.
    pub examples: Vec<(String, String)>,
}

/// Data of persons or machines, of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Personal {
    /// `email`, `phone`, `ip` or `key`.
    pub kind: Redaction,
    /// How many were found.
    pub n_found: u64,
    /// In how many documents.
    pub n_documents: usize,
    /// Some of them: document, byte of its text, and the beginning and end of what stands there.
    pub examples: Vec<(String, u64, String)>,
}

/// What validation and training text share.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Overlap {
    /// Words of a passage.
    pub ngram: usize,
    /// Documents that validate.
    pub n_documents: usize,
    /// Of them, those with a passage that the training text has.
    pub n_contaminated: usize,
    /// Passages of the validation text, equal ones once.
    pub n_passages: usize,
    /// Of them, those that the training text has.
    pub n_shared: usize,
    /// Some of them: validation document, training document, passage.
    pub examples: Vec<(String, String, String)>,
}

/// Looks through the corpus that a configuration names, split as it would be prepared. Calls `progress(bytes_done, bytes_total)`; the
/// corpus is read three times.
///
/// Memory grows with the number of documents (about half a kilobyte each) and with the words that validate (about 30 bytes each).
///
/// # Errors
/// As [`prepare`](crate::prepare()) when it reads.
pub fn audit(
    config: &DataConfig,
    workspace: &Path,
    options: AuditOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Audit, DataError> {
    let files = Files::of(config, workspace, &std::env::temp_dir())?;
    let cleaner = Cleaner::new(&config.clean).map_err(|unknown| DataError::Language { found: unknown.found, known: unknown.known })?;
    let corpus = Corpus { files, config, cleaner };
    let n_file_bytes = corpus.files.n_bytes;
    let go_on = || if stop.load(Ordering::Relaxed) { Err(DataError::Stopped) } else { Ok(()) };
    let scan = scan(&corpus, &mut |done| {
        progress(done, 3 * n_file_bytes);
        go_on()
    })?;
    let n_bytes = scan.stats.n_bytes;
    let mut auditor = Auditor::new(&corpus, options);
    let has_examples = corpus.config.examples.is_some();
    for pass in 1..=2 {
        for_each_stretch_batch(&corpus, &scan, &|text| text.rfind('\n').map(|at| at + 1), &mut |stretches, done| {
            let stretches = if has_examples { stretches.into_iter().map(as_text).collect() } else { stretches };
            if pass == 1 {
                auditor.look(&stretches)
            } else {
                auditor.compare(&stretches)
            }
            let done = done as f64 / n_bytes.max(1) as f64;
            progress(pass * n_file_bytes + (done * n_file_bytes as f64) as u64, 3 * n_file_bytes);
            go_on()
        })?;
        auditor.end_document();
    }
    progress(3 * n_file_bytes, 3 * n_file_bytes);
    Ok(auditor.finish(scan))
}

/// A passage that validates.
struct Passage {
    /// The first document that has it, counting those that validate.
    document: u32,
    is_shared: bool,
}

/// A document as far as it has come.
struct Unfinished {
    number: u64,
    origin: Origin,
    side: Side,
    n_bytes: u64,
    hash: Xxh3,
    signature: Signature,
    found: [u64; 4],
}

/// What can be found out of a stretch by itself.
struct Facts {
    signature: Signature,
    personal: Vec<(Redaction, Range<usize>)>,
}

struct Auditor<'a> {
    corpus: &'a Corpus<'a>,
    options: AuditOptions,
    redactor: Redactor,
    document: Option<Unfinished>,
    /// Each document that was seen, by its number in the corpus; none where it was dropped.
    origins: Vec<Option<(Origin, Side)>>,
    seen: HashMap<u128, u64>,
    near_index: NearIndex,
    exact: Repeats,
    near: Repeats,
    personal: [Personal; 4],
    /// Documents that validate.
    held_out: Vec<Origin>,
    is_contaminated: Vec<bool>,
    passages: HashMap<u64, Passage>,
    /// Further documents that have a passage.
    more: Vec<(u64, u32)>,
    overlap: Vec<(String, String, String)>,
}

impl<'a> Auditor<'a> {
    fn new(corpus: &'a Corpus<'a>, options: AuditOptions) -> Self {
        Self {
            corpus,
            options,
            redactor: Redactor::new(&Redaction::ALL),
            document: None,
            origins: Vec::new(),
            seen: HashMap::new(),
            near_index: NearIndex::new(options.near_similarity),
            exact: Repeats::default(),
            near: Repeats::default(),
            personal: Redaction::ALL.map(|kind| Personal { kind, n_found: 0, n_documents: 0, examples: Vec::new() }),
            held_out: Vec::new(),
            is_contaminated: Vec::new(),
            passages: HashMap::new(),
            more: Vec::new(),
            overlap: Vec::new(),
        }
    }

    /// The first look: repeats, personal data, and the passages that validate.
    fn look(&mut self, stretches: &[Stretch]) {
        let facts: Vec<Facts> = stretches
            .par_iter()
            .map(|stretch| Facts { signature: Signature::of(&stretch.text), personal: self.redactor.find(&stretch.text) })
            .collect();
        for (stretch, facts) in stretches.iter().zip(facts) {
            let number = stretch.place.document;
            if self.document.as_ref().is_none_or(|document| document.number != number) {
                self.end_document();
                self.document = Some(Unfinished {
                    number,
                    origin: stretch.origin,
                    side: stretch.side,
                    n_bytes: 0,
                    hash: Xxh3::new(),
                    signature: Signature::of(""),
                    found: [0; 4],
                });
            }
            if let Some(document) = &mut self.document {
                document.n_bytes += stretch.text.len() as u64;
                document.hash.update(stretch.text.as_bytes());
                document.signature.merge(&facts.signature);
                for (kind, range) in facts.personal {
                    document.found[kind as usize] += 1;
                    let examples = &mut self.personal[kind as usize].examples;
                    if examples.len() < self.options.n_examples {
                        let at = stretch.place.byte + range.start as u64;
                        examples.push((stretch.origin.name(self.corpus), at, masked(&stretch.text[range])));
                    }
                }
            }
            if stretch.side == Side::Validation {
                self.note_passages(stretch);
            }
        }
    }

    fn note_passages(&mut self, stretch: &Stretch) {
        if self.held_out.last() != Some(&stretch.origin) {
            self.held_out.push(stretch.origin);
            self.is_contaminated.push(false);
        }
        let document = self.held_out.len() as u32 - 1;
        let mut runs = Runs::new(self.options.ngram);
        for_each_word(&stretch.text, |word, _| {
            if let Some(run) = runs.push(word) {
                let known = self.passages.entry(run).or_insert(Passage { document, is_shared: false });
                if known.document != document && self.more.last() != Some(&(run, document)) {
                    self.more.push((run, document));
                }
            }
        });
    }

    /// A document has been looked at.
    fn end_document(&mut self) {
        let Some(document) = self.document.take() else { return };
        let number = document.number;
        self.origins.resize(number as usize, None);
        self.origins.push(Some((document.origin, document.side)));
        for (personal, n_found) in self.personal.iter_mut().zip(document.found) {
            personal.n_found += n_found;
            personal.n_documents += usize::from(n_found > 0);
        }
        let (repeats, first) = match self.seen.entry(document.hash.digest128()) {
            Entry::Occupied(first) => (&mut self.exact, Some(*first.get())),
            Entry::Vacant(vacant) => {
                vacant.insert(number);
                (&mut self.near, self.near_index.insert(number, &document.signature))
            }
        };
        if let Some((origin, side)) = first.and_then(|first| self.origins[first as usize]) {
            repeats.n_documents += 1;
            repeats.n_bytes += document.n_bytes;
            repeats.across_the_split += usize::from(side != document.side);
            if repeats.examples.len() < self.options.n_examples {
                repeats.examples.push((document.origin.name(self.corpus), origin.name(self.corpus)));
            }
        }
    }

    /// The second look: which of the passages that validate are in the training text.
    fn compare(&mut self, stretches: &[Stretch]) {
        let length = self.options.ngram;
        let shared: Vec<Vec<(u64, Range<usize>)>> = stretches
            .par_iter()
            .filter(|stretch| stretch.side == Side::Training)
            .map(|stretch| {
                let (mut runs, mut starts, mut shared) = (Runs::new(length), Vec::new(), Vec::new());
                for_each_word(&stretch.text, |word, range| {
                    starts.push(range.start);
                    if let Some(run) = runs.push(word).filter(|run| self.passages.contains_key(run)) {
                        shared.push((run, starts[starts.len() - length]..range.end));
                    }
                });
                shared
            })
            .collect();
        for (stretch, shared) in stretches.iter().filter(|stretch| stretch.side == Side::Training).zip(shared) {
            for (run, range) in shared {
                let Some(passage) = self.passages.get_mut(&run) else { continue };
                passage.is_shared = true;
                let document = passage.document as usize;
                if !std::mem::replace(&mut self.is_contaminated[document], true) && self.overlap.len() < self.options.n_examples {
                    let names = [self.held_out[document], stretch.origin].map(|origin| origin.name(self.corpus));
                    let [held_out, training] = names;
                    self.overlap.push((held_out, training, stretch.text[range].to_owned()));
                }
            }
        }
    }

    fn finish(mut self, scan: Scan) -> Audit {
        for (run, document) in &self.more {
            if self.passages[run].is_shared {
                self.is_contaminated[*document as usize] = true;
            }
        }
        Audit {
            corpus: scan.stats,
            cleaning: scan.cleaning,
            exact: self.exact,
            near: self.near,
            personal: self.personal.into_iter().filter(|personal| personal.n_found > 0).collect(),
            overlap: Overlap {
                ngram: self.options.ngram,
                n_documents: self.held_out.len(),
                n_contaminated: self.is_contaminated.iter().filter(|is_contaminated| **is_contaminated).count(),
                n_passages: self.passages.len(),
                n_shared: self.passages.values().filter(|passage| passage.is_shared).count(),
                examples: std::mem::take(&mut self.overlap),
            },
        }
    }
}

/// An example as the text that it says.
fn as_text(stretch: Stretch) -> Stretch {
    Stretch { text: examples::texts(&stretch.text).concat(), ..stretch }
}

/// The beginning and the end of what should not be spread further.
fn masked(text: &str) -> String {
    let n = text.chars().count();
    let shown = (n / 4).min(4);
    text.chars().enumerate().map(|(i, c)| if i < shown || i + shown >= n || c.is_whitespace() { c } else { '•' }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_config::RunConfig;

    use super::*;

    fn audited(rows: &[String], held_out: &[String], clean: &str) -> Audit {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, rows: &[String]| {
            let path = dir.path().join(name);
            fs_err::write(&path, rows.iter().map(|row| format!("{}\n", serde_json::json!({ "text": row }))).collect::<String>()).unwrap();
            format!("[{:?}]", path.display().to_string())
        };
        let overrides = [
            format!("data.paths={}", write("train.jsonl", rows)),
            format!("data.validation_paths={}", write("valid.jsonl", held_out)),
            format!("data.clean={{{clean}}}"),
        ];
        let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).unwrap();
        let stop = AtomicBool::new(false);
        let mut last = 0;
        let audit = audit(&config.data, dir.path(), AuditOptions::default(), &stop, &mut |done, total| {
            assert!(last <= done && done <= total);
            last = done;
        });
        audit.unwrap()
    }

    /// Sentences of words that nothing else has.
    fn words(number: usize) -> String {
        (0..40).map(|i| format!("w{}", number * 100 + i)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_hidden_in_a_corpus_is_found() {
        let mut rows: Vec<String> = (0..50).map(words).collect();
        rows.push(words(3));
        rows.push(words(4).replace("w439", "other"));
        rows.push(format!("{} mail ada@example.org, then bob@example.org", words(60)));
        rows.push(format!("{} AKIAABCDEFGHIJKLMNOP on 192.168.0.17", words(61)));
        let mut held_out: Vec<String> = (100..110).map(words).collect();
        // A passage of thirteen words, and the same in another document; one of twelve is none.
        let passage = |n: usize| words(7).split(' ').skip(20).take(n).collect::<Vec<_>>().join("  ").to_uppercase();
        held_out[2] = format!("{} {}, and", words(102), passage(13));
        held_out[4] = format!("{} {}; or", words(104), passage(13));
        held_out[5] = format!("{} {}. but", words(105), passage(12));
        held_out.push(words(9));
        let audit = audited(&rows, &held_out, "");
        assert_eq!((audit.exact.n_documents, audit.exact.across_the_split), (2, 1));
        // What is held out is read first, so that the training document is the one that repeats it.
        let repeats = [("train.jsonl#000000010", "valid.jsonl#000000011"), ("train.jsonl#000000051", "train.jsonl#000000004")];
        assert_eq!(audit.exact.examples, repeats.map(|(document, first)| (document.to_owned(), first.to_owned())));
        assert_eq!((audit.near.n_documents, audit.near.examples[0].0.as_str()), (1, "train.jsonl#000000052"));
        let personal: Vec<_> = audit.personal.iter().map(|found| (found.kind, found.n_found, found.n_documents)).collect();
        assert_eq!(personal, [(Redaction::Email, 2, 1), (Redaction::Ip, 1, 1), (Redaction::Key, 1, 1)]);
        let (document, at, shown) = &audit.personal[0].examples[0];
        assert_eq!((document.as_str(), *at, shown.as_str()), ("train.jsonl#000000053", words(60).len() as u64 + 6, "ada•••••••••org"));
        let overlap = &audit.overlap;
        assert_eq!((overlap.n_documents, overlap.n_contaminated), (11, 3));
        assert_eq!(overlap.n_shared, 1 + (40 - 12));
        let (held_out, training, text) = &overlap.examples[0];
        assert_eq!((held_out.as_str(), training.as_str()), ("valid.jsonl#000000003", "train.jsonl#000000008"));
        assert_eq!(text.split(' ').count(), 13);
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let audit = audited(&(0..50).map(words).collect::<Vec<_>>(), &(50..60).map(words).collect::<Vec<_>>(), "");
        assert_eq!((audit.exact.n_documents, audit.near.n_documents, audit.personal.len(), audit.overlap.n_contaminated), (0, 0, 0, 0));
    }

    #[test]
    fn what_cleaning_takes_away_is_not_found() {
        let rows = [words(1), words(1), format!("{} ada@example.org", words(2)), words(3)];
        let audit = audited(&rows, &[words(5)], "redact=[\"email\"],dedup=\"exact\"");
        assert_eq!((audit.exact.n_documents, audit.personal.len()), (0, 0));
        assert_eq!(audit.cleaning.iter().map(|step| step.documents_dropped + step.documents_changed).sum::<usize>(), 2);
    }
}
