//! A history taken apart: what concerns one object.

use super::{Action, HistoryOp, Outcome, ReadKind};
use std::collections::{BTreeMap, BTreeSet};

/// A write, or a linearizable read, of one object.
#[derive(Debug, Clone)]
pub(super) struct Step<'a> {
    /// Where in the history.
    pub(super) at: usize,
    pub(super) invoked: u64,
    /// The end of time when the outcome is unknown.
    pub(super) completed: u64,
    pub(super) kind: Kind<'a>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind<'a> {
    Create {
        value: &'a str,
        version: Option<u64>,
    },
    Update {
        value: &'a str,
        expect: Option<u64>,
        version: Option<u64>,
    },
    Delete {
        expect: Option<u64>,
        revision: Option<u64>,
    },
    Read {
        seen: Option<(u64, &'a str)>,
    },
}

impl Kind<'_> {
    /// The revision that the write is known to have had.
    pub(super) fn revision(&self) -> Option<u64> {
        match self {
            Self::Create { version, .. } | Self::Update { version, .. } => *version,
            Self::Delete { revision, .. } => *revision,
            Self::Read { .. } => None,
        }
    }
}

/// What happened to one object.
#[derive(Debug, Clone, Default)]
pub(super) struct ObjectHistory<'a> {
    /// What certainly took effect, by the time of the request.
    pub(super) sure: Vec<Step<'a>>,
    /// What may have taken effect.
    pub(super) unsure: Vec<Step<'a>>,
}

impl ObjectHistory<'_> {
    /// Whether something that took effect expected a version that no acknowledged write made.
    fn is_built_on_the_unknown(&self) -> bool {
        let known: BTreeSet<u64> = self
            .sure
            .iter()
            .filter_map(|step| step.kind.revision())
            .collect();
        self.sure.iter().any(|step| match step.kind {
            Kind::Update { expect, .. } | Kind::Delete { expect, .. } => {
                expect.is_some_and(|expect| !known.contains(&expect))
            }
            _ => false,
        })
    }
}

/// Takes a history apart.
pub(super) fn split(history: &[HistoryOp]) -> BTreeMap<&str, ObjectHistory<'_>> {
    let mut objects: BTreeMap<&str, ObjectHistory<'_>> = BTreeMap::new();
    for name in names(history) {
        objects.insert(name, ObjectHistory::default());
    }
    for (at, op) in history.iter().enumerate() {
        if matches!(op.outcome, Outcome::Failed { .. }) {
            continue;
        }
        if let Some((name, kind)) = single(op) {
            let known = !matches!(op.outcome, Outcome::Unknown { .. });
            let object = objects.entry(name).or_default();
            if known {
                object.sure.push(step(at, op, kind));
            } else if !matches!(kind, Kind::Read { .. }) {
                object.unsure.push(Step {
                    completed: u64::MAX,
                    ..step(at, op, kind)
                });
            }
        }
        if let (
            Action::List {
                prefix,
                read: ReadKind::Linearizable,
            },
            Outcome::Listed { items },
        ) = (&op.action, &op.outcome)
        {
            let listed: BTreeMap<&str, (u64, &str)> = items
                .iter()
                .map(|item| (item.name.as_str(), (item.version, item.value.as_str())))
                .collect();
            for (name, object) in objects
                .iter_mut()
                .filter(|(name, _)| name.starts_with(prefix.as_str()))
            {
                let seen = listed.get(name).copied();
                object.sure.push(step(at, op, Kind::Read { seen }));
            }
        }
    }
    let observed = observed(history);
    for (name, object) in &mut objects {
        let built_on = object.is_built_on_the_unknown();
        object.sure.sort_by_key(|step| (step.invoked, step.at));
        // An update of unknown outcome whose value nobody saw, and on which nobody built, explains nothing: every order
        // with it is one without it. Creates and deletes may explain what others found.
        object.unsure.retain(|step| match step.kind {
            Kind::Update { value, .. } => built_on || observed.contains(&(*name, value)),
            _ => true,
        });
    }
    objects
}

fn step<'a>(at: usize, op: &HistoryOp, kind: Kind<'a>) -> Step<'a> {
    Step {
        at,
        invoked: op.invoked,
        completed: op.completed.unwrap_or(u64::MAX),
        kind,
    }
}

/// Requests for one object by its name.
fn single(op: &HistoryOp) -> Option<(&str, Kind<'_>)> {
    let version = match op.outcome {
        Outcome::Written { version } => Some(version),
        _ => None,
    };
    match &op.action {
        Action::Create { name, value } => Some((name, Kind::Create { value, version })),
        Action::Update {
            name,
            value,
            expect,
        } => Some((
            name,
            Kind::Update {
                value,
                expect: *expect,
                version,
            },
        )),
        Action::Delete { name, expect } => {
            let revision = match op.outcome {
                Outcome::Deleted { revision } => revision,
                _ => None,
            };
            Some((
                name,
                Kind::Delete {
                    expect: *expect,
                    revision,
                },
            ))
        }
        Action::Get {
            name,
            read: ReadKind::Linearizable,
        } => {
            let seen = match &op.outcome {
                Outcome::Found { version, value } => Some((*version, value.as_str())),
                _ => None,
            };
            Some((name, Kind::Read { seen }))
        }
        Action::Get { .. } | Action::List { .. } | Action::Watch { .. } => None,
    }
}

fn names(history: &[HistoryOp]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for op in history {
        match &op.action {
            Action::Create { name, .. }
            | Action::Update { name, .. }
            | Action::Delete { name, .. }
            | Action::Get { name, .. } => {
                names.insert(name.as_str());
            }
            Action::List { .. } | Action::Watch { .. } => {}
        }
        match &op.outcome {
            Outcome::Listed { items } => names.extend(items.iter().map(|item| item.name.as_str())),
            Outcome::Watched { items, events, .. } => {
                names.extend(items.iter().map(|item| item.name.as_str()));
                names.extend(events.iter().map(|event| event.name.as_str()));
            }
            _ => {}
        }
    }
    names
}

/// Every value that anybody saw.
fn observed(history: &[HistoryOp]) -> BTreeSet<(&str, &str)> {
    let mut seen = BTreeSet::new();
    for op in history {
        match (&op.action, &op.outcome) {
            (Action::Get { name, .. }, Outcome::Found { value, .. }) => {
                seen.insert((name.as_str(), value.as_str()));
            }
            (_, Outcome::Listed { items }) => {
                seen.extend(items.iter().map(|i| (i.name.as_str(), i.value.as_str())));
            }
            (_, Outcome::Watched { items, events, .. }) => {
                seen.extend(items.iter().map(|i| (i.name.as_str(), i.value.as_str())));
                seen.extend(
                    events
                        .iter()
                        .filter_map(|e| Some((e.name.as_str(), e.value.as_deref()?))),
                );
            }
            _ => {}
        }
    }
    seen
}
