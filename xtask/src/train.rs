//! `cargo xtask train`: builds `kindling` for a device and trains with it. What training is, `kindling train` knows.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::binary::{Build, Device, build};
use crate::workspace::{Workspace, run};

/// What the user asked for.
#[derive(clap::Args, Default)]
pub(crate) struct TrainArgs {
    /// A file, folder or glob to train on, in place of what the config names
    #[arg(long)]
    data: Option<PathBuf>,
    /// flex, ndarray, wgpu, vulkan, metal, cuda or rocm; its cargo feature is switched on
    #[arg(long, value_parser = Device::parse)]
    device: Option<Device>,
    /// The run's config; without one, `kindling train` takes configs/spark.toml
    #[arg(long)]
    config: Option<PathBuf>,
    /// Options of `kindling train`; paths in them count from the root of the workspace
    #[arg(last = true, value_name = "TRAIN_OPTIONS")]
    pub(crate) options: Vec<OsString>,
}

impl TrainArgs {
    /// The default run with these options of `kindling train`.
    pub(crate) fn with_options(options: Vec<OsString>) -> Self {
        Self { options, ..Self::default() }
    }
}

/// How `train` ended, with the exit code of what ended it.
pub(crate) enum Trained {
    NotBuilt(u8),
    Ran(u8),
}

/// `cargo xtask train`.
pub(crate) fn command(workspace: &Workspace, args: &TrainArgs) -> Result<u8> {
    // Ctrl-C reaches the whole process group: `kindling` saves and exits, and we have to outlive it to pass its exit
    // code on. A handler is not inherited by the child, where ignoring the signal would be.
    ctrlc::set_handler(|| {}).context("cannot listen for Ctrl-C")?;
    Ok(match train(workspace, args)? {
        Trained::NotBuilt(code) | Trained::Ran(code) => code,
    })
}

/// Builds and trains. Leaves Ctrl-C alone, so that it ends a `ci` at once.
pub(crate) fn train(workspace: &Workspace, args: &TrainArgs) -> Result<Trained> {
    let feature = args.device.as_ref().and_then(Device::feature);
    let with = feature.map_or_else(String::new, |feature| format!(" with feature `{feature}`"));
    let here = env::current_dir().context("cannot tell the current directory")?;
    let kindling_args = kindling_args(args, |path| workspace.seen_from_root(&here, path));
    eprintln!("building kindling{with}, then running {}", line(&kindling_args));

    let features = Vec::from_iter(feature);
    let binary = match build(workspace, &features)? {
        Build::Done(binary) => binary,
        Build::Failed(code) => return Ok(Trained::NotBuilt(code)),
    };
    let mut kindling = Command::new(binary);
    kindling.args(kindling_args).current_dir(&workspace.root);
    Ok(Trained::Ran(run(&mut kindling)?))
}

/// The arguments of `kindling`, with the user's paths as seen from the root.
fn kindling_args(args: &TrainArgs, from_root: impl Fn(&Path) -> PathBuf) -> Vec<OsString> {
    let mut list: Vec<OsString> = vec!["train".into()];
    if let Some(config) = &args.config {
        list.extend(["--config".into(), from_root(config).into()]);
    }
    if let Some(data) = &args.data {
        list.extend(["--data".into(), from_root(data).into()]);
    }
    if let Some(device) = &args.device {
        list.extend(["--device".into(), device.as_str().into()]);
    }
    list.extend(args.options.iter().cloned());
    list
}

/// The command as a user would type it.
fn line(args: &[OsString]) -> String {
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    format!("`kindling {}`", args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_kindling() {
        let check = |args: TrainArgs, expected: &str| {
            let args = kindling_args(&args, |path| Path::new("/here").join(path));
            assert_eq!(line(&args), format!("`kindling {expected}`"));
        };
        check(TrainArgs::default(), "train");
        check(
            TrainArgs {
                data: Some("books".into()),
                device: Some(Device::parse("wgpu").expect("a known device")),
                config: Some("mine.toml".into()),
                options: vec!["--set".into(), "train.steps=20".into()],
            },
            "train --config /here/mine.toml --data /here/books --device wgpu --set train.steps=20",
        );
        check(TrainArgs::with_options(vec!["--resume".into(), "latest".into()]), "train --resume latest");
    }
}
