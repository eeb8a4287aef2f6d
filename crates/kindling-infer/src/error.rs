//! What can keep a run from being used.

use kindling_model::ModelError;
use kindling_runs::RunsError;
use kindling_tokenizer::TokenizerError;
use thiserror::Error;

/// A run that cannot be opened, or a prompt that cannot be continued.
#[derive(Debug, Error)]
pub enum InferError {
    /// The run folder.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// The weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer, or a text that it cannot express.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Ids that the model has no embedding for.
    #[error("the tokenizer has {tokenizer} tokens, expected at most the model's vocab_size {model}")]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
    /// A second adapter.
    #[error("run `{0}` has an adapter already, expected a run whose weights stand by themselves")]
    Adapted(String),
    /// A run whose weights are whole, where an adapter is asked for.
    #[error("run `{0}` has no adapter, expected one that was trained with `kindling finetune --lora`")]
    NoAdapter(String),
    /// A prompt that the vocabulary cannot express.
    #[error("the prompt, `sample.prompt`, cannot be encoded: {0}")]
    Prompt(TokenizerError),
    /// Nothing to begin with.
    #[error("the prompt is empty, and this vocabulary has no token that begins a text")]
    EmptyPrompt,
    /// A token that there is not.
    #[error("the prompt has token {id}, expected ids below {vocab_size}")]
    NoToken {
        /// As given.
        id: u32,
        /// Tokens that there are.
        vocab_size: usize,
    },
    /// A chat template that is none.
    #[error("the chat template is none: {0}")]
    ChatTemplate(minijinja::Error),
    /// Messages that a chat template makes no text of.
    #[error("the chat template refuses the messages: {0}")]
    Chat(minijinja::Error),
    /// A message of nobody that a chat template may name.
    #[error("message {number} is of `{found}`, expected one of `{expected}`")]
    Role {
        /// Counted from 1.
        number: usize,
        /// As given.
        found: String,
        /// Who may speak.
        expected: String,
    },
    /// Messages that would say a special token.
    #[error("a part of the messages would become a special token, expected text alone")]
    SpecialToken,
    /// A vocabulary that no grammar can be followed with.
    #[error(
        "this vocabulary cannot follow a grammar, expected one of bytes or characters with an end-of-text token, and tokens of at most a thousand bytes"
    )]
    NoGrammars,
    /// A grammar that is none, is too large, or allows nothing that can be written.
    #[error("the text cannot be constrained so: {0}")]
    Grammar(String),
    /// A word without a token.
    #[error("the word `{0}` has no token")]
    NoWord(String),
    /// A prompt that leaves no room for a text.
    #[error("the prompt has {found} tokens, expected fewer than the context of {context_len}")]
    LongPrompt {
        /// Its tokens.
        found: usize,
        /// Tokens of the context.
        context_len: usize,
    },
    /// A setting beyond its limits.
    #[error("`{key}` is {found}, expected {low} to {high}")]
    Sampling {
        /// Its name.
        key: &'static str,
        /// As given.
        found: f64,
        /// The least that is allowed.
        low: f64,
        /// The most.
        high: f64,
    },
    /// Biases forbid all that may come next.
    #[error("no token may come next, expected biases that leave one")]
    NothingAllowed,
    /// The model gives logits that are not numbers.
    #[error("the model's logits are not finite after {0} tokens")]
    NotFinite(usize),
}

impl InferError {
    /// What `llguidance` says, in a line.
    pub(crate) fn grammar(error: impl std::fmt::Display) -> Self {
        let said = error.to_string();
        Self::Grammar(said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(", "))
    }

    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runs(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Adapted(run) => Some(format!("name the run that `{run}` began with, and `--adapter {run}` beside the others")),
            Self::NoAdapter(run) => Some(format!("the weights of `{run}` stand by themselves already; use it as it is")),
            Self::Vocabulary { .. } => Some("use the tokenizer saved in the same run".into()),
            Self::Prompt(_) => Some("pass another `--prompt`, or change `sample.prompt` with `--set`".into()),
            Self::NoToken { .. } => Some("encode the prompt with the run's own tokenizer".into()),
            Self::ChatTemplate(_) => Some("a template of Jinja, as Hugging Face's `chat_template`".into()),
            Self::Chat(_) => Some("give messages as the template wants them: often the user's and the assistant's by turns".into()),
            Self::Role { .. } => Some("give messages a role that there is".into()),
            Self::SpecialToken => Some("leave texts such as `<|endoftext|>` out".into()),
            Self::NoGrammars => Some("train with `tokenizer.kind` `bpe`, or `char` with an end-of-text token".into()),
            Self::Grammar(_) => Some("simplify the regular expression or the schema, or bound what repeats".into()),
            Self::NoWord(_) => Some("give a word with letters".into()),
            Self::LongPrompt { .. } => Some("shorten the prompt, or use a run with a longer `model.context_len`".into()),
            Self::EmptyPrompt => Some("pass `--prompt TEXT`, or set `sample.prompt`".into()),
            Self::Sampling { .. } => Some("give it a value within its limits".into()),
            Self::NothingAllowed => Some("forbid fewer tokens with `logit_bias`".into()),
            Self::NotFinite(_) => Some("the weights hold NaN or infinite values; train anew with a lower `train.lr`".into()),
        }
    }
}
