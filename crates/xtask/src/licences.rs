//! Licences of everything that is linked: permissive only, exceptions by name with a reason.
//!
//! `deny.toml` says the same to cargo-deny, for machines that have it; this check needs nothing but cargo.

use std::path::Path;

/// Licences that may be linked.
const ALLOWED: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
];

/// Packages with another licence, each with the decision that allows it.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "imbl",
        "MPL-2.0: decision 0002, design §4 names it; used unmodified",
    ),
    ("imbl-sized-chunks", "MPL-2.0: part of imbl"),
    (
        "pathrs",
        "MPL-2.0 or LGPL-3.0: part of libcontainer, MPL-2.0 chosen, used unmodified",
    ),
    (
        "rust-criu",
        "MIT by its licence file, which its manifest names instead of the expression; part of libcontainer",
    ),
];

/// Checks every package of the lock file that the workspace can link.
pub(crate) fn check(_root: &Path) -> Result<(), String> {
    let metadata = crate::process::metadata()?;
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if package["source"].is_null() || EXCEPTIONS.iter().any(|(n, _)| *n == name) {
            continue;
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !permitted(licence) {
            problems.push(format!("{name}: {licence}"));
        }
    }
    if problems.is_empty() {
        println!("licences: all permissive");
        return Ok(());
    }
    Err(format!("licences not permitted: {}", problems.join("; ")))
}

/// Is an SPDX expression satisfied by allowed licences? `OR` needs one side, `AND` all; the old
/// slash means `OR`.
fn permitted(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let one = |text: &str| ALLOWED.contains(&text.trim());
    // Parentheses appear only around OR groups joined by AND, so splitting by AND first is exact for them.
    flat.split(" AND ")
        .all(|group| group.split(" OR ").any(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        assert!(permitted("MIT OR Apache-2.0"));
        assert!(permitted("MIT/Apache-2.0"));
        assert!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(permitted("Apache-2.0 OR GPL-2.0"));
        assert!(!permitted("GPL-3.0"));
        assert!(!permitted("MIT AND GPL-2.0"));
    }
}
