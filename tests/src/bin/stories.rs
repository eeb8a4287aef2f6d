//! Writes stories for a task: `stories SEED N [ASKED] > FILE.jsonl`, where ASKED is how likely a question stands behind each sentence, 0 by
//! default. The task is `tasks/stories.toml`.

use std::io::Write;

use kindling_tests::stories::stories;

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| words.get(i).and_then(|word| word.parse::<u64>().ok());
    let asked = words.get(2).map_or(Some(0.0), |word| word.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)));
    let (Some(seed), Some(n), Some(asked), true) = (number(0), number(1), asked, words.len() <= 3) else {
        let expected =
            "expected a seed, how many stories are wanted and perhaps a share of sentences with a question, as in `stories 1 20000`";
        return Err(std::io::Error::other(expected));
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for story in stories(seed, usize::try_from(n).unwrap_or(usize::MAX), asked) {
        writeln!(out, "{}", story.row())?;
    }
    out.flush()
}
