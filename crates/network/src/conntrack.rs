//! Connections that the kernel remembers although their target is gone.
//!
//! The kernel translates by what it remembers of a connection, not by the rules of now. For UDP there
//! is no end of a connection: a client that keeps sending would be led to a dead container for ever.
//! Failures here are logged only: a kernel without the interface still forgets by its timeouts.

use crate::bridge::ipv4_of;
use crate::host::Kernel;
use nlink::netlink::netfilter::{ConntrackFilter, IpProtocol};
use nlink::netlink::types::AddressFamily;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use warren_netplan::NodeNetwork;
use warren_types::Protocol;

/// Forgets all connections of a container that is gone.
pub(crate) async fn forget_address(kernel: &Kernel, address: Ipv4Addr) {
    let filter = || ConntrackFilter::new().family(AddressFamily::Inet);
    for filter in [filter().orig_src(address), filter().reply_src(address)] {
        if let Err(error) = kernel.conntrack.flush_conntrack_matching(&filter).await {
            tracing::debug!(%address, %error, "connections of a removed container were not forgotten");
        }
    }
}

/// Forgets UDP connections to published ports that do not lead to one of the backends of now.
pub(crate) async fn forget_stale_udp(kernel: &Kernel, network: &NodeNetwork) {
    if let Err(error) = try_forget_stale_udp(kernel, network).await {
        tracing::debug!(%error, "stale UDP connections were not forgotten");
    }
}

async fn try_forget_stale_udp(kernel: &Kernel, network: &NodeNetwork) -> Result<(), nlink::Error> {
    let addresses = kernel.route.get_addresses().await?;
    let local: BTreeSet<IpAddr> = addresses
        .iter()
        .filter_map(ipv4_of)
        .map(IpAddr::V4)
        .collect();
    let filter = ConntrackFilter::new()
        .family(AddressFamily::Inet)
        .proto(IpProtocol::Udp);
    for entry in kernel.conntrack.get_conntrack_matching(&filter).await? {
        let (Some(to), Some(port)) = (entry.orig.dst_ip, entry.orig.dst_port) else {
            continue;
        };
        let published = network
            .published
            .iter()
            .find(|(p, _)| p.protocol == Protocol::Udp && p.port == port);
        let Some((_, backends)) = published.filter(|_| local.contains(&to)) else {
            continue;
        };
        let leads_right = backends.iter().any(|b| {
            entry.reply.src_ip == Some(IpAddr::V4(b.address))
                && entry.reply.src_port == Some(b.port)
        });
        if !leads_right {
            match kernel.conntrack.del_conntrack_entry(&entry).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
