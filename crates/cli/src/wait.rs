//! Waiting until a service is as wanted, and saying meanwhile why it is not.
//!
//! [`assess`] decides from what the cluster shows; [`service`] only fetches, prints and waits. It is
//! woken by changes of the service's containers; a timer is the safety net.

use crate::api::{Api, ContainerView, LogQuery, ServiceView};
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::output::clean;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;
use warren_types::{Mode, RestartCondition};

/// Longest time between two looks at a service.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a service without a health check must stay up before it counts as running.
const SETTLE: Duration = Duration::from_millis(500);
/// Starts after which a container that still does not run is given up: the first and three more.
const RESTARTS_GIVEN_UP: u32 = 3;
/// Log lines shown of a failed container.
const LOG_LINES: u32 = 20;
/// Reasons shown in one progress line.
const REASONS_SHOWN: usize = 3;
/// How long the last log lines of a failed container may take.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// What the state of a service means to somebody who waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is as wanted.
    Done,
    /// Not yet; the progress line.
    Waiting(String),
    /// It will not come to it by itself.
    Failed {
        /// Why, in words.
        reason: String,
        /// Id of the container to show the log of.
        container: Option<String>,
    },
}

/// What a service's wait knows from before the change.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// Ids of containers that had ended already: their failures are old.
    pub ended: BTreeSet<String>,
    /// Number of the revision that shall be in force; 0 when any will do.
    pub wanted: u32,
}

impl Before {
    /// What is known of a service now.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub async fn of(api: &dyn Api, service: &str) -> Result<Self> {
        let containers = api.containers(Some(service), None, true).await?;
        Ok(Self {
            ended: containers
                .into_iter()
                .filter(ContainerView::ended)
                .map(|c| c.id)
                .collect(),
            wanted: 0,
        })
    }

    /// The same, for a service that shall have the revision it has now.
    #[must_use]
    pub fn wanting(mut self, service: &ServiceView) -> Self {
        self.wanted = service.revision;
        self
    }
}

/// Judges a service and its containers (ended ones included).
#[must_use]
pub fn assess(service: &ServiceView, containers: &[ContainerView], before: &Before) -> Verdict {
    if service.deleting {
        return Verdict::Failed {
            reason: format!("service {} is being deleted", service.name()),
            container: None,
        };
    }
    let current: Vec<&ContainerView> = containers
        .iter()
        .filter(|c| c.revision == service.revision)
        .collect();
    if let Some(failed) = rollout_failed(service, containers, before) {
        return failed;
    }
    let live: Vec<&ContainerView> = current
        .iter()
        .copied()
        .filter(|c| c.desired == "running" && !c.ended())
        .collect();
    if let Some(failed) = container_failed(service, &current, &live, before) {
        return failed;
    }
    let want = match service.spec.mode {
        Mode::Replicated { replicas } => usize::try_from(replicas).unwrap_or(usize::MAX),
        Mode::Global => usize::try_from(service.desired)
            .unwrap_or(usize::MAX)
            .max(live.len()),
    };
    let once = service.spec.container.restart.condition != RestartCondition::Any;
    let completed = current
        .iter()
        .filter(|c| once && c.state == "complete")
        .count();
    let running = live.iter().filter(|c| is_up(service, c)).count() + completed;
    let outdated = containers
        .iter()
        .filter(|c| !c.ended() && (c.revision != service.revision || c.desired != "running"))
        .count();
    let updating = service
        .rollout
        .as_ref()
        .is_some_and(|r| matches!(r.state.as_str(), "updating" | "rolling-back"));
    // A global service with no eligible node wants nothing, and that is never what was meant.
    let nothing = service.spec.mode == Mode::Global && want == 0;
    if running >= want && !nothing && outdated == 0 && live.len() <= want && !updating {
        return Verdict::Done;
    }
    Verdict::Waiting(progress(service, &live, (running, want, outdated)))
}

fn is_up(service: &ServiceView, container: &ContainerView) -> bool {
    let health = &service.spec.container.health;
    let checked = health.readiness.is_some() || health.startup.is_some();
    container.state == "running"
        && match container.health.as_str() {
            "healthy" => true,
            "unhealthy" | "starting" => false,
            _ => !checked,
        }
}

/// A rollout that stopped or went to another revision than the wanted one.
fn rollout_failed(
    service: &ServiceView,
    containers: &[ContainerView],
    before: &Before,
) -> Option<Verdict> {
    let moved = before.wanted != 0 && service.revision != before.wanted;
    let state = service.rollout.as_ref().map_or("", |r| r.state.as_str());
    let wanted = if before.wanted == 0 {
        service.revision
    } else {
        before.wanted
    };
    let what = match (moved, state) {
        (_, "paused") => "is paused".to_owned(),
        (true, "rolling-back") => {
            let text = format!(
                "{}: rolling back to revision {}",
                service.name(),
                service.revision
            );
            return Some(Verdict::Waiting(text));
        }
        (true, "rolled-back") => format!("was rolled back to revision {}", service.revision),
        (true, _) => {
            return Some(Verdict::Failed {
                reason: format!(
                    "service {} was changed by somebody else meanwhile: it has revision {}, not {wanted}",
                    service.name(),
                    service.revision
                ),
                container: None,
            });
        }
        (false, _) => return None,
    };
    let culprit = containers
        .iter()
        .filter(|c| c.revision == wanted && !before.ended.contains(&c.id) && has_failed(c))
        .max_by_key(|c| c.updated_at);
    let message = service
        .rollout
        .as_ref()
        .map(|r| clean(&r.message))
        .unwrap_or_default();
    let mut why_text = message;
    if let Some(c) = culprit {
        let detail = format!("{}: {}", c.name, why(c));
        if !why_text.contains(&detail) {
            why_text = if why_text.is_empty() {
                detail
            } else {
                format!("{why_text}; {detail}")
            };
        }
    }
    if why_text.is_empty() {
        "no reason was given".clone_into(&mut why_text);
    }
    Some(Verdict::Failed {
        reason: format!(
            "the rollout of {} to revision {wanted} {what}: {why_text}",
            service.name()
        ),
        container: culprit.map(|c| c.id.clone()),
    })
}

fn has_failed(container: &ContainerView) -> bool {
    matches!(container.state.as_str(), "failed" | "rejected")
        || container.exit.is_some_and(|e| e.code != 0 || e.oom)
}

fn container_failed(
    service: &ServiceView,
    current: &[&ContainerView],
    live: &[&ContainerView],
    before: &Before,
) -> Option<Verdict> {
    // A rollout under way deals with failures by its own policy.
    let updating = service
        .rollout
        .as_ref()
        .is_some_and(|r| r.state == "updating");
    if updating {
        return None;
    }
    let replaced = |c: &ContainerView| {
        live.iter()
            .any(|l| (l.slot, &l.node_id) == (c.slot, &c.node_id) && is_up(service, l))
    };
    let ended = current
        .iter()
        .filter(|c| matches!(c.state.as_str(), "failed" | "rejected"))
        .find(|c| !before.ended.contains(&c.id) && !replaced(c));
    let looping = live
        .iter()
        .find(|c| c.restarts >= RESTARTS_GIVEN_UP && c.state != "running" && has_failed(c));
    let culprit = ended.or(looping)?;
    let verb = if culprit.ended() {
        "does not run"
    } else {
        "keeps failing"
    };
    Some(Verdict::Failed {
        reason: format!("{} {verb}: {}", culprit.name, why(culprit)),
        container: Some(culprit.id.clone()),
    })
}

/// Why a container is not up, in words.
#[must_use]
pub fn why(container: &ContainerView) -> String {
    let mut text = clean(&container.reason);
    if let Some(exit) = container.exit
        && !text.contains("exit")
    {
        let detail = exit_text(exit);
        text = if text.is_empty() {
            detail
        } else {
            format!("{text} ({detail})")
        };
    }
    if text.is_empty() {
        container.state.clone()
    } else {
        text
    }
}

/// `exit 1`, `exit 137 (signal 9)`, `out of memory`.
#[must_use]
pub fn exit_text(exit: warren_types::ExitInfo) -> String {
    match (exit.oom, exit.signal) {
        (true, _) => format!("exit {}, out of memory", exit.code),
        (false, Some(signal)) => format!("exit {}, signal {signal}", exit.code),
        (false, None) => format!("exit {}", exit.code),
    }
}

fn progress(
    service: &ServiceView,
    live: &[&ContainerView],
    (running, want, outdated): (usize, usize, usize),
) -> String {
    let mut text = format!("{}: {running}/{want} running", service.name());
    if outdated > 0 {
        text.push_str(&format!(", {outdated} old"));
    }
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for container in live.iter().filter(|c| !is_up(service, c)) {
        let mut line = match container.health.as_str() {
            "unhealthy" | "starting" if container.state == "running" => {
                format!("running, health check {}", container.health)
            }
            _ if container.state == "running" => "running, health not known yet".to_owned(),
            _ => container.state.clone(),
        };
        let reason = why(container);
        if reason != container.state && !reason.is_empty() {
            line = format!("{line}: {reason}");
        }
        match reasons.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => reasons.push((line, 1)),
        }
    }
    for (line, count) in reasons.iter().take(REASONS_SHOWN) {
        text.push_str(&format!("; {count} {line}"));
    }
    if reasons.len() > REASONS_SHOWN {
        text.push_str("; …");
    }
    if reasons.is_empty() && !service.reason.is_empty() {
        text.push_str(&format!("; {}", clean(&service.reason)));
    }
    text
}

/// Waits until a service is as wanted.
///
/// `settle` asks that it stays so for a moment, which a fresh container without a health check must.
///
/// # Errors
/// With exit status 7, the reason and the last log lines when it fails or `timeout` is over; others
/// when the cluster does not answer.
pub async fn service(
    api: &dyn Api,
    io: &mut Io,
    name: &str,
    before: &Before,
    timeout: warren_types::Duration,
    settle: bool,
) -> Result<ServiceView> {
    let deadline = Instant::now() + timeout.to_std();
    let mut watch = Watch::default();
    let mut shown = String::new();
    let mut done_since: Option<Instant> = None;
    loop {
        let view = api.service(name).await?;
        let containers = api.containers(Some(&view.id), None, true).await?;
        match assess(&view, &containers, before) {
            Verdict::Done => {
                let since = *done_since.get_or_insert_with(Instant::now);
                if !settle || since.elapsed() >= SETTLE {
                    io.clear()?;
                    return Ok(view);
                }
            }
            Verdict::Waiting(line) => {
                done_since = None;
                if line != shown {
                    io.progress(&line)?;
                    shown = line;
                }
            }
            Verdict::Failed { reason, container } => {
                io.clear()?;
                return Err(failure(api, io, &view, &reason, container).await);
            }
        }
        if Instant::now() >= deadline {
            io.clear()?;
            let state = if shown.is_empty() {
                format!("{name}: no state yet")
            } else {
                shown
            };
            let worst = containers
                .iter()
                .find(|c| has_failed(c))
                .map(|c| c.id.clone());
            let reason = format!("not done within {timeout}: {state}");
            return Err(failure(api, io, &view, &reason, worst).await);
        }
        let look = (Instant::now() + LOOK_EVERY).min(deadline);
        watch.changed(api, &view.id, look).await;
    }
}

async fn failure(
    api: &dyn Api,
    io: &mut Io,
    view: &ServiceView,
    reason: &str,
    container: Option<String>,
) -> CliError {
    if let Some(id) = container {
        let lines = tokio::time::timeout(LOG_TIMEOUT, last_lines(api, &id)).await;
        if let Ok(Ok(lines)) = lines
            && !lines.is_empty()
        {
            let head = format!("Last log lines of {id}:");
            let text = lines
                .iter()
                .map(|l| format!("  {l}"))
                .collect::<Vec<_>>()
                .join("\n");
            // The error that follows says the same in short, so a lost line here is no loss.
            let _ = io.say(&format!("{head}\n{text}"));
        }
    }
    CliError::new(Exit::RolloutFailed, reason).remedy(format!(
        "warren service ps --all {0}; warren service logs {0}",
        view.name()
    ))
}

async fn last_lines(api: &dyn Api, container: &str) -> Result<Vec<String>> {
    let query = LogQuery {
        container: Some(container.to_owned()),
        tail: Some(LOG_LINES),
        ..LogQuery::default()
    };
    let mut stream = api.logs(query).await?;
    let mut lines = Vec::new();
    while let Some(line) = stream.next().await {
        lines.push(clean(&String::from_utf8_lossy(&line?.data)));
    }
    Ok(lines)
}

/// Waits until a service is gone.
///
/// # Errors
/// With exit status 1 when `timeout` is over; others when the cluster does not answer.
pub async fn gone(
    api: &dyn Api,
    io: &mut Io,
    name: &str,
    id: &str,
    timeout: warren_types::Duration,
) -> Result<()> {
    let deadline = Instant::now() + timeout.to_std();
    let mut watch = Watch::default();
    let mut shown = String::new();
    loop {
        match api.service(id).await {
            Ok(_) => {}
            Err(error) if error.exit == Exit::NotFound => return io.clear(),
            Err(error) => return Err(error),
        }
        let left = match api.containers(Some(id), None, false).await {
            Ok(containers) => containers.iter().filter(|c| !c.ended()).count(),
            Err(error) if error.exit == Exit::NotFound => 0,
            Err(error) => return Err(error),
        };
        let line = format!("{name}: {left} containers still to end");
        if line != shown {
            io.progress(&line)?;
            shown = line;
        }
        if Instant::now() >= deadline {
            io.clear()?;
            return Err(
                CliError::general(format!("not gone within {timeout}: {shown}"))
                    .remedy(format!("warren service ps {name}")),
            );
        }
        let look = (Instant::now() + LOOK_EVERY).min(deadline);
        watch.changed(api, id, look).await;
    }
}

/// Changes of a service's containers; opened when first asked, and again after it broke off.
#[derive(Default)]
struct Watch {
    stream: Option<BoxStream<'static, Result<()>>>,
}

impl Watch {
    /// Returns at the next change, or at `until` at the latest.
    async fn changed(&mut self, api: &dyn Api, service: &str, until: Instant) {
        if self.stream.is_none() {
            self.stream = api.watch(service).await.ok();
            // What the stream begins with is the present state, which was just fetched; it wakes once.
        }
        let Some(stream) = self.stream.as_mut() else {
            tokio::time::sleep_until(until).await;
            return;
        };
        match tokio::time::timeout_at(until, stream.next()).await {
            Ok(Some(Ok(()))) => {
                // A burst of changes is one reason to look, not many.
                while let Some(Some(Ok(()))) = futures::FutureExt::now_or_never(stream.next()) {}
            }
            Ok(Some(Err(_)) | None) => {
                self.stream = None;
                tokio::time::sleep_until(until).await;
            }
            Err(_) => {}
        }
    }
}
