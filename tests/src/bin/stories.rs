//! Writes stories: `stories SEED N [MOVES] > FILE.jsonl` rows for the task `tasks/stories.toml`, of 2 to MOVES moves, 10 by default; `stories
//! --chats ASKED SEED N [MOVES] > FILE.jsonl` chats, in which behind each sentence something is asked with the probability ASKED.

use std::io::Write;

use kindling_tests::stories::{MOVES, stories};

fn main() -> std::io::Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut asked = None;
    if words.first().is_some_and(|word| word == "--chats") {
        words.remove(0);
        asked = Some(words.drain(..1.min(words.len())).next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN));
    }
    let numbers: Vec<Option<u64>> = words.iter().map(|word| word.parse().ok()).collect();
    let is_share = asked.is_none_or(|asked| (0.0..=1.0).contains(&asked));
    let (seed, n, most) = match numbers.as_slice() {
        [Some(seed), Some(n)] if is_share => (*seed, *n, *MOVES.end()),
        [Some(seed), Some(n), Some(most)] if is_share && MOVES.contains(&(*most as usize)) => (*seed, *n, *most as usize),
        _ => {
            let expected = "expected a seed, how many stories are wanted and perhaps how many moves they have at most, 2 to 10, as in \
                            `stories 1 20000`; and before them perhaps `--chats` and a share of sentences, from 0 to 1, with a question";
            return Err(std::io::Error::other(expected));
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for story in stories(seed, usize::try_from(n).unwrap_or(usize::MAX), asked.unwrap_or(0.0), &(*MOVES.start()..=most)) {
        writeln!(out, "{}", if asked.is_some() { story.chat() } else { story.row() })?;
    }
    out.flush()
}
