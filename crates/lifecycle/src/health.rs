//! Health checks: when to probe, and what the results mean.
//!
//! Until a check has passed for the first time it is probed often, so that a container is ready soon
//! after it can be; a failure still counts at most once per interval, so that being probed often
//! does not make it fail sooner than its user configured.

use serde::{Deserialize, Serialize};
use warren_types::{Duration, HealthCheck, HealthSpec, HealthVerdict, Timestamp};

/// Time between probes of a check that has not passed yet, unless its interval is shorter.
pub const PROBE_FAST_INTERVAL: Duration = Duration(500);
/// How long after the start a check is probed that often; then at its interval.
pub const PROBE_FAST_PERIOD: Duration = Duration(60_000);
/// Longest message kept of a failed probe, in bytes.
const MESSAGE_BYTES_MAX: usize = 200;

/// Which check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbeKind {
    /// Until it succeeds the others do not run; failing restarts.
    Startup,
    /// Gates traffic.
    Readiness,
    /// Failing restarts.
    Liveness,
}

impl ProbeKind {
    /// All kinds, in the order in which they are looked at.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Readiness, Self::Liveness];

    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }

    /// The check of this kind in a spec.
    #[must_use]
    pub const fn check(self, spec: &HealthSpec) -> Option<&HealthCheck> {
        match self {
            Self::Startup => spec.startup.as_ref(),
            Self::Readiness => spec.readiness.as_ref(),
            Self::Liveness => spec.liveness.as_ref(),
        }
    }
}

/// Results of one check within one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckState {
    /// It has succeeded at least once.
    pub passed: bool,
    /// Counted failures in a row.
    pub failures: u32,
    /// When the last counted failure was.
    pub counted_at: Option<Timestamp>,
    /// When the last probe ended.
    pub probed_at: Option<Timestamp>,
    /// When the probe under way was started, if one is.
    pub probing_since: Option<Timestamp>,
    /// What the last failed probe said.
    pub message: String,
    /// A result that is not weighed yet.
    pub result: Option<ProbeResult>,
}

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// It succeeded.
    pub healthy: bool,
    /// What it said when it failed.
    pub message: String,
    /// When it ended.
    pub at: Timestamp,
}

impl CheckState {
    /// Has it failed as often as its user allows?
    #[must_use]
    pub fn failing(&self, check: &HealthCheck) -> bool {
        self.failures >= check.retries.max(1)
    }

    /// When the next probe is due; `None` while one is under way.
    fn due(&self, check: &HealthCheck, started_at: Timestamp) -> Option<Timestamp> {
        if self.probing_since.is_some() {
            return None;
        }
        let Some(last) = self.probed_at else {
            return Some(started_at);
        };
        let early = !self.passed && last.since(started_at) < PROBE_FAST_PERIOD;
        let wait = if early {
            check.interval.min(PROBE_FAST_INTERVAL)
        } else {
            check.interval
        };
        Some(last.plus(wait.max(Duration(1))))
    }

    /// Weighs the result that came in, if one did.
    fn settle(&mut self, check: &HealthCheck, started_at: Timestamp) {
        let Some(ProbeResult {
            healthy,
            message,
            at,
        }) = self.result.take()
        else {
            return;
        };
        if healthy {
            self.passed = true;
            self.failures = 0;
            self.counted_at = None;
            self.message.clear();
            return;
        }
        self.message = message;
        if at.since(started_at) < check.start_period {
            return;
        }
        let since = self.counted_at.unwrap_or(started_at);
        let first_after_success = self.passed && self.failures == 0;
        if first_after_success || at.since(since) >= check.interval {
            self.failures = self.failures.saturating_add(1);
            self.counted_at = Some(at);
        }
    }
}

/// Results of all checks within one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthState {
    /// Startup check.
    pub startup: CheckState,
    /// Readiness check.
    pub readiness: CheckState,
    /// Liveness check.
    pub liveness: CheckState,
}

impl HealthState {
    /// Results of one kind.
    #[must_use]
    pub const fn of(&self, kind: ProbeKind) -> &CheckState {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Readiness => &self.readiness,
            ProbeKind::Liveness => &self.liveness,
        }
    }

    fn of_mut(&mut self, kind: ProbeKind) -> &mut CheckState {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Readiness => &mut self.readiness,
            ProbeKind::Liveness => &mut self.liveness,
        }
    }

    /// Checks that run now: the startup check alone until it has passed.
    fn active<'s>(&self, spec: &'s HealthSpec) -> Vec<(ProbeKind, &'s HealthCheck)> {
        let started = spec.startup.is_none() || self.startup.passed;
        ProbeKind::ALL
            .into_iter()
            .filter(|kind| (*kind == ProbeKind::Startup) != started)
            .filter_map(|kind| kind.check(spec).map(|check| (kind, check)))
            .collect()
    }

    /// The probe that is due now, if any.
    #[must_use]
    pub fn due(
        &self,
        spec: &HealthSpec,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Option<ProbeKind> {
        self.active(spec)
            .into_iter()
            .find(|(kind, check)| {
                self.of(*kind)
                    .due(check, started_at)
                    .is_some_and(|at| at <= now)
            })
            .map(|(kind, _)| kind)
    }

    /// When the next probe is due; `None` without checks or while all are under way.
    #[must_use]
    pub fn next_due(&self, spec: &HealthSpec, started_at: Timestamp) -> Option<Timestamp> {
        self.active(spec)
            .into_iter()
            .filter_map(|(kind, check)| self.of(kind).due(check, started_at))
            .min()
    }

    /// Notes that a probe was started.
    pub fn begin(&mut self, kind: ProbeKind, now: Timestamp) {
        self.of_mut(kind).probing_since = Some(now);
    }

    /// Probes that were under way when the daemon died have no result: they are done again.
    pub fn forget_probes_under_way(&mut self) {
        for kind in ProbeKind::ALL {
            self.of_mut(kind).probing_since = None;
        }
    }

    /// Notes the result of a probe, to be weighed by [`Self::settle`].
    pub fn result(&mut self, kind: ProbeKind, healthy: bool, message: &str, at: Timestamp) {
        let state = self.of_mut(kind);
        state.probing_since = None;
        state.probed_at = Some(at);
        let message = crate::text::cut(message, MESSAGE_BYTES_MAX);
        state.result = Some(ProbeResult {
            healthy,
            message,
            at,
        });
    }

    /// Weighs the results that came in.
    pub fn settle(&mut self, spec: &HealthSpec, started_at: Timestamp) {
        for kind in ProbeKind::ALL {
            if let Some(check) = kind.check(spec) {
                self.of_mut(kind).settle(check, started_at);
            }
        }
    }

    /// What the results mean for those who send traffic.
    #[must_use]
    pub fn verdict(&self, spec: &HealthSpec) -> HealthVerdict {
        if spec.startup.is_none() && spec.readiness.is_none() && spec.liveness.is_none() {
            return HealthVerdict::Unknown;
        }
        let mut verdict = HealthVerdict::Healthy;
        for kind in ProbeKind::ALL {
            let Some(check) = kind.check(spec) else {
                continue;
            };
            let state = self.of(kind);
            if state.failing(check) {
                return HealthVerdict::Unhealthy;
            }
            if !state.passed {
                verdict = HealthVerdict::Starting;
            }
        }
        verdict
    }

    /// The check whose failure means that the container must be restarted.
    #[must_use]
    pub fn demands_restart(&self, spec: &HealthSpec) -> Option<ProbeKind> {
        [ProbeKind::Startup, ProbeKind::Liveness]
            .into_iter()
            .find(|kind| {
                kind.check(spec)
                    .is_some_and(|check| self.of(*kind).failing(check))
            })
    }

    /// Why the container is not healthy, in words; empty when it is or has no checks.
    #[must_use]
    pub fn reason(&self, spec: &HealthSpec) -> String {
        for kind in ProbeKind::ALL {
            let Some(check) = kind.check(spec) else {
                continue;
            };
            let (state, name) = (self.of(kind), kind.name());
            if state.failing(check) {
                return format!(
                    "{name} check failed {} times: {}",
                    state.failures, state.message
                );
            }
            if !state.passed {
                return if state.message.is_empty() {
                    format!("waiting for the {name} check")
                } else {
                    format!("waiting for the {name} check: {}", state.message)
                };
            }
        }
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warren_types::HealthProbe;

    fn check(interval: u64, retries: u32, start_period: u64) -> HealthCheck {
        HealthCheck {
            probe: HealthProbe::Tcp { port: 80 },
            interval: Duration(interval),
            timeout: Duration(1000),
            retries,
            start_period: Duration(start_period),
        }
    }

    /// Runs a check with given results, probing whenever it is due; gives (time, verdict) of each.
    fn run(spec: &HealthSpec, kind: ProbeKind, results: &[bool]) -> Vec<(u64, HealthVerdict)> {
        let start = Timestamp(1_000_000);
        let mut state = HealthState::default();
        let mut out = Vec::new();
        for healthy in results {
            let now = state.next_due(spec, start).unwrap();
            assert_eq!(state.due(spec, start, now), Some(kind));
            state.begin(kind, now);
            assert_eq!(state.due(spec, start, now), None);
            state.result(kind, *healthy, "refused", now);
            state.settle(spec, start);
            out.push((now.0 - start.0, state.verdict(spec)));
        }
        out
    }

    #[test]
    fn ready_within_half_a_second_but_not_failing_before_its_time() {
        use HealthVerdict::{Healthy, Starting, Unhealthy};
        let spec = HealthSpec {
            readiness: Some(check(10_000, 3, 0)),
            ..HealthSpec::default()
        };
        let seen = run(&spec, ProbeKind::Readiness, &[false, false, true]);
        assert_eq!(seen, [(0, Starting), (500, Starting), (1000, Healthy)]);
        let seen = run(&spec, ProbeKind::Readiness, &[false; 70]);
        let first_bad = seen.iter().find(|(_, v)| *v == Unhealthy).unwrap();
        assert_eq!(first_bad.0, 30_000);
        // Once passed, three failures in a row at the interval; one success mends it.
        let seen = run(
            &spec,
            ProbeKind::Readiness,
            &[true, false, false, false, true],
        );
        let verdicts: Vec<_> = seen.iter().map(|s| s.1).collect();
        assert_eq!(verdicts, [Healthy, Healthy, Healthy, Unhealthy, Healthy]);
    }

    #[test]
    fn startup_goes_first_and_its_period_forgives() {
        let spec = HealthSpec {
            startup: Some(check(1000, 1, 5000)),
            liveness: Some(check(1000, 1, 0)),
            ..HealthSpec::default()
        };
        let start = Timestamp(0);
        let mut state = HealthState::default();
        for at in [0, 1000, 4999] {
            state.result(ProbeKind::Startup, false, "x", Timestamp(at));
            state.settle(&spec, start);
        }
        assert_eq!(state.demands_restart(&spec), None);
        assert_eq!(
            state.due(&spec, start, Timestamp(9000)),
            Some(ProbeKind::Startup)
        );
        let mut failed = state.clone();
        failed.result(ProbeKind::Startup, false, "x", Timestamp(5000));
        failed.settle(&spec, start);
        assert_eq!(failed.demands_restart(&spec), Some(ProbeKind::Startup));
        state.result(ProbeKind::Startup, true, "", Timestamp(5000));
        state.settle(&spec, start);
        assert_eq!(state.verdict(&spec), HealthVerdict::Starting);
        assert_eq!(
            state.due(&spec, start, Timestamp(5000)),
            Some(ProbeKind::Liveness)
        );
    }

    proptest! {
        /// No check fails before `retries` intervals have passed, whatever the results.
        #[test]
        fn thresholds_are_kept(
            interval in 1_u64..5000, retries in 1_u32..6, period in 0_u64..10_000,
            results in proptest::collection::vec(any::<bool>(), 1..60),
        ) {
            let spec = HealthSpec { liveness: Some(check(interval, retries, period)), ..HealthSpec::default() };
            let mut row = 0_u32;
            for ((at, verdict), healthy) in run(&spec, ProbeKind::Liveness, &results).into_iter().zip(&results) {
                row = if *healthy { 0 } else { row + 1 };
                if verdict == HealthVerdict::Unhealthy {
                    prop_assert!(row >= retries);
                    prop_assert!(at >= period);
                    prop_assert!(at >= u64::from(retries - 1) * interval);
                }
                if *healthy {
                    prop_assert_eq!(verdict, HealthVerdict::Healthy);
                }
            }
        }
    }
}
