//! Trains a byte-level BPE vocabulary. Knows nothing of encoding text or of files.
//!
//! Distinct pre-tokens are counted once; then each merge touches only the words that hold its pair
//! (Sennrich et al., arXiv:1508.07909, with the incremental counts of their reference code).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::TokenizerError;
use crate::bpe::{Bpe, Merge};
use crate::byte_alphabet;
use crate::count::PreTokenCounts;
use crate::split::SplitPattern;
use crate::table::TokenTable;

/// Trains a byte-level BPE vocabulary: the 256 bytes, then merges in the order found, then special tokens.
///
/// The result depends on nothing but the texts and these fields: not on the number of threads, nor on the order of the texts or
/// how they were cut into chunks. The most frequent pair is merged first; of equally frequent ones that with the lowest (left id,
/// right id).
///
/// ```
/// use kindling_tokenizer::BpeTrainer;
///
/// # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
/// let bpe = BpeTrainer::new(258).train(&["aaab aaab"])?;
/// assert_eq!(bpe.encode("aaab")?.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BpeTrainer {
    /// Number of tokens in all: bytes, merges and special tokens. The vocabulary comes out smaller if the
    /// texts run out of pairs.
    pub vocab_size: usize,
    /// Texts of the special tokens, which get the last ids in this order.
    pub special_tokens: Vec<String>,
    /// How text is cut before merging.
    pub pattern: SplitPattern,
    /// Pairs that occur less often are not merged.
    pub min_frequency: u64,
}

impl BpeTrainer {
    /// Without special tokens, with GPT-2's split, and merging whatever occurs.
    #[must_use]
    pub fn new(vocab_size: usize) -> Self {
        Self { vocab_size, special_tokens: Vec::new(), pattern: SplitPattern::Gpt2, min_frequency: 1 }
    }

    /// With these special tokens.
    #[must_use]
    pub fn with_special_tokens(self, special_tokens: &[&str]) -> Self {
        Self { special_tokens: special_tokens.iter().map(|&token| token.to_owned()).collect(), ..self }
    }

    /// Trains on all the texts together. No merge crosses from one text to the next.
    ///
    /// # Errors
    /// If `vocab_size` is below 256 plus the special tokens, or a special token is empty, repeated or spelled
    /// like an ordinary token; or if a regular expression takes too many steps.
    pub fn train(&self, texts: &[&str]) -> Result<Bpe, TokenizerError> {
        let mut counts = PreTokenCounts::new(self.pattern.clone());
        counts.add(texts)?;
        self.train_on(&counts)
    }

    /// Trains on a corpus that was counted part by part. Its pattern takes the place of the trainer's.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_on(&self, counts: &PreTokenCounts) -> Result<Bpe, TokenizerError> {
        self.train_with_progress(counts, &mut |_, _| {})
    }

    /// As [`train_on`](Self::train_on); calls `progress(merges_done, merges_total)` before the first merge and after
    /// each. A corpus that runs out of pairs ends below the total.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn train_with_progress(&self, counts: &PreTokenCounts, progress: &mut dyn FnMut(usize, usize)) -> Result<Bpe, TokenizerError> {
        let merges_total = self.check()?;
        let mut learned = Learned::bytes();
        let mut corpus = Corpus::new(&counts.words());
        progress(0, merges_total);
        while learned.n_merged_tokens() < merges_total {
            let Some(pair) = corpus.most_frequent_pair(self.min_frequency) else {
                break;
            };
            let merge = learned.merge(pair);
            corpus.apply(merge);
            progress(learned.n_merged_tokens(), merges_total);
        }
        learned.finish(&self.special_tokens, counts.pattern().clone())
    }

    /// Checks what can be checked without a text, and says how many tokens can be made by merging.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn check(&self) -> Result<usize, TokenizerError> {
        let n_special = self.special_tokens.len();
        let least = 256 + n_special;
        let Some(merges_total) = self.vocab_size.checked_sub(least) else {
            return Err(TokenizerError::VocabTooSmall { found: self.vocab_size, least, n_special });
        };
        for (idx, token) in self.special_tokens.iter().enumerate() {
            let refuse = |problem| Err(TokenizerError::SpecialToken { token: token.clone(), problem });
            if token.is_empty() {
                return refuse("is empty");
            }
            if self.special_tokens[..idx].contains(token) {
                return refuse("is listed twice");
            }
        }
        Ok(merges_total)
    }
}

/// The vocabulary so far.
struct Learned {
    table: TokenTable,
    merges: Vec<Merge>,
    by_pair: FxHashMap<(u32, u32), Merge>,
    by_bytes: FxHashMap<Vec<u8>, u32>,
}

impl Learned {
    fn bytes() -> Self {
        let mut learned =
            Self { table: TokenTable::default(), merges: Vec::new(), by_pair: FxHashMap::default(), by_bytes: FxHashMap::default() };
        for byte in 0..=255u8 {
            let id = learned.table.push(&[byte]);
            learned.by_bytes.insert(vec![byte], id);
        }
        learned
    }

    fn n_merged_tokens(&self) -> usize {
        self.table.len() - 256
    }

    /// Notes the merge of a pair. Two pairs may spell the same bytes (`a` + `bc`, `ab` + `c`): the second gets
    /// the token of the first, as in Hugging Face's trainer, because a file has one id for one spelling.
    fn merge(&mut self, pair: (u32, u32)) -> Merge {
        if let Some(&known) = self.by_pair.get(&pair) {
            return known;
        }
        let (left, right) = pair;
        let bytes_of = |id| self.table.get(id).expect("pairs are made of tokens of this table");
        let bytes = [bytes_of(left), bytes_of(right)].concat();
        let result = match self.by_bytes.get(&bytes) {
            Some(&id) => id,
            None => {
                let id = self.table.push(&bytes);
                self.by_bytes.insert(bytes, id);
                id
            }
        };
        let merge = Merge { left, right, result };
        self.merges.push(merge);
        self.by_pair.insert(pair, merge);
        merge
    }

    fn finish(mut self, special_tokens: &[String], pattern: SplitPattern) -> Result<Bpe, TokenizerError> {
        for token in special_tokens {
            // In a file both stand in one map, so their spellings must differ.
            if byte_alphabet::unspell(token).is_some_and(|bytes| self.by_bytes.contains_key(&bytes)) {
                return Err(TokenizerError::SpecialToken {
                    token: token.clone(),
                    problem: "is spelled like an ordinary token of this vocabulary",
                });
            }
            self.table.push_special(token);
        }
        let byte_ids = Box::new(std::array::from_fn(|byte| u32::try_from(byte).expect("a byte fits")));
        Ok(Bpe::from_merges(self.table, pattern, byte_ids, self.merges, false))
    }
}

/// The distinct words of the texts as ids, with the counts of their pairs kept up to date.
struct Corpus {
    /// The ids of all words, one after the other. A word shrinks where it stands.
    symbols: Vec<u32>,
    words: Vec<Word>,
    pairs: FxHashMap<(u32, u32), Pair>,
    /// For each pair with a count, an entry at least that high. Entries too high are put right when met.
    queue: BinaryHeap<(u64, Reverse<(u32, u32)>)>,
}

struct Word {
    start: usize,
    len: usize,
    count: u64,
}

#[derive(Default)]
struct Pair {
    count: u64,
    /// The words that hold it; some may hold it no longer.
    words: Vec<u32>,
}

impl Corpus {
    /// The order of the words does not matter: all that follows depends on sums over them.
    fn new(counts: &FxHashMap<Box<[u8]>, u64>) -> Self {
        let mut corpus = Self {
            symbols: Vec::with_capacity(counts.keys().map(|word| word.len()).sum()),
            words: Vec::with_capacity(counts.len()),
            pairs: FxHashMap::default(),
            queue: BinaryHeap::new(),
        };
        for (text, &count) in counts {
            if text.len() < 2 {
                continue;
            }
            let word_idx = u32::try_from(corpus.words.len()).expect("2^32 distinct words do not fit in memory");
            let start = corpus.symbols.len();
            corpus.symbols.extend(text.iter().map(|&byte| u32::from(byte)));
            corpus.words.push(Word { start, len: text.len(), count });
            for at in start + 1..corpus.symbols.len() {
                let pair = (corpus.symbols[at - 1], corpus.symbols[at]);
                corpus.pairs.entry(pair).or_default().add(count, word_idx);
            }
        }
        corpus.queue = corpus.pairs.iter().map(|(&ids, pair)| (pair.count, Reverse(ids))).collect();
        corpus
    }

    fn most_frequent_pair(&mut self, min_frequency: u64) -> Option<(u32, u32)> {
        while let Some((count, Reverse(ids))) = self.queue.pop() {
            let now = self.pairs.get(&ids).map_or(0, |pair| pair.count);
            if now == count && now > 0 {
                return (now >= min_frequency).then_some(ids);
            }
            // A rise put an entry of its own into the queue, so a count that stands higher is there too.
            if 0 < now && now < count {
                self.queue.push((now, Reverse(ids)));
            }
        }
        None
    }

    /// Replaces the pair in every word, from left to right, and counts the pairs that come and go.
    fn apply(&mut self, merge: Merge) {
        let Some(pair) = self.pairs.remove(&merge.pair()) else {
            return;
        };
        let mut risen: FxHashSet<(u32, u32)> = FxHashSet::default();
        for word_idx in pair.words {
            let word = &mut self.words[word_idx as usize];
            let symbols = &mut self.symbols[word.start..word.start + word.len];
            let count = word.count;
            let (mut read, mut write) = (0, 0);
            while read < symbols.len() {
                let here = symbols[read];
                if here != merge.left || symbols.get(read + 1) != Some(&merge.right) {
                    symbols[write] = here;
                    (read, write) = (read + 1, write + 1);
                    continue;
                }
                let mut replace = |old: (u32, u32), new: (u32, u32)| {
                    if let Some(pair) = self.pairs.get_mut(&old) {
                        pair.count -= count;
                    }
                    self.pairs.entry(new).or_default().add(count, word_idx);
                    risen.insert(new);
                };
                if write > 0 {
                    let before = symbols[write - 1];
                    replace((before, merge.left), (before, merge.result));
                }
                if let Some(&after) = symbols.get(read + 2) {
                    replace((merge.right, after), (merge.result, after));
                }
                symbols[write] = merge.result;
                (read, write) = (read + 2, write + 1);
            }
            word.len = write;
        }
        for ids in risen {
            if let Some(pair) = self.pairs.get(&ids)
                && pair.count > 0
            {
                self.queue.push((pair.count, Reverse(ids)));
            }
        }
    }
}

impl Pair {
    fn add(&mut self, count: u64, word_idx: u32) {
        self.count += count;
        if self.words.last() != Some(&word_idx) {
            self.words.push(word_idx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_to_the_same_bytes_share_a_token() {
        let [a, b, c] = [b'a', b'b', b'c'].map(u32::from);
        let mut learned = Learned::bytes();
        let ab = learned.merge((a, b)).result;
        let abc = learned.merge((ab, c));
        let bc = learned.merge((b, c)).result;
        let again = learned.merge((a, bc));
        assert_eq!(again.result, abc.result);
        assert_eq!(learned.merge((ab, c)), abc);
        assert_eq!((learned.n_merged_tokens(), learned.merges.len()), (3, 4));
    }

    #[test]
    fn counts_stay_those_of_the_words() {
        let mut corpus = Corpus::new(
            &[("aaaaa", 3), ("abab", 2), ("baaab", 1), ("a", 9)].map(|(word, count)| (word.as_bytes().into(), count)).into_iter().collect(),
        );
        for (left, right, result) in [(97, 97, 256), (97, 98, 257), (256, 256, 258), (257, 257, 259)] {
            corpus.apply(Merge { left, right, result });
            let mut counted: FxHashMap<(u32, u32), u64> = FxHashMap::default();
            for word in &corpus.words {
                for pair in corpus.symbols[word.start..word.start + word.len].windows(2) {
                    *counted.entry((pair[0], pair[1])).or_default() += word.count;
                }
            }
            let kept = corpus.pairs.iter().map(|(&ids, pair)| (ids, pair.count));
            let kept: FxHashMap<(u32, u32), u64> = kept.filter(|&(_, count)| count > 0).collect();
            assert_eq!(kept, counted);
        }
    }
}
