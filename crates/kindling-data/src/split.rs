//! Which text trains and which validates. Cuts documents only where the split is `tail`.

use kindling_config::{DataConfig, Seed, Split};

use crate::{Corpus, DataError, Document};

/// A stretch of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
    /// Whether the document begins here; the second part of a cut one does not.
    pub(crate) begins: bool,
}

/// The pieces of both splits, in the order of the corpus.
#[derive(Debug, Default)]
pub(crate) struct Pieces<'a> {
    pub(crate) training: Vec<Piece<'a>>,
    pub(crate) validation: Vec<Piece<'a>>,
}

/// Splits by held-out packages if `config` names some, else by whole documents or by the tail.
pub(crate) fn split<'a>(corpus: &'a Corpus, config: &DataConfig, seed: Seed) -> Result<Pieces<'a>, DataError> {
    let documents = &corpus.documents;
    if config.paths.is_empty() && !config.validation_packages.is_empty() {
        return Ok(by_choice(documents, |_, document| document.package.as_ref().is_some_and(|p| config.validation_packages.contains(p))));
    }
    match config.split.unwrap_or(if documents.len() == 1 { Split::Tail } else { Split::Document }) {
        Split::Tail => Ok(by_tail(corpus, config.validation_fraction)),
        Split::Document if documents.len() < 2 => Err(DataError::OneDocument(documents.len())),
        Split::Document => {
            let chosen = choose(corpus, config.validation_fraction, seed);
            Ok(by_choice(documents, |i, _| chosen.contains(&i)))
        }
    }
}

fn by_choice<'a>(documents: &'a [Document], validates: impl Fn(usize, &Document) -> bool) -> Pieces<'a> {
    let mut pieces = Pieces::default();
    for (i, document) in documents.iter().enumerate() {
        let side = if validates(i, document) { &mut pieces.validation } else { &mut pieces.training };
        side.push(Piece { name: &document.name, text: &document.text, begins: true });
    }
    pieces
}

/// In an order that depends on the seed and the name alone, documents are taken until their bytes reach the share.
fn choose(corpus: &Corpus, fraction: f64, seed: Seed) -> std::collections::HashSet<usize> {
    let key = Seed(seed.stream("split"));
    let documents = &corpus.documents;
    let mut order: Vec<usize> = (0..documents.len()).collect();
    // Files of one name from different folders differ by their place.
    order.sort_by_key(|i| (key.stream(&documents[*i].name), *i));
    let wanted = (corpus.stats.n_bytes as f64 * fraction).ceil() as u64;
    let mut taken = 0;
    let mut chosen = std::collections::HashSet::new();
    for i in &order[..order.len() - 1] {
        if taken >= wanted {
            break;
        }
        taken += documents[*i].text.len() as u64;
        chosen.insert(*i);
    }
    chosen
}

/// The last share of the text, counted in bytes over all documents; the border never splits a character.
fn by_tail(corpus: &Corpus, fraction: f64) -> Pieces<'_> {
    let mut left = ((1.0 - fraction) * corpus.stats.n_bytes as f64) as usize;
    let mut pieces = Pieces::default();
    for Document { name, text, .. } in &corpus.documents {
        let cut = text.floor_char_boundary(left.min(text.len()));
        let (head, tail) = text.split_at(cut);
        if !head.is_empty() {
            pieces.training.push(Piece { name, text: head, begins: true });
        }
        if !tail.is_empty() {
            pieces.validation.push(Piece { name, text: tail, begins: head.is_empty() });
        }
        left = if tail.is_empty() { left - cut } else { 0 };
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CorpusStats;

    fn corpus(texts: &[&str]) -> Corpus {
        let documents: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| Document { name: format!("doc-{i}"), package: None, text: (*text).to_owned() })
            .collect();
        let n_bytes = texts.iter().map(|t| t.len() as u64).sum();
        Corpus { documents, stats: CorpusStats { n_bytes, ..CorpusStats::default() } }
    }

    fn config(split: Split, validation_fraction: f64) -> DataConfig {
        DataConfig {
            paths: vec!["x".into()],
            packages: vec![],
            validation_packages: vec![],
            exclude: vec![],
            split: Some(split),
            validation_fraction,
            lossy: false,
            text_field: "text".into(),
            skip_bad: false,
        }
    }

    fn texts(pieces: &[Piece<'_>]) -> Vec<String> {
        pieces.iter().map(|piece| piece.text.to_owned()).collect()
    }

    #[test]
    fn the_tail_is_the_last_share_and_nothing_is_lost() {
        let corpus = corpus(&["0123456789", "abcdefghij"]);
        let pieces = split(&corpus, &config(Split::Tail, 0.25), Seed(1)).expect("splits");
        assert_eq!(texts(&pieces.training), ["0123456789", "abcde"]);
        assert_eq!(texts(&pieces.validation), ["fghij"]);
        assert!(!pieces.validation[0].begins);
    }

    #[test]
    fn the_border_never_splits_a_character() {
        let corpus = corpus(&["aé"]);
        let pieces = split(&corpus, &config(Split::Tail, 0.34), Seed(1)).expect("splits");
        assert_eq!((texts(&pieces.training), texts(&pieces.validation)), (vec!["a".into()], vec!["é".into()]));
    }

    #[test]
    fn documents_go_whole_to_one_side_and_the_choice_is_the_seeds() {
        let words: Vec<String> = (0..200).map(|i| format!("document number {i}")).collect();
        let corpus = corpus(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let of = |seed| texts(&split(&corpus, &config(Split::Document, 0.1), Seed(seed)).expect("splits").validation);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let share = of(1).iter().map(String::len).sum::<usize>() as f64 / corpus.stats.n_bytes as f64;
        assert!((0.1..0.12).contains(&share), "{share}");
    }

    #[test]
    fn documents_of_one_name_do_not_go_together() {
        let mut corpus = corpus(&["some text", "more text"]);
        corpus.documents.iter_mut().for_each(|document| document.name = "same.txt".into());
        let pieces = split(&corpus, &config(Split::Document, 0.1), Seed(3)).expect("splits");
        assert_eq!((pieces.training.len(), pieces.validation.len()), (1, 1));
    }

    #[test]
    fn two_documents_leave_one_on_each_side() {
        let corpus = corpus(&["a", "bbbbbbbbbbbbbbbbbbbbbbbb"]);
        let pieces = split(&corpus, &config(Split::Document, 0.9), Seed(3)).expect("splits");
        assert_eq!((pieces.training.len(), pieces.validation.len()), (1, 1));
    }
}
