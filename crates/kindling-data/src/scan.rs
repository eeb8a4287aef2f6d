//! The first pass over a corpus: which documents stay, on which side each is, and what is reported. Encodes nothing.

use std::borrow::Cow;
use std::collections::HashSet;

use kindling_config::{DataConfig, Dedup, Redaction, Split};
use rayon::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use crate::clean::{CHANGING, Changes, Cleaner};
use crate::examples::prompt_hash;
use crate::files::{Files, Found};
use crate::near::{NearIndex, Signature};
use crate::read::{Batch, Piece, for_each_batch};
use crate::{CleaningStep, CorpusStats, DataError, ReadOptions, StepReport};

/// A corpus that can be read as often as need be, and what is done to its texts.
pub(crate) struct Corpus<'a> {
    pub(crate) files: Files,
    pub(crate) config: &'a DataConfig,
    pub(crate) cleaner: Option<Cleaner>,
}

impl Corpus<'_> {
    /// Hands over all that the corpus holds.
    pub(crate) fn for_each_batch(
        &self,
        stats: &mut CorpusStats,
        f: &mut dyn FnMut(Batch) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        for_each_batch(&self.files.files, ReadOptions::from(self.config), stats, f)
    }

    /// A piece after the steps that change texts.
    pub(crate) fn clean<'t>(&self, text: &'t str) -> (Cow<'t, str>, Changes) {
        match &self.cleaner {
            Some(cleaner) => cleaner.clean(text),
            None => (Cow::Borrowed(text), Changes::default()),
        }
    }
}

/// The side that a document is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Training,
    Validation,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) stats: CorpusStats,
    pub(crate) cleaning: Vec<StepReport>,
    /// The side of each document in the order of reading; none where it is dropped.
    pub(crate) sides: Vec<Option<Side>>,
    /// A hash over which source each document is of.
    pub(crate) sources: u64,
    /// Bytes of text that train before those that validate, where the border is one in the text.
    pub(crate) tail: Option<u64>,
}

/// Reads the whole corpus once. `progress` is told how many bytes of the files have been read, and can end it.
///
/// # Errors
/// Of reading; an empty corpus; a single document that is to be split by documents.
pub(crate) fn scan(corpus: &Corpus<'_>, progress: &mut dyn FnMut(u64) -> Result<(), DataError>) -> Result<Scan, DataError> {
    let mut stats = CorpusStats::default();
    let mut scanner = Scanner::new(corpus);
    let wants = scanner.wants;
    corpus.for_each_batch(&mut stats, &mut |batch| {
        let facts: Vec<Facts<'_>> = batch.pieces.par_iter().map(|piece| Facts::of(corpus, piece, wants)).collect();
        for (piece, facts) in batch.pieces.iter().zip(facts) {
            scanner.add(piece, facts)?;
        }
        progress(batch.n_read)
    })?;
    scanner.finish(stats)
}

/// A hash over names and texts, taken piece by piece.
#[derive(Default)]
pub(crate) struct CorpusHash {
    whole: Xxh3,
    document: Xxh3,
    /// The file that came last, and the hash of its name.
    file: Option<(usize, u64)>,
}

impl CorpusHash {
    /// The hash of a piece that is a whole document, and can be taken on another thread.
    pub(crate) fn of_whole(piece: &Piece) -> Option<u128> {
        (piece.begins && piece.ends).then(|| xxh3_128(piece.text.as_bytes()))
    }

    /// Adds a piece; gives back the hash of the document's text where it ends.
    pub(crate) fn add(&mut self, files: &[Found], piece: &Piece, of_whole: Option<u128>) -> Option<u128> {
        if piece.begins {
            self.document.reset();
        }
        if of_whole.is_none() {
            self.document.update(piece.text.as_bytes());
        }
        if !piece.ends {
            return None;
        }
        let text = of_whole.unwrap_or_else(|| self.document.digest128());
        if self.file.is_none_or(|(file, _)| file != piece.file) {
            self.file = Some((piece.file, xxh3_64(files[piece.file].name.as_bytes())));
        }
        self.whole.update(&self.file.map_or(0, |(_, name)| name).to_le_bytes());
        self.whole.update(&piece.row.to_le_bytes());
        self.whole.update(&text.to_le_bytes());
        Some(text)
    }

    pub(crate) fn hex(&self) -> String {
        format!("{:032x}", self.whole.digest128())
    }
}

/// Whether an example with this prompt is one of a test, by the upper 64 bits of the hash as a number from 0 to 1. Examples with one
/// prompt are on one side.
pub(crate) fn is_held_out(prompt: u128, test_fraction: f64) -> bool {
    ((prompt >> 64) as f64 / 2f64.powi(64)) < test_fraction
}

/// What has to be known of a text.
#[derive(Clone, Copy)]
struct Wants {
    characters: bool,
    hash: bool,
    signature: bool,
    prompt: bool,
}

/// What can be found out of a piece by itself.
struct Facts<'t> {
    hash: Option<u128>,
    cleaned: Cow<'t, str>,
    changes: Changes,
    n_characters: u64,
    cleaned_hash: Option<u128>,
    signature: Option<Signature>,
    prompt: Option<u128>,
}

impl<'t> Facts<'t> {
    fn of(corpus: &Corpus<'_>, piece: &'t Piece, wants: Wants) -> Self {
        let (cleaned, changes) = corpus.clean(&piece.text);
        let is_whole = piece.begins && piece.ends;
        Self {
            hash: CorpusHash::of_whole(piece),
            changes,
            n_characters: if wants.characters { cleaned.chars().count() as u64 } else { 0 },
            cleaned_hash: (wants.hash && is_whole).then(|| xxh3_128(cleaned.as_bytes())),
            signature: wants.signature.then(|| Signature::of(&cleaned)),
            prompt: wants.prompt.then(|| prompt_hash(&piece.text)),
            cleaned,
        }
    }
}

/// A document as far as it has come.
#[derive(Default)]
struct Unfinished {
    n_bytes: u64,
    n_characters: u64,
    changes: Changes,
    cleaned: Xxh3,
    signature: Option<Signature>,
}

struct Scanner<'a> {
    corpus: &'a Corpus<'a>,
    wants: Wants,
    hash: CorpusHash,
    document: Unfinished,
    steps: Vec<StepReport>,
    seen: HashSet<u128>,
    /// Hashes of the prompts of tests, and how many examples those are.
    tested: HashSet<u128>,
    n_tests: usize,
    n_overlaps: usize,
    near: Option<NearIndex>,
    sides: Vec<Option<Side>>,
    sources: Xxh3,
    n_kept: usize,
    bytes_kept: u64,
    /// Kept documents that train.
    n_training: usize,
    /// The kept document with the lowest hash, which is the first to validate, and the one with the highest.
    lowest: Option<(u128, usize)>,
    highest: Option<(u128, usize)>,
}

impl<'a> Scanner<'a> {
    fn new(corpus: &'a Corpus<'a>) -> Self {
        let clean = &corpus.config.clean;
        let mut steps: Vec<CleaningStep> = corpus.cleaner.iter().flat_map(Cleaner::active).collect();
        if corpus.cleaner.is_some() || clean.min_chars > 0 || clean.max_chars > 0 {
            steps.push(CleaningStep::Length);
        }
        // Licences, READMEs and vendored copies repeat across packages.
        let is_packages = corpus.config.sources.is_empty() && corpus.config.paths.is_empty();
        if clean.dedup != Dedup::Off || is_packages {
            steps.push(CleaningStep::Exact);
        }
        if clean.dedup == Dedup::Near {
            steps.push(CleaningStep::Near);
        }
        let has = |step| steps.contains(&step);
        let tests = corpus.config.test_fraction > 0.0 || corpus.files.files.iter().any(|file| file.tests);
        Self {
            corpus,
            wants: Wants {
                characters: has(CleaningStep::Length),
                hash: has(CleaningStep::Exact),
                signature: has(CleaningStep::Near),
                prompt: tests,
            },
            hash: CorpusHash::default(),
            document: Unfinished::default(),
            near: has(CleaningStep::Near).then(|| NearIndex::new(clean.near_similarity)),
            steps: steps.into_iter().map(StepReport::new).collect(),
            seen: HashSet::new(),
            tested: HashSet::new(),
            n_tests: 0,
            n_overlaps: 0,
            sides: Vec::new(),
            sources: Xxh3::new(),
            n_kept: 0,
            bytes_kept: 0,
            n_training: 0,
            lowest: None,
            highest: None,
        }
    }

    fn add(&mut self, piece: &Piece, facts: Facts<'_>) -> Result<(), DataError> {
        if piece.begins {
            self.document = Unfinished::default();
        }
        let document = &mut self.document;
        document.n_bytes += piece.text.len() as u64;
        document.n_characters += facts.n_characters;
        document.changes.add(&facts.changes);
        if self.wants.hash && facts.cleaned_hash.is_none() {
            document.cleaned.update(facts.cleaned.as_bytes());
        }
        match (&mut self.document.signature, facts.signature) {
            (Some(signature), Some(of_piece)) => signature.merge(&of_piece),
            (signature, of_piece) => *signature = signature.take().or(of_piece),
        }
        let Some(hash) = self.hash.add(&self.corpus.files.files, piece, facts.hash) else { return Ok(()) };
        let file = &self.corpus.files.files[piece.file];
        if let Some(prompt) = facts.prompt
            && self.is_tested(file, piece.row, prompt)?
        {
            self.sources.update(&(file.source as u64).to_le_bytes());
            self.sides.push(None);
            return Ok(());
        }
        self.end(file, hash, facts.cleaned_hash);
        Ok(())
    }

    /// Whether an example is one of a test, or is left out because it has the prompt of one.
    fn is_tested(&mut self, file: &Found, row: u64, prompt: u128) -> Result<bool, DataError> {
        let DataConfig { test_fraction, skip_bad, .. } = *self.corpus.config;
        let is_held_out = is_held_out(prompt, test_fraction);
        if file.validates && is_held_out {
            // The test is of other files, and no prompt of it chooses the checkpoint.
            self.n_overlaps += 1;
            return Ok(true);
        }
        if file.tests || is_held_out {
            self.tested.insert(prompt);
            self.n_tests += 1;
            return Ok(true);
        }
        if !self.tested.contains(&prompt) {
            return Ok(false);
        }
        if !skip_bad {
            return Err(DataError::TestOverlap { path: file.told(), line: row });
        }
        self.n_overlaps += 1;
        Ok(true)
    }

    /// A document has been read; `hash` is that of its text as it was read.
    fn end(&mut self, file: &Found, hash: u128, cleaned_hash: Option<u128>) {
        let document = std::mem::take(&mut self.document);
        self.sources.update(&(file.source as u64).to_le_bytes());
        let number = self.sides.len();
        let clean = &self.corpus.config.clean;
        let mut n_bytes = document.n_bytes;
        let mut is_dropped = false;
        for report in &mut self.steps {
            report.n_documents += 1;
            report.n_bytes += n_bytes;
            let drops = match report.step {
                CleaningStep::Length => {
                    let most = if clean.max_chars == 0 { u64::MAX } else { clean.max_chars };
                    // What nothing is left of is no document.
                    !(clean.min_chars.max(1)..=most).contains(&document.n_characters)
                }
                CleaningStep::Exact => !self.seen.insert(cleaned_hash.unwrap_or_else(|| document.cleaned.digest128())),
                CleaningStep::Near => match (&mut self.near, &document.signature) {
                    (Some(near), Some(signature)) => near.insert(number as u64, signature).is_some(),
                    _ => false,
                },
                step => {
                    if let Some((_, change)) = CHANGING.iter().zip(&document.changes.steps).find(|(changing, _)| **changing == step) {
                        report.documents_changed += usize::from(change.changed);
                        report.bytes_changed += change.bytes;
                        n_bytes = n_bytes.saturating_add_signed(change.bytes);
                    }
                    if step == CleaningStep::Redact {
                        for (kind, n) in Redaction::ALL.into_iter().zip(document.changes.redacted) {
                            *report.redacted.entry(kind).or_default() += n;
                        }
                    }
                    false
                }
            };
            if drops {
                report.documents_dropped += 1;
                report.bytes_dropped += n_bytes;
                is_dropped = true;
                break;
            }
        }
        if is_dropped {
            self.sides.push(None);
            return;
        }
        self.n_kept += 1;
        self.bytes_kept += n_bytes;
        // The upper 64 bits as a number from 0 to 1.
        let place = (hash >> 64) as f64 / 2f64.powi(64);
        let validates = if self.corpus.files.is_split { file.validates } else { place < self.corpus.config.validation_fraction };
        let this = (hash, number);
        self.lowest = Some(self.lowest.map_or(this, |known| known.min(this)));
        self.highest = Some(self.highest.map_or(this, |known| known.max(this)));
        self.n_training += usize::from(!validates);
        self.sides.push(Some(if validates { Side::Validation } else { Side::Training }));
    }

    fn finish(mut self, mut stats: CorpusStats) -> Result<Scan, DataError> {
        let config = self.corpus.config;
        if self.n_kept == 0 && self.sides.len() > self.n_tests + self.n_overlaps {
            return Err(DataError::AllDropped(self.sides.len() - self.n_tests - self.n_overlaps));
        }
        let test_files: Vec<String> =
            self.corpus.files.files.iter().filter(|file| file.tests).map(|file| file.told().display().to_string()).collect();
        if self.n_tests == 0 && !test_files.is_empty() {
            return Err(DataError::NoTestRows(test_files.join("`, `")));
        }
        if self.n_tests == 0 && config.test_fraction > 0.0 {
            return Err(DataError::NoTests { n_documents: self.n_kept, test_fraction: config.test_fraction });
        }
        if self.n_kept == 0 {
            let names = config.paths.iter().map(|path| path.display().to_string()).chain(config.packages.iter().cloned());
            let names = names.chain(config.sources.iter().map(|source| source.name.clone()));
            return Err(DataError::Empty(names.collect::<Vec<_>>().join(", ")));
        }
        stats.hash = self.hash.hex();
        stats.n_documents = self.n_kept;
        stats.n_bytes = self.bytes_kept;
        stats.test_documents = self.n_tests;
        stats.test_overlaps_skipped = self.n_overlaps;
        stats.identical_dropped = self.steps.iter().find(|step| step.step == CleaningStep::Exact).map_or(0, |step| step.documents_dropped);
        let mut tail = None;
        if !self.corpus.files.is_split {
            // An example has no tail.
            let one_text = self.n_kept == 1 && config.examples.is_none();
            match config.split.unwrap_or(if one_text { Split::Tail } else { Split::Document }) {
                Split::Tail => {
                    self.sides.iter_mut().flatten().for_each(|side| *side = Side::Training);
                    tail = Some(((1.0 - config.validation_fraction) * self.bytes_kept as f64) as u64);
                }
                Split::Document if self.n_kept < 2 => return Err(DataError::OneDocument(self.n_kept)),
                // Of few documents all may be on one side: then the one that is nearest to the other side goes there.
                Split::Document => {
                    if let (true, Some((_, lowest))) = (self.n_training == self.n_kept, self.lowest) {
                        self.sides[lowest] = Some(Side::Validation);
                    } else if let (true, Some((_, highest))) = (self.n_training == 0, self.highest) {
                        self.sides[highest] = Some(Side::Training);
                    }
                }
            }
        }
        Ok(Scan { stats, cleaning: self.steps, sides: self.sides, sources: self.sources.digest(), tail })
    }
}
