//! `--preview`: the first examples, token by token, and which of the tokens are learned.

use std::fmt::Write;

use kindling_config::RunConfig;
use kindling_data::{MarkedToken, PackedRows, PackingStats, Prepared};
use serde_json::{Value, json};

use crate::failure::Advice;
use crate::output;

/// Prints the first `n` examples that train.
pub(super) fn preview(config: &RunConfig, data: &Prepared, n: usize, as_json: bool) -> anyhow::Result<()> {
    if !data.manifest.examples {
        return Err(Advice {
            message: "there are no examples to preview: all tokens of a text are learned".into(),
            hint: "pass `--examples` if each row of the data is an example".into(),
        }
        .into());
    }
    let (mut examples, mut stats) = (Vec::new(), PackingStats::default());
    // Of each source as many.
    for part in data.manifest.training.parts() {
        let rows = PackedRows::new(&data.training, part.start..part.end, config.model.context_len);
        let mut ranges: Vec<_> = rows.examples().collect();
        ranges.sort_by_key(|range| range.start);
        examples.extend(ranges.into_iter().take(n).map(|range| data.training.read_marked(range)));
        stats = stats.and(rows.stats());
    }
    if as_json {
        let examples: Vec<Value> = examples.iter().map(|example| as_value(config, data, example)).collect();
        return output::json(&json!({ "packing": stats, "examples": examples }));
    }
    let mut text = String::new();
    for (number, example) in examples.iter().enumerate() {
        let n_learned = learned(example).filter(|is_learned| *is_learned).count();
        let cut = if example[0].begins() { "" } else { ", its beginning cut off" };
        writeln!(text, "example {}: {n_learned} of {} tokens are learned{cut}", number + 1, example.len())?;
        let marked: Vec<_> = example.iter().zip(learned(example)).collect();
        for stretch in marked.chunk_by(|a, b| a.1 == b.1) {
            let what = if stretch[0].1 { "learned" } else { "given" };
            let tokens: Vec<_> = stretch.iter().map(|(token, _)| shown(text_of(config, data, token))).collect();
            writeln!(text, "  {what:8}│{}│", tokens.join("│"))?;
        }
    }
    output::text(&format!("{text}\n{}\n", packing(&stats, config.model.context_len)))
}

/// What came of packing, in a line.
pub(super) fn packing(stats: &PackingStats, context_len: usize) -> String {
    let PackingStats { n_examples, n_cut, n_tokens, n_learned, n_rows } = *stats;
    let filled = 100.0 * (n_tokens - n_examples) as f64 / (n_rows * context_len as u64).max(1) as f64;
    let cut = match n_cut {
        0 => String::new(),
        n => format!("; {} are longer than a row and lose their beginning", output::count(n)),
    };
    format!(
        "{} examples, {} of {} tokens learned; in {} rows of {context_len}, {filled:.0} % full{cut}",
        output::count(n_examples),
        output::count(n_learned),
        output::count(n_tokens),
        output::count(n_rows)
    )
}

/// Of each token, whether it is learned. The first one, which nothing is before, is not.
fn learned(example: &[MarkedToken]) -> impl Iterator<Item = bool> {
    example.iter().enumerate().map(|(place, token)| place > 0 && token.is_learned())
}

/// What a token stands for: bytes of text, or where a head is trained, of what is learned the label.
fn text_of<'a>(config: &'a RunConfig, data: &'a Prepared, token: &MarkedToken) -> &'a [u8] {
    let labels = config.data.examples.as_ref().filter(|examples| examples.head && token.is_learned()).map(|examples| &examples.labels);
    match labels.and_then(|labels| labels.get(token.id() as usize)) {
        Some(label) => label.as_bytes(),
        None => data.tokenizer.token_bytes(token.id()).unwrap_or_default(),
    }
}

fn as_value(config: &RunConfig, data: &Prepared, example: &[MarkedToken]) -> Value {
    let token = |(token, is_learned): (&MarkedToken, bool)| json!({ "id": token.id(), "token": String::from_utf8_lossy(text_of(config, data, token)), "learned": is_learned });
    json!({ "cut": !example[0].begins(), "tokens": example.iter().zip(learned(example)).map(token).collect::<Vec<_>>() })
}

/// A token on one line; bytes that are no text as `\xff`.
fn shown(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}
