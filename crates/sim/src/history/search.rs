//! Looks for an order of the requests for one object that a register could have had.

use super::object::{Kind, ObjectHistory, Step};
use super::{HistoryOp, Violation};
use std::collections::HashSet;

/// Steps after which a history counts as too entangled to be decided.
const STEPS_MAX: u64 = 2_000_000;
/// Requests shown around the place where no order goes on.
const SHOWN: usize = 12;

/// What was found of one object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    pub(super) steps: u64,
    /// Requests of unknown outcome that the order needs.
    pub(super) unknown_used: u64,
}

/// The register.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Model<'a> {
    /// Version, when anybody knows it, and value.
    present: Option<(Option<u64>, &'a str)>,
    /// Greatest revision that the past is known to have had: later changes have greater ones.
    floor: u64,
}

impl<'a> Model<'a> {
    fn is_expected(&self, expect: Option<u64>) -> bool {
        match (self.present, expect) {
            (None, _) => false,
            (Some((Some(version), _)), Some(expect)) => version == expect,
            // A version that nobody was told yet may be the expected one.
            (Some((None, _)), Some(expect)) => expect > self.floor,
            (Some(_), None) => true,
        }
    }

    fn write(&self, value: &'a str, version: Option<u64>) -> Option<Self> {
        let floor = match version {
            Some(version) if version <= self.floor => return None,
            Some(version) => version,
            None => self.floor,
        };
        Some(Self {
            present: Some((version, value)),
            floor,
        })
    }

    fn after(&self, kind: &Kind<'a>) -> Option<Self> {
        match *kind {
            Kind::Create { value, version } => {
                if self.present.is_some() {
                    return None;
                }
                self.write(value, version)
            }
            Kind::Update {
                value,
                expect,
                version,
            } => {
                if !self.is_expected(expect) {
                    return None;
                }
                // An update that changes nothing leaves the version as it was.
                if let (Some((Some(now), same)), Some(version)) = (self.present, version)
                    && now == version
                    && same == value
                {
                    return Some(self.clone());
                }
                let floor = self.floor.max(expect.unwrap_or(0));
                Self {
                    floor,
                    ..self.clone()
                }
                .write(value, version)
            }
            Kind::Delete { expect, revision } => {
                if !self.is_expected(expect)
                    || revision.is_some_and(|revision| revision <= self.floor)
                {
                    return None;
                }
                Some(Self {
                    present: None,
                    floor: self
                        .floor
                        .max(expect.unwrap_or(0))
                        .max(revision.unwrap_or(0)),
                })
            }
            Kind::Read { seen } => match (self.present, seen) {
                (None, None) => Some(self.clone()),
                (Some((Some(version), value)), Some(seen)) if (version, value) == seen => {
                    Some(self.clone())
                }
                (Some((None, value)), Some((version, seen)))
                    if value == seen && version > self.floor =>
                {
                    Some(Self {
                        present: Some((Some(version), value)),
                        floor: version,
                    })
                }
                _ => None,
            },
        }
    }
}

/// A place in the search.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place<'a> {
    /// All sure steps before this one are done.
    next: usize,
    /// Those behind it that are done.
    ahead: Vec<usize>,
    /// The unsure steps that were used, in ascending order.
    used: Vec<usize>,
    model: Model<'a>,
}

impl<'a> Place<'a> {
    /// The sure steps that may come next, and the moment by which one of them must have.
    fn candidates(&self, sure: &[Step<'a>]) -> (Vec<usize>, u64) {
        let mut limit = u64::MAX;
        let mut found = Vec::new();
        for (at, step) in sure.iter().enumerate().skip(self.next) {
            if step.invoked > limit {
                break;
            }
            if self.ahead.binary_search(&at).is_err() {
                limit = limit.min(step.completed);
                found.push(at);
            }
        }
        // The limit fell while they were gathered.
        found.retain(|at| sure[*at].invoked <= limit);
        (found, limit)
    }

    fn done(&self, at: usize, model: Model<'a>) -> Self {
        let mut place = self.clone();
        place.model = model;
        if let Err(slot) = place.ahead.binary_search(&at) {
            place.ahead.insert(slot, at);
        }
        while place.ahead.first() == Some(&place.next) {
            place.ahead.remove(0);
            place.next += 1;
        }
        place
    }

    fn with(&self, unsure: usize, model: Model<'a>) -> Self {
        let mut place = self.clone();
        place.model = model;
        if let Err(slot) = place.used.binary_search(&unsure) {
            place.used.insert(slot, unsure);
        }
        place
    }

    /// Whatever may come next, the most promising last.
    fn followers(&self, object: &ObjectHistory<'a>) -> Vec<Self> {
        let sure = &object.sure;
        let (candidates, limit) = self.candidates(sure);
        // A read that fits changes nothing for the others: taking it at once is as good as any order.
        for at in &candidates {
            if matches!(sure[*at].kind, Kind::Read { .. })
                && let Some(model) = self.model.after(&sure[*at].kind)
            {
                return vec![self.done(*at, model)];
            }
        }
        let mut followers = Vec::new();
        for (at, step) in object.unsure.iter().enumerate().rev() {
            if step.invoked <= limit
                && self.used.binary_search(&at).is_err()
                && let Some(model) = self.model.after(&step.kind)
            {
                followers.push(self.with(at, model));
            }
        }
        // Of the writes with known revision only the oldest can be next.
        let oldest = candidates
            .iter()
            .filter_map(|at| sure[*at].kind.revision())
            .min();
        for at in candidates.iter().rev() {
            let kind = &sure[*at].kind;
            if matches!(kind, Kind::Read { .. }) || (kind.revision() > oldest) {
                continue;
            }
            if let Some(model) = self.model.after(kind) {
                followers.push(self.done(*at, model));
            }
        }
        followers
    }
}

/// Looks for an order.
pub(super) fn linearize(
    history: &[HistoryOp],
    name: &str,
    object: &ObjectHistory<'_>,
) -> Result<Found, Violation> {
    let mut found = Found::default();
    let begin = Place {
        next: 0,
        ahead: Vec::new(),
        used: Vec::new(),
        model: Model::default(),
    };
    let mut seen = HashSet::new();
    let mut furthest = begin.clone();
    let mut open = vec![begin];
    while let Some(place) = open.pop() {
        if place.next == object.sure.len() {
            found.unknown_used = place.used.len() as u64;
            return Ok(found);
        }
        if !seen.insert(place.clone()) {
            continue;
        }
        found.steps += 1;
        if found.steps > STEPS_MAX {
            return Err(Violation::new(
                Some(name),
                format!(
                    "too entangled to be decided in {STEPS_MAX} steps; make the history shorter, or spread it over more objects"
                ),
                Vec::new(),
            ));
        }
        if (place.next, place.ahead.len()) > (furthest.next, furthest.ahead.len()) {
            furthest = place.clone();
        }
        open.extend(place.followers(object));
    }
    Err(stuck(history, name, object, &furthest))
}

fn stuck(
    history: &[HistoryOp],
    name: &str,
    object: &ObjectHistory<'_>,
    place: &Place<'_>,
) -> Violation {
    let (candidates, _) = place.candidates(&object.sure);
    let before = object.sure[..place.next].iter().rev().take(SHOWN / 2).rev();
    let shown = before
        .chain(candidates.iter().map(|at| &object.sure[*at]).take(SHOWN))
        .chain(object.unsure.iter().take(SHOWN));
    let what = match place.model.present {
        None => "there is no such object".to_owned(),
        Some((Some(version), value)) => format!("it is {value:?} at version {version}"),
        Some((None, value)) => format!("it is {value:?}"),
    };
    Violation::new(
        Some(name),
        format!(
            "not linearizable: after {} of {} requests no order goes on; there {what}, and the past reaches to revision {}",
            place.next + place.ahead.len(),
            object.sure.len(),
            place.model.floor
        ),
        shown.map(|step| history[step.at].clone()).collect(),
    )
}
