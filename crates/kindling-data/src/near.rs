//! Documents with nearly the same words, by their smallest hashes (MinHash: Broder 1997) and locality-sensitive hashing (Leskovec,
//! Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). Reads no documents, and keeps none of their text.
//!
//! A document is the set of its shingles, five words each, and two documents are as alike as their sets (Jaccard: the share of
//! the shingles of either that both have). The hashes come from one permutation (Li, Owen and Zhang 2012): a shingle is hashed
//! once, which puts it into one of 128 bins, and a bin keeps its smallest hash. So a shingle costs one hash, not 128, and
//! stretches of a document merge by the smaller of each bin. A bin that stayed empty borrows from another one, chosen by hash
//! (Shrivastava 2017), only when the document is looked up: what is merged is always what was hashed.

use std::collections::HashMap;

use crate::words::{GOLDEN, Runs, for_each_word, mix};

/// Bins of a signature.
const N_BINS: usize = 128;
/// Words of a shingle.
const N_WORDS: usize = 5;
/// Documents with the same band that are kept in mind: where a template makes many, the others say nothing more.
const MOST_ALIKE: usize = 64;
/// What a bin without shingles holds.
const EMPTY: u32 = u32::MAX;
/// Two texts agree in a byte of a hash by chance.
const CHANCE: f64 = 1.0 / 256.0;

/// The words of a document as its smallest hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature(Box<[u32; N_BINS]>);

impl Signature {
    /// Of a document, or of a stretch of one that is to be merged with the others; shingles across a cut are in neither.
    ///
    /// Fewer than five words are one shingle together; no words are the empty set, whose bins are all `u32::MAX`.
    pub(crate) fn of(text: &str) -> Self {
        let mut shingles = Runs::new(N_WORDS);
        let mut bins = Box::new([EMPTY; N_BINS]);
        let mut take = |hash: u64| {
            let bin = &mut bins[bin_of(hash)];
            *bin = (*bin).min((hash as u32).min(EMPTY - 1));
        };
        for_each_word(text, |word, _| {
            if let Some(hash) = shingles.push(word) {
                take(hash);
            }
        });
        if let Some(hash) = shingles.short() {
            take(hash);
        }
        Self(bins)
    }

    /// Takes a further stretch of the same document in: the smaller hash of each bin.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (hash, other) in self.0.iter_mut().zip(other.0.iter()) {
            *hash = (*hash).min(*other);
        }
    }

    /// A hash in every bin: an empty one borrows from the first bin with one in a sequence that is its own and the same for all
    /// documents (Shrivastava 2017, algorithm 1). None of the empty set.
    fn dense(&self) -> Option<[u32; N_BINS]> {
        if self.0.iter().all(|hash| *hash == EMPTY) {
            return None;
        }
        let borrow = |bin: usize| {
            let mut lenders = (1..).map(|attempt: u64| self.0[bin_of(mix(bin as u64 ^ attempt << 32))]);
            lenders.find(|hash| *hash != EMPTY).expect("a bin is not empty, and every bin has its turn")
        };
        Some(std::array::from_fn(|bin| if self.0[bin] == EMPTY { borrow(bin) } else { self.0[bin] }))
    }
}

/// The documents kept so far.
///
/// Of each it has its number (8 bytes), a byte of each hash (128), and an entry of 9 bytes in each of the tables, which are half
/// to seven eighths full: at a similarity of 0.8 these are 18, so about 320 to 510 bytes a document in all.
#[derive(Debug)]
pub(crate) struct NearIndex {
    /// Hashes of a band, r.
    n_rows: usize,
    /// Bytes that two documents must have in common.
    least: usize,
    documents: Vec<u64>,
    /// A byte of each hash (b-bit minwise hashing, Li and König 2010).
    sketches: Vec<[u8; N_BINS]>,
    /// Of each band: by a hash of its rows the place of a document. Where that is taken, the next key in [`next_key`]'s sequence
    /// is used; a key that comes in by two ways costs a comparison, and nothing else.
    bands: Vec<HashMap<u32, u32>>,
}

impl NearIndex {
    /// For documents that have the Jaccard `similarity`, above 0 and at most 1.
    ///
    /// Two documents are compared if they agree in all the r rows of one of b bands, which happens with 1 - (1 - s^r)^b. The
    /// largest r, with as many bands as the 128 hashes give, is taken that compares 95 % of the pairs at `similarity`, and 99 %
    /// of those at 0.05 above: more comparisons only cost time, for each is checked; one that is not made is missed.
    pub(crate) fn new(similarity: f64) -> Self {
        let recall = |at: f64, n_rows: usize| 1.0 - (1.0 - at.min(1.0).powi(n_rows as i32)).powi((N_BINS / n_rows) as i32);
        let is_enough = |n_rows: &usize| recall(similarity, *n_rows) >= 0.95 && recall(similarity + 0.05, *n_rows) >= 0.99;
        let n_rows = (1..=N_BINS).rev().find(is_enough).unwrap_or(1);
        // By chance some bytes agree that are of different hashes.
        let least = (N_BINS as f64 * (similarity + (1.0 - similarity) * CHANCE) - 1e-9).ceil() as usize;
        Self { n_rows, least, documents: Vec::new(), sketches: Vec::new(), bands: vec![HashMap::new(); N_BINS / n_rows] }
    }

    /// The earlier kept document that is estimated at least as similar as asked for, the most similar and of those the first; or
    /// None, and then `document` is kept. One without words is like no other.
    ///
    /// The estimate of a true similarity s has a standard deviation of sqrt(s (1 - s) / 128), 0.035 at 0.8.
    ///
    /// # Panics
    /// With more than 2^32 documents.
    pub(crate) fn insert(&mut self, document: u64, signature: &Signature) -> Option<u64> {
        let hashes = signature.dense()?;
        let sketch: [u8; N_BINS] = std::array::from_fn(|bin| (mix(u64::from(hashes[bin]) << 32 | bin as u64) >> 56) as u8);
        let mut candidates = Vec::new();
        let mut vacant = Vec::with_capacity(self.bands.len());
        for (band, rows) in self.bands.iter().zip(hashes.chunks_exact(self.n_rows)) {
            let mut key = rows.iter().fold(0, |key, hash| mix(key ^ u64::from(*hash))) as u32;
            let mut is_vacant = false;
            for _ in 0..MOST_ALIKE {
                match band.get(&key) {
                    Some(place) => candidates.push(*place),
                    None => {
                        is_vacant = true;
                        break;
                    }
                }
                key = next_key(key);
            }
            vacant.push(is_vacant.then_some(key));
        }
        candidates.sort_unstable();
        candidates.dedup();
        let in_common = |place: &u32| sketch.iter().zip(&self.sketches[*place as usize]).filter(|(a, b)| a == b).count();
        let alike = candidates.into_iter().map(|place| (in_common(&place), place)).filter(|(n, _)| *n >= self.least);
        if let Some((_, place)) = alike.max_by_key(|(n, place)| (*n, std::cmp::Reverse(*place))) {
            return Some(self.documents[place as usize]);
        }
        let place = u32::try_from(self.documents.len()).expect("the documents are fewer than 2^32");
        for (band, key) in self.bands.iter_mut().zip(vacant) {
            if let Some(key) = key {
                band.insert(key, place);
            }
        }
        self.documents.push(document);
        self.sketches.push(sketch);
        None
    }
}

fn next_key(key: u32) -> u32 {
    key.wrapping_add(GOLDEN as u32)
}

/// By the highest bits of a hash.
fn bin_of(hash: u64) -> usize {
    (hash >> (u64::BITS - N_BINS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Words that are drawn anew for each number (SplitMix64).
    fn words(seed: u64, n_words: usize) -> Vec<String> {
        (0..n_words as u64).map(|n| format!("w{}", mix(seed << 32 ^ n) % 50_000)).collect()
    }

    /// Two documents of `n_words` whose Jaccard similarity is about `similarity`: they begin with the same words.
    fn pair(seed: u64, n_words: usize, similarity: f64) -> (String, String) {
        let n_common = (n_words as f64 * 2.0 * similarity / (1.0 + similarity)).round() as usize;
        let common = words(3 * seed, n_common).join(" ");
        let with = |other| format!("{common} {}", words(other, n_words - n_common).join(" "));
        (with(3 * seed + 1), with(3 * seed + 2))
    }

    /// The Jaccard similarity as it is defined.
    fn exact(a: &str, b: &str) -> f64 {
        let shingles = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.windows(N_WORDS).map(<[String]>::to_vec).collect::<HashSet<_>>()
        };
        let (a, b) = (shingles(a), shingles(b));
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    fn estimate(a: &str, b: &str) -> f64 {
        let dense = |text| Signature::of(text).dense().unwrap();
        let in_common = dense(a).iter().zip(dense(b)).filter(|(a, b)| **a == *b).count();
        in_common as f64 / N_BINS as f64
    }

    fn of(text: &str) -> Signature {
        Signature::of(text)
    }

    #[test]
    fn the_estimate_is_the_exact_similarity_but_for_chance() {
        for n_words in [12, 60, 300, 3000] {
            for similarity in [0.2, 0.5, 0.8, 0.95] {
                let n_pairs = 40;
                let (mut bias, mut square) = (0.0, 0.0);
                for seed in 0..n_pairs {
                    let (a, b) = pair(seed, n_words, similarity);
                    let error = estimate(&a, &b) - exact(&a, &b);
                    bias += error / n_pairs as f64;
                    square += error * error / n_pairs as f64;
                }
                // Measured over 40 pairs: bias at most 0.014, deviation at most 0.057.
                assert!(bias.abs() < 0.03 && square.sqrt() < 0.07, "{n_words} words, {similarity}: {bias}, {}", square.sqrt());
            }
        }
    }

    #[test]
    fn pairs_above_the_similarity_are_found_and_those_below_are_not() {
        let n_pairs = 300;
        let rate = |n_words, similarity: f64| {
            let found = (0..n_pairs).filter(|seed| {
                let (a, b) = pair(*seed, n_words, similarity);
                let mut index = NearIndex::new(0.8);
                index.insert(0, &of(&a));
                index.insert(1, &of(&b)).is_some()
            });
            found.count() as f64 / n_pairs as f64
        };
        for n_words in [40, 200, 1000] {
            let rates = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.3].map(|similarity| (similarity, rate(n_words, similarity)));
            // Measured: at 0.9 all, at 0.85 at least 90 %, at 0.8 half, at 0.7 at most 0.7 %, at 0.6 none.
            let at = |similarity| rates.iter().find(|(at, _)| *at == similarity).unwrap().1;
            assert_eq!(at(1.0), 1.0);
            assert!(at(0.9) >= 0.98 && at(0.6) <= 0.01 && at(0.3) == 0.0, "{n_words} words: {rates:?}");
        }
    }

    #[test]
    fn bands_compare_enough_pairs() {
        for (similarity, n_rows) in [(1.0, 128), (0.8, 7), (0.5, 3), (0.05, 1)] {
            assert_eq!(NearIndex::new(similarity).n_rows, n_rows, "{similarity}");
        }
        for percent in 3..=100 {
            let similarity = f64::from(percent) / 100.0;
            let index = NearIndex::new(similarity);
            let (n_rows, n_bands) = (index.n_rows as i32, index.bands.len() as i32);
            assert!(n_rows * n_bands <= N_BINS as i32);
            assert!(1.0 - (1.0 - similarity.powi(n_rows)).powi(n_bands) >= 0.95, "{similarity}");
        }
    }

    #[test]
    fn the_most_similar_document_is_named_and_then_the_first() {
        let text = words(1, 300);
        let changed = |range: std::ops::Range<usize>| {
            let mut text = text.clone();
            range.for_each(|at| text[at] = format!("other{at}"));
            of(&text.join(" "))
        };
        let mut index = NearIndex::new(0.55);
        // Like each other to 0.49, and like what follows to 0.57 and 0.85.
        assert_eq!(index.insert(10, &changed(220..300)), None);
        assert_eq!(index.insert(11, &changed(0..24)), None);
        assert_eq!(index.insert(12, &changed(0..0)), Some(11));
        // Nothing is like enough for a while, so that a document is kept twice.
        let least = std::mem::replace(&mut index.least, N_BINS + 1);
        assert_eq!([20, 21].map(|document| index.insert(document, &changed(0..0))), [None, None]);
        index.least = least;
        assert_eq!(index.insert(22, &changed(0..0)), Some(20));
    }

    #[test]
    fn documents_without_words_are_like_no_other() {
        let mut index = NearIndex::new(0.8);
        for text in ["", "", " \n", "…", "!?"] {
            assert!(of(text).0.iter().all(|hash| *hash == EMPTY));
            assert_eq!(index.insert(1, &of(text)), None);
        }
        assert_eq!(index.insert(2, &of("a")), None);
        assert_eq!(index.insert(3, &of("A!")), Some(2));
        assert_eq!(index.insert(4, &of("b")), None);
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_of_no_case() {
        for (a, b) in [
            ("The cat, sat—on\nthe mat.", "the CAT sat on the mat"),
            ("Größe ÉTÉ x2 Ω 5", "größe, été; X2 ω (5)"),
            ("我们学习语言", "我 们 学 习 语 言"),
            ("かなカナ漢字です", "か な カ ナ 漢 字 で す"),
            ("Rust是一门语言2024", "rust 是 一 门 语 言 2024"),
        ] {
            assert_eq!(of(a), of(b), "{a:?} and {b:?}");
        }
        for (a, b) in [("a b c d e", "a b c d f"), ("ab c d e f", "a bc d e f"), ("a b c d e", "e d c b a"), ("a b", "a b c")] {
            assert_ne!(of(a), of(b), "{a:?} and {b:?}");
        }
    }

    #[test]
    fn near_chinese_texts_are_found() {
        let text = "今天天气很好我们一起去公园散步看见了很多美丽的花朵和高大的树木孩子们在草地上奔跑大人们坐在长椅上聊天";
        let other = "股票市场昨日大幅下跌投资者纷纷抛售手中的股票专家认为这与国际经济形势有关未来走势仍然难以预测需要谨慎";
        let mut index = NearIndex::new(0.7);
        assert_eq!(index.insert(0, &of(text)), None);
        assert_eq!(index.insert(1, &of(other)), None);
        assert_eq!(index.insert(2, &of(&format!("{text}。真好"))), Some(0));
    }

    /// What is stored by one version must mean the same to the next, on every machine.
    #[test]
    fn signatures_never_change() {
        let signature = of("It was the best of times, it was the worst of times; 天气很好");
        let hash = signature.0.iter().fold(0, |hash, bin| mix(hash ^ u64::from(*bin)));
        let dense = signature.dense().unwrap().iter().fold(0, |hash, bin| mix(hash ^ u64::from(*bin)));
        assert_eq!((hash, dense), (8_674_525_671_762_091_211, 3_726_101_988_932_959_901));
    }

    #[test]
    fn many_documents_of_one_template_are_kept_apart() {
        let mut index = NearIndex::new(0.8);
        let template = words(7, 100).join(" ");
        for document in 0..500 {
            assert_eq!(index.insert(document, &of(&format!("{template} {}", words(100 + document, 100).join(" ")))), None);
        }
        assert_eq!(index.insert(500, &of(&format!("{template} {}", words(100 + 321, 100).join(" ")))), Some(321));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Shingles across the cut are in neither stretch; with them the merged signature is the whole's.
        #[test]
        fn stretches_merge_to_the_whole(seed in any::<u32>(), n_words in 10usize..200, at in 0.0..1.0) {
            let words = words(u64::from(seed), n_words);
            let cut = N_WORDS + ((n_words - 2 * N_WORDS) as f64 * at) as usize;
            let (head, tail) = words.split_at(cut);
            let mut merged = of(&head.join(" "));
            merged.merge(&of(&tail.join(" ")));
            let whole = of(&words.join(" "));
            prop_assert!(merged.0.iter().zip(whole.0.iter()).filter(|(merged, whole)| merged != whole).count() < N_WORDS);
            prop_assert!(merged.0.iter().zip(whole.0.iter()).all(|(merged, whole)| merged >= whole));
            merged.merge(&of(&words[cut - (N_WORDS - 1)..cut + (N_WORDS - 1)].join(" ")));
            prop_assert_eq!(merged, whole);
        }

        #[test]
        fn a_text_is_like_itself(text in any::<String>()) {
            let mut index = NearIndex::new(1.0);
            prop_assert_eq!(index.insert(5, &of(&text)), None);
            let has_words = text.chars().any(char::is_alphanumeric);
            prop_assert_eq!(index.insert(6, &of(&text)), has_words.then_some(5));
        }
    }
}
