//! The second pass over a corpus: the texts that stay, cleaned, in stretches that can be encoded one by one. Writes nothing.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::read::{Piece, name};
use crate::scan::{Corpus, CorpusHash, Scan, Side};
use crate::{CorpusStats, DataError};

/// A place in the documents of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Number of the document in the order of reading, from 0, those that are dropped included.
    pub document: u64,
    /// Byte of its text as it is after cleaning.
    pub byte: u64,
}

/// A stretch of a document that stays: all of it, unless it is long. The ids of its stretches are those of the document.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) side: Side,
    pub(crate) place: Place,
    /// Whether the document begins here; behind the border of a split in the text it does not.
    pub(crate) begins: bool,
    pub(crate) text: String,
    /// Which of the sources it is of.
    pub(crate) source: usize,
    /// What the document is called by.
    pub(crate) origin: Origin,
}

/// Where a document comes from: a file, and the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    file: usize,
    row: u64,
}

impl Origin {
    /// What the document is called.
    pub(crate) fn name(self, corpus: &Corpus<'_>) -> String {
        name(&corpus.files.files[self.file], self.row)
    }
}

impl Stretch {
    pub(crate) fn end(&self) -> Place {
        Place { byte: self.place.byte + self.text.len() as u64, ..self.place }
    }

    fn without_text(&self) -> Self {
        Self { text: String::new(), ..*self }
    }
}

/// The last place at which a text can be cut, whatever follows it.
pub(crate) type SafeCut<'a> = dyn Fn(&str) -> Option<usize> + 'a;

/// Hands over all stretches in their order, a batch at a time, with the bytes of text that have come by then.
///
/// # Errors
/// Of reading; a corpus that is not what was scanned; the first error of `f`.
pub(crate) fn for_each_stretch_batch(
    corpus: &Corpus<'_>,
    scan: &Scan,
    safe_cut: &SafeCut<'_>,
    f: &mut dyn FnMut(Vec<Stretch>, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut cutting = Cutting { corpus, scan, safe_cut, n_documents: 0, n_kept: 0, unfinished: None, hash: CorpusHash::default() };
    corpus.for_each_batch(&mut CorpusStats::default(), &mut |batch| {
        // Which document a piece is of is known by counting, and with it whether it stays.
        let mut n_documents = cutting.n_documents;
        let numbered: Vec<(usize, Piece)> = batch
            .pieces
            .into_iter()
            .map(|piece| {
                n_documents += usize::from(piece.begins);
                (n_documents.wrapping_sub(1), piece)
            })
            .collect();
        let prepared: Vec<_> = numbered
            .into_par_iter()
            .map(|(document, piece)| {
                let hash = CorpusHash::of_whole(&piece);
                let side = scan.sides.get(document).copied().flatten();
                let changed = match side.map(|_| corpus.clean(&piece.text).0) {
                    Some(Cow::Owned(text)) => Some(text),
                    _ => None,
                };
                (document, piece, hash, side, changed)
            })
            .collect();
        let mut stretches = Vec::with_capacity(prepared.len());
        for (document, mut piece, hash, side, changed) in prepared {
            cutting.hash.add(&corpus.files.files, &piece, hash);
            if let Some(side) = side {
                if let Some(text) = changed {
                    piece.text = text;
                }
                cutting.add(document as u64, side, piece, &mut stretches);
            }
        }
        cutting.n_documents = n_documents;
        f(stretches, cutting.n_kept)
    })?;
    if cutting.n_kept != scan.stats.n_bytes || cutting.hash.hex() != scan.stats.hash {
        return Err(DataError::Changed);
    }
    Ok(())
}

struct Cutting<'a> {
    corpus: &'a Corpus<'a>,
    scan: &'a Scan,
    safe_cut: &'a SafeCut<'a>,
    /// That have begun.
    n_documents: usize,
    /// Bytes of text that have been handed over.
    n_kept: u64,
    /// What a document that has not ended still holds.
    unfinished: Option<Stretch>,
    hash: CorpusHash,
}

impl Cutting<'_> {
    fn add(&mut self, document: u64, side: Side, piece: Piece, stretches: &mut Vec<Stretch>) {
        let mut stretch = match self.unfinished.take() {
            Some(before) => before,
            None => Stretch {
                side,
                place: Place { document, byte: 0 },
                begins: true,
                text: String::new(),
                source: self.corpus.files.files[piece.file].source,
                origin: Origin { file: piece.file, row: piece.row },
            },
        };
        let n_before = stretch.text.len();
        if n_before == 0 {
            stretch.text = piece.text;
        } else {
            stretch.text.push_str(&piece.text);
        }
        if piece.ends {
            self.hand_over(stretch, stretches);
            return;
        }
        // In what was there before was no such place, unless it takes a few characters more to see it.
        let from = stretch.text.floor_char_boundary(n_before.saturating_sub(16));
        if let Some(cut) = (self.safe_cut)(&stretch.text[from..]).map(|cut| from + cut).filter(|&cut| cut > 0) {
            let rest = stretch.text.split_off(cut);
            let after = Stretch { place: stretch.end(), begins: false, text: rest, ..stretch.without_text() };
            self.hand_over(stretch, stretches);
            self.unfinished = Some(after);
        } else {
            self.unfinished = Some(stretch);
        }
    }

    /// A stretch that is complete, in two where the border between the sides runs through it.
    fn hand_over(&mut self, mut stretch: Stretch, stretches: &mut Vec<Stretch>) {
        if stretch.text.is_empty() {
            return;
        }
        let before = self.n_kept;
        self.n_kept += stretch.text.len() as u64;
        if let Some(tail) = self.scan.tail {
            let border = stretch.text.floor_char_boundary(tail.saturating_sub(before).min(stretch.text.len() as u64) as usize);
            if border < stretch.text.len() {
                let text = stretch.text.split_off(border);
                let begins = stretch.begins && border == 0;
                let behind = Stretch { side: Side::Validation, place: stretch.end(), begins, text, ..stretch.without_text() };
                if border > 0 {
                    stretches.push(stretch);
                }
                stretches.push(behind);
                return;
            }
        }
        stretches.push(stretch);
    }
}
