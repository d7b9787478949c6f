//! A cluster for tests: the real state machine, a scheduler of three lines, nodes that do what they
//! are told at once (or fail as told), and a clock that is moved by hand.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use warren_reconciler::{Agenda, IdSource, Plan, plan};
use warren_state::{Actor, ClusterState, Command, NodePatch, Op, Rejection};
use warren_types::*;

/// Ids that sort by age, unless the clock is set back.
pub struct Ids {
    pub clock_ms: u64,
    count: u128,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            clock_ms: 1 << 20,
            count: 0,
        }
    }
}

impl IdSource for Ids {
    fn container(&mut self) -> ContainerId {
        self.count += 1;
        ContainerId::from_parts(self.clock_ms, self.count)
    }
}

pub struct World {
    pub state: ClusterState,
    pub now: Timestamp,
    pub nodes: Vec<NodeId>,
    /// Images that nodes reject.
    pub bad_images: Vec<String>,
    /// Images whose containers crash again and again.
    pub crash_images: Vec<String>,
    /// Services whose containers crash again and again.
    pub crash_looping: Vec<ServiceId>,
    /// Containers on which nodes do nothing.
    pub frozen: Vec<ContainerId>,
    /// Retired containers end only in every n-th round.
    pub stop_every: u64,
    turn: u64,
    pub rejecting: bool,
    pub unplaceable: bool,
    /// Every rollout message so far.
    pub messages: Vec<String>,
    /// Service, least number of ready containers and most living ones, checked after every change.
    watched: Option<(ServiceId, usize, usize)>,
    pub ids: Ids,
    next: u128,
    wake_at: Option<Timestamp>,
    agenda: Agenda,
}

pub fn replicas(replicas: u32) -> Mode {
    Mode::Replicated { replicas }
}

pub fn host_port(port: u16) -> PortMapping {
    PortMapping {
        container_port: port,
        host_port: port,
        ..PortMapping::default()
    }
}

/// Number of cases of a property, unless `PROPTEST_CASES` asks for another.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

impl World {
    pub fn new(nodes: usize) -> Self {
        let mut world = Self {
            state: ClusterState::new(),
            now: Timestamp(1_700_000_000_000),
            nodes: Vec::new(),
            bad_images: Vec::new(),
            crash_images: Vec::new(),
            crash_looping: Vec::new(),
            frozen: Vec::new(),
            stop_every: 1,
            turn: 0,
            rejecting: false,
            unplaceable: false,
            messages: Vec::new(),
            watched: None,
            ids: Ids::default(),
            next: 0,
            wake_at: None,
            agenda: Agenda::default(),
        };
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    pub fn apply(&mut self, actor: Actor, ops: Vec<Op>) {
        if let Err(e) = self.try_apply(actor, ops.clone()) {
            panic!("{e}\n{ops:#?}");
        }
    }

    pub fn try_apply(&mut self, actor: Actor, ops: Vec<Op>) -> Result<(), Rejection> {
        let applied = self.state.apply(&Command::new(actor, self.now, ops))?;
        self.agenda.note(&self.state, &applied.changes);
        self.check();
        Ok(())
    }

    /// What must hold after every change.
    fn check(&self) {
        let mut places = std::collections::BTreeSet::new();
        for c in self.state.containers() {
            if c.desired == DesiredState::Running && !c.status.state.is_final() {
                assert!(
                    places.insert((c.service, c.slot, c.service_revision)),
                    "two in one place: {c:?}"
                );
            }
        }
        if let Some((service, least, most)) = self.watched {
            let ready = self
                .live(service)
                .iter()
                .filter(|c| c.status.state == ActualState::Running)
                .count();
            assert!(ready >= least, "{ready} ready, not {least}");
            let all = self.state.containers_of_service(service);
            let living = all.filter(|c| !c.status.state.is_final()).count();
            assert!(living <= most, "{living} living, more than {most}");
        }
    }

    pub fn watch_ready(&mut self, service: ServiceId, least: usize) {
        self.watched = Some((service, least, usize::MAX));
    }

    pub fn watch(&mut self, service: ServiceId, least: usize, most: usize) {
        self.watched = Some((service, least, most));
    }

    pub fn add_node(&mut self) -> NodeId {
        self.next += 1;
        let id = NodeId::from_u128(self.next);
        let node = Node {
            id,
            name: format!("n{}", self.next),
            role: NodeRole::Worker,
            address: String::new(),
            hostname: String::new(),
            labels: BTreeMap::new(),
            platform: Platform::default(),
            resources: NodeResources::default(),
            availability: Availability::Active,
            liveness: Liveness::Ready,
            reason: String::new(),
            subnet: String::new(),
            version_text: String::new(),
            certificate_root: String::new(),
            created_at: self.now,
            updated_at: self.now,
            version: Revision(0),
        };
        self.apply(Actor::System, vec![Op::NodeAdd(Box::new(node))]);
        self.liveness(id, Liveness::Ready);
        self.nodes.push(id);
        id
    }

    pub fn liveness(&mut self, id: NodeId, liveness: Liveness) {
        let reason = "no heartbeat for 10 s".to_owned();
        self.apply(
            Actor::System,
            vec![Op::NodeSetLiveness {
                id,
                expect: None,
                liveness,
                reason,
            }],
        );
    }

    pub fn patch(&mut self, id: NodeId, edit: impl FnOnce(&mut NodePatch)) {
        let mut patch = Box::<NodePatch>::default();
        edit(&mut patch);
        self.apply(
            Actor::System,
            vec![Op::NodeUpdate {
                id,
                expect: None,
                patch,
            }],
        );
    }

    pub fn service(&mut self, name: &str, edit: impl FnOnce(&mut ServiceSpec)) -> ServiceId {
        self.next += 1;
        let id = ServiceId::from_u128(self.next);
        let mut spec = ServiceSpec {
            name: name.to_owned(),
            ..ServiceSpec::default()
        };
        spec.container.image = "web:1".to_owned();
        edit(&mut spec);
        self.apply(
            Actor::System,
            vec![Op::ServiceCreate {
                id,
                spec: Arc::new(spec),
            }],
        );
        id
    }

    pub fn update(&mut self, id: ServiceId, edit: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = ServiceSpec::clone(&self.state.service(id).unwrap().spec);
        edit(&mut spec);
        self.apply(
            Actor::System,
            vec![Op::ServiceUpdate {
                id,
                expect: None,
                spec: Arc::new(spec),
            }],
        );
    }

    pub fn scale(&mut self, id: ServiceId, replicas: u32) {
        self.apply(
            Actor::System,
            vec![Op::ServiceSetReplicas {
                id,
                expect: None,
                replicas,
            }],
        );
    }

    pub fn rollout(&self, id: ServiceId) -> Rollout {
        self.state.service(id).unwrap().rollout.clone().unwrap()
    }

    /// Containers of a service that shall run and have not ended.
    pub fn live(&self, id: ServiceId) -> Vec<Arc<Container>> {
        self.state
            .containers_of_service(id)
            .filter(|c| c.desired == DesiredState::Running && !c.status.state.is_final())
            .cloned()
            .collect()
    }

    pub fn running(&self, id: ServiceId) -> usize {
        let running = |c: &&Arc<Container>| c.status.state == ActualState::Running;
        self.state.containers_of_service(id).filter(running).count()
    }

    pub fn slots(&self, id: ServiceId) -> Vec<u32> {
        let number = |c: &Arc<Container>| match c.slot {
            Slot::Replica(n) => n,
            Slot::Node(_) => 0,
        };
        self.live(id).iter().map(number).collect()
    }

    pub fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Duration(millis));
    }

    pub fn plan(&mut self) -> Plan {
        plan(&self.state, self.now, &mut self.ids)
    }

    /// Plans what changes have put on the agenda until nothing is left, then lets scheduler and nodes act once. A look at
    /// everything must find nothing more.
    pub fn round(&mut self) {
        for step in 0.. {
            let turn = self.agenda.turn(&self.state, self.now, &mut self.ids);
            self.wake_at = turn.wake_at;
            let ops: Vec<Op> = turn.parts.into_iter().flat_map(|(_, ops)| ops).collect();
            if ops.is_empty() && !turn.more {
                break;
            }
            assert!(step < 20, "plans without end: {ops:#?}");
            self.apply(Actor::Reconciler, ops);
            let messages = self.state.services().filter_map(|s| s.rollout.as_ref());
            self.messages
                .extend(messages.map(|r| r.message.clone()).collect::<Vec<_>>());
        }
        if let Some(at) = self.wake_at {
            assert!(at > self.now, "wakes in the past");
        }
        let everything = plan(&self.state, self.now, &mut Ids::default());
        assert!(
            everything.ops.is_empty(),
            "not on the agenda: {:#?}",
            everything.ops
        );
        assert_eq!(self.wake_at, everything.wake_at, "the time to wake up");
        self.schedule();
        self.nodes_act();
    }

    /// Rounds without the clock moving.
    pub fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| self.round());
    }

    /// Goes to the next moment at which something happens by itself; false when there is none.
    pub fn rest(&mut self) -> bool {
        let Some(at) = self.wake_at else { return false };
        self.now = self.now.max(at);
        true
    }

    /// Rounds until nothing changes and nobody wants to be woken.
    pub fn settle(&mut self) {
        self.settle_for(2000);
        let left = self.plan();
        assert!(left.ops.is_empty(), "does not settle: {:#?}", left.ops);
    }

    /// At most this many rounds.
    pub fn settle_for(&mut self, rounds: usize) {
        for _ in 0..rounds {
            let before = self.state.revision();
            self.round();
            if self.state.revision() == before {
                // A crash loop wakes nobody up, but takes time.
                if self.looping() {
                    self.pass(1000);
                } else if !self.rest() {
                    return;
                }
            }
        }
    }

    fn looping(&self) -> bool {
        !self.crash_images.is_empty() || !self.crash_looping.is_empty() || self.stop_every > 1
    }

    /// Places what is pending on the node with the fewest containers, one per host port.
    fn schedule(&mut self) {
        let pending: Vec<Arc<Container>> = self
            .state
            .containers()
            .filter(|c| {
                c.status.state == ActualState::Pending && c.desired == DesiredState::Running
            })
            .cloned()
            .collect();
        for container in pending {
            let mut nodes: Vec<_> = self.state.nodes().cloned().collect();
            nodes.sort_by_key(|n| (self.state.node_usage(n.id).containers, n.id));
            let assign = |node: NodeId| Op::ContainerAssign {
                id: container.id,
                expect: None,
                node,
            };
            let mut candidates = nodes.iter().filter(|_| !self.unplaceable);
            let found = candidates.find(|node| {
                let command = Command::new(Actor::Scheduler, self.now, vec![assign(node.id)]);
                self.state.clone().apply(&command).is_ok()
            });
            let op = match found {
                Some(node) => assign(node.id),
                None => Op::ContainerSetReason {
                    id: container.id,
                    expect: None,
                    reason: "no node fits".to_owned(),
                },
            };
            if found.is_some() || container.status.reason != "no node fits" {
                self.apply(Actor::Scheduler, vec![op]);
            }
        }
    }

    fn image(&self, container: &Container) -> String {
        self.state
            .spec_of(container)
            .unwrap()
            .container
            .image
            .clone()
    }

    fn nodes_act(&mut self) {
        self.turn += 1;
        let stops = self.turn.is_multiple_of(self.stop_every);
        let all: Vec<Arc<Container>> = self.state.containers().cloned().collect();
        for c in all {
            let away = c
                .node
                .and_then(|id| self.state.node(id))
                .is_none_or(|n| n.liveness != Liveness::Ready);
            if c.status.state.is_final() || away || self.frozen.contains(&c.id) {
                continue;
            }
            let image = self.image(&c);
            let loops =
                self.crash_images.contains(&image) || self.crash_looping.contains(&c.service);
            match (c.desired, c.status.state) {
                (DesiredState::Shutdown, _) if !stops => {}
                (DesiredState::Shutdown, _) => self.report(c.id, |s| {
                    s.state = ActualState::Shutdown;
                    s.reason = "stopped".to_owned();
                }),
                (_, ActualState::Running) if loops => self.crash(c.id),
                (_, ActualState::Running) => {}
                (_, ActualState::Starting) if loops => {}
                _ if self.rejecting || self.bad_images.contains(&image) => self.report(c.id, |s| {
                    s.state = ActualState::Rejected;
                    s.reason = format!("image {image:?} is not present");
                }),
                _ => self.report(c.id, |s| {
                    s.attempt = s.attempt.max(1);
                    s.state = ActualState::Running;
                    s.reason.clear();
                }),
            }
        }
    }

    /// The process ended and its node starts it again.
    pub fn crash(&mut self, id: ContainerId) {
        self.report(id, |s| {
            s.attempt += 1;
            s.state = ActualState::Starting;
            s.exit = Some(ExitInfo {
                code: 1,
                signal: None,
                oom: false,
            });
            s.reason = format!(
                "restarting in 0.1 s after exit status 1 (attempt {})",
                s.attempt
            );
        });
    }

    pub fn report(&mut self, id: ContainerId, edit: impl FnOnce(&mut ContainerStatus)) {
        let container = self.state.container(id).unwrap().clone();
        let node = container.node.unwrap();
        let mut status = Box::new(container.status.clone());
        edit(&mut status);
        if status.state.is_final() {
            status.finished_at = Some(self.now);
        }
        self.apply(
            Actor::System,
            vec![Op::ContainerStatus { id, node, status }],
        );
    }
}
