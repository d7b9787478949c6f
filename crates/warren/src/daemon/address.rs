//! Where other nodes reach this one.

use crate::home::NodeSettings;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The address to tell others: as told, else that of the API, else this machine's first address. Found out anew at
/// each start, because a node is its key and not its address (design law 6).
pub(crate) fn advertised(settings: &NodeSettings) -> String {
    if let Some(address) = &settings.advertise_addr {
        return address.clone();
    }
    let api = settings.api_addr;
    if !api.ip().is_unspecified() {
        return api.to_string();
    }
    let host = first(&own_addresses()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if host.is_loopback() {
        tracing::warn!(
            "this machine has no address but its own: name one that others reach with --advertise-addr"
        );
    }
    SocketAddr::new(host, api.port()).to_string()
}

fn own_addresses() -> Vec<IpAddr> {
    let found = nix::ifaddrs::getifaddrs();
    let found = found.into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    found.collect()
}

/// The first that others can reach: version 4 before 6, neither loopback nor link-local.
fn first(addresses: &[IpAddr]) -> Option<IpAddr> {
    let reachable = |address: &&IpAddr| match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    };
    let of = |v4: bool| {
        addresses
            .iter()
            .filter(reachable)
            .find(|a| a.is_ipv4() == v4)
    };
    of(true).or_else(|| of(false)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::NodeRole;

    #[test]
    fn others_are_told_an_address_that_they_can_reach() {
        let parse =
            |texts: &[&str]| -> Vec<IpAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        let all = parse(&["127.0.0.1", "169.254.1.1", "fe80::1", "fd00::7", "10.1.2.3"]);
        assert_eq!(first(&all), Some("10.1.2.3".parse().unwrap()));
        assert_eq!(first(&all[..4]), Some("fd00::7".parse().unwrap()));
        assert_eq!(first(&all[..3]), None);
    }

    #[test]
    fn what_was_named_is_told() {
        let mut settings = NodeSettings {
            name: "n1".to_owned(),
            cluster_name: "c".to_owned(),
            api_addr: "10.0.0.7:8080".parse().unwrap(),
            advertise_addr: None,
            metrics_addr: None,
            role: NodeRole::Hybrid,
            raft_profile: warren_types::RaftProfile::default(),
        };
        assert_eq!(advertised(&settings), "10.0.0.7:8080");
        settings.advertise_addr = Some("edge-7.example:80".to_owned());
        assert_eq!(advertised(&settings), "edge-7.example:80");
        settings.advertise_addr = None;
        settings.api_addr = "0.0.0.0:8081".parse().unwrap();
        assert!(advertised(&settings).ends_with(":8081"));
        assert!(!advertised(&settings).starts_with("0.0.0.0"));
    }
}
