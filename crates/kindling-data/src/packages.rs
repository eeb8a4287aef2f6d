//! Sources of the workspace's locked dependencies, found through `cargo metadata`. Reads what cargo has placed on this machine.

use std::path::Path;

use cargo_metadata::MetadataCommand;

use crate::DataError;
use crate::files::{Found, walk};

/// The Rust sources and the documentation of the named packages. Where several versions are locked, all are taken.
///
/// Asks for the packages of the default features on this platform: the ones that the build has just placed here and
/// verified against `Cargo.lock`. Those of `validation` are held out.
pub(crate) fn sources(names: &[String], validation: &[String], exclude: &[String], workspace: &Path) -> Result<Vec<Found>, DataError> {
    let ask = |extra: &[&str]| {
        let options = ["--locked", "--filter-platform", env!("KINDLING_TARGET")];
        MetadataCommand::new()
            .current_dir(workspace)
            .other_options(options.iter().chain(extra).map(|o| (*o).to_owned()).collect::<Vec<_>>())
            .exec()
    };
    // Offline first, so that nothing is asked of a network that may not be there. It fails where a package that only
    // the tests need is not on this machine yet; then cargo may fetch it.
    let metadata = ask(&["--offline"]).or_else(|_| ask(&[])).map_err(|error| DataError::Cargo(error.to_string().trim().to_owned()))?;
    let mut found = Vec::new();
    for name in names {
        let mut versions: Vec<_> = metadata.packages.iter().filter(|p| p.name.as_str() == name && p.source.is_some()).collect();
        versions.sort_by(|a, b| a.version.cmp(&b.version));
        if versions.is_empty() {
            return Err(DataError::Package(name.clone()));
        }
        for package in versions {
            let root = package.manifest_path.parent().ok_or_else(|| DataError::Package(name.clone()))?;
            let label = format!("{name}-{}", package.version);
            let validates = validation.contains(name);
            let files = walk(root.as_std_path(), &label, true, &["rs", "md"], exclude)?;
            found.extend(files.into_iter().map(|file| Found { validates, ..file }));
        }
    }
    Ok(found)
}
