//! `kindling embed`: vectors of texts and tokens, and neighbours.

use std::io::BufRead;
use std::process::ExitCode;

use anyhow::Context;
use kindling_config::Pooling;
use kindling_data::read_document;
use kindling_infer::{embed, nearest, token_vectors};
use kindling_runs::{Registry, write_atomic};
use npyz::WriterBuilder;
use serde_json::json;

use crate::args::{Args, EmbedArgs};
use crate::failure::Advice;
use crate::opened::open_run;
use crate::output;
use crate::progress::{Progress, line};

pub(crate) fn run(args: &Args, embed_args: &EmbedArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_run(args, &registry, &embed_args.run)?;
    let (model, tokenizer) = (&opened.model, &opened.tokenizer);
    if let Some(word) = &embed_args.nearest {
        if word.trim().is_empty() {
            return Err(Advice { message: "`--nearest` names no word".into(), hint: "for example `--nearest house`".into() }.into());
        }
        let near = nearest(model, tokenizer, word, embed_args.top)?;
        if args.json {
            output::json(&near)?;
        } else {
            let rows: Vec<_> =
                near.iter().map(|one| vec![format!("{:?}", one.token), one.id.to_string(), format!("{:.4}", one.cosine)]).collect();
            output::table(&["token", "id", "cosine"], &rows)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (names, vectors) = if embed_args.tokens {
        let name = |id: u32| tokenizer.token_bytes(id).map_or_else(String::new, |bytes| String::from_utf8_lossy(bytes).into_owned());
        ((0..tokenizer.vocab_size() as u32).map(name).collect(), token_vectors(model, tokenizer))
    } else {
        let texts = texts(embed_args)?;
        let pooling = if embed_args.pool == "last" { Pooling::Last } else { Pooling::Mean };
        let mut progress = Progress::new(args.quiet);
        let (vectors, n_truncated) =
            embed(model, tokenizer, &texts, pooling, embed_args.batch_size, &mut |done, total| progress.answering(done, total))?;
        progress.clear();
        if n_truncated > 0 {
            line(args.quiet, &format!("warning: {n_truncated} texts that did not fit the context lost their beginning"));
        }
        (texts, vectors)
    };
    match &embed_args.output {
        Some(path) if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) => {
            write_atomic(path, &npy(&vectors)?)?
        }
        Some(path) => write_atomic(path, lines(&names, &vectors)?.as_bytes())?,
        None => output::text(&lines(&names, &vectors)?)?,
    }
    if let Some(path) = &embed_args.output {
        let width = vectors.first().map_or(0, Vec::len);
        line(args.quiet, &format!("{} vectors of {width} values in {}", output::count(vectors.len() as u64), path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The texts that are asked for.
fn texts(args: &EmbedArgs) -> anyhow::Result<Vec<String>> {
    let texts: Vec<String> = match (&args.text, &args.file) {
        (Some(text), _) => vec![text.clone()],
        (None, Some(file)) => read_document(file, false)?.lines().map(str::to_owned).collect(),
        (None, None) => std::io::stdin().lock().lines().collect::<Result<_, _>>().context("cannot read standard input as text in UTF-8")?,
    };
    if texts.is_empty() {
        return Err(
            Advice { message: "there is no text".into(), hint: "pass a text, `--file FILE`, or lines on standard input".into() }.into()
        );
    }
    Ok(texts)
}

fn lines(names: &[String], vectors: &[Vec<f32>]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (name, vector) in names.iter().zip(vectors) {
        text += &serde_json::to_string(&json!({ "text": name, "vector": vector }))?;
        text.push('\n');
    }
    Ok(text)
}

/// A matrix `[n, C]` of f32 in NumPy's format.
fn npy(vectors: &[Vec<f32>]) -> anyhow::Result<Vec<u8>> {
    let shape = [vectors.len() as u64, vectors.first().map_or(0, Vec::len) as u64];
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut bytes).begin_nd()?;
    writer.extend(vectors.iter().flatten())?;
    writer.finish()?;
    Ok(bytes)
}
