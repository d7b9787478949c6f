//! Typed reading of a node tree. Every wrong thing is reported with its place; reading goes on, so
//! that a user mends a file in one go.

use super::node::{Kind, Node, Pos, Problem, Scalar};
use crate::flags;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use warren_types::{Bytes, Duration, MilliCpu};

/// Problems reported for one file; further ones are left out.
pub const PROBLEMS_MAX: usize = 50;

/// What was found wrong or doubtful in one document.
#[derive(Debug, Default)]
pub struct Report {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    places: RefCell<BTreeMap<String, Pos>>,
}

impl Report {
    /// Notes something wrong.
    pub fn problem(&self, pos: Pos, text: String) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(Problem { pos, text });
        }
    }
    /// Notes something that is accepted but may not be meant.
    pub fn warning(&self, pos: Pos, text: String) {
        self.warnings.borrow_mut().push(Problem { pos, text });
    }
    /// Remembers where a field of the result was written.
    pub fn place(&self, field: impl Into<String>, pos: Pos) {
        self.places.borrow_mut().insert(field.into(), pos);
    }
    /// Where a field, or the nearest thing around it, was written.
    #[must_use]
    pub fn place_of(&self, field: &str) -> Option<Pos> {
        let places = self.places.borrow();
        let wanted = plain(field);
        places
            .iter()
            .filter(|(name, _)| wanted.starts_with(&plain(name)))
            .max_by_key(|(name, _)| name.len())
            .map(|(_, pos)| *pos)
    }
    /// Nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }
    /// All that was found: problems in the order of the file, then warnings.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| p.pos);
        (problems, self.warnings.into_inner())
    }
}

/// `host_port` and `hostPort` are the same field.
fn plain(field: &str) -> String {
    field.to_ascii_lowercase().replace('_', "")
}

/// A value at a path.
#[derive(Debug, Clone)]
pub struct Val<'a> {
    /// The node.
    pub node: &'a Node,
    /// Path from the document, such as `spec.ports[0].hostPort`.
    pub path: String,
    report: &'a Report,
}

impl<'a> Val<'a> {
    /// The root of a document.
    #[must_use]
    pub fn root(node: &'a Node, report: &'a Report) -> Self {
        Self {
            node,
            path: String::new(),
            report,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn pos(&self) -> Pos {
        self.node.pos
    }

    /// Reports something wrong with this value.
    pub fn fail(&self, text: impl AsRef<str>) {
        let text = text.as_ref();
        let head = if self.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path)
        };
        self.report.problem(self.pos(), format!("{head}{text}"));
    }

    /// Reports something doubtful about this value.
    pub fn warn(&self, text: &str) {
        self.report
            .warning(self.pos(), format!("{}: {text}", self.path));
    }

    /// Remembers that this value became the named field.
    #[must_use]
    pub fn at(self, field: &str) -> Self {
        self.report.place(field, self.pos());
        self
    }

    fn wrong(&self, expected: &str) {
        self.fail(format!("expected {expected}, found {}", self.node.what()));
    }

    /// A map.
    #[must_use]
    pub fn object(&self) -> Option<Obj<'a>> {
        match &self.node.kind {
            Kind::Map(entries) => Some(Obj {
                entries,
                pos: self.node.pos,
                path: self.path.clone(),
                report: self.report,
                known: RefCell::default(),
            }),
            _ => {
                self.wrong("a map");
                None
            }
        }
    }

    /// The values of a list.
    #[must_use]
    pub fn list(&self) -> Vec<Val<'a>> {
        match &self.node.kind {
            Kind::List(items) => items
                .iter()
                .enumerate()
                .map(|(at, node)| Val {
                    node,
                    path: format!("{}[{at}]", self.path),
                    report: self.report,
                })
                .collect(),
            _ => {
                self.wrong("a list");
                Vec::new()
            }
        }
    }

    /// Text; a number or boolean is an error.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match (&self.node.kind, self.node.scalar()) {
            (Kind::Scalar { text, .. }, Some(Scalar::Text)) => Some(text.clone()),
            (Kind::Scalar { text, .. }, Some(Scalar::Null)) if text.is_empty() => {
                self.wrong("text");
                None
            }
            (Kind::Scalar { text, .. }, _) => {
                self.fail(format!(
                    "expected text, found {}; if {text} is meant, put it in quotes",
                    self.node.what()
                ));
                None
            }
            _ => {
                self.wrong("text");
                None
            }
        }
    }

    /// Any scalar as its text, as environment variables and labels take it; nothing is the empty text.
    #[must_use]
    pub fn loose_text(&self) -> Option<String> {
        match (&self.node.kind, self.node.scalar()) {
            (_, Some(Scalar::Null)) => Some(String::new()),
            (Kind::Scalar { text, .. }, _) => Some(text.clone()),
            _ => {
                self.wrong("text");
                None
            }
        }
    }

    /// The text of a scalar that is text or a number.
    fn raw(&self, expected: &str) -> Option<&'a str> {
        match (&self.node.kind, self.node.scalar()) {
            (Kind::Scalar { text, .. }, Some(Scalar::Text | Scalar::Integer | Scalar::Float)) => {
                Some(text)
            }
            _ => {
                self.wrong(expected);
                None
            }
        }
    }

    /// Text (or a number's text) through a parser of its own.
    #[must_use]
    pub fn parsed<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.raw(expected)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fail(problem);
                None
            }
        }
    }

    /// A whole number within limits.
    #[must_use]
    pub fn integer(&self, min: u64, max: u64) -> Option<u64> {
        let (Kind::Scalar { text, .. }, Some(Scalar::Integer)) =
            (&self.node.kind, self.node.scalar())
        else {
            self.wrong("a whole number");
            return None;
        };
        let value = match text.split_at_checked(2) {
            Some(("0x", rest)) => i128::from_str_radix(rest, 16),
            Some(("0o", rest)) => i128::from_str_radix(rest, 8),
            _ => text.parse::<i128>(),
        };
        match value {
            Ok(n) if n >= i128::from(min) && n <= i128::from(max) => u64::try_from(n).ok(),
            _ => {
                self.fail(format!("{text} is out of range; use {min} to {max}"));
                None
            }
        }
    }

    /// A whole number of 32 bits.
    #[must_use]
    pub fn count(&self) -> Option<u32> {
        self.integer(0, u64::from(u32::MAX))
            .and_then(|n| u32::try_from(n).ok())
    }

    /// A port number, from `min` (0 or 1).
    #[must_use]
    pub fn port(&self, min: u64) -> Option<u16> {
        self.integer(min, u64::from(u16::MAX))
            .and_then(|n| u16::try_from(n).ok())
    }

    /// A boolean.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.node.scalar() {
            Some(Scalar::Bool(value)) => Some(value),
            _ => {
                self.wrong("true or false");
                None
            }
        }
    }

    /// A duration text, or a whole number of seconds.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        self.parsed(
            "a duration such as 10s or 500ms",
            flags::seconds_or_duration,
        )
    }

    /// A memory size text, or a whole number of bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<Bytes> {
        self.parsed("a memory size such as 512m", |t| {
            t.parse()
                .map_err(|e: warren_types::QuantityError| e.to_string())
        })
    }

    /// An amount of CPU.
    #[must_use]
    pub fn cpus(&self) -> Option<MilliCpu> {
        self.parsed("a number of cores such as 0.5", |t| {
            t.parse()
                .map_err(|e: warren_types::QuantityError| e.to_string())
        })
    }

    /// A list of texts; numbers and booleans count as their text, since a command has only words.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().filter_map(Val::loose_text).collect()
    }

    /// Words: a list of texts, or one text that is split as a shell would.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        match self.node.kind {
            Kind::Scalar { .. } => {
                self.parsed("a list of text", flags::words)
                    .unwrap_or_default()
                    .0
            }
            _ => self.texts(),
        }
    }

    /// A map of texts.
    #[must_use]
    pub fn text_map(&self) -> BTreeMap<String, String> {
        let Some(object) = self.object() else {
            return BTreeMap::new();
        };
        object
            .values()
            .filter_map(|(key, value)| Some((key.to_owned(), value.loose_text()?)))
            .collect()
    }
}

/// A map whose keys are asked for by name; those never asked for are unknown.
#[derive(Debug)]
pub struct Obj<'a> {
    entries: &'a [(super::node::Key, Rc<Node>)],
    /// Where it begins.
    pub pos: Pos,
    path: String,
    report: &'a Report,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Obj<'a> {
    fn value(&self, key: &str, node: &'a Node) -> Val<'a> {
        let path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        Val {
            node,
            path,
            report: self.report,
        }
    }

    /// All keys with their values.
    pub fn values(&self) -> impl Iterator<Item = (&'a str, Val<'a>)> + '_ {
        self.entries
            .iter()
            .map(|(key, node)| (key.text.as_str(), self.value(&key.text, node)))
    }

    /// The value of a key; `None` when it is absent or nothing stands there.
    #[must_use]
    pub fn get(&self, key: &'static str) -> Option<Val<'a>> {
        self.known.borrow_mut().push(key);
        let (_, node) = self.entries.iter().find(|(k, _)| k.text == key)?;
        (!node.is_null()).then(|| self.value(key, node))
    }

    /// The value of the first of several names of one key; two of them at once are an error.
    #[must_use]
    pub fn any(&self, keys: &[&'static str]) -> Option<Val<'a>> {
        let mut found: Option<Val<'a>> = None;
        for key in keys {
            let Some(value) = self.get(key) else { continue };
            match &found {
                None => found = Some(value),
                Some(first) => value.fail(format!(
                    "means the same as {}; write one of them",
                    first.path
                )),
            }
        }
        found
    }

    /// The value of a key that must be there.
    #[must_use]
    pub fn need(&self, keys: &[&'static str], expected: &str) -> Option<Val<'a>> {
        let found = self.any(keys);
        if found.is_none() {
            self.fail(&format!("{} is missing; expected {expected}", keys[0]));
        }
        found
    }

    /// Reports something wrong with the map as a whole.
    pub fn fail(&self, text: &str) {
        let head = if self.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path)
        };
        self.report.problem(self.pos, format!("{head}{text}"));
    }

    /// Reports every key that was never asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self
            .entries
            .iter()
            .filter(|(k, _)| !known.contains(&k.text.as_str()))
        {
            let path = if self.path.is_empty() {
                key.text.clone()
            } else {
                format!("{}.{}", self.path, key.text)
            };
            let shown: String = path.chars().take(120).collect();
            let hint = match nearest(&key.text, &known) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("known keys here: {}", sorted(&known).join(", ")),
            };
            self.report
                .problem(key.pos, format!("{shown}: unknown key; {hint}"));
        }
    }
}

fn sorted(known: &[&'static str]) -> Vec<&'static str> {
    let mut names = known.to_vec();
    names.sort_unstable();
    names.dedup();
    names
}

/// The known key that is at most two edits, or a change of case, away.
fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    /// Longer keys are nobody's slip of the pen.
    const KEY_CHARS_MAX: usize = 40;
    if key.chars().count() > KEY_CHARS_MAX {
        return None;
    }
    let simple = |s: &str| plain(s).replace('-', "");
    known
        .iter()
        .map(|name| (edits(&simple(key), &simple(name)), *name))
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len() / 2)
        .min()
        .map(|(_, name)| name)
}

/// Insertions, deletions, changes and swaps of neighbours between two short texts.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys() {
        let known = ["replicas", "image", "healthCheck", "env"];
        assert_eq!(nearest("replicsa", &known), Some("replicas"));
        assert_eq!(nearest("healthcheck", &known), Some("healthCheck"));
        assert_eq!(nearest("health_check", &known), Some("healthCheck"));
        assert_eq!(nearest("imgae", &known), Some("image"));
        assert_eq!(nearest("xy", &known), None);
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn places_are_found_by_the_longest_beginning() {
        let report = Report::default();
        report.place("container", Pos { line: 1, column: 1 });
        report.place("container.mounts[1]", Pos { line: 9, column: 5 });
        assert_eq!(
            report
                .place_of("container.mounts[1].target")
                .map(|p| p.line),
            Some(9)
        );
        assert_eq!(
            report
                .place_of("container.mounts[2].target")
                .map(|p| p.line),
            Some(1)
        );
        assert_eq!(report.place_of("name"), None);
    }
}
