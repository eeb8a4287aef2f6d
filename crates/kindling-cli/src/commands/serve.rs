//! `kindling serve`: runs behind HTTP.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::Context;
use kindling_infer::EngineLimits;
use kindling_runs::Registry;
use kindling_serve::{RequestLog, RequestRecord, ServeOptions, ServedModel, app, serve_until};
use serde::Serialize;

use crate::args::{Args, ServeArgs};
use crate::failure::Advice;
use crate::opened::{chat_template, open_writer};
use crate::progress::line;
use crate::{interrupt, output};

/// Where a key can be given without anybody seeing it in a list of processes.
const KEY_VARIABLE: &str = "KINDLING_API_KEY";

pub(crate) fn run(args: &Args, serve: &ServeArgs) -> anyhow::Result<ExitCode> {
    let api_key = api_key(serve.api_key_file.as_deref())?;
    check_address(serve.host, api_key.is_some() || serve.allow_anyone)?;
    let registry = Registry::new(&args.runs_dir);
    let mut models = Vec::new();
    for name in &serve.runs {
        let opened = open_writer(args, &registry, name, serve.model.weights)?;
        let name = opened.run.name().to_owned();
        if models.iter().any(|other: &ServedModel| other.name == name) {
            return Err(Advice { message: format!("run `{name}` is given twice"), hint: "give each run once".into() }.into());
        }
        let template = chat_template(&opened, serve.chat_template.as_deref())?;
        let draft = serve.model.draft(args, &registry, &opened)?.map(|draft| (draft, serve.model.draft_tokens.into()));
        models.push(ServedModel { name, model: opened.model, tokenizer: opened.tokenizer, template, draft });
    }
    let log = request_log(serve.log.as_deref(), args.quiet)?;
    let options = ServeOptions {
        api_key,
        is_local: serve.host.is_loopback() && !serve.allow_anyone,
        max_queue: serve.max_queue,
        max_new_tokens: serve.max_new_tokens,
        timeout: Duration::from_secs(serve.timeout),
        engine: EngineLimits { n_running: serve.max_running, ..EngineLimits::default() },
        log: log.as_ref().map(|(log, _)| log.clone()),
        logs_texts: serve.log_texts,
        ..ServeOptions::default()
    };
    let names = models.iter().map(|model| model.name.clone()).collect::<Vec<_>>().join(", ");
    let stop = interrupt::listen_with(args.quiet, "finishing what runs; once more to stop at once")?;
    let address = SocketAddr::new(serve.host, serve.port);
    let ready = |address: SocketAddr| {
        // A program that is told of a port by 0 waits for this line.
        let _ = output::text(&format!("http://{address}\n"));
        line(args.quiet, &format!("serving {names}: a page at http://{address}/, OpenAI's interface at http://{address}/v1; Ctrl-C stops"));
    };
    serve_until(address, app(models, options), &stop, Duration::from_secs(serve.timeout), ready)
        .with_context(|| format!("cannot serve on {address}"))?;
    if let Some((log, written)) = log {
        // The last lines too, but not for ever.
        drop(log);
        let _ = written.recv_timeout(Duration::from_secs(5));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is told of requests, and what ends when all of it has been written.
type Log = (RequestLog, Receiver<()>);

/// Lines of JSON about requests, in a file or on standard error.
fn request_log(file: Option<&Path>, quiet: bool) -> anyhow::Result<Option<Log>> {
    /// Lines that may wait.
    const MOST_LINES: usize = 4096;
    #[derive(Serialize)]
    struct Line<'a> {
        /// To the millisecond.
        time: String,
        #[serde(flatten)]
        record: &'a RequestRecord,
    }
    let mut to: Box<dyn Write + Send> = match file {
        Some(path) => Box::new(fs_err::OpenOptions::new().create(true).append(true).open(path)?),
        None if quiet => return Ok(None),
        None => Box::new(std::io::stderr()),
    };
    // On a thread of its own: no answer waits for a slow disk, or for whoever does not read what is written.
    let ((lines, log), n_lost) = (sync_channel::<String>(MOST_LINES), Arc::new(AtomicU64::new(0)));
    let (all_written, written) = sync_channel::<()>(0);
    let lost = n_lost.clone();
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let (_all_written, mut has_failed) = (all_written, false);
        for text in log {
            let n_lost = lost.swap(0, Ordering::Relaxed);
            let gap = if n_lost > 0 { format!("{{\"lost_lines\":{n_lost}}}\n") } else { String::new() };
            // In one piece, so that nothing stands between.
            if let Err(error) = to.write_all(format!("{gap}{text}\n").as_bytes()).and_then(|()| to.flush()) {
                lost.fetch_add(n_lost + 1, Ordering::Relaxed);
                if !std::mem::replace(&mut has_failed, true) {
                    line(quiet, &format!("the log of requests has gaps: {error}"));
                }
            }
        }
    })?;
    let log = RequestLog::new(move |record| {
        let text = serde_json::to_string(&Line { time: format!("{:.3}", jiff::Timestamp::now()), record });
        if text.is_err() || text.is_ok_and(|text| lines.try_send(text).is_err()) {
            n_lost.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(Some((log, written)))
}

fn api_key(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let (key, place) = match file {
        Some(path) => (Some(fs_err::read_to_string(path)?), format!("`{}`", path.display())),
        None => (std::env::var(KEY_VARIABLE).ok(), format!("`{KEY_VARIABLE}`")),
    };
    let key = key.map(|key| key.trim().to_owned());
    if key.as_ref().is_some_and(String::is_empty) {
        return Err(Advice { message: format!("the API key in {place} is empty"), hint: "write a long random text into it".into() }.into());
    }
    Ok(key)
}

/// Others than those at this machine may only ask if they know something, or if that is meant.
fn check_address(host: IpAddr, is_allowed: bool) -> anyhow::Result<()> {
    if host.is_loopback() || is_allowed {
        return Ok(());
    }
    Err(Advice {
        message: format!("{host} is an address that others can reach, and there is no API key"),
        hint: format!("put a key into a file and pass `--api-key-file FILE`, or set `{KEY_VARIABLE}`; or pass `--allow-anyone`"),
    }
    .into())
}
