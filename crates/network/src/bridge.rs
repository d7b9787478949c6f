//! The bridge: link, address, settings.

use crate::error::{NetworkError, Tried};
use crate::host::{Kernel, Mode};
use crate::report::Difference;
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::devconf::{Ipv4Devconf, Ipv6Devconf};
use nlink::netlink::link::{BridgeLink, LinkCreateExt};
use nlink::netlink::messages::{AddressMessage, LinkMessage};
use std::net::{IpAddr, Ipv4Addr};
use warren_netplan::{BridgeNetwork, Subnet, names};

/// Stands for the index of a bridge that a check found missing; real indexes begin at 1.
pub(crate) const MISSING: u32 = 0;
/// Text that tells an operator whose the bridge is.
const ALIAS: &str = "warren bridge";
/// What the kernel calls a bridge.
const KIND: &str = "bridge";

/// IPv4 settings of the bridge:
/// - containers are forwarded for;
/// - a connection of the host to 127.0.0.1 may leave through the bridge after its destination was
///   translated (the `raw` chain keeps containers from using this the other way round);
/// - no hint "reach your neighbour directly" is sent when a container talks to one through a
///   published port: it would lead around the translation.
const SETTINGS: [(Ipv4Devconf, u32, &str); 3] = [
    (Ipv4Devconf::Forwarding, 1, "1"),
    (Ipv4Devconf::RouteLocalnet, 1, "1"),
    (Ipv4Devconf::SendRedirects, 0, "0"),
];

/// Compares and, in mode repair, repairs; the index of the bridge.
pub(crate) async fn reconcile(
    kernel: &Kernel,
    net: &BridgeNetwork,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<u32, NetworkError> {
    let link = match find(kernel, &net.bridge).await? {
        Some(link) => link,
        None => {
            found.push(Difference::BridgeMissing);
            if mode == Mode::Check {
                return Ok(MISSING);
            }
            create(kernel, net).await?
        }
    };
    let index = link.ifindex();
    properties(kernel, net, &link, mode, found).await?;
    addresses(kernel, net, index, mode, found).await?;
    settings(kernel, net, &link, mode, found).await?;
    Ok(index)
}

/// Removes the bridge with this name, if it is one.
pub(crate) async fn remove(kernel: &Kernel, name: &str) -> Result<(), NetworkError> {
    if let Some(link) = find(kernel, name).await? {
        let removed = kernel.route.del_link_by_index(link.ifindex()).await;
        ignore_missing(removed).tried(|| format!("removing bridge {name}"))?;
    }
    Ok(())
}

/// "Is not there" is as good as "was removed".
pub(crate) fn ignore_missing(result: Result<(), nlink::Error>) -> Result<(), nlink::Error> {
    match result {
        Err(error) if error.is_not_found() || error.is_no_device() => Ok(()),
        other => other,
    }
}

async fn find(kernel: &Kernel, name: &str) -> Result<Option<LinkMessage>, NetworkError> {
    let link = kernel
        .route
        .get_link_by_name(name)
        .await
        .tried(|| format!("looking for bridge {name}"))?;
    match link {
        Some(link) if link.kind() != Some(KIND) => {
            let found = link.kind().map_or_else(
                || "a physical interface".to_owned(),
                |kind| format!("of kind {kind}"),
            );
            Err(NetworkError::NotOurs {
                name: name.to_owned(),
                found,
                wanted: "a bridge",
            })
        }
        other => Ok(other),
    }
}

async fn create(kernel: &Kernel, net: &BridgeNetwork) -> Result<LinkMessage, NetworkError> {
    let name = &net.bridge;
    let about = || format!("making bridge {name}");
    refuse_overlap(kernel, net.subnet).await?;
    // A fixed hardware address: a bridge otherwise takes the lowest of its ports', which changes as
    // containers come and go, and with it what neighbours have cached.
    let link = BridgeLink::new(name)
        .stp(false)
        .mtu(net.mtu)
        .address(names::hardware_address(net.gateway))
        .up()
        .alias(ALIAS);
    kernel.route.add_link(link).await.tried(about)?;
    find(kernel, name)
        .await?
        .ok_or_else(|| nlink::Error::interface_not_found(name.as_str()))
        .tried(about)
}

/// Before the subnet is put on this host: does another interface use it?
async fn refuse_overlap(kernel: &Kernel, subnet: Subnet) -> Result<(), NetworkError> {
    let about = || "reading the host's addresses".to_owned();
    let addresses = kernel.route.get_addresses().await.tried(about)?;
    let Some(other) = addresses.iter().find(|a| overlaps(a, subnet)) else {
        return Ok(());
    };
    let interface = kernel
        .route
        .interface_name_or(other.ifindex(), "?")
        .await
        .tried(about)?;
    let address =
        ipv4_of(other).map_or_else(String::new, |a| format!("{a}/{}", other.prefix_len()));
    Err(NetworkError::SubnetInUse {
        subnet: subnet.to_string(),
        other: address,
        interface,
    })
}

fn overlaps(address: &AddressMessage, subnet: Subnet) -> bool {
    let Some(ip) = ipv4_of(address) else {
        return false;
    };
    let mask = u32::MAX
        .checked_shl(32 - u32::from(address.prefix_len()))
        .unwrap_or(0);
    subnet.contains(ip) || (subnet.network().to_bits() & mask) == (ip.to_bits() & mask)
}

/// The IPv4 address of a message.
pub(crate) fn ipv4_of(address: &AddressMessage) -> Option<Ipv4Addr> {
    match address.primary_address() {
        Some(IpAddr::V4(ip)) => Some(*ip),
        _ => None,
    }
}

async fn properties(
    kernel: &Kernel,
    net: &BridgeNetwork,
    link: &LinkMessage,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<(), NetworkError> {
    let (name, index) = (&net.bridge, link.ifindex());
    let mac = names::hardware_address(net.gateway);
    if link.address() != Some(&mac) {
        found.push(Difference::Bridge(
            "hardware address was another".to_owned(),
        ));
        if mode == Mode::Repair {
            kernel
                .route
                .set_link_address_by_index(index, mac)
                .await
                .tried(|| format!("setting the address of bridge {name}"))?;
        }
    }
    if link.mtu() != Some(net.mtu) {
        found.push(Difference::Bridge(format!("MTU was not {}", net.mtu)));
        if mode == Mode::Repair {
            kernel
                .route
                .pin_bridge_mtu_by_index(index, net.mtu)
                .await
                .tried(|| format!("setting the MTU of bridge {name}"))?;
        }
    }
    if !link.is_up() {
        found.push(Difference::Bridge("was down".to_owned()));
        if mode == Mode::Repair {
            kernel
                .route
                .set_link_up_by_index(index)
                .await
                .tried(|| format!("bringing up bridge {name}"))?;
        }
    }
    Ok(())
}

/// Exactly the gateway's address: a changed subnet must not leave the old one behind.
async fn addresses(
    kernel: &Kernel,
    net: &BridgeNetwork,
    index: u32,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<(), NetworkError> {
    let name = &net.bridge;
    let have = kernel
        .route
        .get_addresses_by_index(index)
        .await
        .tried(|| format!("reading the addresses of bridge {name}"))?;
    let mut right = false;
    for (address, prefix) in have
        .iter()
        .filter_map(|a| Some((ipv4_of(a)?, a.prefix_len())))
    {
        if (address, prefix) == (net.gateway, net.subnet.prefix()) {
            right = true;
            continue;
        }
        found.push(Difference::Bridge(format!(
            "had address {address}/{prefix}"
        )));
        if mode == Mode::Repair {
            let removed = kernel
                .route
                .del_address_by_index(index, IpAddr::V4(address), prefix)
                .await;
            ignore_missing(removed).tried(|| format!("removing {address} from bridge {name}"))?;
        }
    }
    if !right {
        found.push(Difference::Bridge(format!(
            "address {}/{} was missing",
            net.gateway,
            net.subnet.prefix()
        )));
        if mode == Mode::Repair {
            let wanted = Ipv4Address::with_index(index, net.gateway, net.subnet.prefix());
            kernel
                .route
                .replace_address(wanted)
                .await
                .tried(|| format!("giving bridge {name} address {}", net.gateway))?;
        }
    }
    Ok(())
}

async fn settings(
    kernel: &Kernel,
    net: &BridgeNetwork,
    link: &LinkMessage,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<(), NetworkError> {
    let name = &net.bridge;
    const FORWARD: &str = "net.ipv4.ip_forward";
    let sysctl = kernel.netns.sysctl();
    if sysctl
        .get(FORWARD)
        .tried(|| format!("reading {FORWARD}"))?
        .trim()
        != "1"
    {
        found.push(Difference::Setting {
            name: FORWARD.to_owned(),
            wanted: "1",
        });
        if mode == Mode::Repair {
            sysctl
                .set(FORWARD, "1")
                .tried(|| format!("setting {FORWARD}"))?;
        }
    }
    let wrong: Vec<_> = SETTINGS
        .iter()
        .filter(|(key, value, _)| link.ipv4_devconf(*key) != Some(*value))
        .collect();
    found.extend(wrong.iter().map(|(key, _, wanted)| Difference::Setting {
        name: format!("net.ipv4.conf.{name}.{key}"),
        wanted,
    }));
    if mode == Mode::Repair && !wrong.is_empty() {
        let values: Vec<_> = wrong.iter().map(|(key, value, _)| (*key, *value)).collect();
        kernel
            .route
            .set_ipv4_devconf_by_index(link.ifindex(), &values)
            .await
            .tried(|| format!("changing settings of bridge {name}"))?;
    }
    // Containers have IPv4 only; over IPv6 link-local addresses they would reach the host past all rules.
    if link
        .ipv6_devconf(Ipv6Devconf::DisableIpv6)
        .is_some_and(|v| v != 1)
    {
        let key = format!("net.ipv6.conf.{name}.disable_ipv6");
        if mode == Mode::Repair {
            sysctl.set(&key, "1").tried(|| format!("setting {key}"))?;
        }
        found.push(Difference::Setting {
            name: key,
            wanted: "1",
        });
    }
    Ok(())
}
