//! Adapters side by side beside the weights of one run, which are loaded once.

use std::path::PathBuf;

use kindling_infer::Opened;
use kindling_model::Gpt;
use kindling_runs::{ADAPTER_FILE, Registry};

/// A run's model alone, then with each adapter beside its weights; each with the name that it was asked for by, the first without.
pub(crate) fn side_by_side<'a>(
    registry: &Registry,
    opened: &Opened,
    adapters: &'a [String],
) -> anyhow::Result<Vec<(Option<&'a str>, Gpt)>> {
    let mut models = vec![(None, opened.model.clone())];
    for name in adapters {
        let path = PathBuf::from(name);
        let in_checkpoint = path.join(ADAPTER_FILE);
        let path = match () {
            () if path.is_file() => path,
            () if in_checkpoint.is_file() => in_checkpoint,
            () => registry.resolve(name)?,
        };
        models.push((Some(name.as_str()), opened.with_adapter(&path)?));
    }
    Ok(models)
}

/// What a model is called beside others.
pub(crate) fn title(adapter: Option<&str>) -> &str {
    adapter.unwrap_or("no adapter")
}
