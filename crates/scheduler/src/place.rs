//! Placing one group: the best node for each of its containers.

use crate::Out;
use crate::batch::{At, Batch, Count};
use crate::filter::{Fixed, Obstacles, changing};
use crate::group::Group;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use warren_types::Container;

/// Nodes of the order by load that are looked at for one container before all nodes are asked.
const LOOK_AT_MAX: usize = 64;

/// Places what can be placed; returns the others.
pub(crate) fn place<'m, 's>(
    batch: &mut Batch<'s>,
    group: &'m Group<'s>,
    out: &mut Out,
) -> &'m [&'s Container] {
    let mut left: &[&Container] = &group.members;
    let plain = group.needs.spec.placement.spread.is_none()
        && group.needs.only.is_none()
        && group.needs.volumes.is_empty();
    if plain && left.len() <= batch.by_load.len() {
        left = from_load_order(batch, group, left, out);
    }
    // A first placement may bind volumes and thereby change the filters: look again after it.
    while !left.is_empty() && !out.plan.truncated {
        let Ok(fixed) = Fixed::new(batch, &group.needs) else {
            return left;
        };
        let binds = !group.needs.volumes.is_empty() && !fixed.pinned();
        let share = if binds { &left[..1] } else { left };
        let placed = from_heap(batch, group, &fixed, share, out);
        left = &left[placed..];
        if placed < share.len() {
            return left;
        }
    }
    left
}

/// Takes the least loaded nodes that have nothing of the service yet. Gives the same nodes as the
/// heap would; whatever needs more thought is left to it.
fn from_load_order<'m, 's>(
    batch: &mut Batch<'s>,
    group: &Group<'s>,
    members: &'m [&'s Container],
    out: &mut Out,
) -> &'m [&'s Container] {
    let Ok(fixed) = Fixed::new(batch, &group.needs) else {
        return members;
    };
    let mut counts = batch.of_service(group.service.id);
    for (done, container) in members.iter().enumerate() {
        if out.plan.truncated {
            return &members[done..];
        }
        let fits = |at: &At| {
            let count = counts.get(at).copied().unwrap_or_default();
            count.staying == 0
                && fixed.obstacle(batch, *at).is_none()
                && changing(batch, &group.needs, *at, count.live).is_none()
        };
        let looked_at = batch.by_load.iter().take(LOOK_AT_MAX).map(|(_, _, at)| *at);
        let Some(at) = looked_at.into_iter().find(fits) else {
            return &members[done..];
        };
        batch.place(at, &group.needs, container);
        let count = counts.entry(at).or_default();
        (count.live, count.staying) = (count.live + 1, count.staying + 1);
        out.assign(container, batch.nodes[at].node.id);
    }
    &[]
}

/// Score of a node within its spread value; less is better.
type Score = (u32, u32, u64, At);

/// The nodes of one value of the spread label.
struct Value {
    /// Containers of the service on nodes with this value.
    count: u32,
    heap: BinaryHeap<Reverse<Score>>,
}

/// Places containers on the best nodes, in order; returns how many.
fn from_heap<'s>(
    batch: &mut Batch<'s>,
    group: &Group<'s>,
    fixed: &Fixed,
    members: &[&Container],
    out: &mut Out,
) -> usize {
    let mut counts = batch.of_service(group.service.id);
    let mut values = candidates(batch, group, fixed, &counts);
    for (done, container) in members.iter().enumerate() {
        if out.plan.truncated {
            return done;
        }
        let Some(at) = best(batch, group, &mut values, &counts) else {
            return done;
        };
        batch.place(at, &group.needs, container);
        let count = counts.entry(at).or_default();
        (count.live, count.staying) = (count.live + 1, count.staying + 1);
        let staying = count.staying;
        let value = &mut values[spread_value(batch, group, at).as_str()];
        value.count += 1;
        let view = &batch.nodes[at];
        value
            .heap
            .push(Reverse((staying, view.usage.containers, view.tie, at)));
        out.assign(container, view.node.id);
    }
    members.len()
}

/// Values of the spread label with their nodes; one value when there is none to spread over.
struct Values(BTreeMap<String, Value>);

impl std::ops::Index<&str> for Values {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        &self.0[key]
    }
}

impl std::ops::IndexMut<&str> for Values {
    fn index_mut(&mut self, key: &str) -> &mut Value {
        self.0
            .get_mut(key)
            .expect("a candidate's value has an entry since candidates() made it")
    }
}

fn spread_value(batch: &Batch<'_>, group: &Group<'_>, at: At) -> String {
    let label = group.needs.spec.placement.spread.as_ref();
    let value = label.and_then(|key| batch.nodes[at].node.labels.get(key));
    value.cloned().unwrap_or_default()
}

/// The nodes that come into question by the nature of the service and its volumes.
fn eligible(batch: &Batch<'_>, group: &Group<'_>, fixed: &Fixed) -> Vec<At> {
    match group.needs.only.or_else(|| fixed.home()) {
        Some(node) => batch.find(node).into_iter().collect(),
        None => (0..batch.nodes.len()).collect(),
    }
}

/// Nodes that pass the fixed filters, in heaps by spread value.
fn candidates(
    batch: &Batch<'_>,
    group: &Group<'_>,
    fixed: &Fixed,
    counts: &BTreeMap<At, Count>,
) -> Values {
    let mut heaps: BTreeMap<String, Vec<Reverse<Score>>> = BTreeMap::new();
    for at in eligible(batch, group, fixed) {
        if fixed.obstacle(batch, at).is_some() {
            continue;
        }
        let staying = counts.get(&at).map_or(0, |c| c.staying);
        let view = &batch.nodes[at];
        let score = Reverse((staying, view.usage.containers, view.tie, at));
        heaps
            .entry(spread_value(batch, group, at))
            .or_default()
            .push(score);
    }
    let mut values = Values(BTreeMap::new());
    for (value, scores) in heaps {
        values.0.insert(
            value,
            Value {
                count: 0,
                heap: scores.into(),
            },
        );
    }
    for (at, count) in counts {
        if let Some(value) = values.0.get_mut(&spread_value(batch, group, *at)) {
            value.count += count.staying;
        }
    }
    values
}

/// The best node that still fits; nodes that do not are dropped.
fn best(
    batch: &Batch<'_>,
    group: &Group<'_>,
    values: &mut Values,
    counts: &BTreeMap<At, Count>,
) -> Option<At> {
    loop {
        let (_, value) = values
            .0
            .values_mut()
            .filter_map(|value| {
                let top = value.heap.peek()?.0;
                Some(((value.count, top), value))
            })
            .min_by_key(|(score, _)| *score)?;
        let Reverse((.., at)) = value.heap.pop()?;
        let live = counts.get(&at).map_or(0, |c| c.live);
        if changing(batch, &group.needs, at, live).is_none() {
            return Some(at);
        }
    }
}

/// Why what is left of a group cannot be placed, given all that this plan has placed.
pub(crate) fn reason(batch: &Batch<'_>, group: &Group<'_>) -> String {
    if let Some(node) = group.needs.only
        && batch.find(node).is_none()
    {
        return format!("no node fits: its node {node} was removed; it will be shut down");
    }
    let fixed = match Fixed::new(batch, &group.needs) {
        Ok(fixed) => fixed,
        Err(reason) => return reason,
    };
    let counts = batch.of_service(group.service.id);
    let mut obstacles = Obstacles::default();
    for at in eligible(batch, group, &fixed) {
        let live = counts.get(&at).map_or(0, |c| c.live);
        let obstacle = fixed.obstacle(batch, at);
        if let Some(obstacle) = obstacle.or_else(|| changing(batch, &group.needs, at, live)) {
            obstacles.add(obstacle);
        }
    }
    let text = obstacles.explain(&group.needs);
    match fixed.home_volume().filter(|_| group.needs.only.is_none()) {
        Some(name) => format!("{text} (only the node that holds volume {name:?} can take it)"),
        None => text,
    }
}
