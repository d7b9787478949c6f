//! From the containers a node knows of to its desired network.

use crate::desired::{Backend, BridgeNetwork, Endpoint, HostPort, NodeNetwork};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use warren_types::{
    ActualState, ContainerId, ContainerStatus, HealthVerdict, PortMapping, PublishMode, ServiceId,
};

/// Most containers behind one published port of one node; more get no traffic through it.
pub const BACKENDS_PER_PORT_MAX: usize = 512;
/// Most published ports of one node; more are left closed.
pub const PUBLISHED_PORTS_MAX: usize = 4096;

/// What planning needs to know of a container.
#[derive(Debug, Clone, Copy)]
pub struct PlannedContainer<'a> {
    /// Its id.
    pub id: ContainerId,
    /// Its service.
    pub service: ServiceId,
    /// It is on this node; others only take part in ports of mode `ingress`.
    pub local: bool,
    /// Its address; without one it is not in the network yet.
    pub address: Option<Ipv4Addr>,
    /// It takes traffic; see [`serves`].
    pub serving: bool,
    /// The ports its service publishes.
    pub ports: &'a [PortMapping],
}

/// Something that could not be planned as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanIssue {
    /// Two services want the same port of the host; the older service keeps it.
    PortConflict {
        /// The port.
        port: HostPort,
        /// Who has it.
        holder: ServiceId,
        /// Who does not get it.
        refused: ServiceId,
    },
    /// An address that the node's subnet does not hold, or that another container has.
    BadAddress {
        /// The container.
        container: ContainerId,
        /// Its address.
        address: Ipv4Addr,
    },
    /// More backends or ports than the limit.
    Limit {
        /// The port beyond it.
        port: HostPort,
        /// Which limit, with its value.
        what: &'static str,
        /// Its value.
        limit: usize,
    },
}

impl fmt::Display for PlanIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortConflict {
                port,
                holder,
                refused,
            } => {
                write!(
                    f,
                    "port {port} is published by service {holder} already, so service {refused} does not get it; choose another host port"
                )
            }
            Self::BadAddress { container, address } => {
                write!(
                    f,
                    "container {container} has address {address}, which this node cannot use; it needs a new one"
                )
            }
            Self::Limit { port, what, limit } => write!(f, "port {port}: more than {limit} {what}"),
        }
    }
}

/// A desired network and what could not be part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// The network; always valid.
    pub network: NodeNetwork,
    /// What was left out, in a fixed order.
    pub issues: Vec<PlanIssue>,
}

/// Does a container with this status take traffic? It runs, is not draining, and no health check
/// says otherwise.
#[must_use]
pub const fn serves(status: &ContainerStatus) -> bool {
    matches!(status.state, ActualState::Running)
        && matches!(
            status.health,
            HealthVerdict::Unknown | HealthVerdict::Healthy
        )
}

/// The desired network of a node. The order of `containers` does not matter.
///
/// A port of mode `host` leads to one container of this node, the newest that serves, so that an
/// update which starts the new one first switches over at once. A port of mode `ingress` leads to
/// all that serve. Of two services that want the same port the older one has it.
#[must_use]
pub fn plan_node<'a>(
    bridge: BridgeNetwork,
    containers: impl IntoIterator<Item = PlannedContainer<'a>>,
) -> NodePlan {
    let mut containers: Vec<_> = containers.into_iter().collect();
    containers.sort_by_key(|c| (c.service, c.id));
    let mut network = NodeNetwork::empty(bridge);
    let mut issues = Vec::new();
    let mut usable = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for container in &containers {
        let Some(address) = container.address else {
            continue;
        };
        let fits = if container.local {
            network.bridge.subnet.assignable(address)
        } else {
            !network.bridge.subnet.contains(address)
        };
        if !fits || !taken.insert(address) {
            issues.push(PlanIssue::BadAddress {
                container: container.id,
                address,
            });
            continue;
        }
        usable.insert(container.id);
        if container.local {
            network
                .endpoints
                .insert(container.id, Endpoint::new(container.id, address));
        }
    }
    let serving = containers
        .iter()
        .filter(|c| c.serving && usable.contains(&c.id));
    network.published = plan_ports(serving, &mut issues);
    NodePlan { network, issues }
}

/// The published ports of containers sorted by service and age.
fn plan_ports<'a>(
    containers: impl Iterator<Item = &'a PlannedContainer<'a>>,
    issues: &mut Vec<PlanIssue>,
) -> BTreeMap<HostPort, Vec<Backend>> {
    let mut holders: BTreeMap<HostPort, ServiceId> = BTreeMap::new();
    let mut published: BTreeMap<HostPort, Vec<Backend>> = BTreeMap::new();
    for container in containers {
        let Some(address) = container.address else {
            continue;
        };
        for mapping in container
            .ports
            .iter()
            .filter(|m| m.host_port != 0 && m.container_port != 0)
        {
            let port = HostPort {
                protocol: mapping.protocol,
                port: mapping.host_port,
            };
            if mapping.publish_mode == PublishMode::Host && !container.local {
                continue;
            }
            let issue = match holders.get(&port) {
                Some(holder) if *holder != container.service => Some(PlanIssue::PortConflict {
                    port,
                    holder: *holder,
                    refused: container.service,
                }),
                None if holders.len() == PUBLISHED_PORTS_MAX => Some(PlanIssue::Limit {
                    port,
                    what: "published ports on one node",
                    limit: PUBLISHED_PORTS_MAX,
                }),
                _ => {
                    holders.insert(port, container.service);
                    let backend = Backend {
                        container: container.id,
                        address,
                        port: mapping.container_port,
                    };
                    add_backend(
                        published.entry(port).or_default(),
                        mapping.publish_mode,
                        backend,
                    )
                    .map(|limit| PlanIssue::Limit {
                        port,
                        what: "containers behind one port",
                        limit,
                    })
                }
            };
            if let Some(issue) = issue.filter(|i| !issues.contains(i)) {
                issues.push(issue);
            }
        }
    }
    published
}

/// Adds a backend; the limit if it is reached.
fn add_backend(backends: &mut Vec<Backend>, mode: PublishMode, backend: Backend) -> Option<usize> {
    match mode {
        PublishMode::Host => {
            backends.clear();
            backends.push(backend);
            None
        }
        PublishMode::Ingress if backends.len() >= BACKENDS_PER_PORT_MAX => {
            Some(BACKENDS_PER_PORT_MAX)
        }
        PublishMode::Ingress => {
            if !backends.contains(&backend) {
                backends.push(backend);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warren_types::Protocol;

    fn bridge() -> BridgeNetwork {
        BridgeNetwork::new("warren0", "10.89.0.0/24".parse().unwrap())
    }

    fn mapping(host: u16, target: u16, mode: PublishMode) -> PortMapping {
        PortMapping {
            name: None,
            container_port: target,
            host_port: host,
            protocol: Protocol::Tcp,
            publish_mode: mode,
        }
    }

    fn container(n: u8, service: u8, ports: &[PortMapping]) -> PlannedContainer<'_> {
        PlannedContainer {
            id: ContainerId::from_u128(u128::from(n)),
            service: ServiceId::from_u128(u128::from(service)),
            local: true,
            address: Some(Ipv4Addr::new(10, 89, 0, n)),
            serving: true,
            ports,
        }
    }

    const WEB: HostPort = HostPort {
        protocol: Protocol::Tcp,
        port: 8080,
    };

    #[test]
    fn ingress_leads_to_all_that_serve_and_host_to_the_newest() {
        let ingress = [mapping(8080, 80, PublishMode::Ingress)];
        let host = [mapping(9090, 90, PublishMode::Host)];
        let draining = PlannedContainer {
            serving: false,
            ..container(4, 1, &ingress)
        };
        let plan = plan_node(
            bridge(),
            [
                container(3, 1, &ingress),
                draining,
                container(2, 1, &ingress),
                container(7, 2, &host),
                container(6, 2, &host),
            ],
        );
        assert_eq!(plan.issues, []);
        let ids = |port| {
            plan.network.published[&port]
                .iter()
                .map(|b| b.container.as_u128())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(WEB), [2, 3]);
        assert_eq!(
            ids(HostPort {
                protocol: Protocol::Tcp,
                port: 9090
            }),
            [7]
        );
        assert_eq!(plan.network.endpoints.len(), 5);
    }

    #[test]
    fn remote_containers_take_part_in_ingress_only() {
        let ports = [
            mapping(8080, 80, PublishMode::Ingress),
            mapping(9090, 80, PublishMode::Host),
        ];
        let remote = PlannedContainer {
            local: false,
            address: Some(Ipv4Addr::new(10, 89, 5, 9)),
            ..container(9, 1, &ports)
        };
        let plan = plan_node(bridge(), [remote]);
        assert_eq!(plan.network.endpoints.len(), 0);
        assert_eq!(
            plan.network.published.keys().copied().collect::<Vec<_>>(),
            [WEB]
        );
    }

    #[test]
    fn the_older_service_keeps_a_port() {
        let ports = [mapping(8080, 80, PublishMode::Ingress)];
        let plan = plan_node(
            bridge(),
            [
                container(2, 5, &ports),
                container(3, 4, &ports),
                container(4, 5, &ports),
            ],
        );
        assert_eq!(plan.network.published[&WEB].len(), 1);
        assert_eq!(plan.network.published[&WEB][0].container.as_u128(), 3);
        assert_eq!(plan.issues.len(), 1, "{:?}", plan.issues);
        assert!(plan.issues[0].to_string().contains("8080/tcp"));
    }

    #[test]
    fn readiness_and_draining_gate_traffic() {
        let status = |state, health| ContainerStatus {
            state,
            health,
            ..ContainerStatus::default()
        };
        assert!(serves(&status(
            ActualState::Running,
            HealthVerdict::Unknown
        )));
        assert!(serves(&status(
            ActualState::Running,
            HealthVerdict::Healthy
        )));
        assert!(!serves(&status(
            ActualState::Running,
            HealthVerdict::Starting
        )));
        assert!(!serves(&status(
            ActualState::Running,
            HealthVerdict::Unhealthy
        )));
        assert!(!serves(&status(
            ActualState::Draining,
            HealthVerdict::Healthy
        )));
        assert!(!serves(&status(
            ActualState::Starting,
            HealthVerdict::Unknown
        )));
    }

    proptest! {
        #[test]
        fn plans_are_valid_and_do_not_depend_on_order(
            made in proptest::collection::vec((any::<u8>(), 0_u8..4, any::<bool>(), any::<bool>(), proptest::option::of(any::<u8>()), 0_u16..4, any::<bool>()), 0..40),
            seed in any::<u64>(),
        ) {
            let mut seen = BTreeSet::new();
            let made: Vec<_> = made.into_iter().filter(|m| seen.insert(m.0)).collect();
            let ports: Vec<_> = made.iter().map(|m| {
                let mode = if m.6 { PublishMode::Host } else { PublishMode::Ingress };
                [mapping(m.5, 80, mode), mapping(8080, m.5, mode)]
            }).collect();
            let mut list: Vec<_> = made.iter().zip(&ports).map(|(m, ports)| PlannedContainer {
                id: ContainerId::from_u128(u128::from(m.0)),
                service: ServiceId::from_u128(u128::from(m.1)),
                local: m.2,
                address: m.4.map(|a| Ipv4Addr::new(10, 89, u8::from(!m.2), a)),
                serving: m.3,
                ports,
            }).collect();
            let plan = plan_node(bridge(), list.clone());
            plan.network.validate().unwrap();
            for backends in plan.network.published.values() {
                prop_assert!(!backends.is_empty());
                let distinct: BTreeSet<_> = backends.iter().collect();
                prop_assert_eq!(distinct.len(), backends.len());
            }
            let turn = (seed as usize) % list.len().max(1);
            list.rotate_left(turn);
            prop_assert_eq!(plan_node(bridge(), list), plan);
        }
    }
}
