//! One run of a cluster: what the director does between two ticks of its clock.

use super::bugs::ClusterBugs;
use super::client::Client;
use super::faults::{End, Fault, Kind, choose};
use super::manager::{Manager, Started};
use super::members::{Change, Operator, member, wish};
use super::net::{Endpoint, FAIR, Net};
use super::probe::Probe;
use super::stage::Stage;
use super::watcher::Watcher;
use crate::trace::Trace;
use crate::workload::Workload;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use warren_storage::{Damage, Rng};
use warren_types::NodeId;

/// Time between two looks at everything.
const TICK: Duration = Duration::from_millis(15);
/// First fault, in milliseconds.
const FIRST_FAULT_MS: u64 = 900;
/// Shortest time with faults, in milliseconds; up to so much again by the seed.
const FAULTS_MS: u64 = 3_500;

pub(super) type Checked<T> = Result<T, String>;

/// A run.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) stage: Arc<Stage>,
    pub(super) managers: Vec<Manager>,
    pub(super) operator: Operator,
    pub(super) bugs: ClusterBugs,
    pub(super) trace: Trace,
    pub(super) asking: Vec<JoinHandle<()>>,
    /// Fewest managers with a vote that the operator leaves.
    fewest: usize,
    /// Longest pause between faults, in milliseconds.
    fault_every: u64,
    next_fault: u64,
    /// When cut ways are open again, and when the weather is fair again.
    mend_at: u64,
    fair_at: u64,
}

impl World {
    pub(super) fn new(seed: u64, bugs: ClusterBugs, lines: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0xc1a5_7e12);
        let probe = Arc::<Probe>::default();
        let net = Net::new(rng.fork(), Arc::clone(&probe), bugs.sim);
        let stage = Stage::new(net, probe);
        let count = match rng.below(10) {
            0 => 1,
            1..7 => 3,
            _ => 5,
        };
        let managers = (0..count).map(|n| Manager::new(n, &mut rng)).collect();
        let fault_every = [150, 300, 500, 900][usize::try_from(rng.below(4)).unwrap_or(0)];
        Self {
            rng,
            stage,
            managers,
            operator: Operator::default(),
            bugs,
            trace: Trace::new(lines),
            asking: Vec::new(),
            fewest: usize::try_from(count.min(3)).unwrap_or(1),
            fault_every,
            next_fault: FIRST_FAULT_MS,
            mend_at: 0,
            fair_at: 0,
        }
    }

    pub(super) async fn all(&mut self) -> Checked<()> {
        self.begin().await?;
        let end = FIRST_FAULT_MS + FAULTS_MS + self.rng.below(FAULTS_MS);
        while self.stage.elapsed_ms() < end {
            sleep(TICK).await;
            self.tick().await?;
            if self.stage.elapsed_ms() >= self.next_fault {
                self.fault().await;
                self.next_fault = self.stage.elapsed_ms() + 20 + self.rng.below(self.fault_every);
            }
        }
        self.calm().await
    }

    async fn begin(&mut self) -> Checked<()> {
        let count = self.managers.len();
        self.trace.add(format!("{count} managers"));
        for at in 0..count {
            self.start(at).await?;
        }
        self.publish();
        let members: BTreeMap<_, _> = self
            .managers
            .iter()
            .map(|manager| (manager.node, member(manager.node)))
            .collect();
        if let Some(process) = &self.managers[0].process {
            let begun = process.gate.wrap(process.raft.initialize(members)).await;
            begun.map_err(|error| format!("cannot begin a cluster: {error}"))?;
        }
        let clients = 3 + self.rng.below(4);
        let think_ms = 30 + self.rng.below(120);
        for number in 0..clients {
            let client = Client {
                number,
                of: clients,
                rng: self.rng.fork(),
                workload: Workload::of_cluster(self.rng.fork(), (number + 1) << 48),
                stage: Arc::clone(&self.stage),
                bugs: self.bugs.sim,
                made: 0,
                think_ms,
            };
            self.asking.push(tokio::spawn(client.run()));
        }
        for number in 0..2 {
            let watcher = Watcher {
                number,
                rng: self.rng.fork(),
                stage: Arc::clone(&self.stage),
                bugs: self.bugs.sim,
            };
            self.asking.push(tokio::spawn(watcher.run()));
        }
        Ok(())
    }

    /// Tells clients which managers there are.
    fn publish(&self) {
        let here = self.managers.iter().filter(|m| m.leaves_at.is_none());
        self.stage.set_managers(here.map(|m| m.node).collect());
    }

    async fn start(&mut self, at: usize) -> Checked<()> {
        let now = self.stage.elapsed_ms();
        let manager = &mut self.managers[at];
        let up = manager.start(&self.stage, self.bugs).await?;
        let (name, life) = (&manager.name, manager.life);
        match up {
            Started::Up => {
                self.trace.add(format!("{name} starts life {life}"));
                if life > 1 {
                    self.stage.probe.count(Kind::Restart);
                }
            }
            Started::PowerLost => {
                self.trace.add(format!(
                    "{name} does not get through the start of life {life}"
                ));
                self.power_loss(at, now);
            }
            Started::Refused(why) => {
                self.trace.add(format!("{name} refuses to start: {why}"));
                self.stage.probe.count(Kind::Refused);
            }
        }
        Ok(())
    }

    /// The endpoint of the manager that leads in the newest term.
    pub(super) fn leader(&self) -> Option<(NodeId, Endpoint)> {
        let endpoints = self.managers.iter().filter_map(|manager| {
            let endpoint = self.stage.net.endpoint(manager.node)?;
            let leadership = endpoint.raft.leadership().borrow().clone();
            leadership
                .ready
                .then_some((leadership.term, manager.node, endpoint))
        });
        endpoints
            .max_by_key(|(term, ..)| *term)
            .map(|(_, node, endpoint)| (node, endpoint))
    }

    /// What is due is done, and everything is looked at.
    pub(super) async fn tick(&mut self) -> Checked<()> {
        let now = self.stage.elapsed_ms();
        for at in 0..self.managers.len() {
            if self.managers[at].disk.is_down() {
                self.stage.probe.count(Kind::PowerLossInWrite);
                self.power_loss(at, now);
            }
            let manager = &mut self.managers[at];
            manager.pass(now);
            if manager.leaves_at.is_some_and(|leaves| now >= leaves) && !manager.gone {
                manager.kill(&self.stage);
                manager.gone = true;
                self.trace.add(format!("{} is switched off", manager.name));
            } else if !manager.is_up()
                && !manager.gone
                && !manager.refused
                && now >= manager.starts_at
            {
                self.start(at).await?;
            }
        }
        if self.mend_at > 0 && now >= self.mend_at {
            self.mend_at = 0;
            self.stage.net.mend();
            self.trace.add("all ways are open".to_owned());
        }
        if self.fair_at > 0 && now >= self.fair_at {
            self.fair_at = 0;
            self.stage.net.set_weather(FAIR);
        }
        self.operate(now).await?;
        self.look()
    }

    /// Checks everything, and takes the news into the trace.
    pub(super) fn look(&mut self) -> Checked<()> {
        for line in self.stage.probe.news() {
            self.trace.add(line);
        }
        for line in self.stage.lines() {
            self.trace.add(line);
        }
        if let Some(violation) = self.stage.probe.violation() {
            return Err(violation);
        }
        for manager in &mut self.managers {
            manager.look()?;
            if let Some(kind) = manager.recovered() {
                self.stage.probe.count(kind);
                self.stage.probe.well(manager.node);
                self.trace.add(format!("{}: {kind:?}", manager.name));
            }
            if manager.is_full() {
                self.stage.probe.count(Kind::FullDisk);
            }
        }
        self.stage.probe.violation().map_or(Ok(()), Err)
    }

    async fn operate(&mut self, now: u64) -> Checked<()> {
        if let Some((change, done)) = self.operator.look(&self.stage).await {
            self.changed(change, done, now);
            let rest = self.rng.below(500);
            self.operator.rest(now + rest);
        }
        let help = self.managers.iter().any(Manager::is_lost);
        let idle = self.stage.is_calm() && !help;
        if idle || !self.operator.is_due(now) || now < FIRST_FAULT_MS {
            return Ok(());
        }
        let rest = 100 + self.rng.below(400);
        self.operator.rest(now + rest);
        let Some((_, leader)) = self.leader() else {
            return Ok(());
        };
        let wish = wish(&mut self.rng, &leader.raft, &self.managers, self.fewest);
        let change = match wish {
            None => return Ok(()),
            Some(Some(change)) => change,
            Some(None) => {
                let number = self.managers.len() as u64;
                let manager = Manager::new(number, &mut self.rng);
                let node = manager.node;
                self.managers.push(manager);
                self.start(self.managers.len() - 1).await?;
                self.publish();
                Change::Add(node)
            }
        };
        self.operator
            .begin(&self.stage, &leader.raft, &leader.gate, change);
        Ok(())
    }

    /// A manager that was removed is switched off a while later: until then it must not disturb.
    fn changed(&mut self, change: Change, done: bool, now: u64) {
        let Change::Remove(node) = change else { return };
        let linger = self.rng.below(1_500);
        let manager = self.managers.iter_mut().find(|m| m.node == node);
        if let Some(manager) = manager.filter(|_| done) {
            manager.leaves_at = Some(now + linger);
            self.publish();
        }
    }

    fn power_loss(&mut self, at: usize, now: u64) {
        let down = 30 + self.rng.below(900);
        let manager = &mut self.managers[at];
        let loss = manager.power_off(&self.stage);
        manager.starts_at = now + down;
        if loss.data_ops_lost > 0 {
            self.stage.probe.count(Kind::PowerLoss);
        }
        self.trace
            .add(format!("{} loses power: {loss:?}", manager.name));
    }

    fn kill(&mut self, at: usize, now: u64) {
        let down = 10 + self.rng.below(700);
        let manager = &mut self.managers[at];
        if manager.is_up() {
            manager.kill(&self.stage);
            manager.starts_at = now + down;
            self.stage.probe.count(Kind::Kill);
        }
    }

    async fn fault(&mut self) {
        let now = self.stage.elapsed_ms();
        let fault = choose(&mut self.rng, self.managers.len());
        self.trace.add(format!("{now}: {fault:?}"));
        let lasts = now + 150 + self.rng.below(1_300);
        match fault {
            Fault::PowerInWrite { manager, after } => {
                if self.managers[manager].is_up() {
                    self.managers[manager].disk.crash_after(after);
                }
            }
            Fault::Power { manager } => {
                if self.managers[manager].is_up() {
                    self.power_loss(manager, now);
                }
            }
            Fault::Kill { manager } => self.kill(manager, now),
            Fault::Stop { manager } => self.stop(manager, now).await,
            Fault::AllDown => self.all_down(now),
            Fault::Split { .. } | Fault::OneWay { .. } | Fault::Deaf { .. } => {
                self.cut(fault);
                self.mend_at = lasts;
            }
            Fault::Weather(weather) => {
                self.stage.net.set_weather(weather);
                self.fair_at = lasts;
            }
            Fault::Way { from, to, weather } => {
                let (from, to) = (self.managers[from].node, self.managers[to].node);
                self.stage.net.set_way(from, to, weather);
                self.fair_at = lasts;
            }
            Fault::SlowDisk { .. } | Fault::FullDisk { .. } => self.hurt_disk(fault, lasts),
            Fault::Clock { manager, minutes } => {
                let node = self.managers[manager].node;
                self.stage.set_clock(node, minutes * 60_000);
                self.stage.probe.count(Kind::ClockJump);
            }
            Fault::Pause { manager } => {
                if self.managers[manager].is_up() {
                    self.managers[manager].hold(lasts);
                    self.stage.probe.count(Kind::Pause);
                }
            }
            Fault::HandOver => self.hand_over(),
            Fault::Snapshot { manager } => {
                if let Some(process) = &self.managers[manager].process {
                    process.raft.request_snapshot();
                }
            }
            Fault::Damage { manager, .. } => {
                if self.may_be_damaged(manager) {
                    self.damage(fault, now).await;
                }
            }
        }
    }

    /// Whether the others are enough for every quorum that there may be, should this one lose everything that it has.
    fn may_be_damaged(&self, at: usize) -> bool {
        let mut faulty = BTreeSet::from([self.managers[at].node]);
        let others = self.managers.iter().filter(|m| m.faulty && !m.gone);
        faulty.extend(others.map(|manager| manager.node));
        let sets = self.stage.probe.voter_sets();
        let minority =
            |voters: &BTreeSet<NodeId>| faulty.intersection(voters).count() * 2 < voters.len();
        let there = !self.managers[at].gone && !self.managers[at].refused;
        there && !self.operator.is_busy() && !sets.is_empty() && sets.iter().all(minority)
    }

    async fn damage(&mut self, fault: Fault, now: u64) {
        let Fault::Damage {
            manager: at,
            end,
            how,
            file,
        } = fault
        else {
            return;
        };
        if self.managers[at].is_up() {
            match end {
                End::Power => self.power_loss(at, now),
                End::Kill => self.kill(at, now),
                End::Stop => self.stop(at, now).await,
            }
        }
        let manager = &mut self.managers[at];
        let Some((path, offset, bytes)) = manager.damage(how, file) else {
            return;
        };
        self.stage.probe.damaged(manager.node);
        self.stage.probe.count(match how {
            Damage::Flip => Kind::Flipped,
            Damage::Cut => Kind::CutShort,
            Damage::Zero => Kind::Zeroed,
        });
        let line = format!(
            "{}: {how:?} of {bytes} bytes at {offset} of {path}",
            manager.name
        );
        self.trace.add(line);
    }

    async fn stop(&mut self, at: usize, now: u64) {
        if self.managers[at].is_up() {
            self.managers[at].stop(&self.stage).await;
            self.managers[at].starts_at = now + self.rng.below(600);
            self.stage.probe.count(Kind::Stop);
        }
    }

    fn all_down(&mut self, now: u64) {
        for at in 0..self.managers.len() {
            if self.managers[at].is_up() {
                if self.rng.chance(60) {
                    self.power_loss(at, now);
                } else {
                    self.kill(at, now);
                }
            }
        }
        self.stage.probe.count(Kind::AllDown);
    }

    fn cut(&self, fault: Fault) {
        let nodes: Vec<NodeId> = self.managers.iter().map(|m| m.node).collect();
        for (i, from) in nodes.iter().enumerate() {
            for (k, to) in nodes.iter().enumerate() {
                let cut = match fault {
                    Fault::Split { mask } => (mask >> i) & 1 != (mask >> k) & 1,
                    Fault::OneWay { from, to } => (i, k) == (from, to),
                    Fault::Deaf { manager, mute } => (if mute { i } else { k }) == manager,
                    _ => false,
                };
                if cut && i != k {
                    self.stage.net.cut(*from, *to);
                }
            }
        }
    }

    fn hurt_disk(&mut self, fault: Fault, until: u64) {
        match fault {
            Fault::SlowDisk { manager, ms } => {
                let manager = &mut self.managers[manager];
                manager.slow.store(ms, Ordering::Relaxed);
                manager.disk_well_at = until;
                self.stage.probe.count(Kind::SlowDisk);
            }
            Fault::FullDisk { manager, room } => {
                let manager = &mut self.managers[manager];
                manager.disk.set_capacity(Some(manager.disk.used() + room));
                manager.disk_well_at = until;
            }
            _ => {}
        }
    }

    fn hand_over(&self) {
        let Some((_, leader)) = self.leader() else {
            return;
        };
        let stage = Arc::clone(&self.stage);
        let raft = leader.raft.clone();
        drop(leader.gate.spawn(async move {
            if raft.hand_over(Duration::from_secs(1)).await.is_ok() {
                stage.probe.count(Kind::HandOver);
            }
        }));
    }
}
