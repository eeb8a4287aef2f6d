//! The configuration that a command line means: a file, and what its options change in it.

use std::path::PathBuf;

use kindling_config::RunConfig;
use kindling_data::ReadOptions;

use crate::args::{CorpusArgs, ExamplesArgs, ReadingArgs, TaskArgs};
use crate::commands::task;
use crate::failure::Advice;

/// Reads the configuration and applies the options to it; `options` are those of a command alone, as overrides.
pub(crate) fn config(args: &CorpusArgs, options: impl IntoIterator<Item = String>) -> anyhow::Result<RunConfig> {
    let path = &args.config;
    let text = std::fs::read_to_string(path).map_err(|error| Advice {
        message: format!("cannot read the config `{}`: {error}", path.display()),
        hint: "pass `--config FILE`; `configs/` of the repository has some to copy".into(),
    })?;
    let mut overrides = task_overrides(&args.task, &args.reading)?;
    overrides.extend(data_overrides(&args.data, &args.validation_data, &args.reading)?);
    // A mistake of it is told below.
    let written = RunConfig::from_toml(&text, &path.display().to_string(), &overrides);
    let has_examples = written.is_ok_and(|config| config.data.examples.is_some());
    overrides.extend(examples_overrides(&args.examples, has_examples)?);
    overrides.extend(options);
    overrides.extend(args.overrides.iter().cloned());
    Ok(RunConfig::from_toml(&text, &path.display().to_string(), &overrides)?)
}

/// What a task changes in a configuration.
pub(crate) fn task_overrides(args: &TaskArgs, reading: &ReadingArgs) -> anyhow::Result<Vec<String>> {
    let Some(file) = &args.task else { return Ok(Vec::new()) };
    let task = task::load(file)?;
    if task.data.train.is_empty() {
        return Err(Advice {
            message: format!("the task `{}` has no rows to train on", task.name),
            hint: "name files in `train`, in `[data]` of its file".into(),
        }
        .into());
    }
    Ok(task.overrides(args.head, reading.lossy, reading.skip_bad)?)
}

/// What options that name data change in a configuration.
pub(crate) fn data_overrides(data: &[PathBuf], validation_data: &[PathBuf], reading: &ReadingArgs) -> anyhow::Result<Vec<String>> {
    let mut overrides = Vec::new();
    // Before the config is checked, since it may name no data of its own, and before what the user sets himself.
    if !data.is_empty() {
        overrides.push(paths("data.paths", data)?);
        // What concerns the config's own corpus does not concern the user's.
        let own = ["packages", "validation_packages", "exclude", "sources", "validation_paths", "test_paths", "columns"];
        overrides.extend(own.map(|key| format!("data.{key}=[]")));
        overrides.push("data.test_fraction=0.0".into());
    }
    if !validation_data.is_empty() {
        overrides.push(paths("data.validation_paths", validation_data)?);
    }
    for (key, flag) in [("lossy", reading.lossy), ("skip_bad", reading.skip_bad)] {
        if flag {
            overrides.push(format!("data.{key}=true"));
        }
    }
    if let Some(field) = &reading.text_field {
        // A string of JSON is one of TOML.
        overrides.push(format!("data.text_field={}", serde_json::to_string(field)?));
    }
    Ok(overrides)
}

/// What options of examples change in a configuration that has such, or has none.
pub(crate) fn examples_overrides(args: &ExamplesArgs, has_examples: bool) -> anyhow::Result<Vec<String>> {
    let templates = [("prompt", &args.prompt_template), ("completion", &args.completion_template)];
    let templates = templates.into_iter().filter_map(|(key, template)| Some((key, template.as_ref()?)));
    let mut overrides = Vec::new();
    if args.examples && !has_examples {
        // The config's prompt is for its own text.
        overrides.extend(["data.examples={}", "data.order=epoch", "sample.prompt=\"\""].map(str::to_owned));
    }
    for (key, template) in templates {
        if !args.examples && !has_examples {
            return Err(Advice {
                message: format!("`--{key}-template` is for examples, and the data are texts"),
                hint: "pass `--examples` if each row of the data is an example".into(),
            }
            .into());
        }
        overrides.push(format!("data.examples.{key}={}", serde_json::to_string(template)?));
    }
    Ok(overrides)
}

/// The override that sets a key to paths: absolute ones, so that the run can be resumed from elsewhere; a glob stays as it is.
fn paths(key: &str, paths: &[PathBuf]) -> anyhow::Result<String> {
    let absolute = |path: &PathBuf| if path.exists() { std::path::absolute(path).unwrap_or_else(|_| path.clone()) } else { path.clone() };
    let paths: Vec<_> = paths.iter().map(|path| absolute(path).display().to_string()).collect();
    Ok(format!("{key}={}", serde_json::to_string(&paths)?))
}

/// How files are read where no configuration says it.
pub(crate) fn reading(args: &ReadingArgs) -> ReadOptions<'_> {
    let ReadingArgs { text_field, skip_bad, lossy } = args;
    let mut options = ReadOptions::texts(text_field.as_deref().unwrap_or("text"));
    (options.skip_bad, options.lossy) = (*skip_bad, *lossy);
    options
}
