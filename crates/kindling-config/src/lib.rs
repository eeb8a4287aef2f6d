//! Plain data that says what a run is: model, tokenizer, data, training, sampling. Knows no tensors, opens no data.
//!
//! A [`RunConfig`] is read from TOML, changed by `key=value` overrides, checked once by
//! [`RunConfig::validate`], and saved whole in the run folder. Nothing here has hidden defaults
//! that change results: what a preset does not say is either an error or documented on the field.
//!
//! ```
//! use kindling_config::RunConfig;
//! let text = include_str!("../../../configs/spark.toml");
//! let config = RunConfig::from_toml(text, "spark.toml", &["train.steps=500".to_string()]).unwrap();
//! assert_eq!(config.train.steps, 500);
//! ```

mod clean;
mod error;
mod examples;
mod lora;
mod model;
mod run;
mod seed;
mod task;
mod toml_text;
mod train;

pub use clean::{CleanConfig, Dedup, Redaction};
pub use error::ConfigError;
pub use examples::ExamplesConfig;
pub use lora::{LoraConfig, LoraTarget};
pub use model::{Dropout, ModelConfig, Pooling};
pub use run::{
    BaseConfig, DataConfig, Distillation, Order, RunConfig, SamplingConfig, SourceConfig, Split, TokenizerConfig, TokenizerKind,
};
pub use seed::Seed;
pub use task::{DecodeConfig, TaskConfig, TaskData, TaskKind};
pub use train::{Optimizer, Precision, Schedule, SpikeAction, SpikeGuard, TrainConfig};
