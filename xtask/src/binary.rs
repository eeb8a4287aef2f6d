//! Builds the `kindling` binary for a device. Does not run it.

use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, run};

/// Devices of the default features; every other one is a feature of the same name.
const DEFAULT_DEVICES: &[&str] = &["flex", "ndarray"];
const FEATURE_DEVICES: &[&str] = &["wgpu", "vulkan", "metal", "cuda", "rocm"];

/// A device as the user names it, `wgpu` or `cuda:1`.
#[derive(Clone, Debug)]
pub(crate) struct Device(String);

impl Device {
    /// Takes the name apart far enough to know the feature; what follows the colon is for `kindling`.
    ///
    /// # Errors
    ///
    /// An unknown name, with the known ones.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let device = Self(text.to_owned());
        let mut known = DEFAULT_DEVICES.iter().chain(FEATURE_DEVICES);
        if known.any(|name| *name == device.name()) {
            return Ok(device);
        }
        Err(format!("unknown device `{text}`, expected one of {}, {}", DEFAULT_DEVICES.join(", "), FEATURE_DEVICES.join(", ")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The cargo feature that compiles the device in, if the default ones do not.
    pub(crate) fn feature(&self) -> Option<&str> {
        FEATURE_DEVICES.contains(&self.name()).then(|| self.name())
    }

    fn name(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(name, _)| name)
    }
}

/// How a build ended.
pub(crate) enum Build {
    Done(PathBuf),
    /// With cargo's exit code.
    Failed(u8),
}

/// Builds the release binary with the default features and `features`.
///
/// # Errors
///
/// Only if cargo cannot be started.
pub(crate) fn build(workspace: &Workspace, features: &[&str]) -> Result<Build> {
    let mut cargo = workspace.locked_cargo(&["build", "--release", "--package", "kindling-cli"]);
    if !features.is_empty() {
        cargo.arg("--features").arg(features.join(","));
    }
    finish(&mut cargo, &workspace.target)
}

/// Builds the binary with `wgpu`, which a Vulkan driver serves, to be checked and thrown away. Not with `vulkan`: its
/// SPIR-V crashed the software driver of Mesa 22.3, and `wgpu` takes SPIR-V as well where both are compiled in.
///
/// In a target folder of its own: in the usual one, `release/kindling` would become this binary, and the next
/// `cargo xtask train` or test would link it anew. Without optimisation, which takes most of the time of compiling
/// Burn once more, and without the backends that the tests cover.
///
/// # Errors
///
/// Only if cargo cannot be started.
pub(crate) fn build_for_gpu_check(workspace: &Workspace) -> Result<Build> {
    let target = workspace.target.join("gpu");
    let mut cargo = workspace.locked_cargo(&["build", "--release", "--package", "kindling-cli", "--no-default-features"]);
    cargo.args(["--features", "flex,wgpu", "--target-dir"]).arg(&target).env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    finish(&mut cargo, &target)
}

fn finish(cargo: &mut Command, target: &Path) -> Result<Build> {
    Ok(match run(cargo)? {
        0 => Build::Done(target.join("release").join(format!("kindling{EXE_SUFFIX}"))),
        code => Build::Failed(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_names_its_feature() {
        for (text, expected) in [("flex", None), ("ndarray", None), ("wgpu", Some("wgpu")), ("cuda:1", Some("cuda"))] {
            let device = Device::parse(text).expect("a known device");
            assert_eq!(device.feature(), expected, "{text}");
            assert_eq!(device.as_str(), text);
        }
    }

    #[test]
    fn an_unknown_device_is_told_the_known_ones() {
        let error = Device::parse("tpu").expect_err("no such device");
        assert_eq!(error, "unknown device `tpu`, expected one of flex, ndarray, wgpu, vulkan, metal, cuda, rocm");
    }
}
