//! The nftables table that belongs to a desired network.
//!
//! Family `ip`, five base chains. In the order a packet meets them:
//!
//! - `raw`: a container may not use source addresses that are not of the subnet, nor reach the host's
//!   loopback addresses (which the bridge would otherwise route, see `bridge.rs`).
//! - `prerouting`, `output`: what is addressed to the host itself goes through `publish`, where each
//!   published port leads to a backend; several take turns through a map.
//! - `forward`: into the subnet comes only what belongs to a connection of a container or was
//!   translated by a published port; a route of a neighbour to the subnet opens nothing.
//! - `postrouting`: containers' traffic to the outside carries the host's address; so does what
//!   returns to the bridge it came from and what came from a loopback address, for the answer would
//!   not come back this way otherwise.

use nlink::netlink::nftables::config::{DeclaredTableBuilder, NftablesConfig};
use nlink::netlink::nftables::{
    BaseChain, CtState, CtStatus, Expr, Family, FibFlags, FilterHook, LookupExpr, NatHook,
    NatStatement, NumgenKind, Policy, Priority, Register, Rule, RuleSpec, SetDataType, SetElement,
    SetKeyType, Stmt,
};
use nlink::netlink::types::route::RouteType;
use std::net::Ipv4Addr;
use warren_netplan::{Backend, BridgeNetwork, HostPort, NodeNetwork};
use warren_types::Protocol;

/// Chain with one rule per published port.
const PUBLISH: &str = "publish";
/// Prefix of the keys of rules of published ports, by which they are known after a restart.
const PORT_KEY: &str = "port-";
const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);
const LOOPBACK_PREFIX: u8 = 8;

/// The table for `network`.
pub(crate) fn declare(table: &str, network: &NodeNetwork) -> NftablesConfig {
    let bridge = &network.bridge;
    NftablesConfig::new().table(table, Family::Ip, |t| {
        let mut t = chains(t.comment("made by Warren; changes are undone"));
        t = forward(raw(t, bridge), bridge);
        for chain in ["prerouting", "output"] {
            t = t.try_rule_keyed(chain, format!("local-{chain}"), |r| {
                r.match_fib_type(FibFlags::DADDR, RouteType::Local)
                    .try_jump(PUBLISH)
            });
        }
        for (port, backends) in &network.published {
            t = publish(t, *port, backends);
        }
        postrouting(t, bridge)
    })
}

fn chains(t: DeclaredTableBuilder) -> DeclaredTableBuilder {
    let filter = |hook, priority| BaseChain::filter(hook, priority).policy(Policy::Accept);
    let nat = |hook, priority| BaseChain::nat(hook, priority).policy(Policy::Accept);
    t.chain("raw", |c| {
        c.exclusive()
            .base(filter(FilterHook::Prerouting, Priority::Raw))
    })
    .chain("prerouting", |c| {
        c.exclusive()
            .base(nat(NatHook::Prerouting, Priority::DstNat))
    })
    .chain("output", |c| {
        c.exclusive().base(nat(NatHook::Output, Priority::DstNat))
    })
    .chain("forward", |c| {
        c.exclusive()
            .base(filter(FilterHook::Forward, Priority::Filter))
    })
    .chain("postrouting", |c| {
        c.exclusive()
            .base(nat(NatHook::Postrouting, Priority::SrcNat))
    })
    .chain(PUBLISH, |c| c.exclusive())
}

fn raw(t: DeclaredTableBuilder, bridge: &BridgeNetwork) -> DeclaredTableBuilder {
    let (net, prefix) = (bridge.subnet.network(), bridge.subnet.prefix());
    t.rule_keyed("raw", "foreign-source", |r| {
        r.match_iif(&bridge.bridge)
            .match_saddr_v4_not(net, prefix)
            .drop()
    })
    .rule_keyed("raw", "to-loopback", |r| {
        r.match_iif(&bridge.bridge)
            .match_daddr_v4(LOOPBACK, LOOPBACK_PREFIX)
            .drop()
    })
}

fn forward(t: DeclaredTableBuilder, bridge: &BridgeNetwork) -> DeclaredTableBuilder {
    let name = &bridge.bridge;
    t.rule_keyed("forward", "from-containers", |r| r.match_iif(name).accept())
        .rule_keyed("forward", "others", |r| r.match_oif_not(name).accept())
        .rule_keyed("forward", "answers", |r| {
            r.match_ct_state(CtState(
                CtState::ESTABLISHED.bits() | CtState::RELATED.bits(),
            ))
            .accept()
        })
        .rule_keyed("forward", "published", |r| {
            r.match_ct_status(CtStatus::DST_NAT).accept()
        })
        .rule_keyed("forward", "closed", |r| r.drop())
}

fn postrouting(t: DeclaredTableBuilder, bridge: &BridgeNetwork) -> DeclaredTableBuilder {
    let (net, prefix) = (bridge.subnet.network(), bridge.subnet.prefix());
    let name = &bridge.bridge;
    let t = t
        .rule_keyed("postrouting", "hairpin", |r| {
            r.match_oif(name)
                .match_saddr_v4(net, prefix)
                .match_ct_status(CtStatus::DST_NAT)
                .masquerade()
        })
        .rule_keyed("postrouting", "loopback", |r| {
            r.match_oif(name)
                .match_saddr_v4(LOOPBACK, LOOPBACK_PREFIX)
                .masquerade()
        });
    if !bridge.masquerade {
        return t;
    }
    t.rule_keyed("postrouting", "outbound", |r| {
        r.match_oif_not(name)
            .match_saddr_v4(net, prefix)
            .masquerade()
    })
}

/// The rule of one port, and its map when it has several backends.
fn publish(t: DeclaredTableBuilder, port: HostPort, backends: &[Backend]) -> DeclaredTableBuilder {
    let name = port_name(port);
    let key = format!("{PORT_KEY}{name}");
    let matched = move |rule: Rule| match port.protocol {
        Protocol::Tcp => rule.match_tcp_dport(port.port),
        Protocol::Udp => rule.match_udp_dport(port.port),
    };
    match backends {
        [] => t,
        [one] => t.rule_keyed(PUBLISH, key, |r| {
            matched(r).nat(NatStatement::dnat(one.address).port(one.port))
        }),
        many => {
            let modulus = u32::try_from(many.len()).unwrap_or(u32::MAX);
            let address_and_port =
                SetKeyType::Concat(vec![SetKeyType::Ipv4Addr, SetKeyType::InetService]);
            let elements: Vec<SetElement> = (0..modulus)
                .zip(many)
                .map(|(n, b)| {
                    SetElement::mark(n).value(SetElement::concat([
                        SetElement::ipv4(b.address),
                        SetElement::port(b.port),
                    ]))
                })
                .collect();
            let map = name.clone();
            t.set(name, |s| {
                s.key_type(SetKeyType::Mark)
                    .map(SetDataType::Value(address_and_port))
                    .elements(elements)
            })
            .rule_keyed(PUBLISH, key, |r| take_turns(matched(r), &map, modulus))
        }
    }
}

/// Numbers connections round and looks the backend up: address and port land in two neighbouring
/// 32-bit registers, from which the translation takes them.
fn take_turns(rule: Rule, map: &str, modulus: u32) -> Rule {
    let translation = translation_from(Register::R1, Register::Reg32_05);
    rule.expr(Expr::Numgen {
        dreg: Register::R0,
        kind: NumgenKind::Incremental,
        modulus,
        offset: 0,
    })
    .expr(LookupExpr::new(map, Register::R0).dreg(Register::R1))
    .expr(translation)
}

/// A destination translation that takes address and port from registers. The library only hands one
/// out with registers of its own choice, so one is asked for and changed.
fn translation_from(address: Register, port: Register) -> Expr {
    let model = RuleSpec::new().then(Stmt::Nat(NatStatement::dnat(Ipv4Addr::UNSPECIFIED).port(1)));
    let lowered = model.lower(Family::Ip).unwrap_or_default();
    lowered
        .into_iter()
        .find_map(|expr| match expr {
            Expr::NatRegs(mut nat) => {
                nat.addr = Some((address, address));
                nat.proto = Some((port, port));
                Some(Expr::NatRegs(nat))
            }
            _ => None,
        })
        .expect("a destination translation always lowers to one; a test covers it")
}

/// Name of a port in rule keys and maps: `tcp_8080`.
fn port_name(port: HostPort) -> String {
    match port.protocol {
        Protocol::Tcp => format!("tcp_{}", port.port),
        Protocol::Udp => format!("udp_{}", port.port),
    }
}

/// The port a rule with this key belongs to, if it is a rule of a port.
pub(crate) fn port_of_key(key: &str) -> Option<HostPort> {
    let (protocol, port) = key.strip_prefix(PORT_KEY)?.split_once('_')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(HostPort {
        protocol,
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::ContainerId;

    fn network(backends: u8) -> NodeNetwork {
        let mut network = NodeNetwork::empty(BridgeNetwork::new(
            "warren0",
            "10.89.0.0/24".parse().unwrap(),
        ));
        let port = HostPort {
            protocol: Protocol::Tcp,
            port: 8080,
        };
        let backend = |n| Backend {
            container: ContainerId::from_u128(u128::from(n)),
            address: Ipv4Addr::new(10, 89, 0, n),
            port: 80,
        };
        network
            .published
            .insert(port, (2..2 + backends).map(backend).collect());
        network
    }

    #[test]
    fn every_table_is_valid() {
        for backends in [0, 1, 2, 100] {
            let config = declare("warren", &network(backends));
            config.validate().unwrap();
            let table = &config.tables()[0];
            let ports = table
                .rules()
                .iter()
                .filter(|r| r.handle_key().is_some_and(|k| port_of_key(k).is_some()));
            assert_eq!(ports.count(), usize::from(backends.min(1)));
            assert_eq!(table.sets().len(), usize::from(backends > 1));
        }
    }

    #[test]
    fn keys_lead_back_to_ports() {
        for port in [
            HostPort {
                protocol: Protocol::Tcp,
                port: 1,
            },
            HostPort {
                protocol: Protocol::Udp,
                port: 65535,
            },
        ] {
            assert_eq!(
                port_of_key(&format!("{PORT_KEY}{}", port_name(port))),
                Some(port)
            );
        }
        for other in ["hairpin", "port-", "port-sctp_1", "port-tcp_99999"] {
            assert_eq!(port_of_key(other), None);
        }
    }
}
