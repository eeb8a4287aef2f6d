//! How text is written, as options say it over what a run says.

use std::path::PathBuf;

use anyhow::Context;
use kindling_config::{ConfigError, SamplingConfig};
use kindling_infer::{Constraint, Engine, EngineLimits, Grammar, Grammars, InferError, Opened, Sampling};
use kindling_kernels::WeightFormat;
use kindling_model::Gpt;
use kindling_runs::Registry;
use kindling_tokenizer::Tokenizer;

use crate::args::Args;
use crate::failure::Advice;
use crate::opened::open_writer;

/// Options of the commands that write text.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SamplingArgs {
    /// New tokens at most
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Divides the logits; 0 always takes the likeliest token
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Draw only from the K likeliest tokens; 0 turns it off
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Draw only from the likeliest tokens that together reach probability P
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Draw only from tokens that are at least P times as likely as the likeliest; 0 turns it off
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) min_p: f64,
    /// Draw only from the most typical tokens that together reach probability P; 1 turns it off
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub(crate) typical_p: f64,
    /// Make tokens rarer that have been said, or stand in the prompt: above 1
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub(crate) repetition_penalty: f64,
    /// Take so much from a token's logit for each time that it was said
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) frequency_penalty: f64,
    /// Take so much from the logit of a token that was said
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) presence_penalty: f64,
    /// End before this text; can be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,
    /// The same seed writes the same text
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

/// How a model is kept and helped.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// How weights are kept: f32, bf16 or int8; `kindling eval --text FILE --weights int8` tells the price
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    pub(crate) weights: WeightFormat,
    /// A smaller run with the same tokenizer that proposes tokens, of which the model keeps those that it would have drawn: texts come faster, and are
    /// distributed as before
    #[arg(long, value_name = "RUN")]
    pub(crate) draft: Option<String>,
    /// Tokens that it proposes at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) draft_tokens: u8,
}

impl ModelArgs {
    /// The smaller model, if one is named.
    pub(crate) fn draft(&self, args: &Args, registry: &Registry, beside: &Opened) -> anyhow::Result<Option<Gpt>> {
        let Some(name) = &self.draft else { return Ok(None) };
        let draft = open_writer(args, registry, name, self.weights)?;
        if draft.tokenizer.to_json() != beside.tokenizer.to_json() {
            return Err(Advice {
                message: format!("run `{}` has another tokenizer than `{}`", draft.run.name(), beside.run.name()),
                hint: "train the smaller run with `--set tokenizer.kind=file` and the other's tokenizer.json".into(),
            }
            .into());
        }
        Ok(Some(draft.model))
    }

    /// An engine of a model and the smaller one.
    pub(crate) fn engine<'a>(
        &self,
        model: &'a Gpt,
        tokenizer: &'a Tokenizer,
        draft: Option<&'a Gpt>,
        limits: EngineLimits,
    ) -> anyhow::Result<Engine<'a>> {
        let engine = Engine::new(model, tokenizer, limits);
        Ok(match draft {
            Some(draft) => engine.with_draft(draft, self.draft_tokens.into())?,
            None => engine,
        })
    }
}

/// What a text has to be.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct GrammarArgs {
    /// Write only what this regular expression matches
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,
    /// Write one of these; given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    choice: Vec<String>,
    /// Write JSON of the schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
}

impl SamplingArgs {
    /// Puts what is given over the run's own settings.
    pub(crate) fn over(&self, config: &mut SamplingConfig) -> anyhow::Result<Sampling> {
        config.max_new_tokens = self.max_new_tokens.unwrap_or(config.max_new_tokens);
        config.temperature = self.temperature.unwrap_or(config.temperature);
        config.top_k = self.top_k.unwrap_or(config.top_k);
        config.top_p = self.top_p.unwrap_or(config.top_p);
        config.validate().map_err(|error| match error {
            ConfigError::Invalid { key, .. } => with_option(error.to_string(), key.trim_start_matches("sample.")),
            error => anyhow::Error::from(error),
        })?;
        let sampling = Sampling {
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            ..Sampling::from(&*config)
        };
        sampling.check().map_err(|error| match error {
            InferError::Sampling { key, .. } => with_option(error.to_string(), key),
            error => anyhow::Error::from(error),
        })?;
        Ok(sampling)
    }
}

fn with_option(message: String, key: &str) -> anyhow::Error {
    Advice { message, hint: format!("pass another `--{}`", key.replace('_', "-")) }.into()
}

impl GrammarArgs {
    /// What a text of this vocabulary has to be, if that is said.
    pub(crate) fn constraint(&self, tokenizer: &Tokenizer) -> anyhow::Result<Option<Constraint>> {
        let grammar = match (&self.regex, &self.json_schema) {
            (Some(source), _) => Grammar::Regex(source.clone()),
            (_, Some(path)) => {
                let text = fs_err::read_to_string(path)?;
                Grammar::JsonSchema(serde_json::from_str(&text).with_context(|| format!("`{}` is no JSON", path.display()))?)
            }
            _ if self.choice.is_empty() => return Ok(None),
            _ => Grammar::Choices(self.choice.clone()),
        };
        Ok(Some(Grammars::new(tokenizer)?.constraint(grammar)?))
    }
}
