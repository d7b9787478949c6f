//! The desired network of one node.

use crate::names;
use crate::subnet::Subnet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use warren_types::{ContainerId, Protocol};

/// Smallest MTU in bytes: what every IPv4 host must accept.
pub const MTU_MIN: u32 = 576;
/// Largest MTU in bytes that interface pairs and bridges take.
pub const MTU_MAX: u32 = 65_521;
/// MTU of a node without a mesh, in bytes.
pub const MTU_DEFAULT: u32 = 1500;

/// The bridge that the containers of a node are attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgeNetwork {
    /// Name of the bridge; see [`names::is_bridge_name`].
    pub bridge: String,
    /// The node's subnet.
    pub subnet: Subnet,
    /// The bridge's own address in the subnet, the containers' gateway.
    pub gateway: Ipv4Addr,
    /// MTU of bridge and interfaces in bytes.
    pub mtu: u32,
    /// What containers send to the outside carries the host's address.
    pub masquerade: bool,
}

impl BridgeNetwork {
    /// The usual network of a subnet: gateway first, MTU 1500, masquerade on.
    #[must_use]
    pub fn new(bridge: impl Into<String>, subnet: Subnet) -> Self {
        Self {
            bridge: bridge.into(),
            subnet,
            gateway: subnet.gateway(),
            mtu: MTU_DEFAULT,
            masquerade: true,
        }
    }
}

/// One container's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The container.
    pub container: ContainerId,
    /// Its address in the subnet.
    pub address: Ipv4Addr,
    /// Name of the host end of its interface pair.
    pub host_interface: String,
    /// Name of its interface inside.
    pub container_interface: String,
}

impl Endpoint {
    /// The endpoint of a container, with the names that follow from its id.
    #[must_use]
    pub fn new(container: ContainerId, address: Ipv4Addr) -> Self {
        Self {
            container,
            address,
            host_interface: names::host_interface(container),
            container_interface: names::CONTAINER_INTERFACE.to_owned(),
        }
    }
}

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The number, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{}/{protocol}", self.port)
    }
}

/// Where connections to a published port go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Backend {
    /// The container.
    pub container: ContainerId,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// The whole desired network of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNetwork {
    /// The bridge and its subnet.
    pub bridge: BridgeNetwork,
    /// The containers on it.
    pub endpoints: BTreeMap<ContainerId, Endpoint>,
    /// Published ports and where they lead, in turn over the backends. No backend: nobody answers.
    #[serde(with = "port_list")]
    pub published: BTreeMap<HostPort, Vec<Backend>>,
}

/// A value that no kernel could be made to match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the desired network is not valid: {reason}")]
pub struct InvalidNetwork {
    /// What is wrong, with the offending value.
    pub reason: String,
}

impl NodeNetwork {
    /// A network with a bridge and nothing on it.
    #[must_use]
    pub const fn empty(bridge: BridgeNetwork) -> Self {
        Self {
            bridge,
            endpoints: BTreeMap::new(),
            published: BTreeMap::new(),
        }
    }

    /// Checks what the types do not say: addresses unique and inside, names usable, MTU in limits.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidNetwork> {
        self.bridge.validate()?;
        let mut addresses = BTreeSet::new();
        let mut interfaces = BTreeSet::new();
        for (id, endpoint) in &self.endpoints {
            let Endpoint {
                container,
                address,
                host_interface,
                ..
            } = endpoint;
            let fail = |reason: String| Err(InvalidNetwork { reason });
            if id != container {
                return fail(format!("endpoint of {container} is filed under {id}"));
            }
            endpoint.validate(&self.bridge)?;
            if !addresses.insert(*address) {
                return fail(format!("address {address} is given twice"));
            }
            if !interfaces.insert(host_interface) {
                return fail(format!("interface name {host_interface} is given twice"));
            }
        }
        for (port, backends) in &self.published {
            if port.port == 0 || backends.iter().any(|b| b.port == 0) {
                return Err(InvalidNetwork {
                    reason: format!("published port {port} or one of its targets is port 0"),
                });
            }
        }
        Ok(())
    }
}

impl BridgeNetwork {
    /// Checks name, gateway and MTU.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), InvalidNetwork> {
        let Self {
            bridge,
            subnet,
            gateway,
            mtu,
            ..
        } = self;
        let fail = |reason| Err(InvalidNetwork { reason });
        if !names::is_bridge_name(bridge) {
            return fail(format!(
                "{bridge:?} cannot name a bridge: use 1 to 15 lower-case letters, digits and dashes, a letter first"
            ));
        }
        if *gateway != subnet.gateway() {
            return fail(format!(
                "gateway {gateway} is not the first address of {subnet}"
            ));
        }
        if !(MTU_MIN..=MTU_MAX).contains(mtu) {
            return fail(format!("MTU {mtu} is outside {MTU_MIN} to {MTU_MAX} bytes"));
        }
        Ok(())
    }
}

impl Endpoint {
    /// Checks address and names against the network it belongs to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self, network: &BridgeNetwork) -> Result<(), InvalidNetwork> {
        let fail = |reason| Err(InvalidNetwork { reason });
        if !network.subnet.assignable(self.address) {
            return fail(format!(
                "address {} is not one that containers in {} can have",
                self.address, network.subnet
            ));
        }
        for name in [&self.host_interface, &self.container_interface] {
            if !names::is_bridge_name(name) {
                return fail(format!("{name:?} cannot name an interface"));
            }
        }
        if self.host_interface == network.bridge {
            return fail(format!(
                "interface {} has the bridge's name",
                self.host_interface
            ));
        }
        Ok(())
    }
}

/// A map whose keys are structures is written as a list of pairs, which every format can hold.
mod port_list {
    use super::{BTreeMap, Backend, HostPort};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<HostPort, Vec<Backend>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<HostPort, Vec<Backend>>, D::Error> {
        Ok(Vec::<(HostPort, Vec<Backend>)>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NodeNetwork {
        let mut network = NodeNetwork::empty(BridgeNetwork::new(
            "warren0",
            "10.89.0.0/24".parse().unwrap(),
        ));
        for n in 2..5_u8 {
            let id = ContainerId::from_u128(u128::from(n));
            network
                .endpoints
                .insert(id, Endpoint::new(id, Ipv4Addr::new(10, 89, 0, n)));
        }
        let backend = Backend {
            container: ContainerId::from_u128(2),
            address: Ipv4Addr::new(10, 89, 0, 2),
            port: 80,
        };
        network.published.insert(
            HostPort {
                protocol: Protocol::Tcp,
                port: 8080,
            },
            vec![backend],
        );
        network
    }

    #[test]
    fn json_round_trip() {
        let value = network();
        value.validate().unwrap();
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<NodeNetwork>(&text).unwrap(), value);
    }

    #[test]
    fn nonsense_is_refused() {
        type Spoil = fn(&mut NodeNetwork);
        let id = ContainerId::from_u128(3);
        let cases: [(&str, Spoil); 7] = [
            ("given twice", |n| {
                n.endpoints
                    .get_mut(&ContainerId::from_u128(3))
                    .unwrap()
                    .address = Ipv4Addr::new(10, 89, 0, 2)
            }),
            ("can have", |n| {
                n.endpoints
                    .get_mut(&ContainerId::from_u128(3))
                    .unwrap()
                    .address = Ipv4Addr::new(10, 89, 0, 1)
            }),
            ("filed under", |n| {
                n.endpoints
                    .get_mut(&ContainerId::from_u128(3))
                    .unwrap()
                    .container = ContainerId::from_u128(9)
            }),
            ("name an interface", |n| {
                n.endpoints
                    .get_mut(&ContainerId::from_u128(3))
                    .unwrap()
                    .host_interface = "../x".to_owned()
            }),
            ("MTU", |n| n.bridge.mtu = 100),
            ("name a bridge", |n| n.bridge.bridge = "a/b".to_owned()),
            ("port 0", |n| {
                n.published.insert(
                    HostPort {
                        protocol: Protocol::Udp,
                        port: 0,
                    },
                    Vec::new(),
                );
            }),
        ];
        assert!(network().endpoints.contains_key(&id));
        for (wanted, spoil) in cases {
            let mut value = network();
            spoil(&mut value);
            let error = value.validate().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
