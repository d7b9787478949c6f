//! Rolling a revision out, from state kept in the service.
//!
//! A container of the new revision is *good* when it is ready and has been running for `monitor`, or
//! when it has done its job. Start-first: the old one is retired when the new one is good. Stop-first:
//! the new one is made when the old one has ended; services with host ports, volumes or a maximum per
//! node cannot run twice side by side and are always stop-first.

use crate::replace::{Verdict, reached, verdict};
use crate::service::node_takes;
use crate::view::{Ctx, Place, View};
use std::fmt::Write as _;
use warren_state::Op;
use warren_types::{
    ActualState, DeployStrategy, Duration, FailureAction, HealthVerdict, Mount, PublishMode,
    Rollout, RolloutState, ServiceSpec, Slot, Timestamp, UpdateOrder,
};

/// A container of the new revision that is not ready after this time has failed.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(600);

/// May the new container run beside the old one, and shall it?
pub(crate) fn start_first(spec: &ServiceSpec) -> bool {
    let wished = spec.update.order == UpdateOrder::StartFirst
        || spec.update.strategy != DeployStrategy::Rolling;
    wished && alone(spec).is_none()
}

/// Why two containers of the service cannot run side by side.
fn alone(spec: &ServiceSpec) -> Option<&'static str> {
    let host_port =
        |p: &warren_types::PortMapping| p.host_port != 0 && p.publish_mode == PublishMode::Host;
    if spec.ports.iter().any(host_port) {
        Some("it publishes host ports")
    } else if spec
        .container
        .mounts
        .iter()
        .any(|m| matches!(m, Mount::Volume { .. }))
    {
        Some("it has a volume")
    } else if spec.placement.max_per_node > 0 {
        Some("it has a maximum per node")
    } else {
        None
    }
}

/// The rollout's state while it is under way or paused.
pub(crate) fn state(ctx: &Ctx<'_, '_>) -> Option<RolloutState> {
    let rollout = ctx.service.rollout.as_ref()?;
    rollout.finished_at.is_none().then_some(rollout.state)
}

/// Places whose old container an update has stopped first and whose new one is still to come.
pub(crate) fn coming_back(ctx: &Ctx<'_, '_>) -> usize {
    ctx.places
        .values()
        .filter(|place| comes_back(ctx, place))
        .count()
}

fn comes_back(ctx: &Ctx<'_, '_>, place: &Place) -> bool {
    !place.occupied()
        && place
            .views
            .iter()
            .any(|v| v.retiring() && v.revision() != ctx.service.revision)
}

/// Where a place is in the update.
enum Stage {
    /// Only old containers.
    Old,
    /// Old ones are stopping, the new one comes after them.
    Between,
    /// The new one is there, not good yet.
    Watched,
    /// The new one is good.
    Good,
}

/// `None` for places that do not count: unused ones, and those whose node takes nothing new now (they
/// follow when it does).
fn stage(ctx: &Ctx<'_, '_>, slot: Slot, place: &Place) -> Option<Stage> {
    if !node_takes(ctx, slot) {
        return None;
    }
    if !place.occupied() {
        return comes_back(ctx, place).then_some(Stage::Between);
    }
    let target = ctx.service.revision;
    let new = place
        .views
        .iter()
        .rev()
        .find(|v| v.wanted() && v.revision() == target);
    let Some(new) = new.filter(|v| {
        v.live()
            || place
                .newest()
                .is_some_and(|n| n.container.id == v.container.id)
    }) else {
        return Some(Stage::Old);
    };
    Some(
        if good_at(ctx, place, new)
            .is_some_and(|at| reached(ctx.now, at, ctx.spec().update.monitor))
        {
            Stage::Good
        } else {
            Stage::Watched
        },
    )
}

/// From when on a container of the new revision counts as good, if nothing happens to it.
fn good_at(ctx: &Ctx<'_, '_>, place: &Place, view: &View) -> Option<Timestamp> {
    if view.live() {
        let monitor = ctx.spec().update.monitor;
        return view.ready.then(|| view.container.updated_at.plus(monitor));
    }
    let spec = ctx
        .service
        .revision_spec(view.revision())
        .map(AsRef::as_ref);
    (verdict(place, view, spec) == Verdict::Done).then_some(view.container.updated_at)
}

/// What went wrong with a container of the new revision, in words.
fn failure(ctx: &Ctx<'_, '_>, view: &View) -> Option<String> {
    let status = &view.container.status;
    match view.state {
        ActualState::Failed | ActualState::Rejected => return Some(status.reason.clone()),
        _ if !view.live() || !view.wanted() => return None,
        _ => {}
    }
    let monitor = ctx.spec().update.monitor;
    let good = view.ready && reached(ctx.now, view.container.updated_at.plus(monitor), monitor);
    if good {
        return None;
    }
    // Started again by its node, and not because the machine restarted.
    if status.attempt > 1 && status.exit.is_some() {
        return Some(match status.reason.as_str() {
            "" => format!(
                "it ended and was started again (attempt {})",
                status.attempt
            ),
            reason => reason.to_owned(),
        });
    }
    if status.health == HealthVerdict::Unhealthy {
        return Some(format!("it is unhealthy: {}", status.reason));
    }
    let late = view.container.created_at.plus(PROGRESS_DEADLINE) <= ctx.now;
    (late && !view.ready).then(|| {
        format!(
            "it is not ready after {PROGRESS_DEADLINE}: {}",
            status.reason
        )
    })
}

/// Failures of this rollout: how many places, and the first one's words.
fn failures(ctx: &Ctx<'_, '_>, rollout: &Rollout) -> (u32, String) {
    let mut count = 0;
    let mut first = String::new();
    for (slot, place) in &ctx.places {
        let new = place
            .views
            .iter()
            .filter(|v| v.revision() == rollout.to && v.container.created_at >= rollout.started_at);
        let Some(text) = new.filter_map(|v| failure(ctx, v)).next_back() else {
            continue;
        };
        if count == 0 {
            first = format!("{}: {text}", name(ctx, *slot));
        }
        count += 1;
    }
    (count, first)
}

fn name(ctx: &Ctx<'_, '_>, slot: Slot) -> String {
    let service = ctx.service.name();
    match slot {
        Slot::Replica(number) => format!("{service}-{number}"),
        Slot::Node(id) => match ctx.state.node(id) {
            Some(node) => format!("{service} on {}", node.name),
            None => format!("{service} on {id}"),
        },
    }
}

/// Pauses or rolls back when too many new containers failed. True when the revision in force
/// changes with this plan.
pub(crate) fn act_on_failures(ctx: &mut Ctx<'_, '_>) -> bool {
    let Some(rollout) = ctx
        .service
        .rollout
        .clone()
        .filter(|r| r.finished_at.is_none())
    else {
        return false;
    };
    if !matches!(
        rollout.state,
        RolloutState::Updating | RolloutState::RollingBack
    ) {
        return false;
    }
    let (count, words) = failures(ctx, &rollout);
    let occupied = ctx.places.values().filter(|p| p.occupied()).count();
    let total = (occupied + coming_back(ctx)).max(1);
    let percent = ctx.spec().update.failure_threshold_percent;
    let failed = usize::try_from(count).unwrap_or(usize::MAX);
    let too_many =
        failed * 100 > total * usize::try_from(percent).unwrap_or(100) || failed >= total;
    if count == 0 || !too_many {
        return false;
    }
    let why = format!("{count} of {total} failed; {words}");
    let action = ctx.spec().update.failure_action;
    match (rollout.state, action) {
        (RolloutState::Updating, FailureAction::Continue) => false,
        (RolloutState::Updating, FailureAction::Rollback) if can_go_back(ctx, &rollout) => {
            roll_back(ctx, &rollout, &why);
            true
        }
        _ => {
            pause(ctx, rollout, &why, count);
            true
        }
    }
}

fn can_go_back(ctx: &Ctx<'_, '_>, rollout: &Rollout) -> bool {
    rollout.from != rollout.to && ctx.service.revision_spec(rollout.from).is_some()
}

fn pause(ctx: &mut Ctx<'_, '_>, mut rollout: Rollout, why: &str, count: u32) {
    let what = match rollout.state {
        RolloutState::RollingBack => "rolling back",
        _ => "update",
    };
    let service = ctx.service.name();
    rollout.message = format!(
        "{what} from revision {} to {} paused: {why}; mend it and run `warren service update {service}`, or `warren service rollback {service}`",
        rollout.from, rollout.to
    );
    rollout.state = RolloutState::Paused;
    rollout.failures = rollout.failures.max(count);
    set(ctx, rollout);
}

fn roll_back(ctx: &mut Ctx<'_, '_>, rollout: &Rollout, why: &str) {
    ctx.plan.ops.push(Op::ServiceRollback {
        id: ctx.service.id,
        expect: Some(ctx.service.version),
        to: Some(rollout.from),
    });
    set(
        ctx,
        Rollout {
            from: rollout.to,
            to: rollout.from,
            state: RolloutState::RollingBack,
            message: format!(
                "rolling back from revision {} to {}{BECAUSE}{why}",
                rollout.to, rollout.from
            ),
            started_at: ctx.now,
            finished_at: None,
            batch_at: ctx.now,
            failures: 0,
        },
    );
}

fn set(ctx: &mut Ctx<'_, '_>, rollout: Rollout) {
    ctx.plan.ops.push(Op::ServiceSetRollout {
        id: ctx.service.id,
        expect: Some(ctx.service.version),
        rollout: Some(Box::new(rollout)),
    });
}

/// Places by how far they are.
#[derive(Default)]
struct Progress {
    old: Vec<Slot>,
    moving: usize,
    total: usize,
    good: usize,
    /// When the last good one became so.
    last_good: Option<Timestamp>,
}

/// Begins, continues and ends the replacement of old containers. `leaving` are moved by the drain.
pub(crate) fn advance(ctx: &mut Ctx<'_, '_>, leaving: &[Slot]) {
    retire_replaced(ctx);
    let progress = progress(ctx, leaving);
    let begun = match state(ctx) {
        Some(RolloutState::Paused) => 0,
        _ => begin(ctx, &progress),
    };
    watch(ctx, !progress.old.is_empty());
    report(ctx, &progress, begun);
}

/// Start-first: old ones go when the new one of their place is good.
fn retire_replaced(ctx: &mut Ctx<'_, '_>) {
    let target = ctx.service.revision;
    let replaced: Vec<Slot> = ctx
        .places
        .iter()
        .filter(|(slot, place)| matches!(stage(ctx, **slot, place), Some(Stage::Good)))
        .filter(|(_, place)| place.staying().any(|v| v.revision() != target))
        .map(|(slot, _)| *slot)
        .collect();
    for slot in replaced {
        ctx.retire(slot, |v| v.revision() != target);
    }
}

fn progress(ctx: &Ctx<'_, '_>, leaving: &[Slot]) -> Progress {
    let mut progress = Progress::default();
    let target = ctx.service.revision;
    for (slot, place) in &ctx.places {
        match stage(ctx, *slot, place) {
            Some(Stage::Old) if !leaving.contains(slot) => progress.old.push(*slot),
            Some(Stage::Old) | None => {}
            Some(Stage::Between | Stage::Watched) => {
                progress.total += 1;
                progress.moving += 1;
            }
            Some(Stage::Good) => {
                progress.total += 1;
                progress.good += 1;
                // Its old one still takes room until it has ended.
                if place
                    .views
                    .iter()
                    .any(|v| v.live() && v.revision() != target)
                {
                    progress.moving += 1;
                }
                let new = place.staying().filter(|v| v.revision() == target);
                let at = new.filter_map(|v| good_at(ctx, place, v)).max();
                progress.last_good = progress.last_good.max(at);
            }
        }
    }
    progress.total += progress.old.len();
    // What does not serve anyway is replaced first.
    progress
        .old
        .sort_by_key(|slot| (ctx.places[slot].ready(), *slot));
    progress
}

/// How many places may be in the middle of their replacement.
fn batch_size(spec: &ServiceSpec, places: usize) -> usize {
    let update = &spec.update;
    if update.strategy == DeployStrategy::BlueGreen {
        return places.max(1);
    }
    let other = if start_first(spec) {
        update.max_surge
    } else {
        update.max_unavailable
    };
    usize::try_from(update.parallelism.max(other).max(1)).unwrap_or(usize::MAX)
}

/// Begins with the next places as far as the settings allow; returns how many.
fn begin(ctx: &mut Ctx<'_, '_>, progress: &Progress) -> usize {
    let delay = ctx.spec().update.delay;
    let places = ctx.places.values().filter(|p| p.occupied()).count();
    let mut room = batch_size(ctx.spec(), places).saturating_sub(progress.moving);
    if delay.0 > 0 && !progress.old.is_empty() {
        if progress.moving > 0 {
            room = 0;
        }
        let gate = progress.last_good.map_or(ctx.now, |at| at.plus(delay));
        if !reached(ctx.now, gate, delay) {
            ctx.plan.wake(gate);
            room = 0;
        }
    }
    let (beside, target) = (start_first(ctx.spec()), ctx.service.revision);
    let mut begun = 0;
    for slot in progress.old.iter().copied() {
        if begun >= room {
            break;
        }
        if beside {
            keep_one(ctx, slot);
        } else {
            ctx.free(slot);
        }
        if beside || !ctx.places[&slot].has_live() {
            ctx.create(slot, target);
        }
        begun += 1;
    }
    begun
}

/// Before a new container comes beside the old ones: one of them is enough, and one that was never
/// placed is none.
fn keep_one(ctx: &mut Ctx<'_, '_>, slot: Slot) {
    let kept = ctx.places[&slot]
        .staying()
        .filter(|v| v.state > ActualState::Pending)
        .max_by_key(|v| (v.ready, v.container.id))
        .map(|v| v.container.id);
    ctx.retire(slot, |v| v.live() && Some(v.container.id) != kept);
}

/// Wakes when something becomes good or late by the mere passing of time. `more`: others wait for it.
fn watch(ctx: &mut Ctx<'_, '_>, more: bool) {
    let unfinished = state(ctx).is_some();
    let target = ctx.service.revision;
    let mut times: Vec<Timestamp> = Vec::new();
    for place in ctx.places.values() {
        let mixed = place.staying().any(|v| v.revision() != target);
        for view in place.staying().filter(|v| v.revision() == target) {
            if unfinished || mixed || more {
                times.extend(good_at(ctx, place, view));
            }
            if unfinished && !view.ready {
                times.push(view.container.created_at.plus(PROGRESS_DEADLINE));
            }
        }
    }
    for at in times.into_iter().filter(|at| *at > ctx.now) {
        ctx.plan.wake(at);
    }
}

/// Writes down how far the rollout is, and its end.
fn report(ctx: &mut Ctx<'_, '_>, progress: &Progress, begun: usize) {
    let Some(before) = ctx
        .service
        .rollout
        .clone()
        .filter(|r| r.finished_at.is_none())
    else {
        return;
    };
    if before.state == RolloutState::Paused {
        return;
    }
    let mut after = before.clone();
    after.failures = after.failures.max(failures(ctx, &before).0);
    if begun > 0 {
        after.batch_at = ctx.now;
    }
    let complete = progress.old.is_empty() && progress.moving == 0 && all_good(ctx);
    let (from, to) = (before.from, before.to);
    let back = before.state == RolloutState::RollingBack;
    if complete {
        after.finished_at = Some(ctx.now);
        after.state = if back {
            RolloutState::RolledBack
        } else {
            RolloutState::Completed
        };
        let verb = if back { "rolled back" } else { "updated" };
        after.message = format!(
            "{verb} from revision {from} to {to}: {} containers",
            progress.good
        );
    } else {
        after.message = message(ctx, &before, progress);
    }
    if back && let Some((_, why)) = before.message.split_once(BECAUSE) {
        let _ = write!(after.message, "{BECAUSE}{why}");
    }
    if after != before {
        set(ctx, after);
    }
}

/// Every place that counts has its good container of the new revision.
fn all_good(ctx: &Ctx<'_, '_>) -> bool {
    ctx.places
        .iter()
        .filter(|(_, place)| place.occupied())
        .all(|(slot, place)| matches!(stage(ctx, *slot, place), None | Some(Stage::Good)))
}

/// Stands before the reason of a rollback in its message.
const BECAUSE: &str = "; because ";

fn message(ctx: &Ctx<'_, '_>, rollout: &Rollout, progress: &Progress) -> String {
    let back = rollout.state == RolloutState::RollingBack;
    let verb = if back { "rolling back" } else { "updating" };
    let total = progress.total;
    let mut text = format!(
        "{verb} from revision {} to {}: {} of {total} containers good",
        rollout.from, rollout.to, progress.good
    );
    if let Some(waiting) = waiting(ctx) {
        let _ = write!(text, "; {waiting}");
    }
    let spec = ctx.spec();
    match spec.update.strategy {
        DeployStrategy::BlueGreen => {
            text.push_str("; blue-green is carried out as one batch, container by container")
        }
        DeployStrategy::Canary => text.push_str("; canary is carried out as a rolling update"),
        DeployStrategy::Rolling => {}
    }
    if let (Some(why), UpdateOrder::StartFirst) = (alone(spec), spec.update.order) {
        let _ = write!(text, "; old containers stop first, because {why}");
    }
    text
}

/// The first new container that is held up, with its reason.
fn waiting(ctx: &Ctx<'_, '_>) -> Option<String> {
    let target = ctx.service.revision;
    ctx.places.iter().find_map(|(slot, place)| {
        let held_up = place.staying().find(|v| {
            v.revision() == target && v.state == ActualState::Pending && v.container.version.0 > 0
        })?;
        let reason = &held_up.container.status.reason;
        (!reason.is_empty()).then(|| format!("{} waits: {reason}", name(ctx, *slot)))
    })
}
