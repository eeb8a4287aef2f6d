//! `kindling chat`: a conversation in the terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kindling_infer::{ChatTemplate, Engine, EngineLimits, Event, InferError, Message, Request, Sampling, StopReason};
use kindling_runs::Registry;
use kindling_tokenizer::Tokenizer;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;

use crate::args::{Args, ChatArgs};
use crate::opened::{chat_template, open_writer};
use crate::progress::line;
use crate::{interrupt, output};

const USER: &str = "user";
const ASSISTANT: &str = "assistant";
const SYSTEM: &str = "system";
/// What share of a context is kept free for an answer, by leaving old messages out.
const ROOM: usize = 4;

const HELP: &str = "\
/set              show the settings
/set NAME VALUE   change one, such as `/set temperature 0.7`
/retry            another answer to the last question
/undo             take back the last question and its answer
/new              begin anew
/system TEXT      what is said before all else; without a text nothing
/save FILE        add the chat to a file of examples, which `kindling finetune --examples` trains on
/quit             end, as Ctrl-D does
A line that ends with \\ goes on in the next one; // begins a line with a slash. Ctrl-C ends an answer.";

pub(crate) fn run(args: &Args, chat_args: &ChatArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_writer(args, &registry, &chat_args.run, chat_args.model.weights)?;
    let template = chat_template(&opened, chat_args.chat_template.as_deref())?;
    let mut config = opened.run.config().sample.clone();
    let sampling = chat_args.sampling.over(&mut config)?;
    let context_len = opened.model.config().context_len;
    let limits = EngineLimits { n_running: 1, n_tokens_kept: 2 * context_len, ..EngineLimits::default() };
    let draft = chat_args.model.draft(args, &registry, &opened)?;
    let mut chat = Chat {
        engine: chat_args.model.engine(&opened.model, &opened.tokenizer, draft.as_ref(), limits)?,
        tokenizer: &opened.tokenizer,
        template,
        context_len,
        settings: Settings { sampling, max_new_tokens: config.max_new_tokens, seed: chat_args.sampling.seed },
        stop: chat_args.sampling.stop.clone(),
        system: chat_args.system.clone(),
        messages: Vec::new(),
        n_answers: 0,
        json: args.json,
        quiet: args.quiet,
    };
    let mut lines = Lines::open()?;
    let is_busy = Arc::new(AtomicBool::new(false));
    let interrupted = interrupt::listen_while(Arc::clone(&is_busy), lines.is_edited())?;
    if lines.is_edited() {
        line(args.quiet, &format!("chat with {}, step {}; /help says what else there is, Ctrl-D ends", opened.run.name(), opened.step));
    }
    while let Some(said) = lines.next()? {
        // At the prompt Ctrl-C is a key: who asks by a signal wants an end.
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        is_busy.store(true, Ordering::Relaxed);
        let done = chat.take(&said, &interrupted);
        is_busy.store(false, Ordering::Relaxed);
        interrupted.store(false, Ordering::Relaxed);
        match done {
            Ok(true) => {}
            Ok(false) => break,
            // What is wrong with a line ends no conversation; of a program that gives lines it does.
            Err(error) if lines.is_edited() => line(false, &format!("error: {error:#}")),
            Err(error) => return Err(error),
        }
    }
    lines.close();
    Ok(ExitCode::SUCCESS)
}

/// A conversation as far as it has come.
struct Chat<'a> {
    engine: Engine<'a>,
    tokenizer: &'a Tokenizer,
    template: ChatTemplate,
    context_len: usize,
    settings: Settings,
    stop: Vec<String>,
    system: Option<String>,
    messages: Vec<Message>,
    /// Each answer is drawn by a seed of its own.
    n_answers: u64,
    json: bool,
    quiet: bool,
}

/// What `/set` changes.
struct Settings {
    sampling: Sampling,
    max_new_tokens: usize,
    seed: u64,
}

impl Chat<'_> {
    /// Does what a line says; whether the conversation goes on.
    fn take(&mut self, said: &str, interrupted: &AtomicBool) -> anyhow::Result<bool> {
        let (command, rest) = match said.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
            Some(command) => command.split_once(char::is_whitespace).map_or((command, ""), |(command, rest)| (command, rest.trim())),
            None => {
                let said = if said.starts_with("//") { &said[1..] } else { said };
                if !said.trim().is_empty() {
                    self.ask(message(USER, said), self.messages.clone(), interrupted)?;
                }
                return Ok(true);
            }
        };
        match (command, rest) {
            ("quit" | "exit", "") => return Ok(false),
            ("help", "") => line(false, HELP),
            ("set", "") => line(false, &self.settings.told()),
            ("set", change) => self.settings.set(change)?,
            ("new", "") => self.messages.clear(),
            ("undo", "") => drop(self.take_back()?),
            ("retry", "") => {
                let before = self.messages.clone();
                let asked = self.take_back()?;
                self.ask(asked, before, interrupted)?;
            }
            ("system", text) => self.system = Some(text.to_owned()).filter(|text| !text.is_empty()),
            ("save", file) if !file.is_empty() => self.save(Path::new(file))?,
            _ => anyhow::bail!("there is no command `{said}`, expected one that /help tells of"),
        }
        Ok(true)
    }

    /// Asks something, and goes back to what was said before if that cannot be answered.
    fn ask(&mut self, asked: Message, before: Vec<Message>, interrupted: &AtomicBool) -> anyhow::Result<()> {
        self.messages.push(asked);
        self.answer(interrupted).inspect_err(|_| self.messages = before)
    }

    /// Forgets the last question and what was answered; gives back the question.
    fn take_back(&mut self) -> anyhow::Result<Message> {
        while let Some(last) = self.messages.pop() {
            if last.role == USER {
                return Ok(last);
            }
        }
        anyhow::bail!("nothing has been asked yet")
    }

    /// Writes the assistant's next message, piece by piece.
    fn answer(&mut self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        let Settings { sampling, max_new_tokens, seed } = &self.settings;
        let request = Request {
            prompt: self.prompt()?,
            sampling: sampling.clone(),
            seed: seed.wrapping_add(self.n_answers),
            max_new_tokens: *max_new_tokens,
            stop: self.stop.clone(),
            ..Request::default()
        };
        let id = self.engine.add(request)?;
        self.n_answers += 1;
        let (mut text, mut n_new, mut why) = (String::new(), 0, None);
        while why.is_none() {
            for (_, event) in self.engine.step() {
                let piece = match event {
                    Event::Prompt(_) => continue,
                    Event::Token { text, .. } => (n_new += 1, text).1,
                    Event::Ended { text, reason } => (why = Some(reason), text).1,
                    Event::Failed(error) => return Err(error.into()),
                };
                if !self.json {
                    output::text(&piece)?;
                }
                text += &piece;
            }
            if why.is_none() && interrupted.load(Ordering::Relaxed) {
                self.engine.cancel(id);
                break;
            }
        }
        let stop_reason = match why {
            None => "interrupted",
            Some(StopReason::EndOfText) => "end_of_text",
            Some(StopReason::StopText) => "stop_text",
            Some(StopReason::MaxNewTokens) => "max_new_tokens",
            Some(StopReason::Context) => "context",
        };
        if self.json {
            // A document a line, for programs that read answer by answer.
            let told = json!({ "role": ASSISTANT, "content": text, "new_tokens": n_new, "stop_reason": stop_reason });
            output::text(&format!("{told}\n"))?;
        } else {
            output::text("\n")?;
            match why {
                Some(StopReason::MaxNewTokens) => line(self.quiet, "(cut; /set max_new_tokens N allows more)"),
                Some(StopReason::Context) => line(self.quiet, "(cut: the context is full)"),
                _ => {}
            }
        }
        self.messages.push(message(ASSISTANT, &text));
        Ok(())
    }

    /// The ids of the conversation; of a long one its end, behind what is said before all else.
    fn prompt(&self) -> anyhow::Result<Vec<u32>> {
        let (n, room) = (self.messages.len(), self.settings.max_new_tokens.min(self.context_len / ROOM));
        for from in (0..n).filter(|from| self.messages[*from].role == USER) {
            let said: Vec<Message> =
                self.system.iter().map(|text| message(SYSTEM, text)).chain(self.messages[from..].iter().cloned()).collect();
            let ids = self.template.ids(self.tokenizer, &said)?;
            let is_last = !self.messages[from + 1..].iter().any(|message| message.role == USER);
            if ids.len() + if is_last { 1 } else { room } <= self.context_len {
                if from > 0 {
                    line(self.quiet, &format!("(the context is full: the first {from} messages are left out)"));
                }
                return Ok(ids);
            }
            if is_last {
                return Err(InferError::LongPrompt { found: ids.len(), context_len: self.context_len }.into());
            }
        }
        anyhow::bail!("nothing has been asked yet")
    }

    fn save(&self, path: &Path) -> anyhow::Result<()> {
        if !self.messages.iter().any(|message| message.role == ASSISTANT && !message.content.is_empty()) {
            anyhow::bail!("nothing has been answered yet, so there is nothing to learn from");
        }
        let messages: Vec<Message> = self.system.iter().map(|text| message(SYSTEM, text)).chain(self.messages.iter().cloned()).collect();
        let ends_well = fs_err::read(path).is_ok_and(|bytes| bytes.is_empty() || bytes.ends_with(b"\n")) || !path.exists();
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
        if !ends_well {
            writeln!(file)?;
        }
        writeln!(file, "{}", json!({ "messages": messages }))?;
        line(self.quiet, &format!("(added {} messages to {})", messages.len(), path.display()));
        Ok(())
    }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}

impl Settings {
    fn told(&self) -> String {
        let Self { sampling: s, max_new_tokens, seed } = self;
        format!(
            "temperature {}, top_k {}, top_p {}, min_p {}, typical_p {}, repetition_penalty {}, frequency_penalty {}, presence_penalty {}, \
             max_new_tokens {max_new_tokens}, seed {seed}",
            s.temperature, s.top_k, s.top_p, s.min_p, s.typical_p, s.repetition_penalty, s.frequency_penalty, s.presence_penalty
        )
    }

    /// Changes what `NAME VALUE` says.
    fn set(&mut self, change: &str) -> anyhow::Result<()> {
        let (name, value) = change.split_once(|c: char| c == '=' || c.is_whitespace()).unwrap_or((change, ""));
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end();
        let bad = |expected: &str| anyhow::anyhow!("`{name}` is `{value}`, expected {expected}");
        let number = || value.parse::<f64>().map_err(|_| bad("a number"));
        let whole = || value.parse::<u64>().map_err(|_| bad("a whole number"));
        let mut changed = self.sampling.clone();
        match name {
            "temperature" => changed.temperature = number()?,
            "top_k" => changed.top_k = whole()? as usize,
            "top_p" => changed.top_p = number()?,
            "min_p" => changed.min_p = number()?,
            "typical_p" => changed.typical_p = number()?,
            "repetition_penalty" => changed.repetition_penalty = number()?,
            "frequency_penalty" => changed.frequency_penalty = number()?,
            "presence_penalty" => changed.presence_penalty = number()?,
            "max_new_tokens" => match whole()? as usize {
                0 => return Err(bad("at least 1")),
                n => self.max_new_tokens = n,
            },
            "seed" => self.seed = whole()?,
            _ => anyhow::bail!("there is no setting `{name}`, expected one that /set shows"),
        }
        changed.check()?;
        self.sampling = changed;
        Ok(())
    }
}

/// Where lines come from: an editor with history at a terminal, or standard input as it is.
enum Lines {
    Edited { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Read(std::io::Lines<std::io::StdinLock<'static>>),
}

impl Lines {
    fn open() -> anyhow::Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Read(std::io::stdin().lock().lines()));
        }
        let mut editor = Box::new(DefaultEditor::new()?);
        let history = history_file();
        if let Some(path) = &history {
            // There is none before the first chat.
            let _ = editor.load_history(path);
        }
        Ok(Self::Edited { editor, history })
    }

    fn is_edited(&self) -> bool {
        matches!(self, Self::Edited { .. })
    }

    /// The next line, together with those that it goes on in; none at the end.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        let mut whole = String::new();
        loop {
            let prompt = if whole.is_empty() { "> " } else { "| " };
            let next = match self {
                Self::Read(lines) => lines.next().transpose()?,
                Self::Edited { editor, .. } => match editor.readline(prompt) {
                    Ok(text) => Some(text),
                    Err(ReadlineError::Interrupted) => {
                        whole.clear();
                        line(false, "(Ctrl-D ends)");
                        continue;
                    }
                    Err(ReadlineError::Eof) => None,
                    Err(error) => return Err(error.into()),
                },
            };
            let Some(text) = next else { return Ok(Some(whole).filter(|whole| !whole.is_empty())) };
            match text.strip_suffix('\\') {
                Some(text) => {
                    whole += text;
                    whole.push('\n');
                }
                None => {
                    whole += &text;
                    break;
                }
            }
        }
        if let Self::Edited { editor, .. } = self {
            let _ = editor.add_history_entry(whole.as_str());
        }
        Ok(Some(whole))
    }

    /// Keeps the history. Where that cannot be, nothing is lost that was said.
    fn close(&mut self) {
        if let Self::Edited { editor, history: Some(path) } = self {
            let _ = path.parent().map(std::fs::create_dir_all);
            let _ = editor.save_history(path);
        }
    }
}

fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("kindling/chat_history"))
}
