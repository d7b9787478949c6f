//! Rules about text: no leftovers, no machine paths, no sleeping tests, no lint switched off without reason.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest source file without a written reason, in lines.
const FILE_LINES_MAX: usize = 700;

/// What may not stand in Rust source, and why. Split so that this file does not match itself.
const BANNED: &[(&str, &str, &str)] = &[
    ("todo", "!(", "nothing half done lands"),
    ("unimpl", "emented!(", "nothing half done lands"),
    ("db", "g!(", "stdout is data"),
    ("#[ig", "nore", "a test that does not run is a defect"),
    ("#![allow(", "dead_code", "dead code goes"),
    ("#[allow(", "dead_code", "dead code goes"),
];

/// Every Rust file below `directory` with its text.
pub(crate) fn rust_files(directory: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text =
                    fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                found.push((path, text));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Problems with the text of our sources and documents.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for (path, text) in rust_files(&root.join("crates"))? {
        let shown = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .display()
            .to_string();
        problems.extend(line_problems(&shown, &text));
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX && !text.lines().take(30).any(|l| l.contains("LONG FILE:")) {
            problems.push(format!(
                "{shown}: {lines} lines; split it or write `LONG FILE: reason` at its top"
            ));
        }
    }
    for required in [
        "README.md",
        "ARCHITECTURE.md",
        "SPECIFICATION.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/dependencies.md",
        "docs/verify.md",
    ] {
        if !root.join(required).is_file() {
            problems.push(format!("{required} is missing"));
        }
    }
    Ok(problems)
}

fn line_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for (head, tail, why) in BANNED {
            // A module shared by several test programs is not used whole by each of them.
            let reasoned = text
                .lines()
                .skip(at)
                .take(4)
                .any(|l| l.contains("reason ="));
            let shared_by_tests = *tail == "dead_code" && path.contains("/tests/") && reasoned;
            if line.contains(&format!("{head}{tail}")) && !shared_by_tests {
                problems.push(format!("{path}:{}: {head}{tail}: {why}", at + 1));
            }
        }
        let switches_off = ["clippy", "unsafe_code"]
            .iter()
            .any(|lint| line.contains(&format!("allow({lint}")));
        if switches_off
            && !line.contains("reason")
            && !text
                .lines()
                .skip(at)
                .take(4)
                .any(|l| l.contains("reason ="))
        {
            problems.push(format!(
                "{path}:{}: a lint is switched off without a reason",
                at + 1
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found() {
        let text = format!("fn f() {{ {}{}) }}", "todo", "!(");
        assert_eq!(line_problems("a.rs", &text).len(), 1);
        assert_eq!(
            line_problems("a.rs", &format!("#[allow({}::all)]\nfn f() {{}}", "clippy")).len(),
            1
        );
        assert!(
            line_problems(
                "a.rs",
                &format!("#[allow({}::all, reason = \"x\")]\nfn f() {{}}", "clippy")
            )
            .is_empty()
        );
    }
}
