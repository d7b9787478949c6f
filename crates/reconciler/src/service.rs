//! One service: how many containers, where they belong, what replaces what.

use crate::drain::{self, Leaving};
use crate::reap;
use crate::replace::{REPLACE_MAX, Verdict, reached, verdict};
use crate::rollout;
use crate::view::{Ctx, View, leaves};
use crate::{IdSource, Plan, Wait};
use std::collections::BTreeSet;
use warren_state::{ClusterState, Op};
use warren_types::limits::REPLICAS_MAX;
use warren_types::{
    Availability, Constraint, Liveness, Mode, Node, NodeId, RolloutState, Service, Slot, Timestamp,
};

/// Plans for one service.
pub(crate) fn plan(
    state: &ClusterState,
    service: &Service,
    now: Timestamp,
    ids: &mut dyn IdSource,
    plan: &mut Plan,
) {
    let mut ctx = Ctx::new(state, service, now, ids, plan);
    if service.deleting {
        return delete(&mut ctx);
    }
    if rollout::act_on_failures(&mut ctx) {
        // The revision in force changes with this plan: the rest is for the next one.
        return;
    }
    let leaving = match service.spec.mode {
        Mode::Replicated { replicas } => replicated(&mut ctx, replicas),
        Mode::Global => global(&mut ctx),
    };
    replace(&mut ctx);
    rollout::advance(&mut ctx, &leaving.slots);
    reap::reap(&mut ctx);
}

/// All containers end, then their records go, then the service goes.
fn delete(ctx: &mut Ctx<'_, '_>) {
    let slots: Vec<Slot> = ctx.places.keys().copied().collect();
    let mut left = 0_usize;
    for slot in slots {
        ctx.retire(slot, View::live);
        for view in ctx.places[&slot].views.clone() {
            if view.container.status.state.is_final() {
                reap::delete(ctx, &view);
            } else {
                left += 1;
            }
        }
    }
    if left == 0 {
        ctx.plan.ops.push(Op::ServiceRemove {
            id: ctx.service.id,
            expect: Some(ctx.service.version),
        });
    }
}

/// Brings the number of places to the wanted one.
fn replicated(ctx: &mut Ctx<'_, '_>, replicas: u32) -> Leaving {
    let leaving = drain::find(ctx);
    let wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut settled: Vec<Slot> = ctx
        .places
        .iter()
        .filter(|(slot, place)| place.occupied() && !leaving.slots.contains(slot))
        .map(|(slot, _)| *slot)
        .collect();
    // What an update stops first comes back in its place; it is not missing.
    let coming_back = rollout::coming_back(ctx).min(wanted.saturating_sub(settled.len()));
    let have = settled.len() + coming_back;
    if have > wanted {
        // Whoever does not serve goes first, then the highest number.
        settled.sort_by_key(|slot| (ctx.places[slot].worth(), std::cmp::Reverse(*slot)));
        for slot in settled.into_iter().take(have - wanted) {
            ctx.free(slot);
        }
    }
    let revision = ctx.service.revision;
    for slot in free_slots(ctx, wanted.saturating_sub(have)) {
        ctx.create(slot, revision);
    }
    leaving.let_go(ctx, wanted);
    leaving
}

/// The lowest numbers at which nothing lives.
fn free_slots(ctx: &Ctx<'_, '_>, count: usize) -> Vec<Slot> {
    (1..=REPLICAS_MAX)
        .map(Slot::Replica)
        .filter(|slot| {
            ctx.places
                .get(slot)
                .is_none_or(|p| !p.has_live() && !p.occupied())
        })
        .take(count)
        .collect()
}

/// One place on every node that is meant.
fn global(ctx: &mut Ctx<'_, '_>) -> Leaving {
    let constraints: Vec<Constraint> = ctx
        .spec()
        .placement
        .constraints
        .iter()
        .filter_map(|text| Constraint::parse(text).ok())
        .collect();
    let meant = |node: &Node| !leaves(node) && constraints.iter().all(|c| c.matches(node));
    let stay: BTreeSet<NodeId> = ctx
        .state
        .nodes()
        .filter(|n| meant(n))
        .map(|n| n.id)
        .collect();
    let gone: Vec<Slot> = ctx
        .places
        .keys()
        .filter(|slot| !matches!(slot, Slot::Node(node) if stay.contains(node)))
        .copied()
        .collect();
    for slot in gone {
        ctx.free(slot);
    }
    let takes_new = |id: &NodeId| {
        ctx.state.node(*id).is_some_and(|n| {
            n.availability == Availability::Active && n.liveness == Liveness::Ready
        })
    };
    let missing: Vec<Slot> = stay
        .iter()
        .filter(|id| takes_new(id))
        .map(|id| Slot::Node(*id))
        .filter(|slot| {
            ctx.places
                .get(slot)
                .is_none_or(|p| !p.has_live() && !p.occupied())
        })
        .collect();
    let revision = ctx.service.revision;
    for slot in missing {
        ctx.create(slot, revision);
    }
    Leaving { slots: Vec::new() }
}

/// Replaces containers that their node gave up.
fn replace(ctx: &mut Ctx<'_, '_>) {
    let target = ctx.service.revision;
    let paused = rollout::state(ctx) == Some(RolloutState::Paused);
    let slots: Vec<Slot> = ctx.places.keys().copied().collect();
    for slot in slots {
        let place = &ctx.places[&slot];
        let Some(ended) = place.newest().filter(|v| v.wanted() && !v.live()) else {
            continue;
        };
        // While an update is under way the old revision is not started again: the rollout makes the
        // new one. A paused one keeps what it has.
        let old = ended.revision() != target;
        if place.has_live() && (paused || old || place.views.iter().any(|v| v.retiring())) {
            continue;
        }
        if old && !paused {
            continue;
        }
        if !node_takes(ctx, slot) {
            continue;
        }
        let revision = ended.revision();
        let spec = ctx.service.revision_spec(revision).map(AsRef::as_ref);
        let Verdict::ReplaceAt(at) = verdict(place, ended, spec) else {
            continue;
        };
        if reached(ctx.now, at, REPLACE_MAX) {
            let revision = if spec.is_some() { revision } else { target };
            ctx.create(slot, revision);
            continue;
        }
        let reason = format!(
            "{}; a new container follows at {at}, later each time it fails soon again",
            ended.container.status.reason
        );
        let service = ctx.service.id;
        ctx.plan.waits.push(Wait {
            service,
            slot,
            until: at,
            reason,
        });
        ctx.plan.wake(at);
    }
}

/// A place of a global service waits until its node answers; a number can go anywhere.
pub(crate) fn node_takes(ctx: &Ctx<'_, '_>, slot: Slot) -> bool {
    match slot {
        Slot::Replica(_) => true,
        Slot::Node(id) => ctx.state.node(id).is_some_and(|n| {
            n.liveness == Liveness::Ready && n.availability == Availability::Active
        }),
    }
}
