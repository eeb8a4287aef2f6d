//! Writes stories: `stories SEED N > FILE.jsonl` rows for the task `tasks/stories.toml`, and `stories SEED N ASKED > FILE.jsonl` chats to learn
//! from, in which behind each sentence something is asked with the probability ASKED.

use std::io::Write;

use kindling_tests::stories::stories;

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| words.get(i).and_then(|word| word.parse::<u64>().ok());
    let asked = words.get(2).map(|word| word.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)));
    let (Some(seed), Some(n), None | Some(Some(_)), true) = (number(0), number(1), asked, words.len() <= 3) else {
        let expected =
            "expected a seed, how many stories are wanted and perhaps a share of sentences with a question, as in `stories 1 20000`";
        return Err(std::io::Error::other(expected));
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for story in stories(seed, usize::try_from(n).unwrap_or(usize::MAX), asked.flatten().unwrap_or(0.0)) {
        writeln!(out, "{}", if asked.is_some() { story.chat() } else { story.row() })?;
    }
    out.flush()
}
