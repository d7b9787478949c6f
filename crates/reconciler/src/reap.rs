//! Records of ended containers: kept for a while, then removed.

use crate::view::{Ctx, View};
use warren_state::Op;
use warren_types::limits::HISTORY_PER_SLOT_DEFAULT;
use warren_types::{Duration, Slot, Timestamp};

/// How long the records of a place that is no longer used are kept.
pub const RETIRED_KEPT: Duration = Duration::from_secs(300);

/// Removes the records that nobody needs any more.
pub(crate) fn reap(ctx: &mut Ctx<'_, '_>) {
    let settings = ctx.state.settings();
    let kept = settings.map_or(HISTORY_PER_SLOT_DEFAULT, |s| s.history_per_slot);
    // The newest one may hold its place (without it a finished job would run again), and the wait
    // before a replacement is read from the last two.
    let kept = usize::try_from(kept).unwrap_or(usize::MAX).max(2);
    let mut doomed: Vec<View> = Vec::new();
    let mut next: Option<Timestamp> = None;
    for (slot, place) in &ctx.places {
        let node_gone = matches!(slot, Slot::Node(id) if ctx.state.node(*id).is_none());
        let occupied = place.occupied();
        let ended = place.views.iter().rev().filter(|v| !v.live());
        for (at, view) in ended.enumerate() {
            let until = view.ended_at().plus(RETIRED_KEPT);
            if at >= kept || node_gone || (!occupied && until <= ctx.now) {
                doomed.push(view.clone());
            } else if !occupied {
                next = Some(next.map_or(until, |known| known.min(until)));
            }
        }
    }
    for view in doomed {
        delete(ctx, &view);
    }
    if let Some(at) = next {
        ctx.plan.wake(at);
    }
}

/// Removes one record, unless this very plan has ended it: its end is worth a revision of its own,
/// so that events and the node learn of it.
pub(crate) fn delete(ctx: &mut Ctx<'_, '_>, view: &View) {
    if !view.container.status.state.is_final() {
        return;
    }
    ctx.plan.ops.push(Op::ContainerDelete {
        id: view.container.id,
        expect: Some(view.container.version),
    });
}
