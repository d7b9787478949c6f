//! Moving containers away from nodes that are being drained, replacement first.

use crate::replace::reached;
use crate::rollout;
use crate::view::{Ctx, leaves};
use warren_types::{Duration, Slot, Timestamp};

/// After this time a drained node's containers are stopped even if their replacements are not ready.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(600);

/// Places whose containers must go elsewhere and that still count as serving until then.
pub(crate) struct Leaving {
    pub(crate) slots: Vec<Slot>,
}

/// Finds what must move. Services that cannot run twice side by side are stopped at once; so is
/// what is on a node whose deadline has passed.
pub(crate) fn find(ctx: &mut Ctx<'_, '_>) -> Leaving {
    let slots: Vec<Slot> = ctx
        .places
        .iter()
        .filter(|(_, place)| place.leaving())
        .map(|(slot, _)| *slot)
        .collect();
    let beside = rollout::start_first(ctx.spec());
    let mut still = Vec::new();
    for slot in slots {
        let deadline = deadline(ctx, slot);
        if !beside || reached(ctx.now, deadline, DRAIN_DEADLINE) {
            ctx.free(slot);
        } else {
            ctx.plan.wake(deadline);
            still.push(slot);
        }
    }
    Leaving { slots: still }
}

fn deadline(ctx: &Ctx<'_, '_>, slot: Slot) -> Timestamp {
    let place = &ctx.places[&slot];
    place
        .staying()
        .filter_map(|v| v.container.node.and_then(|id| ctx.state.node(id)))
        .filter(|node| leaves(node))
        .map(|node| node.updated_at.plus(DRAIN_DEADLINE))
        .min()
        .unwrap_or(ctx.now)
}

impl Leaving {
    /// Stops as many as are made up for by ready containers elsewhere.
    pub(crate) fn let_go(&self, ctx: &mut Ctx<'_, '_>, wanted: usize) {
        let ready_elsewhere = ctx
            .places
            .iter()
            .filter(|(slot, place)| !self.slots.contains(slot) && place.ready())
            .count();
        let needed = wanted.saturating_sub(ready_elsewhere);
        let mut slots = self.slots.clone();
        slots.sort_by_key(|slot| (ctx.places[slot].worth(), std::cmp::Reverse(*slot)));
        let surplus = slots.len().saturating_sub(needed);
        for slot in slots.into_iter().take(surplus) {
            ctx.free(slot);
        }
    }
}
