//! A cluster for tests: the real state machine, changed only through `apply`, and the scheduler's agenda of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use warren_scheduler::{Agenda, LOOKED_AT_MAX, Plan, plan};
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_types::*;

pub const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// A cluster for tests, changed only through `apply`.
#[derive(Default)]
pub struct World {
    pub state: ClusterState,
    pub next: u128,
    pub agenda: Agenda,
    /// Milliseconds after [`NOW`].
    pub clock: u64,
}

impl World {
    pub fn apply(&mut self, actor: Actor, ops: Vec<Op>) {
        let command = Command::new(actor, NOW, ops);
        let applied = self
            .state
            .apply(&command)
            .unwrap_or_else(|e| panic!("{e}\n{command:?}"));
        self.agenda.note(&applied.changes);
    }

    pub fn now(&self) -> Timestamp {
        NOW.plus(Duration(self.clock))
    }

    /// Plans what is on the agenda, and lets the time pass that it wants to; containers that were looked at, by turn.
    pub fn settle(&mut self, seed: u64) -> Vec<usize> {
        let mut looked_at = Vec::new();
        loop {
            let turn = self.agenda.turn(&self.state, self.now(), seed);
            assert!(turn.looked_at.len() <= LOOKED_AT_MAX);
            looked_at.push(turn.looked_at.len());
            let idle = turn.plan.ops.is_empty();
            self.apply(Actor::Scheduler, turn.plan.ops);
            match turn.wake_at {
                Some(at) if idle && !turn.more => {
                    assert!(at > self.now(), "wakes in the past");
                    self.clock += at.since(self.now()).0;
                }
                None if idle && !turn.more => return looked_at,
                _ => {}
            }
        }
    }

    /// What may happen to a container or node with this number.
    pub fn happen(&mut self, kind: u8, number: usize) {
        let containers: Vec<Arc<Container>> = self.state.containers().cloned().collect();
        let nodes: Vec<NodeId> = self.state.nodes().map(|n| n.id).collect();
        let services: Vec<ServiceId> = self.state.services().map(|s| s.id).collect();
        let Some(container) = containers.get(number % containers.len().max(1)).cloned() else {
            return;
        };
        let patch = |patch: NodePatch| {
            let id = nodes.get(number % nodes.len().max(1))?;
            let patch = Box::new(patch);
            Some(Op::NodeUpdate {
                id: *id,
                expect: None,
                patch,
            })
        };
        let op = match kind {
            0 => container
                .node
                .filter(|_| !container.status.state.is_final())
                .map(|node| {
                    let status = ContainerStatus {
                        state: ActualState::Failed,
                        ..container.status.clone()
                    };
                    let status = Box::new(status);
                    Op::ContainerStatus {
                        id: container.id,
                        node,
                        status,
                    }
                }),
            1 => Some(Op::ContainerSetDesired {
                id: container.id,
                expect: None,
                desired: DesiredState::Shutdown,
            }),
            2 => patch(NodePatch {
                availability: Some(Availability::Drain),
                ..NodePatch::default()
            }),
            3 => patch(NodePatch {
                availability: Some(Availability::Active),
                ..NodePatch::default()
            }),
            4 => patch(NodePatch {
                resources: Some(NodeResources {
                    cpu: MilliCpu(9000),
                    memory: Bytes(9000),
                    disk: Bytes(0),
                }),
                ..NodePatch::default()
            }),
            _ => {
                let service = services[number % services.len()];
                self.containers(service, 1000 + self.next as u32, 2);
                None
            }
        };
        if let Some(op) = op.filter(|op| {
            let command = Command::new(Actor::System, NOW, vec![op.clone()]);
            self.state.clone().apply(&command).is_ok()
        }) {
            self.apply(Actor::System, vec![op]);
        }
    }

    pub fn id(&mut self) -> u128 {
        self.next += 1;
        // Like real ids: the time first, so that they sort by age.
        self.next << 64
    }

    pub fn node(&mut self, edit: impl FnOnce(&mut Node)) -> NodeId {
        let id = NodeId::from_u128(self.id());
        let mut node = Node {
            id,
            name: format!("n{}", self.next),
            role: NodeRole::Worker,
            address: String::new(),
            hostname: String::new(),
            labels: BTreeMap::new(),
            platform: Platform::default(),
            resources: NodeResources {
                cpu: MilliCpu(4000),
                memory: Bytes(8 * Bytes::GIB),
                disk: Bytes(0),
            },
            availability: Availability::Active,
            liveness: Liveness::Ready,
            reason: String::new(),
            subnet: String::new(),
            version_text: String::new(),
            certificate_root: String::new(),
            created_at: NOW,
            updated_at: NOW,
            version: Revision(0),
        };
        edit(&mut node);
        let (liveness, reason) = (node.liveness, "test".to_owned());
        self.apply(
            Actor::System,
            vec![
                Op::NodeAdd(Box::new(node)),
                Op::NodeSetLiveness {
                    id,
                    expect: None,
                    liveness,
                    reason,
                },
            ],
        );
        id
    }

    pub fn service(
        &mut self,
        name: &str,
        count: u32,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> ServiceId {
        let id = ServiceId::from_u128(self.id());
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            ..ServiceSpec::default()
        };
        spec.mode = Mode::Replicated { replicas: count };
        spec.container.image = "demo:1".to_owned();
        edit(&mut spec);
        self.apply(
            Actor::System,
            vec![Op::ServiceCreate {
                id,
                spec: Arc::new(spec),
            }],
        );
        self.containers(id, 1, count);
        id
    }

    pub fn containers(&mut self, service: ServiceId, first: u32, count: u32) {
        let ops = (first..first + count)
            .map(|slot| Op::ContainerCreate {
                id: ContainerId::from_u128(self.id()),
                service,
                expect_service: None,
                revision: 1,
                slot: Slot::Replica(slot),
            })
            .collect();
        self.apply(Actor::Reconciler, ops);
    }

    pub fn volume(&mut self, name: &str, node: Option<NodeId>) {
        let id = VolumeId::from_u128(self.id());
        self.apply(
            Actor::System,
            vec![Op::VolumeCreate(Box::new(Volume {
                id,
                name: name.to_owned(),
                driver: "local".to_owned(),
                driver_opts: BTreeMap::new(),
                labels: BTreeMap::new(),
                node,
                mount_path: String::new(),
                created_at: NOW,
                version: Revision(0),
            }))],
        );
    }

    /// Plans, applies the plan, and shows that nothing is left to say.
    pub fn run(&mut self, seed: u64) -> Plan {
        let made = plan(&self.state, seed);
        self.apply(Actor::Scheduler, made.ops.clone());
        assert_eq!(self.state.invariants(), vec![]);
        if !made.truncated {
            let again = plan(&self.state, seed ^ 1);
            assert!(again.ops.is_empty(), "not settled: {again:?}");
        }
        made
    }

    pub fn per_node(&self, service: ServiceId) -> Vec<usize> {
        let count = |n: &Arc<Node>| {
            self.state
                .containers_of_service(service)
                .filter(|c| c.node == Some(n.id))
                .count()
        };
        self.state.nodes().map(count).collect()
    }

    pub fn reasons(&self, service: ServiceId) -> Vec<String> {
        let mut all: Vec<String> = self
            .state
            .containers_of_service(service)
            .filter(|c| c.status.state == ActualState::Pending)
            .map(|c| c.status.reason.clone())
            .collect();
        all.dedup();
        all
    }
}
