//! Measurements in processes of their own, so that memory and allocator are theirs, and what is made of several.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

/// glibc's allocator told to keep what it gets, as `kindling` does and as is best for PyTorch, too: every step allocates the
/// same big buffers, which otherwise go back to the kernel and come back page by page.
pub(crate) const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "1000000000000"), ("MALLOC_TOP_PAD_", "268435456")];

/// Runs a program whose last line is JSON.
pub(crate) fn measure(program: &Path, args: Vec<impl AsRef<OsStr>>, env: &[(&str, &str)]) -> anyhow::Result<Value> {
    let mut command = Command::new(program);
    command.args(args).envs(ALLOCATOR).envs(env.iter().copied()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", program.display()))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", program.display(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("`{}` printed `{line}`, expected JSON", program.display()))
}

/// Runs this program.
pub(crate) fn measure_self(threads: usize, args: &[&str]) -> anyhow::Result<Value> {
    let this = std::env::current_exe().context("cannot find this program")?;
    measure(&this, [&["--threads", &threads.to_string()], args].concat(), &[])
}

pub(crate) fn number(value: &Value, key: &str) -> anyhow::Result<f64> {
    value[key].as_f64().with_context(|| format!("`{value}` has no number `{key}`"))
}

/// The median of some measurements of one key.
pub(crate) fn median(values: &[Value], key: &str) -> anyhow::Result<f64> {
    Ok(middle(values.iter().map(|value| number(value, key)).collect::<anyhow::Result<_>>()?))
}

/// The median of some measurements; none of none.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => f64::NAN,
        _ => (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0,
    }
}
