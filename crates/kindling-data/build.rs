//! Passes the target triple on, so that `cargo metadata` can be asked for the packages of this platform alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=KINDLING_TARGET={}", std::env::var("TARGET").expect("cargo sets TARGET for build scripts"));
}
