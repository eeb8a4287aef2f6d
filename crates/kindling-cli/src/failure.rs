//! Errors as users see them: one line that says what is wrong, one that says what to do.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use kindling_config::ConfigError;
use kindling_data::DataError;
use kindling_eval::EvalError;
use kindling_infer::InferError;
use kindling_runs::RunsError;
use kindling_tokenizer::TokenizerError;
use kindling_train::TrainError;

/// An error of the command itself, with advice.
#[derive(Debug)]
pub(crate) struct Advice {
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Advice {}

/// As a shell counts a program that an interrupt ended.
pub(crate) const STOPPED: u8 = 130;

/// Prints the error and gives exit code 1. A reader that closed the pipe has had enough, which is no failure.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)) {
        return ExitCode::SUCCESS;
    }
    if matches!(error.downcast_ref(), Some(DataError::Stopped)) {
        let _ = std::io::stderr().write_all(b"stopped; whatever is finished is kept, and the same command goes on behind it\n");
        return ExitCode::from(STOPPED);
    }
    // Some errors say their cause themselves; it is not said twice.
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.contains(&cause) {
            message += if message.is_empty() { "" } else { ": " };
            message += &cause;
        }
    }
    let mut text = format!("error: {message}\n");
    if let Some(hint) = hint(error) {
        text += &format!("hint: {hint}\n");
    }
    // Where stderr is closed too, the exit code still speaks.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}

fn hint(error: &anyhow::Error) -> Option<String> {
    fn of<T: std::error::Error + Send + Sync + 'static>(error: &anyhow::Error, hint: impl Fn(&T) -> Option<String>) -> Option<String> {
        error.downcast_ref::<T>().and_then(hint)
    }
    of(error, |e: &Advice| Some(e.hint.clone()))
        .or_else(|| of(error, ConfigError::hint))
        .or_else(|| of(error, DataError::hint))
        .or_else(|| of(error, EvalError::hint))
        .or_else(|| of(error, InferError::hint))
        .or_else(|| of(error, RunsError::hint))
        .or_else(|| of(error, TokenizerError::hint))
        .or_else(|| of(error, TrainError::hint))
        .or_else(|| error.chain().find_map(|cause| io_hint(cause.downcast_ref::<std::io::Error>()?)))
        .or_else(|| Some("`kindling help` shows how each command is used".into()))
}

/// What an I/O error means for a user, by its kind.
fn io_hint(error: &std::io::Error) -> Option<String> {
    let elsewhere = "choose another folder for what is written, with `--runs-dir` or `--data-dir`";
    Some(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::FileTooLarge | ErrorKind::QuotaExceeded => {
            format!(
                "free some space, or {elsewhere}; what was saved before is untouched: the same command goes on from it, of a run \
                 `kindling train --resume RUN`"
            )
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!("change the permissions of the path, or {elsewhere}"),
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => format!("something else has that name; {elsewhere}"),
        ErrorKind::NotFound | ErrorKind::NotADirectory => format!("check the path; to write elsewhere, {elsewhere}"),
        ErrorKind::IsADirectory => "pass a file, not a folder".into(),
        _ => return None,
    })
}

/// A panic is a mistake of ours; it is said in a form that can be reported.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = format!(
            "error: internal error: {info}\nhint: this is a mistake in Kindling; please report it with the command and this text\n"
        );
        let _ = std::io::stderr().write_all(text.as_bytes());
    }));
}
