//! Warren YAML: many documents, many files, and errors that name file, line and column.

mod health;
mod node;
mod objects;
mod service;
mod walk;

pub(crate) use health::{
    HEALTH_INTERVAL_DEFAULT, HEALTH_RETRIES_DEFAULT, HEALTH_TIMEOUT_DEFAULT, both,
};

use crate::error::{CliError, Result};
use crate::io::{Io, read_limited};
use node::{Node, Pos, Problem};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use walk::{Obj, Report, Val};
use warren_types::ServiceSpec;
use warren_types::limits::SECRET_BYTES_MAX;

/// Longest manifest file in bytes.
pub const MANIFEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Objects of all files of one command.
pub const OBJECTS_MAX: usize = 10_000;
/// Files of one directory that `apply -f DIR` reads.
pub const FILES_PER_DIRECTORY_MAX: usize = 1000;

/// Reads a file that a manifest names; the error is in words.
pub type ReadFile<'a> = dyn Fn(&Path) -> std::result::Result<Vec<u8>, String> + 'a;

/// All objects of the files, each kind in the order of the files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// Secrets: applied first.
    pub secrets: Vec<SecretItem>,
    /// Volumes: applied second.
    pub volumes: Vec<VolumeItem>,
    /// Services: applied last.
    pub services: Vec<ServiceSpec>,
    /// What is accepted but may not be meant, with file, line and column.
    pub warnings: Vec<String>,
}

/// A secret of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretItem {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: SecretValue,
}

/// Value of a secret of a manifest.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretValue {
    /// The secret must exist already.
    External,
    /// The value.
    Bytes(Vec<u8>),
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::External => f.write_str("External"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
        }
    }
}

/// A volume of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeItem {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where its document begins.
    pub pos: Pos,
}

impl Manifest {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.secrets.len() + self.volumes.len() + self.services.len()
    }
}

/// Reads files, directories and standard input (`-`).
///
/// # Errors
/// One error that lists everything that is wrong in all files.
pub fn load(paths: &[PathBuf], io: &mut Io) -> Result<Manifest> {
    let mut manifest = Manifest::default();
    let mut problems = Vec::new();
    let mut origins = BTreeMap::new();
    for path in paths {
        for file in expand(path)? {
            let (name, bytes) = read_source(&file, io)?;
            let Ok(text) = String::from_utf8(bytes) else {
                problems.push(format!(
                    "{name}:1:1: not UTF-8 text; a manifest is YAML or JSON"
                ));
                continue;
            };
            let base = file.parent().map(Path::to_path_buf).unwrap_or_default();
            let read = |wanted: &Path| read_named(&base.join(wanted));
            parse_into(
                &name,
                &text,
                &read,
                &mut manifest,
                &mut problems,
                &mut origins,
            );
        }
    }
    finish(manifest, problems)
}

/// Reads one text under a file name; `read` reads what `fromFile` names.
///
/// # Errors
/// One error that lists everything that is wrong.
pub fn parse_str(name: &str, text: &str, read: &ReadFile<'_>) -> Result<Manifest> {
    let mut manifest = Manifest::default();
    let mut problems = Vec::new();
    parse_into(
        name,
        text,
        read,
        &mut manifest,
        &mut problems,
        &mut BTreeMap::new(),
    );
    finish(manifest, problems)
}

fn finish(manifest: Manifest, problems: Vec<String>) -> Result<Manifest> {
    if !problems.is_empty() {
        return Err(CliError::usage(problems.join("\n")));
    }
    if manifest.len() > OBJECTS_MAX {
        return Err(CliError::usage(format!(
            "{} objects; the limit of one command is {OBJECTS_MAX}",
            manifest.len()
        )));
    }
    if manifest.is_empty() {
        return Err(CliError::usage("the manifest is empty")
            .remedy("write at least one document with kind: Service"));
    }
    Ok(manifest)
}

/// The files that a path stands for.
fn expand(path: &Path) -> Result<Vec<PathBuf>> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let fail = |e: std::io::Error| {
        CliError::general(format!("cannot read directory {}: {e}", path.display()))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let manifest = file
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| matches!(e, "yaml" | "yml" | "json"));
        if manifest && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(CliError::usage(format!(
            "{}: no .yaml, .yml or .json file in this directory",
            path.display()
        )));
    }
    if files.len() > FILES_PER_DIRECTORY_MAX {
        return Err(CliError::usage(format!(
            "{}: {} files; the limit is {FILES_PER_DIRECTORY_MAX}",
            path.display(),
            files.len()
        )));
    }
    Ok(files)
}

fn read_source(file: &Path, io: &mut Io) -> Result<(String, Vec<u8>)> {
    if file == Path::new("-") {
        let bytes = io.read_input(MANIFEST_BYTES_MAX, "a manifest")?;
        return Ok(("stdin".to_owned(), bytes));
    }
    let name = file.display().to_string();
    let mut open = std::fs::File::open(file).map_err(|e| {
        CliError::usage(format!("cannot open {name}: {e}"))
            .remedy("give the path of a manifest, a directory, or - for standard input")
    })?;
    let bytes = read_limited(&mut open, MANIFEST_BYTES_MAX, &name, "a manifest")?;
    Ok((name, bytes))
}

fn read_named(path: &Path) -> std::result::Result<Vec<u8>, String> {
    let name = path.display().to_string();
    let mut file = std::fs::File::open(path).map_err(|e| format!("cannot open {name}: {e}"))?;
    read_limited(&mut file, SECRET_BYTES_MAX, &name, "a secret").map_err(|e| e.message)
}

/// Names seen so far: kind and name, with file and place.
type Origins = BTreeMap<(&'static str, String), String>;

fn parse_into(
    file: &str,
    text: &str,
    read: &ReadFile<'_>,
    manifest: &mut Manifest,
    problems: &mut Vec<String>,
    origins: &mut Origins,
) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let place = |p: &Problem| format!("{file}:{}: {}", p.pos, p.text);
    let documents = match node::parse(text) {
        Ok(documents) => documents,
        Err(problem) => {
            problems.push(place(&problem));
            return;
        }
    };
    for document in &documents {
        let report = Report::default();
        read_document(file, document, read, &report, manifest, origins);
        let (found, warnings) = report.into_parts();
        problems.extend(found.iter().map(place));
        manifest.warnings.extend(warnings.iter().map(place));
    }
}

/// Name and labels of an object.
struct Meta {
    name: String,
    labels: BTreeMap<String, String>,
    pos: Pos,
}

fn read_document(
    file: &str,
    document: &Node,
    read: &ReadFile<'_>,
    report: &Report,
    manifest: &mut Manifest,
    origins: &mut Origins,
) {
    let Some(root) = Val::root(document, report).object() else {
        return;
    };
    let Some(kind) = read_kind(&root) else {
        return;
    };
    if let Some(value) = root.get("apiVersion")
        && let Some(version) = value.loose_text()
        && !matches!(version.as_str(), "v1" | "warren.io/v1")
    {
        value.fail(format!("{version:?} is not known; use warren.io/v1"));
    }
    let meta = read_meta(&root);
    let spec_value = root.get("spec");
    let spec = spec_value.as_ref().and_then(Val::object);
    if spec_value.is_none() && kind != "Volume" {
        root.fail("spec is missing");
    }
    let Some(meta) = meta else {
        return;
    };
    if let Some(first) = origins.insert((kind, meta.name.clone()), format!("{file}:{}", meta.pos)) {
        report.problem(
            meta.pos,
            format!(
                "{kind} {:?} stands here a second time, first at {first}",
                meta.name
            ),
        );
    }
    match (kind, &spec) {
        ("Service", Some(spec)) => {
            let service = service::read(spec, meta.name, meta.labels, document.pos, report);
            if report.is_clean() {
                validate(&service, report, document.pos);
            }
            manifest.services.push(service);
        }
        ("Secret", Some(spec)) => {
            manifest
                .secrets
                .extend(objects::secret(spec, meta.name, meta.labels, read));
        }
        ("Volume", spec) => {
            let item = objects::volume(spec.as_ref(), meta.name, meta.labels, meta.pos);
            manifest.volumes.push(item);
        }
        _ => {}
    }
    if let Some(spec) = spec {
        spec.finish();
    }
    root.finish();
}

/// The rules of the data model, with the places of the file.
fn validate(service: &ServiceSpec, report: &Report, pos: Pos) {
    let Err(invalid) = service.validate() else {
        return;
    };
    for error in invalid.errors {
        let place = report.place_of(&error.field).unwrap_or(pos);
        report.problem(place, error.to_string());
    }
}

fn read_kind(root: &Obj<'_>) -> Option<&'static str> {
    let Some(value) = root.get("kind") else {
        let compose = root.get("services").is_some();
        root.fail(if compose {
            "kind is missing and services stands here: Compose files are not supported yet; write one document with kind: Service for each"
        } else {
            "kind is missing; use Service, Secret or Volume"
        });
        return None;
    };
    let text = value.text()?;
    match text.as_str() {
        "Service" => Some("Service"),
        "Secret" => Some("Secret"),
        "Volume" => Some("Volume"),
        other => {
            let shown: String = other.chars().take(60).collect();
            value.fail(format!(
                "kind {shown:?} is not supported; use Service, Secret or Volume"
            ));
            None
        }
    }
}

fn read_meta(root: &Obj<'_>) -> Option<Meta> {
    let value = root.need(&["metadata"], "a map with name")?;
    let object = value.object()?;
    let name = object.need(&["name"], "the name of the object");
    let pos = name.as_ref().map_or(value.pos(), Val::pos);
    let labels = object.get("labels").map(|v| v.at("labels").text_map());
    if let Some(notes) = object.get("annotations") {
        let _ = notes.text_map();
        notes.warn("annotations are not kept");
    }
    object.finish();
    let name = name?.at("name").text()?;
    Some(Meta {
        name,
        labels: labels.unwrap_or_default(),
        pos,
    })
}

#[cfg(test)]
mod tests;
