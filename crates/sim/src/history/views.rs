//! What lists, stale reads, sessions and watches show: pictures of the past, and changes without gap or overlap.

use super::object::{Kind, ObjectHistory};
use super::{Action, Event, HistoryOp, Item, Outcome, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// The known past of one object.
#[derive(Debug, Default)]
struct Register<'a> {
    /// By revision: the value (none: removed) and when it was asked for.
    changes: BTreeMap<u64, (Option<&'a str>, u64)>,
    /// Values that may have been written, and when that was asked for.
    unsure: Vec<(&'a str, u64)>,
    /// Whether it may have been removed at a revision that nobody knows.
    removed_somewhen: bool,
}

impl Register<'_> {
    /// Whether there is no sign that it existed at `revision`.
    fn may_be_absent_at(&self, revision: u64) -> bool {
        let last = self.changes.range(..=revision).next_back();
        self.removed_somewhen || last.is_none_or(|(_, (value, _))| value.is_none())
    }

    /// First revision after `after` at which it is known to have changed.
    fn next_change(&self, after: u64) -> Option<u64> {
        let mut later = self.changes.range((Excluded(after), Unbounded));
        later.next().map(|(revision, _)| *revision)
    }

    fn is_removed_within(&self, after: u64, before: u64) -> bool {
        after < before
            && self
                .changes
                .range((Excluded(after), Excluded(before)))
                .any(|(_, (value, _))| value.is_none())
    }
}

/// Where a session is with an object.
#[derive(Debug, Clone, Copy)]
struct Position {
    version: u64,
    gone: bool,
    completed: u64,
}

/// The known past of all objects.
#[derive(Debug, Default)]
pub(super) struct Views<'a> {
    registers: BTreeMap<&'a str, Register<'a>>,
    /// What was seen of whom at which version.
    seen: BTreeMap<(&'a str, u64), &'a str>,
    sessions: BTreeMap<(&'a str, &'a str), Position>,
}

type Checked = Result<(), Violation>;

impl<'a> Views<'a> {
    /// Adds what is known of an object.
    pub(super) fn add(&mut self, name: &'a str, object: &ObjectHistory<'a>) {
        let register = self.registers.entry(name).or_default();
        for step in &object.sure {
            let value = match step.kind {
                Kind::Create { value, .. } | Kind::Update { value, .. } => Some(value),
                Kind::Delete { .. } => None,
                Kind::Read { .. } => continue,
            };
            match step.kind.revision() {
                Some(revision) => {
                    let change = register.changes.entry(revision);
                    // An update that changed nothing names the version of an earlier write.
                    let (_, invoked) = change.or_insert((value, step.invoked));
                    *invoked = step.invoked.min(*invoked);
                }
                None => register.removed_somewhen = true,
            }
        }
        for step in &object.unsure {
            match step.kind {
                Kind::Create { value, .. } | Kind::Update { value, .. } => {
                    register.unsure.push((value, step.invoked));
                }
                Kind::Delete { .. } => register.removed_somewhen = true,
                Kind::Read { .. } => {}
            }
        }
    }

    /// Checks what was shown.
    pub(super) fn check(&mut self, history: &'a [HistoryOp]) -> Checked {
        let mut order: Vec<&HistoryOp> = history.iter().collect();
        order.sort_by_key(|op| (op.completed, op.invoked));
        for op in order {
            match (&op.action, &op.outcome) {
                (Action::Get { name, .. }, Outcome::Found { version, value }) => {
                    self.sighting(op, name, *version, value)?;
                    self.session(op, name, Some(*version))?;
                }
                (Action::Get { name, .. }, Outcome::Absent) => self.session(op, name, None)?,
                (Action::List { prefix, .. }, Outcome::Listed { items }) => {
                    self.list(op, prefix, items)?;
                }
                (
                    Action::Watch { prefix },
                    Outcome::Watched {
                        from,
                        items,
                        events,
                        until,
                    },
                ) => {
                    self.picture(op, prefix, items, *from)?;
                    self.events(op, prefix, events, *from, *until)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Somebody saw a value at a version: somebody must have written it, and everybody sees the same.
    fn sighting(&mut self, op: &HistoryOp, name: &'a str, version: u64, value: &'a str) -> Checked {
        let wrong = |what: String| Err(Violation::new(Some(name), what, vec![op.clone()]));
        let shown = op.completed.unwrap_or(u64::MAX);
        let register = self.registers.entry(name).or_default();
        match register.changes.get(&version) {
            Some((Some(written), invoked)) if *written == value && *invoked <= shown => {}
            Some((Some(written), invoked)) if *written == value => {
                return wrong(format!(
                    "version {version} was seen before it was asked for at {invoked}"
                ));
            }
            Some((written, _)) => {
                return wrong(format!(
                    "{value:?} was seen at version {version}, which wrote {written:?}"
                ));
            }
            None => {
                let mut may = register.unsure.iter();
                if !may.any(|(written, invoked)| *written == value && *invoked <= shown) {
                    return wrong(format!(
                        "{value:?} was seen at version {version}, but nobody wrote that"
                    ));
                }
            }
        }
        let first = *self.seen.entry((name, version)).or_insert(value);
        if first == value {
            Ok(())
        } else {
            wrong(format!(
                "version {version} was seen as {first:?} and as {value:?}"
            ))
        }
    }

    /// Within a session the past does not come back.
    fn session(&mut self, op: &'a HistoryOp, name: &'a str, seen: Option<u64>) -> Checked {
        if op.session.is_empty() {
            return Ok(());
        }
        let key = (op.session.as_str(), name);
        let completed = op.completed.unwrap_or(u64::MAX);
        let before = self.sessions.get(&key).copied();
        let back = match (before, seen) {
            // Asked for before the other answer came: no order between them.
            (Some(before), _) if before.completed > op.invoked => false,
            (Some(before), Some(version)) => {
                version < before.version || (version == before.version && before.gone)
            }
            _ => false,
        };
        if back {
            let before = before.map_or(0, |before| before.version);
            return Err(Violation::new(
                Some(name),
                format!(
                    "the session {} went back: it had seen version {before} (or its end) already",
                    op.session
                ),
                vec![op.clone()],
            ));
        }
        let known = before.map_or(0, |before| before.version);
        let position = Position {
            version: seen.unwrap_or(known).max(known),
            gone: seen.is_none(),
            completed,
        };
        self.sessions.insert(key, position);
        Ok(())
    }

    fn list(&mut self, op: &'a HistoryOp, prefix: &str, items: &'a [Item]) -> Checked {
        for item in items {
            self.sighting(op, &item.name, item.version, &item.value)?;
        }
        let shown: BTreeMap<&str, u64> = items
            .iter()
            .map(|item| (item.name.as_str(), item.version))
            .collect();
        let names: Vec<&'a str> = self.registers.keys().copied().collect();
        for name in names.iter().filter(|name| name.starts_with(prefix)) {
            self.session(op, name, shown.get(name).copied())?;
        }
        // The picture is of some revision from the newest that it shows to before the first change that it does not.
        let newest = shown.values().copied().max().unwrap_or(0);
        let changed = |(name, version): (&&str, &u64)| {
            let register = self.registers.get(*name)?;
            register.next_change(*version)
        };
        let end = shown.iter().filter_map(changed).min().unwrap_or(u64::MAX);
        if end <= newest {
            return Err(Violation::new(
                None,
                format!(
                    "a list shows revision {newest}, and something as it was before revision {end}"
                ),
                vec![op.clone()],
            ));
        }
        for (name, register) in &self.registers {
            let absent = name.starts_with(prefix) && !shown.contains_key(name);
            if absent
                && !register.may_be_absent_at(newest)
                && !register.is_removed_within(newest, end)
            {
                return Err(Violation::new(
                    Some(name),
                    format!("a list that shows revision {newest} lacks it, though it existed then"),
                    vec![op.clone()],
                ));
            }
        }
        Ok(())
    }

    /// What a watch begins with: exactly what there was at a revision.
    fn picture(
        &mut self,
        op: &'a HistoryOp,
        prefix: &str,
        items: &'a [Item],
        from: u64,
    ) -> Checked {
        let wrong =
            |name: &str, what: String| Err(Violation::new(Some(name), what, vec![brief(op)]));
        for item in items {
            self.sighting(op, &item.name, item.version, &item.value)?;
            let register = self.registers.entry(&item.name).or_default();
            let next = register.next_change(item.version);
            if item.version > from || next.is_some_and(|next| next <= from) {
                return wrong(
                    &item.name,
                    format!(
                        "a watch from revision {from} begins with version {}, the next change is {next:?}",
                        item.version
                    ),
                );
            }
        }
        let shown: BTreeSet<&str> = items.iter().map(|item| item.name.as_str()).collect();
        for (name, register) in &self.registers {
            if name.starts_with(prefix) && !shown.contains(name) && !register.may_be_absent_at(from)
            {
                return wrong(
                    name,
                    format!("a watch from revision {from} begins without it"),
                );
            }
        }
        Ok(())
    }

    fn events(
        &mut self,
        op: &'a HistoryOp,
        prefix: &str,
        events: &'a [Event],
        from: u64,
        until: u64,
    ) -> Checked {
        let wrong =
            |name: &str, what: String| Err(Violation::new(Some(name), what, vec![brief(op)]));
        let mut shown = BTreeSet::new();
        let mut last = from;
        for event in events {
            let (revision, name) = (event.revision, event.name.as_str());
            if revision <= from || revision > until {
                return wrong(
                    name,
                    format!("a watch from {from} to {until} shows revision {revision}"),
                );
            }
            if revision < last || !shown.insert((name, revision)) {
                return wrong(
                    name,
                    format!("a watch shows revision {revision} after {last}: an overlap"),
                );
            }
            last = revision;
            match &event.value {
                Some(value) => self.sighting(op, name, revision, value)?,
                None => self.removal(op, name, revision)?,
            }
        }
        for (name, register) in &self.registers {
            if !name.starts_with(prefix) || from >= until {
                continue;
            }
            let range = (Excluded(from), Included(until));
            let gap = register
                .changes
                .range(range)
                .find(|(revision, _)| !shown.contains(&(*name, **revision)));
            if let Some((revision, (value, _))) = gap {
                return wrong(
                    name,
                    format!(
                        "a watch from {from} to {until} does not show revision {revision} ({value:?}): a gap"
                    ),
                );
            }
        }
        Ok(())
    }

    fn removal(&self, op: &HistoryOp, name: &str, revision: u64) -> Checked {
        let Some(register) = self.registers.get(name) else {
            return Ok(());
        };
        match register.changes.get(&revision) {
            Some((None, _)) => Ok(()),
            None if register.removed_somewhen => Ok(()),
            found => Err(Violation::new(
                Some(name),
                format!("a watch shows its end at revision {revision}, which is {found:?}"),
                vec![brief(op)],
            )),
        }
    }
}

/// A watch without its events, which may be many.
fn brief(op: &HistoryOp) -> HistoryOp {
    let mut op = op.clone();
    if let Outcome::Watched { items, events, .. } = &mut op.outcome {
        items.clear();
        events.clear();
    }
    op
}
