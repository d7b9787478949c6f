//! What a manager does while it leads: plan, and report for the nodes.

use super::bugs::SimBugs;
use super::faults::Kind;
use super::stage::Stage;
use crate::workload::Workload;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use warren_raft::{ProposeError, RaftHandle};
use warren_state::{ClusterState, Command, Op, Rejection};
use warren_storage::Rng;
use warren_types::{NodeId, Revision};

/// The loops of one manager in one of its lives.
pub(super) struct Duties {
    pub(super) node: NodeId,
    pub(super) raft: RaftHandle,
    pub(super) rng: Rng,
    pub(super) workload: Workload,
    pub(super) stage: Arc<Stage>,
    pub(super) bugs: SimBugs,
}

impl Duties {
    /// Runs until the manager dies.
    pub(super) async fn run(mut self) {
        loop {
            let calm = self.stage.is_calm();
            let pause = if calm { 25 } else { 40 + self.rng.below(80) };
            sleep(Duration::from_millis(pause)).await;
            if !self.raft.leadership().borrow().ready {
                continue;
            }
            let state = self.raft.state();
            self.workload.set_time(self.stage.clock_ms(self.node));
            if state.nodes().next().is_none() {
                let nodes = self.workload.prelude();
                self.propose(&nodes).await;
                continue;
            }
            if calm {
                for report in self.workload.good_reports(&state) {
                    self.propose(&report).await;
                }
            } else {
                let obedient = self.rng.chance(70);
                if let Some(report) = self.workload.report(&state, obedient) {
                    self.propose(&report).await;
                }
            }
            self.plan(calm).await;
        }
    }

    /// Both planners decide on the same state; what they decided may linger on its way.
    async fn plan(&mut self, calm: bool) {
        let state = self.raft.state();
        let decided = state.revision();
        let plans = [
            self.workload.reconcile(&state),
            self.workload.schedule(&state),
        ];
        for command in plans.into_iter().flatten() {
            if !calm && self.rng.chance(30) {
                let linger = self.rng.below(300);
                sleep(Duration::from_millis(linger)).await;
            }
            let command = self.fenced(command);
            self.stage.probe.decided(&command, decided);
            self.propose(&command).await;
        }
    }

    /// The planted bugs.
    fn fenced(&self, mut command: Command) -> Command {
        if self.bugs.fence_forgotten {
            command.ops.iter_mut().for_each(|op| expect(op, None));
        }
        if self.bugs.fence_refreshed {
            let now = self.raft.state();
            for op in &mut command.ops {
                let version = version_of(&now, op);
                expect(op, version);
            }
        }
        command
    }

    async fn propose(&self, command: &Command) {
        match self.raft.propose(command).await {
            Ok(applied) => self.stage.probe.acknowledged(command, &applied),
            Err(ProposeError::Rejected(Rejection::Conflict { .. })) => {
                self.stage.probe.count(Kind::Fenced);
            }
            // The next round sees what became of it.
            Err(_) => {}
        }
    }
}

fn expect(op: &mut Op, version: Option<Revision>) {
    match op {
        Op::ContainerCreate { expect_service, .. } => *expect_service = version,
        Op::ServiceSetRollout { expect, .. }
        | Op::ServiceRollback { expect, .. }
        | Op::ServiceRemove { expect, .. }
        | Op::ContainerAssign { expect, .. }
        | Op::ContainerSetReason { expect, .. }
        | Op::ContainerSetDesired { expect, .. }
        | Op::ContainerLost { expect, .. }
        | Op::ContainerDelete { expect, .. } => *expect = version,
        _ => {}
    }
}

fn version_of(state: &ClusterState, op: &Op) -> Option<Revision> {
    match op {
        Op::ContainerCreate { service: id, .. }
        | Op::ServiceSetRollout { id, .. }
        | Op::ServiceRollback { id, .. }
        | Op::ServiceRemove { id, .. } => state.service(*id).map(|service| service.version),
        Op::ContainerAssign { id, .. }
        | Op::ContainerSetReason { id, .. }
        | Op::ContainerSetDesired { id, .. }
        | Op::ContainerLost { id, .. }
        | Op::ContainerDelete { id, .. } => state.container(*id).map(|container| container.version),
        _ => None,
    }
}
