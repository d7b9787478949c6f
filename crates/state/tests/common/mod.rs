//! A generator of commands, half of them sensible: random numbers are read against the present state,
//! so that sequences get deep instead of being refused at the first step.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod objects;

pub use objects::*;
use proptest::prelude::*;
use std::sync::Arc;
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_types::*;

/// Names and ids are drawn from this few, so that they collide.
const FEW: u64 = 4;
/// One command in this many comes long after the one before, so that removed nodes are forgotten.
const JUMP_EVERY: u16 = 64;
const JUMP_MS: u64 = warren_types::limits::REMOVED_NODE_MS_KEPT / 2;

/// Random numbers that become one operation.
#[derive(Debug, Clone)]
pub struct Draw {
    pub op: u8,
    pub n: [u16; 6],
}

/// Random numbers that become one command.
#[derive(Debug, Clone)]
pub struct Step {
    pub draws: Vec<Draw>,
    /// Below 8: a wrong actor.
    pub actor: u8,
    /// Below 32: an idempotency key.
    pub key: u8,
    pub millis: u16,
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let draw = (any::<u8>(), any::<[u16; 6]>()).prop_map(|(op, n)| Draw { op, n });
    // Mostly one: of several, one refusal refuses all.
    let draws = prop_oneof![
        4 => prop::collection::vec(draw.clone(), 1..2),
        1 => prop::collection::vec(draw, 2..4),
    ];
    let step =
        (draws, any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(draws, actor, key, millis)| {
            Step {
                draws,
                actor,
                key,
                millis,
            }
        });
    prop::collection::vec(step, 1..most)
}

/// Three nodes and one object of each kind, so that most runs begin with something to work on.
pub fn prelude() -> Command {
    let ops = vec![
        Op::NodeAdd(Box::new(node(0))),
        Op::NodeAdd(Box::new(node(1))),
        Op::NodeAdd(Box::new(node(3))),
        Op::SecretCreate(Box::new(secret(1))),
        Op::ConfigCreate(Box::new(config(1))),
        Op::VolumeCreate(Box::new(volume(1))),
        Op::NetworkCreate(Box::new(network(1))),
    ];
    Command::new(Actor::System, Timestamp(1_600_000_000_000), ops)
}

/// Ids that are made as the run goes on.
pub struct World {
    pub clock: u64,
    next_container: u128,
}

impl Default for World {
    fn default() -> Self {
        Self {
            clock: 1_700_000_000_000,
            next_container: 1,
        }
    }
}

pub fn node_id(n: u64) -> NodeId {
    NodeId::from_parts(1, u128::from(n % FEW) + 1)
}
pub fn service_id(n: u64) -> ServiceId {
    ServiceId::from_parts(2, u128::from(n % FEW) + 1)
}

fn pick<'a, T>(mut all: impl Iterator<Item = &'a Arc<T>>, n: u16) -> Option<Arc<T>>
where
    T: 'a,
{
    let items: Vec<_> = all.by_ref().cloned().collect();
    (!items.is_empty()).then(|| Arc::clone(&items[usize::from(n) % items.len()]))
}

impl World {
    pub fn command(&mut self, state: &ClusterState, step: &Step) -> Command {
        self.clock += u64::from(step.millis);
        if step.millis.is_multiple_of(JUMP_EVERY) {
            self.clock += JUMP_MS;
        }
        let ops: Vec<Op> = step.draws.iter().map(|d| self.op(state, d)).collect();
        let actor = match (step.actor, &ops[..]) {
            (0..8, _) => Actor::Scheduler,
            (8..16, _) => Actor::Api {
                name: "someone".to_owned(),
            },
            (16.., [op]) => owner(op),
            _ => Actor::System,
        };
        let command = Command::new(actor, Timestamp(self.clock), ops);
        match step.key {
            0..32 => command.with_key(format!("key-{}", step.key)),
            _ => command,
        }
    }

    fn expect(&self, version: Option<Revision>, n: u16) -> Option<Revision> {
        match n % 8 {
            0 => None,
            1 => version.map(|v| Revision(v.0 + 1)),
            _ => version,
        }
    }

    fn op(&mut self, state: &ClusterState, draw: &Draw) -> Op {
        match draw.op % 16 {
            0 | 1 => self.node_op(state, draw),
            2..=4 => self.service_op(state, draw),
            5..=12 => self.container_op(state, draw),
            _ => self.object_op(state, draw),
        }
    }

    fn node_op(&mut self, state: &ClusterState, draw: &Draw) -> Op {
        let [kind, who, a, b, ..] = draw.n;
        let id = match kind % 8 {
            0..4 => self.new_node(state, u64::from(who), a),
            _ => pick(state.nodes(), who).map_or(node_id(u64::from(who)), |n| n.id),
        };
        let version = state.node(id).map(|n| n.version);
        let expect = self.expect(version, b);
        match kind % 8 {
            0..4 => Op::NodeAdd(Box::new(Node {
                id,
                ..node(u64::from(who))
            })),
            4 => Op::NodeUpdate {
                id,
                expect,
                patch: Box::new(NodePatch {
                    role: (a.is_multiple_of(4)).then_some(match a % 3 {
                        0 => NodeRole::Manager,
                        _ => NodeRole::Worker,
                    }),
                    address: (a % 7 == 1).then(|| format!("10.0.0.{}:8080", a % 9)),
                    certificate_root: (a % 7 == 2).then(|| "0a".repeat(32)),
                    labels: (a.is_multiple_of(3))
                        .then(|| [("zone".to_owned(), a.to_string())].into()),
                    availability: (a % 8 == 1).then_some(Availability::Drain),
                    resources: (a.is_multiple_of(5)).then_some(NodeResources {
                        cpu: MilliCpu(u32::from(a % 3000)),
                        memory: Bytes(u64::from(a) << 15),
                        disk: Bytes(0),
                    }),
                    ..NodePatch::default()
                }),
            },
            5 | 6 => Op::NodeSetLiveness {
                id,
                expect,
                liveness: [Liveness::Ready, Liveness::Down, Liveness::Ready][usize::from(a % 3)],
                reason: "silent".to_owned(),
            },
            _ => Op::NodeRemove {
                id,
                expect,
                force: a.is_multiple_of(2),
            },
        }
    }

    /// The usual id of a node of this name; once that was removed, mostly a new one.
    fn new_node(&mut self, state: &ClusterState, who: u64, a: u16) -> NodeId {
        let usual = node_id(who);
        if state.is_removed(usual).is_none() || a.is_multiple_of(4) {
            return usual;
        }
        self.next_container += 1;
        NodeId::from_parts(12, self.next_container)
    }

    fn service_op(&mut self, state: &ClusterState, draw: &Draw) -> Op {
        let [kind, who, a, b, c, _] = draw.n;
        let id = service_id(u64::from(who));
        let service = state.service(id).cloned();
        let expect = self.expect(service.as_ref().map(|s| s.version), b);
        let Some(service) = service else {
            return Op::ServiceCreate {
                id,
                spec: Arc::new(spec(u64::from(who), a)),
            };
        };
        match kind % 16 {
            0 => Op::ServiceCreate {
                id,
                spec: Arc::new(spec(u64::from(who), a)),
            },
            1..6 => Op::ServiceUpdate {
                id,
                expect,
                spec: Arc::new(spec(u64::from(who), a)),
            },
            6 | 7 => Op::ServiceSetReplicas {
                id,
                expect,
                replicas: u32::from(a % 6),
            },
            8..10 => Op::ServiceSetRollout {
                id,
                expect,
                rollout: service.rollout.clone().map(|mut r| {
                    r.state = [
                        RolloutState::Updating,
                        RolloutState::Completed,
                        RolloutState::RolledBack,
                    ][usize::from(a % 3)];
                    r.finished_at = (r.state != RolloutState::Updating).then_some(Timestamp(1));
                    r.to += u32::from(c.is_multiple_of(7));
                    Box::new(r)
                }),
            },
            10..12 => Op::ServiceRollback {
                id,
                expect,
                to: (a.is_multiple_of(2)).then_some(u32::from(a / 2 % 4)),
            },
            12 => Op::ServiceDelete { id, expect },
            _ if service.deleting => Op::ServiceRemove { id, expect },
            _ => Op::ServiceSetReplicas {
                id,
                expect,
                replicas: u32::from(a % 4),
            },
        }
    }

    fn container_op(&mut self, state: &ClusterState, draw: &Draw) -> Op {
        let [kind, who, a, b, c, d] = draw.n;
        let node = pick(state.nodes(), c).map_or(node_id(u64::from(c)), |n| n.id);
        if kind % 5 < 2 {
            return self.container_create(state, draw, node);
        }
        let chosen = pick(state.containers(), who);
        let id = chosen.as_ref().map_or(ContainerId::from_u128(7), |c| c.id);
        let expect = self.expect(chosen.as_ref().map(|c| c.version), b);
        let home = chosen.as_ref().and_then(|c| c.node);
        let status = status(chosen.as_deref(), a, d);
        let pending = chosen
            .as_ref()
            .is_some_and(|c| c.status.state == ActualState::Pending);
        match kind / 5 % 25 {
            0..6 if pending => Op::ContainerAssign {
                id,
                expect,
                node: match chosen.as_ref().map(|c| c.slot) {
                    Some(Slot::Node(own)) if a % 4 != 0 => own,
                    _ => node,
                },
            },
            0..6 => Op::ContainerStatus {
                id,
                node: if a.is_multiple_of(16) {
                    node
                } else {
                    home.unwrap_or(node)
                },
                status: Box::new(status),
            },
            6..14 => Op::ContainerStatusBatch {
                node: home.unwrap_or(node),
                statuses: vec![
                    (id, status),
                    (ContainerId::from_u128(7), self::status(None, a, d)),
                ],
            },
            14 => Op::ContainerSetReason {
                id,
                expect,
                reason: format!("no node fits {a}"),
            },
            15 | 16 => Op::ContainerSetDesired {
                id,
                expect,
                desired: match a % 8 {
                    0 => DesiredState::Running,
                    _ => DesiredState::Shutdown,
                },
            },
            17 => Op::ContainerLost {
                id,
                expect,
                reason: "node lost".to_owned(),
            },
            18..21 => Op::ContainerDelete { id, expect },
            _ if pending => Op::ContainerAssign { id, expect, node },
            _ => Op::ContainerStatus {
                id,
                node: home.unwrap_or(node),
                status: Box::new(status),
            },
        }
    }

    fn container_create(&mut self, state: &ClusterState, draw: &Draw, node: NodeId) -> Op {
        let [_, who, a, b, _, d] = draw.n;
        let service = pick(state.services(), who);
        let id = ContainerId::from_parts(11, self.next_container);
        self.next_container += u128::from(d % 16 != 0);
        let global = service
            .as_ref()
            .is_some_and(|s| s.spec.mode == Mode::Global);
        let slot = if global != (a.is_multiple_of(16)) {
            Slot::Node(node)
        } else {
            Slot::Replica(u32::from(a % 4))
        };
        Op::ContainerCreate {
            id,
            service: service.as_ref().map_or(service_id(0), |s| s.id),
            expect_service: self.expect(service.as_ref().map(|s| s.version), b),
            revision: match d % 4 {
                0 => u32::from(d / 4 % 4),
                _ => service.as_ref().map_or(1, |s| s.revision),
            },
            slot,
        }
    }

    fn object_op(&mut self, state: &ClusterState, draw: &Draw) -> Op {
        let [kind, who, a, b, c, _] = draw.n;
        match kind % 22 {
            0 | 1 => Op::SecretCreate(Box::new(secret(who))),
            2 => {
                let object = secret(who);
                let version = state.secret(object.id).map(|o| o.version);
                let expect = self.expect(version, b);
                match a % 3 {
                    0 => Op::SecretUpdate {
                        expect,
                        secret: Box::new(object),
                    },
                    1 => Op::SecretReseal {
                        id: object.id,
                        expect,
                        data: resealed(c),
                    },
                    _ => Op::SecretDelete {
                        id: object.id,
                        expect,
                    },
                }
            }
            3 => Op::ConfigCreate(Box::new(config(who))),
            4 => {
                let object = config(who);
                let version = state.config(object.id).map(|o| o.version);
                let expect = self.expect(version, b);
                match a % 2 {
                    0 => Op::ConfigUpdate {
                        expect,
                        config: Box::new(object),
                    },
                    _ => Op::ConfigDelete {
                        id: object.id,
                        expect,
                    },
                }
            }
            5 | 6 => Op::VolumeCreate(Box::new(volume(who))),
            7 => {
                let object = volume(who);
                let version = state.volume(object.id).map(|o| o.version);
                let expect = self.expect(version, b);
                match a % 2 {
                    0 => Op::VolumeBind {
                        id: object.id,
                        expect,
                        node: node_id(u64::from(c)),
                        mount_path: String::new(),
                    },
                    _ => Op::VolumeDelete {
                        id: object.id,
                        expect,
                    },
                }
            }
            8 | 9 => Op::NetworkCreate(Box::new(network(who))),
            10 => Op::NetworkDelete {
                id: network(who).id,
                expect: None,
            },
            11 => Op::CertificateCreate(Box::new(certificate(who))),
            12 => Op::CertificateUpdate {
                expect: None,
                certificate: Box::new(certificate(who)),
            },
            13 if a.is_multiple_of(2) => Op::CertificateReseal {
                id: certificate(who).id,
                expect: None,
                data: resealed(c),
            },
            13 => Op::CertificateDelete {
                id: certificate(who).id,
                expect: None,
            },
            14 => Op::IngressCreate(Box::new(ingress(who, a))),
            15 => Op::IngressUpdate {
                expect: None,
                ingress: Box::new(ingress(who, a)),
            },
            16 => Op::IngressDelete {
                id: ingress(who, a).id,
                expect: None,
            },
            17 => Op::TokenCreate(Box::new(token(who, self.clock))),
            18 => Op::TokenUse {
                id: token(who, 0).id,
            },
            19 => match a % 2 {
                0 => Op::TokenRevoke {
                    id: token(who, 0).id,
                },
                _ => Op::TokenDelete {
                    id: token(who, 0).id,
                },
            },
            20 => Op::SettingsInit(Box::new(settings(a))),
            _ => Op::SettingsUpdate {
                expect: self.expect(state.settings().map(|s| s.version), b),
                settings: Box::new(settings(a)),
            },
        }
    }
}

fn status(before: Option<&Container>, a: u16, d: u16) -> ContainerStatus {
    let attempt = before.map_or(1, |c| c.status.attempt);
    ContainerStatus {
        attempt: attempt + u32::from(d.is_multiple_of(8)) - u32::from(d % 16 == 1 && attempt > 0),
        state: match a % 4 {
            0 => ActualState::ALL[usize::from(a / 4 % 12)],
            // Mostly forwards by some steps.
            _ => {
                let now = before.map_or(1, |c| c.status.state as u32);
                ActualState::from_number(now + u32::from(a / 4 % 4)).unwrap_or_default()
            }
        },
        reason: if d.is_multiple_of(2) {
            String::new()
        } else {
            format!("because {d}")
        },
        pid: (d.is_multiple_of(3)).then_some(42),
        ..ContainerStatus::default()
    }
}

/// The one who may make this operation.
pub fn owner(op: &Op) -> Actor {
    let api = Actor::Api {
        name: "admin".to_owned(),
    };
    let node = match op {
        Op::ContainerStatus { node, .. } | Op::ContainerStatusBatch { node, .. } => *node,
        Op::NodeSetLiveness { id, .. } => *id,
        _ => node_id(0),
    };
    [
        api,
        Actor::Scheduler,
        Actor::Reconciler,
        Actor::Dispatcher { node },
    ]
    .into_iter()
    .find(|actor| op.is_owned_by(actor))
    .unwrap_or(Actor::System)
}
