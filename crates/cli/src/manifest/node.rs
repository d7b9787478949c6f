//! YAML text as a tree of nodes that know where they stand.
//!
//! The tree is built from the events of the parser. Aliases share their node, so a small text cannot
//! become a large tree; what an alias would expand to is counted all the same and bounded.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Deepest nesting of a manifest.
pub const DEPTH_MAX: usize = 64;
/// Nodes of one manifest, with every alias counted as often as it is used.
pub const NODES_MAX: usize = 200_000;

/// A place in a file; both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub pos: Pos,
    /// What, and what to write instead.
    pub text: String,
}

/// A node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub pos: Pos,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A single value.
    Scalar {
        /// Its text.
        text: String,
        /// Written without quotes, so that `8` is a number and `true` a boolean.
        plain: bool,
    },
    /// A list.
    List(Vec<Rc<Node>>),
    /// Keys and values in the order of the file.
    Map(Vec<(Key, Rc<Node>)>),
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub pos: Pos,
}

/// What a plain scalar means by the core schema of YAML 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer,
    /// A number with a point or exponent.
    Float,
    /// Anything else, and everything in quotes.
    Text,
}

impl Node {
    /// What the scalar means; `None` for lists and maps.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar> {
        let Kind::Scalar { text, plain } = &self.kind else {
            return None;
        };
        Some(if *plain {
            plain_meaning(text)
        } else {
            Scalar::Text
        })
    }

    /// Nothing stands there.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// In words, with its article.
    #[must_use]
    pub fn what(&self) -> &'static str {
        match (&self.kind, self.scalar()) {
            (Kind::List(_), _) => "a list",
            (Kind::Map(_), _) => "a map",
            (_, Some(Scalar::Null)) => "nothing",
            (_, Some(Scalar::Bool(_))) => "a boolean",
            (_, Some(Scalar::Integer | Scalar::Float)) => "a number",
            _ => "text",
        }
    }
}

fn plain_meaning(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if digits(unsigned) {
        return Scalar::Integer;
    }
    let radix = |prefix: &str, ok: fn(char) -> bool| {
        text.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(ok))
    };
    if radix("0o", |c| c.is_digit(8)) || radix("0x", |c| c.is_ascii_hexdigit()) {
        return Scalar::Integer;
    }
    let numeric = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.parse::<f64>().is_ok();
    if numeric
        || matches!(
            unsigned,
            ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN"
        )
    {
        return Scalar::Float;
    }
    Scalar::Text
}

/// Parses all documents of a text; empty ones are left out.
///
/// # Errors
/// The first place where the text is not YAML, repeats a key, or is over a limit.
pub fn parse(text: &str) -> Result<Vec<Rc<Node>>, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| Problem {
            pos: place(e.marker().line(), e.marker().col()),
            text: format!("not valid YAML: {}", e.info()),
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.documents)
}

fn place(line: usize, col: usize) -> Pos {
    Pos {
        line: line.max(1),
        column: col + 1,
    }
}

/// A list or map that is not complete yet.
struct Open {
    pos: Pos,
    anchor: usize,
    weight: usize,
    map: bool,
    items: Vec<Rc<Node>>,
    entries: Vec<(Key, Rc<Node>)>,
    key: Option<Key>,
    seen: HashMap<String, Pos>,
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, (Rc<Node>, usize)>,
    documents: Vec<Rc<Node>>,
    total: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let pos = place(span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !forced_text(tag.as_ref(), pos)?;
                let kind = Kind::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                self.add(Rc::new(Node { pos, kind }), anchor, 1)
            }
            Event::SequenceStart(anchor, tag) => {
                forced_text(tag.as_ref(), pos)?;
                self.open(pos, anchor, false)
            }
            Event::MappingStart(anchor, tag) => {
                forced_text(tag.as_ref(), pos)?;
                self.open(pos, anchor, true)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, weight)) => self.add(node, 0, weight),
                None => Err(Problem {
                    pos,
                    text: "this alias stands inside of what it refers to".to_owned(),
                }),
            },
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, pos: Pos, anchor: usize, map: bool) -> Result<(), Problem> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(Problem {
                pos,
                text: format!("nested deeper than {DEPTH_MAX} levels, the limit of a manifest"),
            });
        }
        self.stack.push(Open {
            pos,
            anchor,
            weight: 1,
            map,
            items: Vec::new(),
            entries: Vec::new(),
            key: None,
            seen: HashMap::new(),
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(open) = self.stack.pop() else {
            return Ok(());
        };
        let kind = if open.map {
            Kind::Map(open.entries)
        } else {
            Kind::List(open.items)
        };
        // Its parts are in the total already.
        self.total -= open.weight - 1;
        self.add(
            Rc::new(Node {
                pos: open.pos,
                kind,
            }),
            open.anchor,
            open.weight,
        )
    }

    fn add(&mut self, node: Rc<Node>, anchor: usize, weight: usize) -> Result<(), Problem> {
        self.total = self.total.saturating_add(weight);
        if self.total > NODES_MAX {
            return Err(Problem {
                pos: node.pos,
                text: format!(
                    "more than {NODES_MAX} values, the limit of a manifest; an alias counts as often as it is used"
                ),
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (Rc::clone(&node), weight));
        }
        let Some(open) = self.stack.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        open.weight = open.weight.saturating_add(weight);
        if !open.map {
            open.items.push(node);
            return Ok(());
        }
        match open.key.take() {
            Some(key) => open.entries.push((key, node)),
            None => open.key = Some(new_key(&mut open.seen, &node)?),
        }
        Ok(())
    }
}

fn new_key(seen: &mut HashMap<String, Pos>, node: &Node) -> Result<Key, Problem> {
    let Kind::Scalar { text, .. } = &node.kind else {
        return Err(Problem {
            pos: node.pos,
            text: format!("a key must be text, not {}", node.what()),
        });
    };
    if let Some(first) = seen.insert(text.clone(), node.pos) {
        let shown: String = text.chars().take(120).collect();
        return Err(Problem {
            pos: node.pos,
            text: format!("key {shown:?} stands here a second time, first at {first}"),
        });
    }
    Ok(Key {
        text: text.clone(),
        pos: node.pos,
    })
}

/// Whether a tag says that the scalar is text; tags that are not of the core schema are refused.
fn forced_text(tag: Option<&Cow<'_, Tag>>, pos: Pos) -> Result<bool, Problem> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(true),
        Some(tag) => Err(Problem {
            pos,
            text: format!("tag {tag} is not supported; remove it"),
        }),
    }
}
