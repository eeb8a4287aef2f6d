//! Results on stdout: lines, tables, JSON. A full disk or a closed pipe behind stdout is an error, not a panic.

use std::io::Write;

use anyhow::Context;
use kindling_metrics::{Nll, TOP_K};
use serde::Serialize;

/// Writes text and flushes it.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    bytes(text.as_bytes())
}

/// Writes bytes as they are and flushes them.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// Writes one JSON document.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Writes names and values in two columns.
pub(crate) fn pairs(rows: &[(&str, String)]) -> anyhow::Result<()> {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    text(&rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect::<String>())
}

/// Writes a table under its header.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let all: Vec<_> = std::iter::once(&header).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().enumerate().map(|(i, cell)| format!("{cell:0$}", width(i))).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    text(&all.iter().map(|row| line(row)).collect::<String>())
}

/// 1234567 as `1,234,567`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    groups.join(",")
}

/// Bytes as mebibytes.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / (1 << 20) as f64)
}

/// The figures of a score, for a table.
pub(crate) fn score_rows(nll: &Nll) -> Vec<(&'static str, String)> {
    vec![
        ("loss", format!("{:.4} nats a token", nll.loss())),
        ("perplexity", perplexity(Some(nll.perplexity()))),
        ("bits per byte", bits_per_byte(nll.bits_per_byte())),
        ("bits per character", bits_per_byte(nll.bits_per_character())),
        ("next-token accuracy", format!("{:.2} %, among the first {TOP_K} {:.2} %", 100.0 * nll.accuracy(), 100.0 * nll.top_k_accuracy())),
    ]
}

/// `exp` of the loss, where that is a number.
pub(crate) fn perplexity(value: Option<f64>) -> String {
    value.map_or("too large for a number".into(), |perplexity| format!("{perplexity:.2}"))
}

/// Bits a byte or a character, where tokens determine the text.
pub(crate) fn bits_per_byte(value: Option<f64>) -> String {
    value.map_or("unknown: this vocabulary does not determine the text".into(), |bpb| format!("{bpb:.4}"))
}
