//! What clients saw, and whether a correct store could have shown it to them.
//!
//! The store is seen as one register for each object name (secrets, services, configs: whatever has a name, a value and
//! a version). A harness, simulated or real, writes one [`HistoryOp`] for each request: when it was made, when the answer
//! came, what was asked and what was answered. [`check`] then says whether the whole could have happened:
//!
//! - every object is linearizable (R2): there is one order of the acknowledged writes and linearizable reads, and of those
//!   of unknown outcome that took effect, that respects real time and the versions that writes returned. Objects are
//!   checked one by one, which is enough because linearizability is local;
//! - no acknowledged write is lost (R1), as far as anybody looked afterwards: end a history with reads of everything;
//! - a list is a picture of one moment; a stale read is a picture of some moment of the past, and within one session the
//!   past does not come back;
//! - a watch shows every change after its snapshot once and in order (R3).
//!
//! Values of different writes should be different texts: then a read says which write it saw. A history that is too
//! entangled to be decided is a violation too: "unknown" never passes (R26).
//!
//! As JSON lines ([`write_lines`], [`read_lines`]) a history can be kept and checked again.

mod object;
mod search;
mod views;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use std::fmt;

/// One request of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryOp {
    /// Who asked; for people.
    pub client: String,
    /// Requests of one session are made one after the other, to one manager in one of its lives: what they read never goes
    /// back. Empty: no session.
    #[serde(default)]
    pub session: String,
    /// When the request was made. Any unit, of one clock that all clients share, and no two events at the same stamp
    /// unless their order is really unknown.
    pub invoked: u64,
    /// When the answer came; none when the client never heard (its outcome is then [`Outcome::Unknown`]).
    pub completed: Option<u64>,
    /// What was asked.
    pub action: Action,
    /// What was answered.
    pub outcome: Outcome,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Makes an object; refused when the name is taken.
    Create {
        /// Name of the object.
        name: String,
        /// Its value.
        value: String,
    },
    /// Gives an object another value; refused when there is none of that name.
    Update {
        /// Name of the object.
        name: String,
        /// Its new value.
        value: String,
        /// The version that it must have.
        #[serde(default)]
        expect: Option<u64>,
    },
    /// Removes an object; refused when there is none of that name.
    Delete {
        /// Name of the object.
        name: String,
        /// The version that it must have.
        #[serde(default)]
        expect: Option<u64>,
    },
    /// Reads one object.
    Get {
        /// Name of the object.
        name: String,
        /// What the answer promises.
        read: ReadKind,
    },
    /// Reads all objects at once whose name begins so.
    List {
        /// Beginning of the names; empty for all.
        #[serde(default)]
        prefix: String,
        /// What the answer promises.
        read: ReadKind,
    },
    /// Takes a picture of all objects whose name begins so, and follows the changes.
    Watch {
        /// Beginning of the names; empty for all.
        #[serde(default)]
        prefix: String,
    },
}

/// What a read promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadKind {
    /// Everything acknowledged before the read was asked for.
    Linearizable,
    /// What the manager had; it may be old.
    Stale,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A create or update took effect.
    Written {
        /// Version of the object since then: the revision of the change, so later changes have greater ones.
        version: u64,
    },
    /// A delete took effect.
    Deleted {
        /// Revision of the change, when the interface tells.
        #[serde(default)]
        revision: Option<u64>,
    },
    /// A get found the object.
    Found {
        /// Its version.
        version: u64,
        /// Its value.
        value: String,
    },
    /// A get found no such object.
    Absent,
    /// A list.
    Listed {
        /// What there was.
        items: Vec<Item>,
    },
    /// A watch, when it ended.
    Watched {
        /// Revision of the picture that it began with.
        from: u64,
        /// The picture.
        items: Vec<Item>,
        /// What followed, as it came.
        events: Vec<Event>,
        /// Revision up to which the watch claims to have shown everything.
        until: u64,
    },
    /// The request was refused: it certainly had no effect.
    Failed {
        /// In words.
        reason: String,
    },
    /// Nobody knows whether the request had, or will yet have, an effect.
    Unknown {
        /// In words.
        reason: String,
    },
}

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// Its value.
    pub value: String,
}

/// A change as a watch shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Revision of the change.
    pub revision: u64,
    /// Name of the object.
    pub name: String,
    /// Its new value; none when it was removed.
    pub value: Option<String>,
}

/// What a correct history contained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Requests.
    pub ops: u64,
    /// Different object names.
    pub objects: u64,
    /// Acknowledged writes.
    pub written: u64,
    /// Refused requests.
    pub failed: u64,
    /// Writes of unknown outcome.
    pub unknown: u64,
    /// Writes of unknown outcome that are known to have taken effect.
    pub unknown_seen: u64,
    /// Linearizable gets and lists.
    pub linearizable_reads: u64,
    /// Stale gets and lists.
    pub stale_reads: u64,
    /// Watches that ended.
    pub watches: u64,
    /// Changes that watches showed.
    pub events: u64,
    /// Steps that the search took.
    pub steps: u64,
}

impl Summary {
    /// Adds another history's.
    pub fn add(&mut self, other: &Self) {
        self.ops += other.ops;
        self.objects += other.objects;
        self.written += other.written;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.unknown_seen += other.unknown_seen;
        self.linearizable_reads += other.linearizable_reads;
        self.stale_reads += other.stale_reads;
        self.watches += other.watches;
        self.events += other.events;
        self.steps += other.steps;
    }
}

/// Why a history is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The object, when it concerns one.
    pub object: Option<String>,
    /// What is wrong.
    pub what: String,
    /// The requests that show it, or that stand around the place where no order goes on.
    pub ops: Vec<HistoryOp>,
}

impl Violation {
    fn new(object: Option<&str>, what: impl Into<String>, ops: Vec<HistoryOp>) -> Self {
        Self {
            object: object.map(str::to_owned),
            what: what.into(),
            ops,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.object {
            write!(f, "object {object:?}: ")?;
        }
        f.write_str(&self.what)?;
        for op in &self.ops {
            write!(f, "\n  {op}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for HistoryOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self
            .completed
            .map_or_else(|| "…".to_owned(), |at| at.to_string());
        write!(
            f,
            "[{} {end}] {} {:?} -> {:?}",
            self.invoked, self.client, self.action, self.outcome
        )
    }
}

/// Whether a correct store could have shown this to its clients. The order of the slice means nothing.
///
/// # Errors
/// The first [`Violation`] found.
pub fn check(history: &[HistoryOp]) -> Result<Summary, Violation> {
    let mut summary = count(history)?;
    let objects = object::split(history);
    summary.objects = objects.len() as u64;
    let mut views = views::Views::default();
    for (name, object) in &objects {
        let found = search::linearize(history, name, object)?;
        summary.steps += found.steps;
        summary.unknown_seen += found.unknown_used;
        views.add(name, object);
    }
    views.check(history)?;
    Ok(summary)
}

fn count(history: &[HistoryOp]) -> Result<Summary, Violation> {
    let mut summary = Summary {
        ops: history.len() as u64,
        ..Summary::default()
    };
    for op in history {
        check_form(op)?;
        let reads = match (&op.action, &op.outcome) {
            (_, Outcome::Failed { .. }) => &mut summary.failed,
            (_, Outcome::Written { .. } | Outcome::Deleted { .. }) => &mut summary.written,
            (_, Outcome::Watched { events, .. }) => {
                summary.events += events.len() as u64;
                &mut summary.watches
            }
            (Action::Get { read, .. } | Action::List { read, .. }, _) => match read {
                ReadKind::Linearizable => &mut summary.linearizable_reads,
                ReadKind::Stale => &mut summary.stale_reads,
            },
            _ => &mut summary.unknown,
        };
        *reads += 1;
    }
    Ok(summary)
}

/// An answer must be one to its question, and come after it.
fn check_form(op: &HistoryOp) -> Result<(), Violation> {
    let wrong = |what: &str| Err(Violation::new(None, what, vec![op.clone()]));
    let answers = matches!(
        (&op.action, &op.outcome),
        (_, Outcome::Failed { .. } | Outcome::Unknown { .. })
            | (
                Action::Create { .. } | Action::Update { .. },
                Outcome::Written { .. }
            )
            | (Action::Delete { .. }, Outcome::Deleted { .. })
            | (Action::Get { .. }, Outcome::Found { .. } | Outcome::Absent)
            | (Action::List { .. }, Outcome::Listed { .. })
            | (Action::Watch { .. }, Outcome::Watched { .. })
    );
    if !answers {
        return wrong("the record is wrong: such a request cannot have such an answer");
    }
    match op.completed {
        Some(completed) if completed < op.invoked => {
            wrong("the record is wrong: the answer came before the request")
        }
        None if !matches!(op.outcome, Outcome::Unknown { .. }) => {
            wrong("the record is wrong: an answer without the time when it came")
        }
        _ => Ok(()),
    }
}

/// A history as JSON, one request a line.
///
/// # Errors
/// Of the writer.
pub fn write_lines(history: &[HistoryOp], to: &mut impl std::io::Write) -> std::io::Result<()> {
    for op in history {
        serde_json::to_writer(&mut *to, op)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write_lines`] wrote; a last line that was cut off is an error.
///
/// # Errors
/// Names the line.
pub fn read_lines(text: &str) -> Result<Vec<HistoryOp>, String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))
        })
        .collect()
}
