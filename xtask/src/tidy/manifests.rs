//! Rules for manifests: who may depend on whom, and on what. Sees what a manifest says, not what cargo resolves.

use std::collections::BTreeMap;
use std::path::Path;

use cargo_metadata::DependencyKind;

use super::{Place, Violation, relative};

/// Where each package stands. An arrow may only point down a layer.
const PLACES: &[(&str, Standing)] = &[
    ("kindling-cli", Standing::Layer(5)),
    ("kindling-train", Standing::Layer(4)),
    ("kindling-eval", Standing::Layer(3)),
    ("kindling-serve", Standing::Layer(3)),
    ("kindling-infer", Standing::Layer(2)),
    ("kindling-model", Standing::Layer(1)),
    ("kindling-data", Standing::Layer(1)),
    ("kindling-plan", Standing::Layer(1)),
    ("kindling-runs", Standing::Layer(1)),
    ("kindling-kernels", Standing::Layer(0)),
    ("kindling-config", Standing::Layer(0)),
    ("kindling-tokenizer", Standing::Layer(0)),
    ("kindling-metrics", Standing::Layer(0)),
    ("kindling-bench", Standing::Apart),
    ("kindling-tests", Standing::Apart),
    ("xtask", Standing::Alone),
];

/// Free of tensors, so that their tests take seconds.
const TENSOR_FREE: &[&str] =
    &["kindling-config", "kindling-tokenizer", "kindling-metrics", "kindling-plan", "kindling-runs", "kindling-data"];

/// Features of `burn` that choose a backend.
const BACKENDS: &[&str] = &["flex", "ndarray", "wgpu", "vulkan", "metal", "cuda", "rocm", "tch", "cpu", "webgpu", "simd", "x86-v4"];
const CHOOSES_BACKEND: &[&str] = &["kindling-cli", "kindling-kernels", "kindling-bench"];

/// Dependencies of a binary, and the packages that may have them.
const BINARY_ONLY: &[&str] = &["anyhow", "clap"];
const IS_BINARY: &[&str] = &["kindling-cli", "kindling-bench", "kindling-tests", "xtask"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Layer(u8),
    /// May depend on anything; nothing depends on it.
    Apart,
    /// Depends on nothing of the workspace, and nothing on it.
    Alone,
}

/// What a manifest says.
#[derive(Clone)]
pub(super) struct Package {
    pub(super) name: String,
    /// Its file from the root, with forward slashes.
    pub(super) manifest: String,
    pub(super) license: Option<String>,
    pub(super) description: Option<String>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) features: BTreeMap<String, Vec<String>>,
}

#[derive(Clone)]
pub(super) struct Dependency {
    /// The name of the package.
    name: String,
    /// What the manifest calls it.
    key: String,
    kind: DependencyKind,
    features: Vec<String>,
}

impl Package {
    pub(super) fn new(root: &Path, package: &cargo_metadata::Package) -> Self {
        Self {
            name: package.name.to_string(),
            manifest: relative(root, package.manifest_path.as_std_path()),
            license: package.license.clone(),
            description: package.description.clone(),
            dependencies: package
                .dependencies
                .iter()
                .map(|dependency| Dependency {
                    name: dependency.name.clone(),
                    key: dependency.rename.clone().unwrap_or_else(|| dependency.name.clone()),
                    kind: dependency.kind,
                    features: dependency.features.clone(),
                })
                .collect(),
            features: package.features.clone(),
        }
    }

    /// A package in order, for tests to put out of it.
    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            manifest: format!("crates/{name}/Cargo.toml"),
            license: Some("MIT OR Apache-2.0".into()),
            description: Some("A crate".into()),
            dependencies: Vec::new(),
            features: BTreeMap::new(),
        }
    }

    fn violation(&self, key: String, found: &str, expected: &str, hint: &str) -> Violation {
        Violation { file: self.manifest.clone(), place: Place::Key(key), found: found.into(), expected: expected.into(), hint: hint.into() }
    }

    fn is_in(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

impl Dependency {
    fn place(&self) -> String {
        let table = match self.kind {
            DependencyKind::Development => "dev-dependencies",
            DependencyKind::Build => "build-dependencies",
            _ => "dependencies",
        };
        format!("[{table}] {}", self.key)
    }

    fn is_dev(&self) -> bool {
        self.kind == DependencyKind::Development
    }

    fn is_burn(&self) -> bool {
        self.name == "burn" || self.name.starts_with("burn-")
    }
}

/// Every rule on all the manifests.
pub(super) fn check(packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        violations.extend(known(package));
        violations.extend(described(package));
        for dependency in &package.dependencies {
            let of_workspace = packages.iter().any(|p| p.name == dependency.name);
            if of_workspace {
                violations.extend(layers(package, dependency));
            }
            violations.extend(tensors(package, dependency, of_workspace));
            violations.extend(backends(package, dependency));
            violations.extend(binaries(package, dependency));
        }
        violations.extend(forwarded_backends(package));
    }
    violations
}

fn standing(name: &str) -> Option<Standing> {
    let (_, standing) = PLACES.iter().find(|(known, _)| *known == name)?;
    Some(*standing)
}

fn known(package: &Package) -> Option<Violation> {
    standing(&package.name).is_none().then(|| {
        package.violation(
            "[package] name".into(),
            &format!("`{}`, which has no layer", package.name),
            "a package of the table of layers",
            "add it to the table, in xtask/src/tidy/manifests.rs and in docs/architecture.md",
        )
    })
}

fn described(package: &Package) -> Vec<Violation> {
    [
        ("license", &package.license, "`license.workspace = true`"),
        ("description", &package.description, "say in one line what the crate is for"),
    ]
    .into_iter()
    .filter(|(_, value, _)| value.as_ref().is_none_or(|value| value.trim().is_empty()))
    .map(|(key, _, hint)| package.violation(format!("[package] {key}"), "nothing", &format!("a {key}"), hint))
    .collect()
}

/// On a dependency within the workspace. One without a layer is reported by itself.
fn layers(package: &Package, dependency: &Dependency) -> Option<Violation> {
    let from = standing(&package.name)?;
    let to = standing(&dependency.name)?;
    let name = &dependency.name;
    let (found, expected, hint) = match (from, to) {
        (_, Standing::Apart | Standing::Alone) => {
            (format!("a dependency on `{name}`"), "none".into(), "move what is needed into a crate with a layer")
        }
        (Standing::Apart, Standing::Layer(_)) => return None,
        (Standing::Alone, Standing::Layer(_)) => (
            format!("a dependency on `{name}`"),
            "no crate of the workspace".into(),
            "xtask builds in moments: let it run `kindling` in place of linking a crate",
        ),
        (Standing::Layer(from), Standing::Layer(to)) => {
            if to < from || dependency.is_dev() && to == from {
                return None;
            }
            let lower = if dependency.is_dev() { "at most" } else { "below" };
            (
                format!("`{name}` of layer {to}"),
                format!("a layer {lower} {from}, the one of `{}`", package.name),
                "turn the arrow around, or move what both need into a lower crate",
            )
        }
    };
    Some(package.violation(dependency.place(), &found, &expected, hint))
}

/// Burn by itself, or by way of a crate that has it.
fn tensors(package: &Package, dependency: &Dependency, of_workspace: bool) -> Option<Violation> {
    if !package.is_in(TENSOR_FREE) {
        return None;
    }
    let has_layer = matches!(standing(&dependency.name), Some(Standing::Layer(_)));
    let by_way = of_workspace && has_layer && !TENSOR_FREE.contains(&dependency.name.as_str());
    (dependency.is_burn() || by_way).then(|| {
        package.violation(
            dependency.place(),
            &format!("`{}`, which brings tensors", dependency.name),
            &format!("no tensors in `{}`", package.name),
            "keep the crate on plain data, and what computes in one that has Burn",
        )
    })
}

/// A backend among the features of a dependency, or a backend's own crate.
fn backends(package: &Package, dependency: &Dependency) -> Option<Violation> {
    if package.is_in(CHOOSES_BACKEND) || dependency.is_dev() {
        return None;
    }
    let own_crate = dependency.name.strip_prefix("burn-");
    let found: Vec<&str> = match own_crate {
        Some(backend) => vec![backend],
        None if dependency.name == "burn" => dependency.features.iter().map(String::as_str).collect(),
        None => return None,
    };
    let found: Vec<&str> = found.into_iter().filter(|name| BACKENDS.contains(name)).collect();
    backend_violation(package, dependency.place(), &found)
}

/// A backend that a feature of the package switches on, as `burn/wgpu`.
fn forwarded_backends(package: &Package) -> Vec<Violation> {
    if package.is_in(CHOOSES_BACKEND) {
        return Vec::new();
    }
    let burn: Vec<&str> =
        package.dependencies.iter().filter(|dependency| dependency.name == "burn").map(|dependency| dependency.key.as_str()).collect();
    let backend = |value: &String| {
        let (key, feature) = value.split_once('/')?;
        let key = key.strip_suffix('?').unwrap_or(key);
        let known = BACKENDS.iter().find(|name| **name == feature);
        known.filter(|_| burn.contains(&key)).copied()
    };
    package
        .features
        .iter()
        .filter_map(|(name, values)| {
            let found: Vec<&str> = values.iter().filter_map(backend).collect();
            backend_violation(package, format!("[features] {name}"), &found)
        })
        .collect()
}

fn backend_violation(package: &Package, key: String, found: &[&str]) -> Option<Violation> {
    (!found.is_empty()).then(|| {
        package.violation(
            key,
            &format!("a backend of Burn: {}", found.join(", ")),
            &format!("one only in {}", CHOOSES_BACKEND.join(" and ")),
            "take the device as a value; for a test, name the backend in [dev-dependencies]",
        )
    })
}

fn binaries(package: &Package, dependency: &Dependency) -> Option<Violation> {
    let found = dependency.kind == DependencyKind::Normal && BINARY_ONLY.contains(&dependency.name.as_str()) && !package.is_in(IS_BINARY);
    found.then(|| {
        package.violation(
            dependency.place(),
            &format!("`{}` in a library", dependency.name),
            &format!("it only in {}", IS_BINARY.join(", ")),
            "a library has one error enum of its own, and takes values in place of arguments",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use DependencyKind::{Build, Development as Dev, Normal};

    fn dependency(kind: DependencyKind, name: &str, features: &[&str]) -> Dependency {
        Dependency { name: name.into(), key: name.into(), kind, features: features.iter().map(|&feature| feature.into()).collect() }
    }

    /// The keys that are found wanting in a workspace of all known packages, where `package` is replaced.
    fn check_package(package: Package, expected: &[&str]) {
        let name = package.name.clone();
        let manifest = package.manifest.clone();
        let mut packages: Vec<Package> = PLACES.iter().map(|(known, _)| Package::named(known)).filter(|known| known.name != name).collect();
        packages.push(package);
        let violations = check(&packages);
        assert!(violations.iter().all(|v| v.file == manifest));
        let found: Vec<_> = violations
            .iter()
            .map(|v| match &v.place {
                Place::Key(key) => key.as_str(),
                Place::File | Place::Line(_) => panic!("no key: {v}"),
            })
            .collect();
        assert_eq!(found, expected, "{name}");
    }

    /// As [`check_package`], for a package in order with one dependency.
    fn check_dependency(name: &str, dependency: Dependency, is_violation: bool) {
        let place = dependency.place();
        let package = Package { dependencies: vec![dependency], ..Package::named(name) };
        let expected = if is_violation { vec![place.as_str()] } else { vec![] };
        check_package(package, &expected);
    }

    #[test]
    fn an_unknown_package_is_found() {
        check_package(Package::named("kindling-unheard-of"), &["[package] name"]);
    }

    #[test]
    fn a_missing_license_or_description_is_found() {
        let package = Package { license: None, description: Some("  ".into()), ..Package::named("kindling-config") };
        check_package(package, &["[package] license", "[package] description"]);
    }

    #[test]
    fn an_arrow_that_does_not_point_down_is_found() {
        for (from, kind, to, is_violation) in [
            ("kindling-train", Normal, "kindling-eval", false),
            ("kindling-eval", Normal, "kindling-train", true),
            ("kindling-eval", Build, "kindling-train", true),
            ("kindling-eval", Dev, "kindling-train", true),
            ("kindling-eval", Normal, "kindling-serve", true),
            ("kindling-eval", Dev, "kindling-serve", false),
            ("kindling-model", Dev, "kindling-model", false),
        ] {
            check_dependency(from, dependency(kind, to, &[]), is_violation);
        }
    }

    #[test]
    fn a_dependency_on_what_stands_apart_is_found() {
        for (from, kind, to, is_violation) in [
            ("kindling-tests", Normal, "kindling-cli", false),
            ("kindling-bench", Normal, "kindling-train", false),
            ("kindling-cli", Dev, "kindling-tests", true),
            ("kindling-cli", Normal, "kindling-bench", true),
            ("kindling-bench", Normal, "kindling-tests", true),
            ("xtask", Normal, "kindling-config", true),
            ("xtask", Dev, "kindling-config", true),
            ("kindling-tests", Dev, "xtask", true),
        ] {
            check_dependency(from, dependency(kind, to, &[]), is_violation);
        }
    }

    #[test]
    fn tensors_where_there_are_none_are_found() {
        for (from, kind, to, is_violation) in [
            ("kindling-model", Normal, "burn", false),
            ("kindling-data", Normal, "burn", true),
            ("kindling-config", Build, "burn", true),
            ("kindling-metrics", Dev, "burn-tensor", true),
            ("kindling-metrics", Dev, "burner", false),
            ("kindling-plan", Normal, "kindling-config", false),
            ("kindling-plan", Normal, "kindling-kernels", true),
            ("kindling-runs", Dev, "kindling-model", true),
        ] {
            check_dependency(from, dependency(kind, to, &[]), is_violation);
        }
    }

    #[test]
    fn a_backend_chosen_by_a_library_is_found() {
        for (from, kind, to, features, is_violation) in [
            ("kindling-model", Normal, "burn", "autodiff", false),
            ("kindling-model", Normal, "burn", "wgpu", true),
            ("kindling-model", Build, "burn", "x86-v4", true),
            ("kindling-model", Dev, "burn", "flex", false),
            ("kindling-model", Normal, "burn-wgpu", "default", true),
            ("kindling-model", Normal, "burn-nn", "default", false),
            ("kindling-model", Normal, "other", "wgpu", false),
            ("kindling-cli", Normal, "burn", "wgpu", false),
            ("kindling-kernels", Normal, "burn", "cuda", false),
        ] {
            check_dependency(from, dependency(kind, to, &[features]), is_violation);
        }
    }

    #[test]
    fn a_backend_behind_a_feature_is_found() {
        for (from, value, is_violation) in [
            ("kindling-model", "burn/wgpu", true),
            ("kindling-model", "burn?/cuda", true),
            ("kindling-model", "burn/autodiff", false),
            ("kindling-model", "other/wgpu", false),
            ("kindling-cli", "burn/wgpu", false),
        ] {
            let package = Package {
                dependencies: vec![dependency(Normal, "burn", &[])],
                features: [("gpu".to_owned(), vec![value.to_owned()])].into(),
                ..Package::named(from)
            };
            let expected: &[&str] = if is_violation { &["[features] gpu"] } else { &[] };
            check_package(package, expected);
        }
    }

    #[test]
    fn what_belongs_to_a_binary_is_found_in_a_library() {
        for (from, kind, to, is_violation) in [
            ("kindling-cli", Normal, "anyhow", false),
            ("xtask", Normal, "clap", false),
            ("kindling-tests", Normal, "anyhow", false),
            ("kindling-train", Normal, "anyhow", true),
            ("kindling-config", Normal, "clap", true),
            ("kindling-config", Dev, "anyhow", false),
        ] {
            check_dependency(from, dependency(kind, to, &[]), is_violation);
        }
    }
}
