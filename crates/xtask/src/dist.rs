//! The program as it is shipped: `cargo xtask dist`, and what `cargo xtask bench` measures.

use crate::process::{Step, built_program, cargo};
use std::path::PathBuf;

/// 48,000 places of the program hold addresses of it, which are set when it starts. Written down compactly they take 20 KB, not
/// 1.4 MB. The C library that is linked in must know how to read that (glibc since 2.36), so a build for oneself does without.
const PACKED_RELOCATIONS: &str = "link-arg=-Wl,-z,pack-relative-relocs";

/// Functions of which the machine code is the same are there once: generic code makes many. Only rustc's own linker knows that, and
/// rustc brings it for this platform alone.
#[cfg(target_arch = "x86_64")]
const EQUAL_CODE_ONCE: &[&str] = &["-C", "link-arg=-Wl,--icf=all"];
#[cfg(not(target_arch = "x86_64"))]
const EQUAL_CODE_ONCE: &[&str] = &[];

/// Builds it alone, so that nothing that only tests need is in it, and starts it once.
pub(crate) fn build() -> Result<PathBuf, String> {
    let package = ["--package", "warren", "--bin", "warren"];
    let build = [&["rustc", "--profile", "dist"], &package[..]].concat();
    let link = [&["--", "-C", PACKED_RELOCATIONS], EQUAL_CODE_ONCE].concat();
    cargo(&[build, link].concat()).run("the program")?;
    let path = built_program("warren", "dist")?;
    let shown = path.display().to_string();
    Step::new(&shown)
        .arg("version")
        .output("the program does not start (with a C library older than glibc 2.36 use `cargo build --release`)")?;
    Ok(path)
}

/// Builds it and says how large it is.
pub(crate) fn run() -> Result<(), String> {
    let path = build()?;
    let size = std::fs::metadata(&path)
        .map_err(|e| format!("{}: {e}", path.display()))?
        .len();
    println!("{}: {:.1} MB", path.display(), size as f64 / 1e6);
    Step::new("file")
        .arg(&path.display().to_string())
        .run("file type")
        .or(Ok(()))
}
