//! Writes stories for a task: `stories SEED N > FILE.jsonl`. The task is `tasks/stories.toml`.

use std::io::Write;

use kindling_tests::stories::stories;

fn main() -> std::io::Result<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let &[seed, n] = numbers.as_slice() else {
        return Err(std::io::Error::other("expected a seed and how many stories are wanted, as in `stories 1 20000`"));
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for story in stories(seed, usize::try_from(n).unwrap_or(usize::MAX)) {
        writeln!(out, "{}", story.row())?;
    }
    out.flush()
}
