//! The verdict on a run, from its log. The rules are those of [`kindling_metrics::verdict`].

use kindling_metrics::{Evaluation, Verdict, verdict};
use kindling_runs::{Run, RunsError};

/// What the curves in a run's log say.
///
/// # Errors
/// I/O.
pub fn judge(run: &Run) -> Result<Verdict, RunsError> {
    let rows = run.metrics()?;
    // A loss that was no number is null in JSON.
    let of_kind = |kind: &'static str| {
        let rows = rows.iter().filter(move |row| row["kind"] == kind);
        rows.filter_map(|row| Some((row["step"].as_u64()?, row["loss"].as_f64().unwrap_or(f64::NAN), row)))
    };
    let evaluation =
        |(step, loss, row): (u64, f64, &serde_json::Value)| Evaluation { step, loss, standard_error: row["standard_error"].as_f64() };
    let validation: Vec<_> = of_kind("validation").map(evaluation).collect();
    let training: Vec<_> = of_kind("train").map(|(step, loss, _)| (step, loss)).collect();
    Ok(verdict(&validation, &training))
}
