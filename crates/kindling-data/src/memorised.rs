//! Which runs of tokens of a sample stand in the training tokens, one for one. Compares ids, and knows nothing of text or models.
//!
//! The samples make a suffix automaton (Blumer et al., Theoretical Computer Science 40, 1985), which the training tokens are run
//! through once: after each of them it knows the longest run of tokens up to it that stands in a sample (matching statistics; Chang and
//! Lawler, Algorithmica 12, 1994). Memory is bounded by the samples, time by the training tokens.

use rayon::prelude::*;

use crate::Shards;

/// Training tokens that are read at once.
const CHUNK_TOKENS: u64 = 1 << 18;
/// Stands between samples: no token of a shard has this id.
const BORDER: u32 = u32::MAX;
/// The state of the empty run.
const ROOT: usize = 0;

/// A run of tokens of a sample that stands in the training tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorisedSpan {
    /// Place of its first token in the sample.
    pub start: usize,
    /// Tokens.
    pub len: usize,
    /// Place of its first token in the training tokens; it may stand elsewhere, too.
    pub place: u64,
}

/// What of a sample stands in the training tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memorised {
    /// The longest span; the first one of several. None where no token does.
    pub longest: Option<MemorisedSpan>,
    /// Every span that no other holds, in order. They may overlap.
    pub spans: Vec<MemorisedSpan>,
}

/// Looks for the tokens of each sample in the training tokens. Of the spans, those of `min_len` tokens or more are given.
pub fn memorised(samples: &[Vec<u32>], training: &Shards, min_len: usize) -> Vec<Memorised> {
    let automaton = Automaton::new(&samples.join(&BORDER), training.vocab_size());
    // A match that ends in a chunk begins no further before it.
    let overlap = samples.iter().map(Vec::len).max().unwrap_or(0) as u64;
    let scan = |mut longest: Vec<Match>, chunk: u64| {
        let end = training.n_tokens().min((chunk + 1) * CHUNK_TOKENS);
        let start = (chunk * CHUNK_TOKENS).saturating_sub(overlap);
        automaton.scan(&training.read(start, end), start, &mut longest);
        longest
    };
    let none = || vec![Match::default(); automaton.states.len()];
    let longer = |a: Vec<Match>, b: Vec<Match>| a.into_iter().zip(b).map(|(a, b)| a.or_longer(b)).collect();
    let chunks = 0..training.n_tokens().div_ceil(CHUNK_TOKENS);
    let mut longest = chunks.into_par_iter().fold(none, scan).reduce(none, longer);
    automaton.pass_to_suffixes(&mut longest);

    let mut ends = automaton.ends.iter().map(|state| automaton.longest_suffix(*state, &longest));
    samples
        .iter()
        .map(|sample| {
            let matches: Vec<Match> = ends.by_ref().take(sample.len()).collect();
            ends.next();
            spans(&matches, min_len)
        })
        .collect()
}

/// The spans of a sample, from the longest match that ends at each of its tokens.
fn spans(matches: &[Match], min_len: usize) -> Memorised {
    let span = |at: usize| {
        let Match { len, end } = matches[at];
        MemorisedSpan { start: at + 1 - len as usize, len: len as usize, place: end - u64::from(len) }
    };
    // Where the next token goes on with the match, that one holds it.
    let is_whole = |at: &usize| matches[*at].len > 0 && matches.get(at + 1).is_none_or(|next| next.len <= matches[*at].len);
    let whole = (0..matches.len()).filter(is_whole).map(span);
    let longest = whole.clone().rev().max_by_key(|span| span.len);
    Memorised { longest, spans: whole.filter(|span| span.len >= min_len).collect() }
}

/// A run of tokens of the samples that was seen in the training tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Match {
    len: u32,
    /// The place behind its last token there.
    end: u64,
}

impl Match {
    fn or_longer(self, other: Self) -> Self {
        if other.len > self.len { other } else { self }
    }
}

/// The smallest automaton that takes every run of tokens of a text. Each state stands for runs that end at the same places, of which each
/// is a suffix of the next longer one.
struct Automaton {
    states: Vec<State>,
    /// The state of all tokens up to each place.
    ends: Vec<usize>,
    /// The state behind the root for each id of the vocabulary, the root itself where there is none: most steps are taken here.
    first: Vec<u32>,
    /// Steps from other states, each at the slot of its hash or the next that was free. Most of those that are looked up are not there, which
    /// a list of a state's steps would say only at its end.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Default)]
struct Step {
    from: u32,
    id: u32,
    /// No step leads to the root: there is none in this slot.
    to: u32,
}

#[derive(Clone, Default)]
struct State {
    /// Of the longest run.
    len: u32,
    /// The state of the longest suffix that also ends elsewhere.
    link: usize,
    /// By id.
    next: Vec<(u32, usize)>,
}

impl State {
    fn next(&self, id: u32) -> Option<usize> {
        self.next.iter().find(|(other, _)| *other == id).map(|(_, state)| *state)
    }
}

impl Automaton {
    fn new(text: &[u32], vocab_size: usize) -> Self {
        let (states, ends) = (vec![State::default()], Vec::with_capacity(text.len()));
        // A text of n tokens has fewer than 3n steps, so more than half of the slots stay free. A power of two, as `slot` expects.
        let steps = vec![Step::default(); (8 * text.len()).next_power_of_two()];
        let mut automaton = Self { states, ends, first: vec![0; vocab_size], steps };
        for id in text {
            automaton.push(*id);
        }
        for (id, state) in &automaton.states[ROOT].next {
            if let Some(first) = automaton.first.get_mut(*id as usize) {
                *first = *state as u32;
            }
        }
        for (from, state) in automaton.states.iter().enumerate().skip(1) {
            for (id, to) in &state.next {
                let slot = slot(&automaton.steps, from as u32, *id);
                automaton.steps[slot] = Step { from: from as u32, id: *id, to: *to as u32 };
            }
        }
        automaton
    }

    /// Goes on with the text by one token.
    fn push(&mut self, id: u32) {
        let last = self.ends.last().copied();
        let new = self.states.len();
        self.states.push(State { len: self.ends.len() as u32 + 1, ..State::default() });
        self.ends.push(new);
        let mut suffix = Some(last.unwrap_or(ROOT));
        while let Some(state) = suffix {
            if let Some(next) = self.states[state].next(id) {
                self.states[new].link = self.split(state, id, next);
                return;
            }
            self.states[state].next.push((id, new));
            suffix = (state != ROOT).then_some(self.states[state].link);
        }
    }

    /// The state of the longest run of `state` and `id`, which is in `next`: one of its own if `next` also has longer ones.
    fn split(&mut self, state: usize, id: u32, next: usize) -> usize {
        let len = self.states[state].len + 1;
        if self.states[next].len == len {
            return next;
        }
        let part = self.states.len();
        self.states.push(State { len, ..self.states[next].clone() });
        self.states[next].link = part;
        let mut suffix = Some(state);
        while let Some(state) = suffix {
            match self.states[state].next.iter_mut().find(|edge| **edge == (id, next)) {
                Some(edge) => edge.1 = part,
                None => break,
            }
            suffix = (state != ROOT).then_some(self.states[state].link);
        }
        part
    }

    /// Runs tokens through the automaton, the first of which stands at `start`, and keeps the longest match of each state.
    fn scan(&self, tokens: &[u32], start: u64, longest: &mut [Match]) {
        let (mut state, mut len) = (ROOT, 0);
        for (id, end) in tokens.iter().zip(start + 1..) {
            state = loop {
                if state == ROOT {
                    break self.first.get(*id as usize).map_or(ROOT, |state| *state as usize);
                }
                let step = self.steps[slot(&self.steps, state as u32, *id)];
                if step.to != 0 {
                    break step.to as usize;
                }
                state = self.states[state].link;
                len = self.states[state].len;
            };
            len = if state == ROOT { 0 } else { len + 1 };
            if len > longest[state].len {
                longest[state] = Match { len, end };
            }
        }
    }

    /// Where a run was seen, its suffixes were seen.
    fn pass_to_suffixes(&self, longest: &mut [Match]) {
        let mut by_len: Vec<usize> = (1..self.states.len()).collect();
        by_len.sort_by_key(|state| std::cmp::Reverse(self.states[*state].len));
        for state in by_len {
            let link = self.states[state].link;
            if longest[state].len > 0 {
                longest[link] = longest[link].or_longer(Match { len: self.states[link].len, end: longest[state].end });
            }
        }
    }

    /// The longest match of a run's suffixes.
    fn longest_suffix(&self, mut state: usize, longest: &[Match]) -> Match {
        while state != ROOT && longest[state].len == 0 {
            state = self.states[state].link;
        }
        longest[state]
    }
}

/// The slot of a step, or the free one where it would stand, found by multiplicative hashing (Knuth) and linear probing.
fn slot(steps: &[Step], from: u32, id: u32) -> usize {
    let last = steps.len() - 1;
    let hash = ((u64::from(from) << 32) | u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut slot = (hash >> 32) as usize & last;
    while steps[slot].to != 0 && (steps[slot].from, steps[slot].id) != (from, id) {
        slot = (slot + 1) & last;
    }
    slot
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;
    use crate::ShardWriter;

    fn shards(parts: &[&[u32]], vocab_size: usize) -> (tempfile::TempDir, Shards) {
        let dir = tempfile::tempdir().unwrap();
        let write = |(i, ids): (usize, &&[u32])| {
            let path = dir.path().join(format!("{i}.bin"));
            let mut writer = ShardWriter::create(&path, vocab_size).unwrap();
            writer.write(ids).unwrap();
            writer.finish().unwrap();
            path
        };
        let paths: Vec<_> = parts.iter().enumerate().map(write).collect();
        let shards = Shards::open(&paths).unwrap();
        (dir, shards)
    }

    /// Starts and lengths of the spans that no other holds, found by looking everywhere.
    fn naive(sample: &[u32], training: &[u32]) -> Vec<(usize, usize)> {
        let stands = |start: usize, end: usize| training.windows(end - start).any(|window| window == &sample[start..end]);
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for start in 0..sample.len() {
            let Some(end) = (start + 1..=sample.len()).rev().find(|end| stands(start, *end)) else { continue };
            if spans.last().is_none_or(|(other, len)| other + len < end) {
                spans.push((start, end - start));
            }
        }
        spans
    }

    fn check(samples: &[Vec<u32>], training: &[u32], cut: usize, min_len: usize) {
        let (head, tail) = training.split_at(cut);
        let (_dir, shards) = shards(&[head, tail], 100_000);
        let found = memorised(samples, &shards, min_len);
        assert_eq!(found.len(), samples.len());
        for (found, sample) in found.iter().zip(samples) {
            let expected = naive(sample, training);
            let pairs: Vec<_> = found.spans.iter().map(|span| (span.start, span.len)).collect();
            assert_eq!(
                pairs,
                expected.iter().copied().filter(|(_, len)| *len >= min_len).collect::<Vec<_>>(),
                "{sample:?} in {training:?}"
            );
            let longest = expected.iter().copied().rev().max_by_key(|(_, len)| *len);
            assert_eq!(found.longest.map(|span| (span.start, span.len)), longest);
            for span in found.spans.iter().chain(&found.longest) {
                assert_eq!(training[span.place as usize..][..span.len], sample[span.start..][..span.len]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_naive_search_finds(
            samples in prop::collection::vec(prop::collection::vec(0u32..4, 0..40), 0..4),
            training in prop::collection::vec(0u32..4, 0..200),
            cut in any::<prop::sample::Index>(),
            min_len in 0usize..6,
        ) {
            check(&samples, &training, cut.index(training.len() + 1), min_len);
        }
    }

    #[test]
    fn a_span_across_chunks_is_found_whole() {
        let at = CHUNK_TOKENS as usize;
        let mut training: Vec<u32> = vec![7; 2 * at + 100];
        let sample: Vec<u32> = (100..600).collect();
        training[at - 300..at + 200].copy_from_slice(&sample);
        training[2 * at - 1..2 * at + 99].copy_from_slice(&sample[50..150]);
        let (_dir, shards) = shards(&[&training], 1000);
        let whole = MemorisedSpan { start: 0, len: 500, place: at as u64 - 300 };
        let part = MemorisedSpan { start: 1, len: 100, place: 2 * at as u64 - 1 };
        let other = [&[8][..], &sample[50..150], &[8]].concat();
        let [a, b] = memorised(&[sample, other], &shards, 10).try_into().unwrap();
        assert_eq!((a.longest, a.spans), (Some(whole), vec![whole]));
        assert_eq!((b.longest.map(|span| span.len), b.spans.len(), b.spans[0].start), (Some(100), 1, part.start));
    }

    #[test]
    fn ids_beyond_the_vocabulary_are_nowhere() {
        check(&[vec![1, 99_999, 200_000, BORDER, 2]], &[1, 99_999, 5, 2], 2, 1);
    }
}
