//! What becomes of an adapter: it is folded into the weights that it stands beside. Trains nothing.

use std::path::{Path, PathBuf};

use kindling_config::BaseConfig;
use kindling_data::Prepared;
use kindling_eval::validate;
use kindling_infer::{InferError, Opened};
use kindling_metrics::Nll;
use kindling_model::{Gpt, weights};
use kindling_runs::{CONFIG_FILE, CheckpointKind, Ended, MODEL_FILE, Manifest, Run, RunsError, STATE_FILE, Summary, hash_file};

use crate::state::write_synced;
use crate::{TrainError, TrainState, document_token, peak_memory_bytes};

/// The file of plain weights that a run which begins with `opened` begins with: its checkpoint's, or one in `folder`, which is written, where an
/// adapter stands beside them.
///
/// # Errors
/// I/O.
pub fn base_weights(opened: &Opened, folder: &Path) -> Result<PathBuf, TrainError> {
    if opened.model.adapter().is_none() {
        return Ok(opened.weights.clone());
    }
    write_merged(&opened.model, folder)
}

/// Makes the run `root/name` with the weights of `opened`, its adapter folded into them. It has taken no step, and where the run's data are
/// still there a summary says what they are worth; whoever goes on with it trains all weights, at a tenth of the learning rate of adapters,
/// on those data. `progress` hears of windows scored and windows in all.
///
/// # Errors
/// [`InferError::NoAdapter`] if there is nothing to fold; a name that is taken or impossible; I/O.
pub fn merge(
    opened: &Opened,
    root: &Path,
    name: &str,
    created_unix_ms: i64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Run, TrainError> {
    let (run, model) = (&opened.run, &opened.model);
    if model.adapter().is_none() {
        return Err(InferError::NoAdapter(run.name().to_owned()).into());
    }
    let folder = tempfile::tempdir().map_err(RunsError::Io)?;
    let file = write_merged(model, folder.path())?;
    let mut config = run.config().clone();
    config.base = Some(BaseConfig {
        run: std::path::absolute(run.dir()).map_err(RunsError::Io)?.display().to_string(),
        weights_hash: hash_file(&file).map_err(RunsError::Io)?,
        distillation: None,
        lora: None,
    });
    (config.train.lr, config.train.min_lr) = (config.train.lr / 10.0, config.train.min_lr / 10.0);
    let manifest = Manifest { created_unix_ms, n_params: config.model.n_params(), ..run.manifest().clone() };
    let state = TrainState { data_hash: manifest.data.data_hash.clone(), seed: Some(config.seed), ..TrainState::default() };
    let merged = Run::create(root, name, &config, manifest, &run.tokenizer_path()?, Some(&file))?;
    merged.write_checkpoint(
        CheckpointKind::Best,
        0,
        1,
        |_| false,
        |dir: &Path| {
            write_synced(&dir.join(MODEL_FILE), &std::fs::read(&file).map_err(RunsError::Io)?)?;
            write_synced(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
            state.write(&dir.join(STATE_FILE))
        },
    )?;
    let dir = run.manifest().data.dir.as_ref();
    let data = Prepared::open(dir).ok().filter(|data| data.manifest.data_hash() == run.manifest().data.data_hash);
    if let Some(data) = data {
        let document_token = document_token(&config, &data.tokenizer)?;
        merged.finish(&summary(validate(&model.merged(), &data, document_token, progress).nll))?;
    }
    Ok(merged)
}

/// Of a run that has taken no step.
fn summary(nll: Nll) -> Summary {
    Summary {
        steps: 0,
        tokens: 0,
        validation_loss: nll.loss(),
        perplexity: Some(nll.perplexity()).filter(|perplexity| perplexity.is_finite()),
        bits_per_byte: nll.bits_per_byte(),
        accuracy: nll.accuracy(),
        best: (nll.loss(), 0),
        tokens_per_s: 0.0,
        mfu: None,
        matmul_peak_flops_per_s: None,
        elapsed_s: 0.0,
        peak_memory_bytes: peak_memory_bytes(),
        ended: Ended::Steps,
        memorised: None,
        forgetting: None,
    }
}

fn write_merged(model: &Gpt, folder: &Path) -> Result<PathBuf, TrainError> {
    let file = folder.join(MODEL_FILE);
    weights::save(&model.merged(), &file)?;
    Ok(file)
}
