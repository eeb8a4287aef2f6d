//! Writes stories as rows for the task `tasks/stories.toml`: `stories SEED N > FILE.jsonl`. `stories SEED N MOVES SENTENCES` makes N stories of at most
//! MOVES moves, and writes those of at most SENTENCES sentences: short ones, to begin with.

use std::io::Write;

use kindling_tests::stories::{MOVES, stories};

fn main() -> std::io::Result<()> {
    let numbers: Vec<Option<usize>> = std::env::args().skip(1).map(|word| word.parse().ok()).collect();
    let (seed, n, moves, sentences) = match numbers.as_slice() {
        [Some(seed), Some(n)] => (*seed, *n, *MOVES.end(), usize::MAX),
        [Some(seed), Some(n), Some(moves), Some(sentences)] if MOVES.contains(moves) => (*seed, *n, *moves, *sentences),
        _ => {
            let expected = "expected a seed and how many stories are wanted, as in `stories 1 20000`, and perhaps how many moves, 2 to 10, and how \
                            many sentences they have at most";
            return Err(std::io::Error::other(expected));
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for story in stories(seed as u64, n, &(*MOVES.start()..=moves)) {
        if story.context.matches('.').count() <= sentences {
            writeln!(out, "{}", story.row())?;
        }
    }
    out.flush()
}
