//! Builds the `kindling` binary for a device. Does not run it.

use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

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

/// Builds the release binary with the default features and `features`, below `target`.
///
/// # Errors
///
/// Only if cargo cannot be started.
pub(crate) fn build(workspace: &Workspace, features: &[&str], target: PathBuf) -> Result<Build> {
    let mut cargo = workspace.locked_cargo(&["build", "--release", "--package", "kindling-cli"]);
    if !features.is_empty() {
        cargo.arg("--features").arg(features.join(","));
    }
    if target != workspace.target {
        cargo.arg("--target-dir").arg(&target);
    }
    Ok(match run(&mut cargo)? {
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
