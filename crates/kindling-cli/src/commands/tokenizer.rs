//! `kindling tokenizer`: trains a vocabulary, uses one, compares several.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use kindling_data::{ReadOptions, count_files, for_each_text};
use kindling_tokenizer::{BpeTrainer, PreTokenCounts, SpecialTokens, Tokenizer, TokenizerError, Usage};
use serde_json::json;

use crate::args::{Args, TokenizerCommand, TokenizerTrainArgs};
use crate::corpus::reading;
use crate::failure::Advice;
use crate::output;
use crate::progress::{Progress, left_out};

pub(crate) fn run(args: &Args, command: &TokenizerCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenizerCommand::Train(train_args) => train(args, train_args),
        TokenizerCommand::Encode { tokenizer, text, file, allow_special } => {
            encode(args, &Tokenizer::open(tokenizer)?, text.as_deref(), file.as_deref(), allow_special)
        }
        TokenizerCommand::Decode { tokenizer, ids } => decode(args, &Tokenizer::open(tokenizer)?, ids),
        TokenizerCommand::Info { tokenizers, data, reading: read, top } => info(args, tokenizers, data, reading(read), *top),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn train(args: &Args, train_args: &TokenizerTrainArgs) -> anyhow::Result<()> {
    let start = Instant::now();
    let trainer = BpeTrainer {
        vocab_size: train_args.vocab_size,
        special_tokens: train_args.special.clone(),
        pattern: train_args.pattern.parse()?,
        min_frequency: train_args.min_frequency,
    };
    // What cannot be trained is said before all the text is read.
    trainer.check()?;
    let options = reading(&train_args.reading);
    let mut progress = Progress::new(args.quiet);
    let mut counts = PreTokenCounts::new(trainer.pattern.clone()).with_max_document_bytes(train_args.max_document_bytes);
    let stats = count_files(&train_args.data, &train_args.exclude, options, &mut counts, &mut |done, total| progress.reading(done, total))?;
    let bpe = trainer.train_with_progress(&counts, &mut |done, total| progress.merging(done as u64, total as u64))?;
    progress.clear();
    let tokenizer = Tokenizer::from(bpe);
    tokenizer.save(&train_args.out)?;
    let seconds = start.elapsed().as_secs_f64();
    if args.json {
        return output::json(&json!({
            "tokenizer": train_args.out, "vocab_size": tokenizer.vocab_size(), "n_documents": stats.n_documents, "n_bytes": stats.n_bytes,
            "binary_skipped": stats.binary_skipped, "empty_skipped": stats.empty_skipped, "lossy_files": stats.lossy_files,
            "bad_rows_skipped": stats.bad_rows_skipped, "damaged_skipped": stats.damaged_skipped, "seconds": seconds,
        }));
    }
    let mut text = format!("{} documents, {} bytes", output::count(stats.n_documents as u64), output::count(stats.n_bytes));
    for left_out in left_out(&stats, &[]) {
        text += &format!(", {left_out}");
    }
    let mut tokens = output::count(tokenizer.vocab_size() as u64);
    if tokenizer.vocab_size() < train_args.vocab_size {
        tokens +=
            &format!(" of {}: no pair is left that occurs {} times", output::count(train_args.vocab_size as u64), train_args.min_frequency);
    }
    output::pairs(&[
        ("tokenizer", train_args.out.display().to_string()),
        ("tokens", tokens),
        ("text", text),
        ("time", format!("{seconds:.1} s, {:.0} MB/s", stats.n_bytes as f64 / 1e6 / seconds)),
    ])
}

fn encode(args: &Args, tokenizer: &Tokenizer, text: Option<&str>, file: Option<&Path>, allow_special: &[String]) -> anyhow::Result<()> {
    let bytes = match (text, file) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(file)) => std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?,
        (None, None) => standard_input()?,
    };
    let ids = if allow_special.is_empty() {
        tokenizer.encode_bytes(&bytes)?
    } else {
        let text = str::from_utf8(&bytes).map_err(|error| TokenizerError::NotUtf8 { offset: error.valid_up_to() as u64 })?;
        let names: Vec<&str> = allow_special.iter().map(String::as_str).collect();
        tokenizer.encode_with(text, SpecialTokens::Allow(&names))?
    };
    if args.json {
        return output::text(&format!("{}\n", serde_json::to_string(&ids)?));
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    output::text(&format!("{}\n", ids.join(" ")))
}

fn decode(args: &Args, tokenizer: &Tokenizer, ids: &[u32]) -> anyhow::Result<()> {
    let mut ids = ids.to_vec();
    if ids.is_empty() {
        let text = String::from_utf8_lossy(&standard_input()?).into_owned();
        // As `encode` prints them, with and without `--json`.
        for word in text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|word| !word.is_empty()) {
            let advice = || Advice {
                message: format!("`{word}` is not a token id"),
                hint: "pass numbers, with white space or commas between".into(),
            };
            ids.push(word.parse().map_err(|_| advice())?);
        }
    }
    if args.json {
        return output::json(&json!({ "text": tokenizer.decode_lossy(&ids)? }));
    }
    // Bytes as they are: a BPE vocabulary can hold what is no text.
    output::bytes(&tokenizer.decode(&ids)?)
}

fn info(args: &Args, names: &[String], data: &[PathBuf], options: ReadOptions<'_>, top: usize) -> anyhow::Result<()> {
    let tokenizers = names.iter().map(|name| Tokenizer::open(name)).collect::<Result<Vec<_>, _>>()?;
    let mut usages: Vec<Usage> = tokenizers.iter().map(Usage::new).collect();
    let mut seconds = vec![0.0; tokenizers.len()];
    if !data.is_empty() {
        let mut progress = Progress::new(args.quiet);
        for_each_text(data, options, &mut |done, total| progress.reading(done, total), &mut |texts| {
            for ((tokenizer, usage), seconds) in tokenizers.iter().zip(&mut usages).zip(&mut seconds) {
                let start = Instant::now();
                usage.add(tokenizer, texts)?;
                *seconds += start.elapsed().as_secs_f64();
            }
            Ok(())
        })?;
    }
    let shown = |tokenizer: &Tokenizer, id: u32| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        format!("{:?}", String::from_utf8_lossy(bytes))
    };
    if args.json {
        let all = names.iter().zip(&tokenizers).zip(&usages).zip(&seconds).map(|(((name, tokenizer), usage), &seconds)| {
            let token = |id: u32| json!({ "id": id, "token": String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()) });
            let mut info = json!({
                "tokenizer": name, "kind": tokenizer.kind(), "vocab_size": tokenizer.vocab_size(),
                "split": split(tokenizer),
                "special_tokens": tokenizer.special_ids().iter().map(|&id| token(id)).collect::<Vec<_>>(),
                "longest_tokens": tokenizer.longest_tokens(top).into_iter().map(token).collect::<Vec<_>>(),
            });
            if !data.is_empty() {
                info["text"] = json!({
                    "n_bytes": usage.n_bytes, "n_tokens": usage.n_tokens, "bytes_per_token": usage.bytes_per_token(),
                    "unused_tokens": usage.unused(tokenizer), "seconds": seconds,
                });
            }
            info
        });
        return output::json(&all.collect::<Vec<_>>());
    }
    let mut header = vec!["tokenizer", "kind", "split", "tokens", "special"];
    if !data.is_empty() {
        header.extend(["bytes", "tokens of text", "bytes a token", "unused", "MB/s"]);
    }
    let rows = names.iter().zip(&tokenizers).zip(&usages).zip(&seconds).map(|(((name, tokenizer), usage), &seconds)| {
        let number = |n: usize| output::count(n as u64);
        let mut row = vec![
            name.clone(),
            tokenizer.kind().to_owned(),
            split(tokenizer),
            number(tokenizer.vocab_size()),
            number(tokenizer.special_ids().len()),
        ];
        if !data.is_empty() {
            row.extend([
                output::count(usage.n_bytes),
                output::count(usage.n_tokens),
                usage.bytes_per_token().map_or("-".into(), |ratio| format!("{ratio:.3}")),
                number(usage.unused(tokenizer).len()),
                format!("{:.0}", usage.n_bytes as f64 / 1e6 / seconds),
            ]);
        }
        row
    });
    output::table(&header, &rows.collect::<Vec<_>>())?;
    for ((name, tokenizer), usage) in names.iter().zip(&tokenizers).zip(&usages) {
        let list = |ids: &[u32]| ids.iter().map(|&id| shown(tokenizer, id)).collect::<Vec<_>>().join(" ");
        output::text(&format!("\n{name}\n"))?;
        let special = tokenizer.special_ids();
        let mut rows = vec![("  longest", list(&tokenizer.longest_tokens(top)))];
        if !special.is_empty() {
            rows.push(("  special", list(&special[..special.len().min(top)])));
        }
        let unused = usage.unused(tokenizer);
        if !data.is_empty() && !unused.is_empty() {
            rows.push(("  unused", list(&unused[..unused.len().min(top)])));
        }
        output::pairs(&rows)?;
    }
    Ok(())
}

/// How text is cut before ids are given.
fn split(tokenizer: &Tokenizer) -> String {
    match tokenizer {
        Tokenizer::Bpe(bpe) => bpe.pattern().name().to_owned(),
        Tokenizer::Char(_) => "characters".to_owned(),
        Tokenizer::Word(_) => "white space".to_owned(),
        _ => "its own".to_owned(),
    }
}

fn standard_input() -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}
