//! The table of design §3: who may import whom. A new edge is a decision record and a line here.

use std::path::Path;

/// Crate directory → the crates of ours it may depend on (development dependencies are free,
/// except that nothing may build upon `sim`, `testkit` or `xtask`).
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    // Stands in for a crate that openraft uses (decision 0008); nobody of ours names it.
    ("histogram", &[]),
    // `proto`: decision 0004, the log and the snapshots are made of its storage messages.
    ("state", &["types", "proto"]),
    ("lifecycle", &["types"]),
    ("security", &["types"]),
    ("proto", &["types"]),
    ("scheduler", &["state", "types"]),
    ("reconciler", &["state", "types"]),
    ("netplan", &["state", "types"]),
    ("storage", &["types"]),
    ("raft", &["storage", "state", "proto", "types"]),
    ("gather", &[]),
    // `gather`: decision 0012, both ends of a connection write alike.
    ("client", &["gather", "proto", "security", "types"]),
    ("api", &["gather", "proto", "security", "types"]),
    ("image", &["types"]),
    ("runtime", &["lifecycle", "image", "types"]),
    ("network", &["netplan", "types"]),
    // `client`: decision 0005, the session transport shared with the worker. `storage`: the data directory and keyring.
    (
        "manager",
        &[
            "raft",
            "api",
            "state",
            "scheduler",
            "reconciler",
            "netplan",
            "security",
            "storage",
            "proto",
            "client",
            "types",
        ],
    ),
    (
        "worker",
        &[
            "client",
            "lifecycle",
            "netplan",
            "runtime",
            "image",
            "network",
            "security",
            "storage",
            "proto",
            "types",
        ],
    ),
    ("cli", &["client", "proto", "types"]),
    (
        "warren",
        &[
            "manager", "worker", "cli", "api", "client", "runtime", "image", "network", "storage",
            "security", "proto", "types",
        ],
    ),
];

/// Crates that may depend on anything and that nothing may depend on.
const TOP: &[&str] = &["sim", "testkit", "xtask"];

/// Problems with the edges between our crates.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let metadata = crate::process::metadata()?;
    let mut problems = Vec::new();
    for package in members(&metadata, root) {
        let name = directory_of(package, root);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(target) = ours(dependency, root) else {
                continue;
            };
            let development = dependency["kind"] == "dev";
            problems.extend(edge_problem(&name, &target, development));
        }
    }
    Ok(problems)
}

fn edge_problem(from: &str, to: &str, development: bool) -> Option<String> {
    if TOP.contains(&from) {
        return None;
    }
    if TOP.contains(&to) {
        // A crate's tests may use the test kit; the product may not.
        return (!(development && to == "testkit"))
            .then(|| format!("crate {from} depends on {to}: nothing may"));
    }
    if development {
        return None;
    }
    let allowed = ALLOWED.iter().find(|(name, _)| *name == from);
    match allowed {
        None => Some(format!(
            "crate {from} has no row in the table of edges (xtask/src/edges.rs, design §3)"
        )),
        Some((_, list)) if !list.contains(&to) => Some(format!(
            "crate {from} may not depend on {to}: a new edge is a decision record (docs/decisions)"
        )),
        Some(_) => None,
    }
}

fn members<'a>(metadata: &'a serde_json::Value, root: &Path) -> Vec<&'a serde_json::Value> {
    let packages = metadata["packages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let crates = root.join("crates");
    packages
        .iter()
        .filter(|p| {
            p["manifest_path"]
                .as_str()
                .is_some_and(|m| Path::new(m).starts_with(&crates))
        })
        .collect()
}

fn directory_of(package: &serde_json::Value, root: &Path) -> String {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
    let below = manifest
        .strip_prefix(root.join("crates"))
        .unwrap_or(manifest);
    below
        .iter()
        .next()
        .map(|part| part.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn ours(dependency: &serde_json::Value, root: &Path) -> Option<String> {
    let path = Path::new(dependency["path"].as_str()?);
    let below = path.strip_prefix(root.join("crates")).ok()?;
    below
        .iter()
        .next()
        .map(|part| part.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forbidden_edges_are_named() {
        assert!(edge_problem("scheduler", "reconciler", false).is_some());
        assert!(edge_problem("types", "state", false).is_some());
        assert!(edge_problem("manager", "testkit", false).is_some());
        assert!(edge_problem("nobody", "types", false).is_some());
        assert!(edge_problem("scheduler", "state", false).is_none());
        assert!(edge_problem("manager", "testkit", true).is_none());
    }
}
