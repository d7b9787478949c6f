//! What clients, nodes and planners propose.

use std::collections::BTreeMap;
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_storage::Rng;
use warren_types::{
    ActualState, Availability, Bytes, Config, ConfigId, Container, ContainerId, ContainerStatus,
    DesiredState, Liveness, MilliCpu, Mode, Node, NodeId, NodeResources, NodeRole, Platform,
    Revision, ServiceId, ServiceSpec, Timestamp,
};

/// Nodes of the cluster.
const NODES: u64 = 3;
/// Names are drawn from so few, so that they collide.
const NAMES: u64 = 5;
/// First moment of every run, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Makes commands. Remembers nothing of the cluster but the time and the ids given out.
#[derive(Debug)]
pub(crate) struct Workload {
    rng: Rng,
    now_ms: u64,
    next_id: u128,
    keys: u64,
    /// Whether it also makes objects other than services.
    objects: bool,
}

impl Workload {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            now_ms: BEGIN_MS,
            next_id: 1,
            keys: 0,
            objects: true,
        }
    }

    /// One of several beside each other, each with a space of ids of its own.
    pub(crate) fn of_cluster(rng: Rng, space: u64) -> Self {
        Self {
            next_id: u128::from(space) + 1,
            objects: false,
            ..Self::new(rng)
        }
    }

    /// Sets the time of the commands to come.
    pub(crate) fn set_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    fn id(&mut self) -> u128 {
        self.next_id += 1;
        (u128::from(self.now_ms) << 80) | (self.next_id & ((1 << 80) - 1))
    }

    fn command(&self, actor: Actor, ops: Vec<Op>) -> Command {
        Command::new(actor, Timestamp(self.now_ms), ops)
    }

    fn api(&mut self, ops: Vec<Op>) -> Command {
        let command = self.command(
            Actor::Api {
                name: "client".to_owned(),
            },
            ops,
        );
        if !self.rng.chance(30) {
            return command;
        }
        // Now and then an old key again: the answer is the old one, and nothing changes.
        if self.keys == 0 || self.rng.chance(80) {
            self.keys += 1;
        }
        command.with_key(format!("key-{}", self.keys))
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, most_ms: u64) {
        self.now_ms += 1 + self.rng.below(most_ms);
    }

    /// The nodes, to begin with.
    pub(crate) fn prelude(&self) -> Command {
        let nodes = (0..NODES)
            .map(|number| Op::NodeAdd(Box::new(node(number))))
            .collect();
        self.command(Actor::System, nodes)
    }

    /// Something a client or an operator may ask for, sensible or not.
    pub(crate) fn request(&mut self, state: &ClusterState) -> Command {
        let kind = match self.rng.below(20) {
            12..16 | 18 if !self.objects => 5,
            kind => kind,
        };
        let op = match kind {
            0..5 => Op::ServiceCreate {
                id: ServiceId::from_u128(self.id()),
                spec: self.spec().into(),
            },
            5..8 => self.service_change(state),
            8..10 => Op::ServiceSetReplicas {
                id: self.service(state),
                expect: None,
                replicas: u32::try_from(self.rng.below(5)).unwrap_or(0),
            },
            10 | 11 => Op::ServiceDelete {
                id: self.service(state),
                expect: None,
            },
            12..15 => Op::ConfigCreate(Box::new(self.config())),
            15 => {
                let known = state
                    .configs()
                    .nth(usize::try_from(self.rng.below(NAMES)).unwrap_or(0))
                    .map(|config| config.id);
                Op::ConfigDelete {
                    id: known.unwrap_or(ConfigId::from_u128(9)),
                    expect: None,
                }
            }
            16 => Op::NodeUpdate {
                id: node_id(self.rng.below(NODES)),
                expect: None,
                patch: Box::new(NodePatch {
                    availability: Some(if self.rng.chance(60) {
                        Availability::Active
                    } else {
                        Availability::Drain
                    }),
                    ..NodePatch::default()
                }),
            },
            17 => {
                let (id, down) = (node_id(self.rng.below(NODES)), self.rng.chance(40));
                return self.command(Actor::System, vec![liveness(id, down)]);
            }
            // Several at once, all or nothing.
            18 => {
                let ops = (0..3)
                    .map(|_| Op::ConfigCreate(Box::new(self.config())))
                    .collect();
                return self.api(ops);
            }
            // A version that is long past.
            _ => Op::ServiceSetReplicas {
                id: self.service(state),
                expect: Some(Revision(1)),
                replicas: 1,
            },
        };
        self.api(vec![op])
    }

    fn service_change(&mut self, state: &ClusterState) -> Op {
        let id = self.service(state);
        let mut spec = self.spec();
        if let Some(service) = state.service(id) {
            let image = spec.container.image;
            spec = (*service.spec).clone();
            spec.container.image = image;
        }
        Op::ServiceUpdate {
            id,
            expect: None,
            spec: spec.into(),
        }
    }

    fn service(&mut self, state: &ClusterState) -> ServiceId {
        let known = state
            .services()
            .nth(usize::try_from(self.rng.below(NAMES)).unwrap_or(0))
            .map(|service| service.id);
        known.unwrap_or(ServiceId::from_u128(9))
    }

    fn spec(&mut self) -> ServiceSpec {
        let mode = if self.rng.chance(15) {
            Mode::Global
        } else {
            Mode::Replicated {
                replicas: u32::try_from(self.rng.below(4)).unwrap_or(0),
            }
        };
        let mut spec = ServiceSpec {
            name: format!("service-{}", self.rng.below(NAMES)),
            mode,
            ..ServiceSpec::default()
        };
        // One in sixteen has no image, which is refused.
        if self.rng.below(16) > 0 {
            spec.container.image = format!("app:{}", self.rng.below(4));
        }
        spec.container.resources.memory_reservation =
            Some(Bytes(self.rng.below(4) * 64 * 1024 * 1024));
        spec
    }

    fn config(&mut self) -> Config {
        let len = usize::try_from(self.rng.below(1_500)).unwrap_or(0);
        Config {
            id: ConfigId::from_u128(self.id()),
            name: format!("config-{}", self.rng.below(3 * NAMES)),
            labels: BTreeMap::new(),
            data: self.rng.bytes(len),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Revision(0),
        }
    }

    /// What the reconciler wants.
    pub(crate) fn reconcile(&mut self, state: &ClusterState) -> Option<Command> {
        let now = Timestamp(self.now_ms);
        let mut fresh = self.next_id;
        let plan = warren_reconciler::plan(state, now, &mut || {
            fresh += 1;
            ContainerId::from_u128((u128::from(now.0) << 80) | fresh)
        });
        self.next_id = fresh;
        (!plan.ops.is_empty()).then(|| self.command(Actor::Reconciler, plan.ops))
    }

    /// What the scheduler wants.
    pub(crate) fn schedule(&mut self, state: &ClusterState) -> Option<Command> {
        let plan = warren_scheduler::plan(state, self.rng.next_u64());
        (!plan.ops.is_empty()).then(|| self.command(Actor::Scheduler, plan.ops))
    }

    /// What a node reports of its containers. `obedient`: everything starts, runs and stops as it should.
    pub(crate) fn report(&mut self, state: &ClusterState, obedient: bool) -> Option<Command> {
        let node = node_id(self.rng.below(NODES));
        self.report_of(state, node, obedient)
    }

    /// What every node reports, as it should.
    pub(crate) fn good_reports(&mut self, state: &ClusterState) -> Vec<Command> {
        (0..NODES)
            .filter_map(|number| self.report_of(state, node_id(number), true))
            .collect()
    }

    fn report_of(&mut self, state: &ClusterState, node: NodeId, obedient: bool) -> Option<Command> {
        if state.node(node)?.liveness != Liveness::Ready {
            return None;
        }
        let mut statuses = Vec::new();
        for container in state.containers_on_node(node) {
            if container.status.state.is_final() || (!obedient && self.rng.chance(50)) {
                continue;
            }
            let next = self.next_state(container, obedient);
            if next != container.status.state {
                let status = self.status(container, next);
                statuses.push((container.id, status));
            }
        }
        let batch = Op::ContainerStatusBatch { node, statuses };
        match &batch {
            Op::ContainerStatusBatch { statuses, .. } if statuses.is_empty() => None,
            _ => Some(self.command(Actor::Dispatcher { node }, vec![batch])),
        }
    }

    fn next_state(&mut self, container: &Container, obedient: bool) -> ActualState {
        let wanted = match container.desired {
            // What has begun to stop cannot run again.
            DesiredState::Running if container.status.state >= ActualState::Draining => {
                ActualState::Failed
            }
            DesiredState::Running => ActualState::Running,
            _ => ActualState::Shutdown,
        };
        match self.rng.below(if obedient { 1 } else { 8 }) {
            6 => ActualState::Failed,
            // Whatever, allowed or not.
            7 => ActualState::ALL[usize::try_from(self.rng.below(12)).unwrap_or(0)],
            _ => wanted,
        }
    }

    fn status(&self, container: &Container, state: ActualState) -> ContainerStatus {
        ContainerStatus {
            state,
            attempt: container.status.attempt.max(1),
            reason: "simulated".to_owned(),
            started_at: container.status.started_at.or(Some(Timestamp(self.now_ms))),
            finished_at: state.is_final().then_some(Timestamp(self.now_ms)),
            health: warren_types::HealthVerdict::Healthy,
            ..container.status.clone()
        }
    }

    /// Every node ready and in use.
    pub(crate) fn all_well(&self, state: &ClusterState) -> Command {
        let mut ops = Vec::new();
        for node in state.nodes() {
            ops.push(liveness(node.id, false));
            let patch = NodePatch {
                availability: Some(Availability::Active),
                ..NodePatch::default()
            };
            ops.push(Op::NodeUpdate {
                id: node.id,
                expect: None,
                patch: Box::new(patch),
            });
        }
        self.command(Actor::System, ops)
    }
}

fn liveness(id: NodeId, down: bool) -> Op {
    let liveness = if down {
        Liveness::Down
    } else {
        Liveness::Ready
    };
    Op::NodeSetLiveness {
        id,
        expect: None,
        liveness,
        reason: if down {
            "simulated".to_owned()
        } else {
            String::new()
        },
    }
}

fn node_id(number: u64) -> NodeId {
    NodeId::from_parts(BEGIN_MS, u128::from(number) + 1)
}

fn node(number: u64) -> Node {
    Node {
        id: node_id(number),
        name: format!("node-{number}"),
        role: if number == 0 {
            NodeRole::Hybrid
        } else {
            NodeRole::Worker
        },
        address: String::new(),
        hostname: format!("host-{number}"),
        labels: BTreeMap::new(),
        platform: Platform::default(),
        resources: NodeResources {
            cpu: MilliCpu(64_000),
            memory: Bytes(64 << 30),
            disk: Bytes(1 << 40),
        },
        availability: Availability::Active,
        liveness: Liveness::Ready,
        reason: String::new(),
        subnet: format!("10.89.{number}.0/24"),
        version_text: "0.1.0".to_owned(),
        certificate_root: String::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}
