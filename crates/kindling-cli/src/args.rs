//! The command line as data. What is written here is the help that users see.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use kindling_config::LoraTarget;
use kindling_kernels::{Isa, WeightFormat};

use crate::sampling::{GrammarArgs, ModelArgs, SamplingArgs};

/// From raw text to a GPT that you own: train, evaluate, generate.
#[derive(Debug, Parser)]
#[command(name = "kindling", version, propagate_version = true)]
pub(crate) struct Args {
    /// Print results as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress on stderr
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Where the model is computed: flex, ndarray, wgpu, vulkan, metal, cuda or rocm, with `:1` for the second card
    #[arg(long, global = true, value_name = "DEVICE", default_value = "flex")]
    pub(crate) device: String,
    /// Threads of the CPU backends; by default as many as the process may use
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Instructions that flex's fused operations compute with; by default the best that the processor has
    #[arg(long, global = true, value_name = "ISA", value_parser = isa)]
    pub(crate) isa: Option<Isa>,
    /// The folder of runs
    #[arg(long, global = true, value_name = "DIR", default_value = "runs")]
    pub(crate) runs_dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Whether a training may take the whole terminal.
    pub(crate) fn may_have_dashboard(&self) -> bool {
        let no_dashboard = match &self.command {
            Command::Train(train) => train.no_dashboard,
            Command::Finetune(finetune) => finetune.no_dashboard,
            _ => true,
        };
        !(self.json || self.quiet || no_dashboard)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model from a config and a corpus, or go on with a run
    Train(TrainArgs),
    /// Train a run's model on another text, and say what it has learned and what it has forgotten
    Finetune(FinetuneArgs),
    /// Make a run whose weights have a run's adapter folded into them
    Merge(MergeArgs),
    /// Turn a corpus into token shards, and say what is in them; `train` does it by itself
    Prepare(CorpusArgs),
    /// Look at a corpus
    Data {
        #[command(subcommand)]
        command: DataCommand,
    },
    /// Check on a small model of the config, and on its data, that training is honest arithmetic
    Doctor(CorpusArgs),
    /// Write text with a trained model
    Generate(GenerateArgs),
    /// Score a text (loss, perplexity, bits per byte, next-token accuracy), or test a run on a task
    Eval(EvalArgs),
    /// Do a run's task: classify, translate, answer, complete; on one text, a file, or standard input
    Apply(ApplyArgs),
    /// Turn texts or tokens into vectors, or list the tokens that are near a word
    Embed(EmbedArgs),
    /// Talk with a run
    Chat(ChatArgs),
    /// Serve runs over HTTP: OpenAI's interface, and a page to talk to them
    Serve(ServeArgs),
    /// List runs, or show one
    Runs {
        #[command(subcommand)]
        command: RunsCommand,
    },
    /// Train a tokenizer, use one, or compare several
    Tokenizer {
        #[command(subcommand)]
        command: TokenizerCommand,
    },
    /// List the devices that this binary can compute on
    Devices {
        /// Compute a tiny model on each and compare with flex
        #[arg(long)]
        check: bool,
    },
}

/// How files are read.
#[derive(Debug, clap::Args)]
pub(crate) struct ReadingArgs {
    /// Replace invalid UTF-8 by U+FFFD instead of refusing the file
    #[arg(long)]
    pub(crate) lossy: bool,
    /// The field that is the text in JSON lines, CSV, TSV and Parquet files; by default `text`
    #[arg(long, value_name = "FIELD")]
    pub(crate) text_field: Option<String>,
    /// Leave out rows that cannot be read, and what stands behind the damage of a packed file, and count both
    #[arg(long)]
    pub(crate) skip_bad: bool,
}

/// Rows that are examples.
#[derive(Debug, clap::Args)]
pub(crate) struct ExamplesArgs {
    /// Each row of the data is an example, and not a text: a prompt, which is given, and a completion, which is learned; or a chat in
    /// the field `messages`, of which the assistant's are
    #[arg(long)]
    pub(crate) examples: bool,
    /// What is given: a template of Jinja over the fields of the row; by default `{{ prompt }}`
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) prompt_template: Option<String>,
    /// What is learned, likewise; by default `{{ completion }}`
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) completion_template: Option<String>,
}

/// A task in place of a text.
#[derive(Debug, clap::Args)]
pub(crate) struct TaskArgs {
    /// Train for the task in this file, on its rows, and test on those that it holds out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "validation_data", "text_field", "examples", "prompt_template", "completion_template"])]
    pub(crate) task: Option<PathBuf>,
    /// Classify with a head of one output a label, in place of writing the label
    #[arg(long, requires = "task")]
    pub(crate) head: bool,
}

/// Which configuration and which text; shared by all that prepares data.
#[derive(Debug, clap::Args)]
pub(crate) struct CorpusArgs {
    /// The run's configuration
    #[arg(long, value_name = "FILE", default_value = "configs/spark.toml")]
    pub(crate) config: PathBuf,
    /// Read this file, folder or glob instead of the config's corpus; `-` is standard input, `--data=-.jsonl` names what it holds; can be
    /// given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Vec<PathBuf>,
    /// Validate on this file, folder or glob, and train on all the rest; can be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) validation_data: Vec<PathBuf>,
    /// Change one value of the configuration, such as `train.steps=500`; can be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) examples: ExamplesArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Where token shards are kept, for the next run on the same text
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Look for documents that repeat, personal data and keys, and validation text that is in the training text too; changes nothing
    Audit(AuditArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) corpus: CorpusArgs,
    /// Words that a passage of the validation text shares with the training text to be told
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) ngram: u16,
    /// The share of words in common (Jaccard, of runs of five) from which on two documents are nearly the same
    #[arg(long, value_name = "S", default_value_t = 0.8, value_parser = similarity)]
    pub(crate) similarity: f64,
    /// Of each finding, how many are shown
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) show: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) corpus: CorpusArgs,
    /// What factors of matrix products are rounded to: f32 (nothing), bf16, or bf16-emulated, if need be without instructions for it
    #[arg(long, value_name = "PRECISION", value_parser = ["f32", "bf16", "bf16-emulated"])]
    pub(crate) precision: Option<String>,
    /// The run's name; by default the config's with a number
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write where the time goes into the run's trace.json, which Perfetto (ui.perfetto.dev) and chrome://tracing open
    #[arg(long)]
    pub(crate) profile: bool,
    /// On a terminal, show progress as a line instead of curves on the whole screen
    #[arg(long)]
    pub(crate) no_dashboard: bool,
    /// Train nothing that is kept: let the learning rate rise step by step, show the losses, and suggest a rate
    #[arg(long, conflicts_with_all = ["name", "resume", "profile"])]
    pub(crate) find_lr: bool,
    /// Train nothing: show the first N examples, and which of their tokens are learned
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3", conflicts_with_all = ["name", "resume", "profile", "find_lr"])]
    pub(crate) preview: Option<usize>,
    /// Go on with a run: its name, its path, or `latest`
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "latest",
          conflicts_with_all = ["config", "data", "validation_data", "lossy", "text_field", "skip_bad", "examples", "prompt_template",
                                "completion_template", "task", "head", "precision", "name"])]
    pub(crate) resume: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct FinetuneArgs {
    /// The run whose best weights it begins with: its name, its path, or `latest`
    #[arg(long, value_name = "RUN")]
    pub(crate) base: String,
    /// The new text: a file, folder or glob; can be given several times
    #[arg(long, value_name = "PATH", required_unless_present = "task")]
    pub(crate) data: Vec<PathBuf>,
    /// Validate on this file, folder or glob, and train on all of `--data`; can be given several times
    #[arg(long, value_name = "PATH")]
    pub(crate) validation_data: Vec<PathBuf>,
    /// Train adapters of this rank beside the weights, which stay as they are (LoRA); without a number, of rank 16
    #[arg(long, value_name = "RANK", num_args = 0..=1, default_missing_value = "16")]
    pub(crate) lora: Option<usize>,
    /// What adapters count: to a weight, ALPHA / RANK times the product of both factors is added
    #[arg(long, value_name = "ALPHA", default_value_t = 32.0, requires = "lora")]
    pub(crate) lora_alpha: f64,
    /// Which linear layers have adapters: qkv, proj, up, down, with commas between them; by default all
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', requires = "lora")]
    pub(crate) lora_targets: Vec<LoraTarget>,
    /// Learning without Forgetting: what the divergence from the base counts in the loss, such as 1
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) lwf: Option<f64>,
    /// Makes both models softer before they are compared
    #[arg(long, value_name = "T", default_value_t = 2.0, requires = "lwf")]
    pub(crate) temperature: f64,
    /// Change one value of the configuration, which is the base's with a tenth of its learning rate (with `--lora` all of it, and no
    /// weight decay) and at most 500 steps
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) examples: ExamplesArgs,
    #[command(flatten)]
    pub(crate) task: TaskArgs,
    /// Train nothing: show the first N examples, and which of their tokens are learned
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3", conflicts_with_all = ["name", "profile"])]
    pub(crate) preview: Option<usize>,
    /// Where token shards are kept
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub(crate) data_dir: PathBuf,
    /// The run's name; by default the base's with `-finetuned` or `-lora` and a number
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Write where the time goes into the run's trace.json
    #[arg(long)]
    pub(crate) profile: bool,
    /// On a terminal, show progress as a line instead of curves on the whole screen
    #[arg(long)]
    pub(crate) no_dashboard: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// A run that has trained an adapter: its name, its path, or `latest`
    #[arg(default_value = "latest")]
    pub(crate) run: String,
    /// The new run's name; by default the run's with `-merged` and a number
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// A run: its name, its path, or `latest`
    #[arg(default_value = "latest")]
    pub(crate) run: String,
    /// Write with this adapter beside the run's weights too: a run that began with them, or its file; can be given several times
    #[arg(long, value_name = "RUN_OR_FILE")]
    pub(crate) adapter: Vec<String>,
    /// What the text begins with; by default the run's own prompt
    #[arg(long, short, allow_hyphen_values = true)]
    pub(crate) prompt: Option<String>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) grammar: GrammarArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EvalArgs {
    /// Runs, by name or path, or `latest`; several are put beside each other, with their mean and their average
    #[arg(default_value = "latest", value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// Score with this adapter beside the run's weights too: a run that began with them, or its file; can be given several times. What comes
    /// of a task is then printed, and not kept
    #[arg(long, value_name = "RUN_OR_FILE")]
    pub(crate) adapter: Vec<String>,
    /// The text, as one document
    #[arg(long, value_name = "FILE", conflicts_with = "task")]
    pub(crate) text: Option<PathBuf>,
    /// Test on the task in this file; without it and without a text, on the run's own task
    #[arg(long, value_name = "FILE")]
    pub(crate) task: Option<PathBuf>,
    /// Rows of a task that are computed at once; on flex scores do not depend on it
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    pub(crate) batch_size: usize,
    /// Leave out rows of a task that cannot be read, and count them
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Replace invalid UTF-8 by U+FFFD instead of refusing the file
    #[arg(long)]
    pub(crate) lossy: bool,
    /// Score the text with weights kept so too, bf16 or int8, and tell what that costs; can be given several times
    #[arg(long, value_name = "FORMAT", requires = "text")]
    pub(crate) weights: Vec<WeightFormat>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// A run: its name, its path, or `latest`
    pub(crate) run: String,
    /// What is asked: the text of the task's only field, or a row as JSON; without it, lines of standard input. Behind `--` it may begin
    /// with a hyphen
    pub(crate) text: Option<String>,
    /// Ask for each row of this file: JSON lines, CSV, TSV, Parquet, or text with one row a line
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Names of the fields of a CSV or TSV file without a line of names, with commas between them; by default the task's `columns`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "file")]
    pub(crate) columns: Vec<String>,
    /// Do the task in this file, and not the run's own
    #[arg(long, value_name = "FILE")]
    pub(crate) task: Option<PathBuf>,
    /// Rows that are computed at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    pub(crate) batch_size: usize,
    /// Leave out rows without the fields that the task's prompt has, and count them
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// Replace invalid UTF-8 by U+FFFD instead of refusing the file
    #[arg(long)]
    pub(crate) lossy: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// A run: its name, its path, or `latest`
    #[arg(default_value = "latest")]
    pub(crate) run: String,
    /// What it is told before all else
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// A chat template of Jinja, as Hugging Face's; by default as the run was trained on chats
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Runs, by name or path, or `latest`; requests choose one by its name
    #[arg(default_value = "latest", value_name = "RUN")]
    pub(crate) runs: Vec<String>,
    /// The address to listen on; others than this machine's own ask for an API key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: std::net::IpAddr,
    /// The port; 0 takes one that is free
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub(crate) port: u16,
    /// Answer only who knows the key in this file, or in the variable KINDLING_API_KEY
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// Answer everybody who can reach the address, without a key
    #[arg(long)]
    pub(crate) allow_anyone: bool,
    /// A chat template of Jinja, as Hugging Face's; by default as the run was trained on chats
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
    /// Texts that are asked for at once; more are refused until there is room
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = batch_size)]
    pub(crate) max_queue: usize,
    /// Texts that are written at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = batch_size)]
    pub(crate) max_running: usize,
    /// New tokens of a text at most
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = batch_size)]
    pub(crate) max_new_tokens: usize,
    /// How long a request may take, reading it and waiting included, and what runs after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) timeout: u64,
    /// Append a line of JSON about each request to this file; by default they go to standard error. They hold nothing that was said
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Let these lines hold prompts and answers, too
    #[arg(long)]
    pub(crate) log_texts: bool,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EmbedArgs {
    /// A run: its name, its path, or `latest`
    pub(crate) run: String,
    /// A text; without it, and without `--file`, lines of standard input. Behind `--` it may begin with a hyphen
    pub(crate) text: Option<String>,
    /// A text on each line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
    /// Of a text: the mean over its tokens, or what the last one has
    #[arg(long, value_name = "POOLING", default_value = "mean", value_parser = ["mean", "last"])]
    pub(crate) pool: String,
    /// The embeddings of all tokens, in the order of their ids
    #[arg(long, conflicts_with_all = ["text", "file", "pool"])]
    pub(crate) tokens: bool,
    /// List the tokens that are nearest to this word
    #[arg(long, value_name = "WORD", conflicts_with_all = ["text", "file", "pool", "tokens", "output"])]
    pub(crate) nearest: Option<String>,
    /// How many of those
    #[arg(long, value_name = "N", default_value_t = 10, requires = "nearest")]
    pub(crate) top: usize,
    /// Write vectors to this file: `.npy` for NumPy, anything else for JSON lines; without it, JSON lines on stdout
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Texts that are computed at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = batch_size)]
    pub(crate) batch_size: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// All runs, oldest first
    List,
    /// One run: what it was made from, and what came of it
    Show {
        /// A run: its name, its path, or `latest`
        #[arg(default_value = "latest")]
        run: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenizerCommand {
    /// Train a byte-level BPE vocabulary on text, and write it as a tokenizer.json
    Train(TokenizerTrainArgs),
    /// The ids of a text
    Encode {
        /// A published vocabulary (gpt2, r50k_base, p50k_base, cl100k_base, o200k_base), a tokenizer's file, or a folder with one
        tokenizer: String,
        /// The text; without it, standard input
        text: Option<String>,
        /// Read the text from this file, which need not be UTF-8 for a BPE vocabulary
        #[arg(long, value_name = "FILE", conflicts_with = "text")]
        file: Option<PathBuf>,
        /// Recognise this special token in the text; can be given several times. By default all text is ordinary text
        #[arg(long, value_name = "TOKEN")]
        allow_special: Vec<String>,
    },
    /// The text of ids
    Decode {
        /// A published vocabulary, a tokenizer's file, or a folder with one
        tokenizer: String,
        /// The ids; without them, numbers of standard input
        ids: Vec<u32>,
    },
    /// What a vocabulary holds, and how well it fits a text; several are compared
    Info {
        /// Published vocabularies, files, or folders
        #[arg(required = true)]
        tokenizers: Vec<String>,
        /// A file, folder or glob to encode; can be given several times
        #[arg(long, value_name = "PATH")]
        data: Vec<PathBuf>,
        #[command(flatten)]
        reading: ReadingArgs,
        /// How many of the longest tokens, and of the unused ones, are shown
        #[arg(long, default_value_t = 10, value_name = "N")]
        top: usize,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TokenizerTrainArgs {
    /// A file, folder or glob of text; can be given several times
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Leave out what matches this glob below a folder; can be given several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Where the vocabulary is written
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    pub(crate) out: PathBuf,
    /// Tokens in all, special ones included
    #[arg(long, value_name = "N", default_value_t = 16_384)]
    pub(crate) vocab_size: usize,
    /// How text is split before merging: gpt2, cl100k, o200k, or a regular expression
    #[arg(long, default_value = "gpt2")]
    pub(crate) pattern: String,
    /// A special token; can be given several times
    #[arg(long, value_name = "TOKEN", default_value = kindling_tokenizer::END_OF_TEXT)]
    pub(crate) special: Vec<String>,
    /// Pairs that occur less often are not merged
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) min_frequency: u64,
    /// Count only so many bytes at the front of each file
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_document_bytes: Option<usize>,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
}

fn batch_size(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or_else(|| "a whole number from 1 to 4096".to_owned())
}

/// An instruction set by its name.
fn isa(text: &str) -> Result<Isa, String> {
    let unknown = || format!("expected one of {}", Isa::ALL.map(|isa| format!("`{isa}`")).join(", "));
    Isa::ALL.into_iter().find(|isa| isa.to_string() == text).ok_or_else(unknown)
}

fn similarity(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|value| *value > 0.0 && *value <= 1.0);
    value.ok_or_else(|| "expected a number above 0 and at most 1".into())
}
