//! A simulated manager: a disk that outlives it, and a process on it that comes and goes.

use super::api::Api;
use super::bugs::ClusterBugs;
use super::duties::Duties;
use super::faults::Kind;
use super::net::{Endpoint, Line};
use super::probe::Ear;
use super::stage::Stage;
use crate::workload::Workload;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;
use warren_raft::testing::Gate;
use warren_raft::{IoMode, RaftConfig, RaftError, RaftHandle, RaftStatus};
use warren_storage::{CrashLoss, Damage, FaultyDisk, Rng};
use warren_types::NodeId;

/// How long a start may take; one that waits for a full disk is given up and tried again.
const START: Duration = Duration::from_secs(2);
/// Entries after which a snapshot is taken.
const SNAPSHOT_ENTRIES: u64 = 10;
/// Log segments, in bytes.
const SEGMENT_BYTES: u64 = 8 * 1024;

/// A manager.
pub(super) struct Manager {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) disk: FaultyDisk,
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// When it starts again, in milliseconds since the begin of the run.
    pub(super) starts_at: u64,
    /// When its tasks go on.
    pub(super) held_until: u64,
    /// When its disk is as it should be again.
    pub(super) disk_well_at: u64,
    /// It was removed from the cluster, or never came in; when it is switched off.
    pub(super) leaves_at: Option<u64>,
    /// Switched off for good.
    pub(super) gone: bool,
    /// Its process ended in good order when it last ended.
    pub(super) stopped: bool,
    /// Its files were damaged, and it has not been well since: it counts as lost to every quorum.
    pub(super) faulty: bool,
    /// It has refused to start on its damaged files: the operator removes it.
    pub(super) refused: bool,
    /// It was healing when it was last looked at.
    healing: bool,
    pub(super) slow: Arc<AtomicU64>,
    rng: Rng,
    number: u64,
    term: u64,
}

/// One life.
pub(super) struct Process {
    pub(super) raft: RaftHandle,
    pub(super) gate: Arc<Gate>,
    last: Option<RaftStatus>,
}

/// What came of a start.
pub(super) enum Started {
    Up,
    /// The power went meanwhile, or goes now because it hangs on a full disk.
    PowerLost,
    /// It does not start on what is on its disk, and says why and what to do.
    Refused(String),
}

impl Manager {
    pub(super) fn new(number: u64, rng: &mut Rng) -> Self {
        Self {
            node: NodeId::from_u128(0x1000 + u128::from(number)),
            name: format!("m{number}"),
            disk: FaultyDisk::new(rng.next_u64()),
            life: 0,
            process: None,
            starts_at: 0,
            held_until: 0,
            disk_well_at: 0,
            leaves_at: None,
            gone: false,
            stopped: false,
            faulty: false,
            refused: false,
            healing: false,
            slow: Arc::default(),
            rng: rng.fork(),
            number,
            term: 0,
        }
    }

    /// Whether it will never start again as it is.
    pub(super) fn is_lost(&self) -> bool {
        self.refused && !self.gone && self.leaves_at.is_none()
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    fn config(&self, stage: &Stage, bugs: ClusterBugs) -> RaftConfig {
        let mut config = RaftConfig::new(self.node);
        config.io = IoMode::Task;
        config.segment_bytes = SEGMENT_BYTES;
        config.snapshot_entries = SNAPSHOT_ENTRIES;
        config.propose_timeout = Duration::from_secs(2);
        config.bugs = bugs.raft;
        config.slow_disk_ms = Arc::clone(&self.slow);
        config.observer = Some(Arc::new(Ear {
            node: self.node,
            name: self.name.clone(),
            probe: Arc::clone(&stage.probe),
        }));
        config
    }

    /// Starts it.
    pub(super) async fn start(
        &mut self,
        stage: &Arc<Stage>,
        bugs: ClusterBugs,
    ) -> Result<Started, String> {
        self.life += 1;
        self.stopped = false;
        let gate = Gate::new();
        let config = self.config(stage, bugs);
        let line = Line {
            from: self.node,
            net: Arc::clone(&stage.net),
        };
        let disk = Arc::new(self.disk.clone());
        let start = gate.wrap(RaftHandle::start(config, disk, Arc::new(line)));
        let raft = match timeout(START, start).await {
            Ok(Ok(raft)) => raft,
            // A full disk passes: it is tried again.
            Ok(Err(RaftError::Storage(error))) if error.is_full() => {
                gate.kill();
                return Ok(Started::PowerLost);
            }
            Ok(Err(error)) if !self.disk.is_down() => return self.refuse(&error, &gate),
            _ => {
                gate.kill();
                return Ok(Started::PowerLost);
            }
        };
        if self.faulty {
            // What it forgot may include the newest term.
            self.term = 0;
            self.healing = raft.status().healing;
        }
        let api = Arc::new(Api {
            node: self.node,
            raft: raft.clone(),
            net: Arc::downgrade(&stage.net),
            bugs: bugs.sim,
        });
        let endpoint = Endpoint {
            raft: raft.clone(),
            gate: Arc::clone(&gate),
            api,
            life: self.life,
        };
        stage.net.plug(self.node, endpoint);
        let space = (self.number << 32) | (self.life << 20);
        let duties = Duties {
            node: self.node,
            raft: raft.clone(),
            rng: self.rng.fork(),
            workload: Workload::of_cluster(self.rng.fork(), space),
            stage: Arc::clone(stage),
            bugs: bugs.sim,
        };
        drop(gate.spawn(duties.run()));
        self.process = Some(Process {
            raft,
            gate,
            last: None,
        });
        Ok(Started::Up)
    }

    /// A manager may refuse to start only on damaged files, and must say what to do.
    fn refuse(&mut self, error: &RaftError, gate: &Gate) -> Result<Started, String> {
        let text = error.to_string();
        let name = &self.name;
        if !self.faulty {
            return Err(format!("{name} cannot start: {text}"));
        }
        if !text.contains("`warren ") {
            return Err(format!("{name} names no command to help itself: {text}"));
        }
        gate.kill();
        self.disk.kill();
        self.refused = true;
        Ok(Started::Refused(text))
    }

    /// What has become of the damage to its files, once that is known.
    pub(super) fn recovered(&mut self) -> Option<Kind> {
        let process = self.process.as_ref()?;
        let healing = process.raft.status().healing;
        if !self.faulty || process.gate.is_held() || healing {
            return None;
        }
        self.faulty = false;
        Some(if std::mem::take(&mut self.healing) {
            Kind::Healed
        } else {
            Kind::Harmless
        })
    }

    /// Damages one of the files that it needs; returns which, and where in it (offset and length in bytes).
    pub(super) fn damage(&mut self, how: Damage, number: usize) -> Option<(String, usize, usize)> {
        let files = self.disk.files().into_iter().map(|(path, _)| path);
        let data = |path: &String| {
            [".seg", ".snap", "HOME"]
                .iter()
                .any(|end| path.ends_with(end))
        };
        let mut files: Vec<String> = files.filter(data).collect();
        if files.is_empty() {
            return None;
        }
        let path = files.swap_remove(number % files.len());
        let (at, len) = self.disk.damage(&path, how, self.stopped, &mut self.rng)?;
        self.faulty = true;
        Some((path, at, len))
    }

    /// Ends the process where it stands.
    fn end(&mut self, stage: &Stage) {
        stage.net.unplug(self.node);
        if let Some(process) = self.process.take() {
            process.gate.kill();
        }
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self, stage: &Stage) {
        self.end(stage);
        self.disk.kill();
    }

    /// The power goes.
    pub(super) fn power_off(&mut self, stage: &Stage) -> CrashLoss {
        self.end(stage);
        self.disk.crash()
    }

    /// A clean stop; leadership is not handed over.
    pub(super) async fn stop(&mut self, stage: &Stage) {
        if let Some(process) = &self.process {
            process.gate.release();
            let shutdown = process.gate.wrap(process.raft.shutdown());
            // Its disk may be full or slow: then it is killed in the end, as systemd would.
            // Nor is it a clean end when the power goes in the last writes.
            let ended = timeout(Duration::from_secs(2), shutdown).await.is_ok();
            self.stopped = ended && !self.disk.is_down();
        }
        self.end(stage);
        self.disk.kill();
    }

    /// Its tasks stand still until then.
    pub(super) fn hold(&mut self, until: u64) {
        if let Some(process) = &self.process {
            process.gate.hold();
            self.held_until = until;
        }
    }

    /// How it stands, in words.
    pub(super) fn standing(&self) -> String {
        let Some(process) = &self.process else {
            return format!("{} is down", self.name);
        };
        let status = process.raft.status();
        format!(
            "{} in term {} follows {:?}, log to {:?}, applied {:?}, voters {:?}, learners {:?}, healing {}",
            self.name,
            status.leadership.term,
            status.leadership.leader,
            status.last_index,
            status.applied_index,
            status.voters.keys().collect::<Vec<_>>(),
            status.learners.keys().collect::<Vec<_>>(),
            status.healing,
        )
    }

    /// Nothing is wrong with it any more; one that is down starts at once.
    pub(super) fn heal(&mut self) {
        self.starts_at = 0;
        self.held_until = 0;
        self.disk_well_at = 0;
        self.disk.disarm();
    }

    /// Whether it refused writes when it was last looked at, because its disk is full.
    pub(super) fn is_full(&self) -> bool {
        let last = self
            .process
            .as_ref()
            .and_then(|process| process.last.as_ref());
        last.is_some_and(|last| last.disk_full)
    }

    /// What is over by now ends.
    pub(super) fn pass(&mut self, now: u64) {
        if let Some(process) = &self.process
            && process.gate.is_held()
            && now >= self.held_until
        {
            process.gate.release();
        }
        if now >= self.disk_well_at {
            self.slow.store(0, Ordering::Relaxed);
            self.disk.set_capacity(None);
        }
    }

    /// Looks at the figures: five that never go back, and the order of five indexes.
    pub(super) fn look(&mut self) -> Result<(), String> {
        let name = &self.name;
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if self.disk.is_down() || process.gate.is_held() {
            return Ok(());
        }
        let now = process.raft.status();
        if let Some(reason) = &now.stopped {
            return Err(format!("the engine of {name} has stopped: {reason}"));
        }
        let order = [
            ("purged", now.purged_index),
            ("snapshot", now.snapshot_index),
            ("applied", now.applied_index),
            ("committed", now.committed_index.max(now.applied_index)),
            // What a snapshot stands for needs no entry.
            (
                "last",
                now.last_index
                    .max(now.snapshot_index)
                    .max(now.applied_index),
            ),
        ];
        for pair in order.windows(2) {
            if pair[0].1 > pair[1].1 {
                return Err(format!(
                    "the order of indexes is broken on {name}: {:?} > {:?}",
                    pair[0], pair[1]
                ));
            }
        }
        let term = now.leadership.term;
        if term < self.term {
            return Err(format!(
                "the term of {name} goes from {} to {term}",
                self.term
            ));
        }
        self.term = term;
        if let Some(last) = &process.last {
            let steps = [
                ("committed", last.committed_index, now.committed_index),
                ("applied", last.applied_index, now.applied_index),
                ("snapshot", last.snapshot_index, now.snapshot_index),
                ("purged", last.purged_index, now.purged_index),
            ];
            if let Some((what, before, now)) = steps.iter().find(|(_, before, now)| before > now) {
                return Err(format!("{what} of {name} goes from {before:?} to {now:?}"));
            }
        }
        process.last = Some(now);
        Ok(())
    }
}
