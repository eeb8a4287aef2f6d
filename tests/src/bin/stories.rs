//! Writes stories as rows for the task `tasks/stories.toml`: `stories SEED N > FILE.jsonl`, with a question each, to test with; `stories SEED N turns`
//! with several that are asked as the story goes on, to learn from.

use std::io::Write;

use kindling_tests::stories::{MOVES, Story, reading_row, readings, stories};

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<Option<usize>> = words.iter().take(2).map(|word| word.parse().ok()).collect();
    let rows: Box<dyn Iterator<Item = _>> = match (numbers.as_slice(), words.get(2).map(String::as_str), words.len()) {
        ([Some(seed), Some(n)], None, _) => Box::new(stories(*seed as u64, *n, &MOVES).into_iter().map(|story: Story| story.row())),
        ([Some(seed), Some(n)], Some("turns"), 3) => Box::new(readings(*seed as u64, *n).into_iter().map(|turns| reading_row(&turns))),
        _ => {
            let expected =
                "expected a seed and how many stories are wanted, as in `stories 1 20000`, and perhaps `turns`: several questions a story";
            return Err(std::io::Error::other(expected));
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for row in rows {
        writeln!(out, "{row}")?;
    }
    out.flush()
}
