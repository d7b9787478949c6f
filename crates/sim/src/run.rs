//! One run: lives of the manager between crashes.

use crate::oracle::{Answer, Oracle};
use crate::trace::Trace;
use crate::workload::Workload;
use futures::future::{FutureExt, join_all};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use warren_raft::{Bugs, IoMode, Member, NoPeers, RaftConfig, RaftHandle};
use warren_state::{ClusterState, Command};
use warren_storage::{FaultyDisk, Rng};
use warren_types::{ActualState, Mode, NodeId, Revision, RolloutState};

/// Lives before faults stop.
const LIVES: u64 = 4;
/// Rounds in one life at most.
const ROUNDS: u64 = 14;
/// Proposals at a time at most.
const CLIENTS: u64 = 8;
/// Rounds in which everything must become as it should once faults stopped.
const ROUNDS_TO_CONVERGE: u32 = 150;
/// Virtual time in which a manager that is alone must lead.
const READY: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Bugs switched on.
    pub bugs: Bugs,
    /// Keep the lines of the trace, not only its hash.
    pub lines: bool,
}

/// How often things happened. A fault that never happens is not tested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commands proposed.
    pub proposed: u64,
    /// Commands acknowledged as applied.
    pub applied: u64,
    /// Commands refused by the state.
    pub rejected: u64,
    /// Commands refused because the disk was full.
    pub refused_full: u64,
    /// Commands of which nobody heard again.
    pub unknown: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Power losses while the manager started.
    pub power_losses_at_start: u64,
    /// Killed processes.
    pub kills: u64,
    /// Clean stops.
    pub stops: u64,
    /// Writes that the disk lost or tore.
    pub writes_lost: u64,
    /// Restarts that brought back commands that nobody had heard of as applied.
    pub unheard: u64,
    /// Restarts from a snapshot.
    pub snapshot_starts: u64,
}

impl Counts {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.proposed += other.proposed;
        self.applied += other.applied;
        self.rejected += other.rejected;
        self.refused_full += other.refused_full;
        self.unknown += other.unknown;
        self.power_losses += other.power_losses;
        self.power_losses_at_start += other.power_losses_at_start;
        self.kills += other.kills;
        self.stops += other.stops;
        self.writes_lost += other.writes_lost;
        self.unheard += other.unheard;
        self.snapshot_starts += other.snapshot_starts;
    }
}

/// A run in which everything held.
#[derive(Debug)]
pub struct Report {
    /// Hash of the trace.
    pub trace: u64,
    /// The trace, when asked for.
    pub lines: Vec<String>,
    /// How often things happened.
    pub counts: Counts,
}

/// A run in which something did not hold.
#[derive(Debug)]
pub struct Failure {
    /// The seed: it replays the run.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// The trace, when asked for.
    pub lines: Vec<String>,
    /// Whether it is one of a whole cluster.
    pub cluster: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.cluster { "" } else { "--alone " };
        write!(
            f,
            "seed {}: {} (replay: warren-sim {which}--start {} --seeds 1 --verbose)",
            self.seed, self.what, self.seed
        )
    }
}

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Result<Report, Failure> {
    let mut rng = Rng::new(seed);
    let disk = FaultyDisk::new(rng.next_u64());
    let workload = Workload::new(rng.fork());
    let mut world = World {
        rng,
        disk,
        workload,
        oracle: Oracle::default(),
        trace: Trace::new(options.lines),
        counts: Counts::default(),
        bugs: options.bugs,
        feed: Revision(0),
    };
    match world.all() {
        Ok(()) => Ok(Report {
            trace: world.trace.hash(),
            lines: world.trace.take_lines(),
            counts: world.counts,
        }),
        Err(what) => Err(Failure {
            seed,
            what,
            lines: world.trace.take_lines(),
            cluster: false,
        }),
    }
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The power goes at some operation of the disk.
    PowerAtDisk,
    /// The power goes between operations.
    Power,
    /// The process is killed.
    Kill,
    /// The process is stopped.
    Stop,
}

struct World {
    rng: Rng,
    disk: FaultyDisk,
    workload: Workload,
    oracle: Oracle,
    trace: Trace,
    counts: Counts,
    bugs: Bugs,
    /// Last revision seen in the change feed.
    feed: Revision,
}

type Checked<T> = Result<T, String>;

fn me() -> NodeId {
    NodeId::from_u128(1)
}

impl World {
    fn all(&mut self) -> Checked<()> {
        for life in 0..LIVES {
            let end = match self.rng.below(10) {
                0..6 => End::PowerAtDisk,
                6 => End::Power,
                7 | 8 => End::Kill,
                _ => End::Stop,
            };
            self.trace.add(format!("life {life} to end by {end:?}"));
            self.live(end, false)?;
        }
        self.trace.add("faults stop".to_owned());
        self.live(End::Stop, true)?;
        let files: Vec<(String, u64)> = self.disk.files();
        self.trace.add(format!(
            "end: {} operations, {:?}, files {files:?}",
            self.disk.ops(),
            warren_storage::Disk::stats(&self.disk)
        ));
        Ok(())
    }

    /// One life in a runtime of its own: dropping it is the death of the process.
    fn live(&mut self, end: End, converge: bool) -> Checked<()> {
        warren_raft::seed_random_numbers(self.rng.next_u64());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let lived = runtime.block_on(self.life(end, converge));
        drop(runtime);
        let died = lived?;
        self.disk.set_capacity(None);
        if died || matches!(end, End::Power | End::PowerAtDisk) {
            let loss = self.disk.crash();
            self.counts.power_losses += 1;
            self.counts.writes_lost += loss.data_ops_lost;
            self.trace.add(format!("power lost: {loss:?}"));
        } else if end == End::Kill {
            self.disk.kill();
            self.counts.kills += 1;
        } else {
            self.counts.stops += 1;
        }
        Ok(())
    }

    /// Returns whether the power went meanwhile.
    async fn life(&mut self, end: End, converge: bool) -> Checked<bool> {
        if end == End::PowerAtDisk && self.rng.chance(25) {
            self.disk.crash_after(1 + self.rng.below(25));
        }
        let Some(raft) = self.start().await? else {
            return Ok(true);
        };
        if converge {
            self.converge(&raft).await?;
            raft.shutdown().await;
            return Ok(false);
        }
        if end == End::PowerAtDisk && !self.disk.is_down() {
            self.disk.crash_after(1 + self.rng.below(120));
        }
        let rounds = 1 + self.rng.below(ROUNDS);
        for round in 0..rounds {
            if self.rng.chance(8) {
                let room = self.rng.below(12_000);
                self.disk.set_capacity(Some(self.disk.used() + room));
                self.trace.add(format!("{room} bytes of disk left"));
            } else if self.rng.chance(40) {
                self.disk.set_capacity(None);
            }
            let cut_off = round + 1 == rounds && matches!(end, End::Kill | End::Power);
            let commands = self.commands();
            let polls = cut_off.then(|| self.rng.below(20));
            self.round(&raft, commands, polls).await?;
            if self.disk.is_down() {
                return Ok(true);
            }
            if cut_off {
                return Ok(false);
            }
        }
        if end == End::Stop {
            raft.shutdown().await;
        }
        Ok(false)
    }

    /// Starts the manager; none when the power goes meanwhile.
    async fn start(&mut self) -> Checked<Option<RaftHandle>> {
        let mut config = RaftConfig::new(me());
        config.io = IoMode::Task;
        config.segment_bytes = 8 * 1024;
        config.snapshot_entries = 10;
        config.bugs = self.bugs;
        let started =
            RaftHandle::start(config, Arc::new(self.disk.clone()), Arc::new(NoPeers)).await;
        let raft = match started {
            Ok(raft) => raft,
            Err(_) if self.disk.is_down() => return Ok(self.died_at_start()),
            Err(error) => return Err(format!("cannot start: {error}")),
        };
        let members = BTreeMap::from([(me(), Member::default())]);
        let ready = match raft.is_initialized().await {
            Ok(true) => Ok(()),
            Ok(false) => raft.initialize(members).await,
            Err(error) => Err(error),
        };
        let ready = match ready {
            Ok(()) => raft.wait_ready(READY).await.map(drop),
            Err(error) => Err(error),
        };
        match ready {
            Ok(()) => {}
            Err(_) if self.disk.is_down() => return Ok(self.died_at_start()),
            Err(error) => return Err(format!("does not become ready: {error}")),
        }
        let state = raft.state();
        let unheard = self.oracle.recovered(&state)?;
        self.counts.unheard += u64::from(unheard > 0);
        self.counts.snapshot_starts += u64::from(raft.status().snapshot_index.is_some());
        check(&state)?;
        self.feed = state.revision();
        self.trace.add(format!(
            "ready at revision {} with {unheard} unheard, hash {:016x}",
            state.revision(),
            state.hash()
        ));
        if state.revision() == Revision(0) {
            let prelude = self.workload.prelude();
            self.round(&raft, vec![prelude], None).await?;
        }
        Ok(Some(raft))
    }

    fn died_at_start(&mut self) -> Option<RaftHandle> {
        self.counts.power_losses_at_start += 1;
        self.trace.add("the power goes while starting".to_owned());
        None
    }

    /// What is proposed in a round, all on the same state.
    fn commands(&mut self) -> Vec<Command> {
        self.workload.pass(3_000);
        let state = self.oracle.state().clone();
        let mut commands: Vec<Command> = (0..self.rng.below(CLIENTS))
            .map(|_| self.workload.request(&state))
            .collect();
        commands.extend(self.workload.reconcile(&state));
        commands.extend(self.workload.schedule(&state));
        commands.extend(self.workload.report(&state, self.rng.chance(70)));
        commands
    }

    /// Proposes commands all at once and checks the answers; given up after so many polls when `polls` is set.
    async fn round(
        &mut self,
        raft: &RaftHandle,
        commands: Vec<Command>,
        polls: Option<u64>,
    ) -> Checked<()> {
        let numbers: Vec<usize> = commands
            .iter()
            .map(|command| self.oracle.proposed(command.clone()))
            .collect();
        self.counts.proposed += commands.len() as u64;
        for (number, command) in numbers.iter().zip(&commands) {
            self.trace.detail(|| {
                format!(
                    "{number}: {} at {} {:?}",
                    command.actor, command.time.0, command.ops
                )
            });
        }
        let answers = RefCell::new(Vec::new());
        let proposals = commands.iter().zip(&numbers).map(|(command, number)| {
            raft.propose(command)
                .map(|result| answers.borrow_mut().push((*number, Answer::of(result))))
        });
        let mut all = Box::pin(join_all(proposals));
        match polls {
            None => drop(all.await),
            Some(polls) => {
                for _ in 0..polls {
                    if (&mut all).now_or_never().is_some() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                drop(all);
            }
        }
        for (number, answer) in answers.into_inner() {
            self.note(number, &answer);
            self.oracle.answered(number, answer);
        }
        self.oracle.advance()?;
        let stopped = raft.status().stopped;
        if polls.is_none() && stopped.is_none() && !raft.status().disk_full {
            let state = raft.state();
            if *state != *self.oracle.state() {
                return Err(format!(
                    "the state is at revision {}, the oracle's at {}, or they differ",
                    state.revision(),
                    self.oracle.state().revision()
                ));
            }
        }
        if let Some(reason) = stopped.filter(|_| !self.disk.is_down()) {
            return Err(format!("the engine stopped: {reason}"));
        }
        check(&raft.state())?;
        self.check_feed(raft)
    }

    fn note(&mut self, number: usize, answer: &Answer) {
        let what = match answer {
            Answer::Applied(applied) => {
                self.counts.applied += 1;
                format!(
                    "applied at {}{}",
                    applied.revision,
                    if applied.replayed { " (again)" } else { "" }
                )
            }
            Answer::Rejected(rejection) => {
                self.counts.rejected += 1;
                format!("refused: {rejection}")
            }
            Answer::NotTaken(why) => {
                self.counts.refused_full += 1;
                format!("not taken: {why}")
            }
            Answer::Unknown(why) => {
                self.counts.unknown += 1;
                format!("unknown: {why}")
            }
        };
        self.trace.add(format!("command {number} {what}"));
    }

    fn check_feed(&mut self, raft: &RaftHandle) -> Checked<()> {
        let sets = raft
            .changes_since(self.feed)
            .map_err(|lagged| lagged.to_string())?;
        for set in sets {
            if set.revision != self.feed.next() {
                return Err(format!(
                    "after revision {} the feed has {}",
                    self.feed, set.revision
                ));
            }
            self.feed = set.revision;
        }
        let state = raft.state().revision();
        if self.feed == state {
            Ok(())
        } else {
            Err(format!(
                "the feed ends at revision {}, the state is at {state}",
                self.feed
            ))
        }
    }

    /// No more faults, obedient nodes: the planners must bring everything to rest, as it should be.
    async fn converge(&mut self, raft: &RaftHandle) -> Checked<()> {
        let well = self.workload.all_well(self.oracle.state());
        self.round(raft, vec![well], None).await?;
        for round in 0..ROUNDS_TO_CONVERGE {
            self.workload.pass(10_000);
            let state = self.oracle.state().clone();
            let mut commands: Vec<Command> = self.workload.reconcile(&state).into_iter().collect();
            commands.extend(self.workload.schedule(&state));
            commands.extend(self.workload.good_reports(&state));
            let idle = commands.is_empty();
            self.round(raft, commands, None).await?;
            if idle && unfinished(&state).is_none() {
                self.trace
                    .add(format!("as it should be after {round} rounds"));
                return Ok(());
            }
        }
        let what =
            unfinished(self.oracle.state()).unwrap_or_else(|| "the planners never rest".to_owned());
        Err(format!(
            "not as it should be after {ROUNDS_TO_CONVERGE} rounds without faults: {what}"
        ))
    }
}

fn check(state: &ClusterState) -> Checked<()> {
    match state.invariants().first() {
        None => Ok(()),
        Some(violation) => Err(format!("at revision {}: {violation}", state.revision())),
    }
}

/// A service that does not have what it should.
pub(crate) fn unfinished(state: &ClusterState) -> Option<String> {
    for service in state.services() {
        if service
            .rollout
            .as_ref()
            .is_some_and(|rollout| rollout.state == RolloutState::Paused)
        {
            // It waits for a person.
            continue;
        }
        let running = state
            .containers()
            .filter(|container| {
                container.service == service.id && container.status.state == ActualState::Running
            })
            .count();
        let wanted = match service.spec.mode {
            _ if service.deleting => 0,
            Mode::Replicated { replicas } => replicas as usize,
            Mode::Global => state.nodes().count(),
        };
        if running != wanted {
            let have: Vec<String> = state
                .containers()
                .filter(|container| container.service == service.id)
                .map(|c| {
                    format!(
                        "{:?} r{} {:?} {:?} attempt {} {:?}",
                        c.slot,
                        c.service_revision,
                        c.desired,
                        c.status.state,
                        c.status.attempt,
                        c.status.reason
                    )
                })
                .collect();
            return Some(format!(
                "{} (revision {}, {:?}) has {running} running containers, {wanted} are wanted; it has {have:#?}",
                service.spec.name, service.revision, service.rollout
            ));
        }
    }
    None
}
