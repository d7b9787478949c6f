//! One container's network: namespace, interface pair, address, route.

use crate::bridge::{ignore_missing, ipv4_of};
use crate::conntrack;
use crate::error::{NetworkError, Tried};
use crate::host::{Kernel, Mode};
use crate::report::Difference;
use nlink::netlink::addr::Ipv4Address;
use nlink::netlink::link::{BridgePortConfig, LinkCreateExt, VethLink};
use nlink::netlink::messages::{LinkMessage, RouteMessage};
use nlink::netlink::namespace::{self, Netns};
use nlink::netlink::route::Ipv4Route;
use nlink::netlink::{AttrIter, Connection, InterfaceRef, Route};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use warren_netplan::{BridgeNetwork, Endpoint, names};
use warren_types::ContainerId;

/// What the alias of a host-side interface begins with; the container's id follows.
const ALIAS_PREFIX: &str = "warren container ";
/// What the kernel calls an interface pair.
const KIND: &str = "veth";

/// Settings inside a container's namespace:
/// - hints to reach a neighbour directly are not believed (they would lead around translations);
/// - IPv6 is off on `eth0`, as there is no IPv6 network; `::1` stays;
/// - processes that are not root may open ports below 1024 and use `ping`, as users of other engines
///   expect; both are harmless in a namespace of its own.
const SETTINGS: [(&str, &str); 7] = [
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.secure_redirects", "0"),
    ("net.ipv4.conf.default.secure_redirects", "0"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    (IPV6_SETTING, "1"),
];
/// The one setting that a kernel without IPv6 does not have.
const IPV6_SETTING: &str = "net.ipv6.conf.default.disable_ipv6";

/// Where an endpoint belongs.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The network it is in.
    pub(crate) network: &'a BridgeNetwork,
    /// Interface index of the bridge.
    pub(crate) bridge_index: u32,
    /// File of its namespace.
    pub(crate) path: &'a Path,
}

/// Makes the namespace of a container if it is not there, and its settings in any case: a crash may
/// have come between the two.
pub(crate) fn ensure_netns(container: ContainerId, path: &Path) -> Result<(), NetworkError> {
    let about = || format!("making the network namespace of container {container}");
    if !namespace::is_namespace_path(path) {
        clear_place(container, path)?;
        namespace::create_path(path).tried(about)?;
    }
    let netns = Netns::from_path(path).tried(about)?;
    let sysctl = netns.sysctl();
    for (key, value) in SETTINGS {
        match sysctl.set(key, value) {
            Err(error) if key == IPV6_SETTING && error.is_not_found() => {}
            other => other.tried(|| format!("setting {key} of container {container}"))?,
        }
    }
    Ok(())
}

/// Removes what a crash before the mount, or a reboot, left at the place of a namespace file.
fn clear_place(container: ContainerId, path: &Path) -> Result<(), NetworkError> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == 0 => {
            std::fs::remove_file(path).map_err(|source| NetworkError::File {
                action: "removing",
                path: path.to_owned(),
                source,
            })
        }
        Ok(_) => Err(NetworkError::ForeignFile {
            container,
            path: path.to_owned(),
        }),
        Err(_) => Ok(()),
    }
}

/// Compares a container whose namespace exists and, in mode repair, repairs.
pub(crate) async fn reconcile(
    kernel: &Kernel,
    place: Place<'_>,
    endpoint: &Endpoint,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<(), NetworkError> {
    let id = endpoint.container;
    let about = || format!("looking at the interfaces of container {id}");
    let netns = Netns::from_path(place.path).tried(about)?;
    let inside = Connection::<Route>::new_in(&netns).tried(about)?;
    let mut outer = outer_link(kernel, endpoint).await?;
    let mut inner = inside
        .get_link_by_name(endpoint.container_interface.as_str())
        .await
        .tried(about)?;
    if !are_a_pair(outer.as_ref(), inner.as_ref()) {
        found.push(Difference::LinkMissing(id));
        if mode == Mode::Check {
            return Ok(());
        }
        for (connection, link) in [(&kernel.route, outer.take()), (&inside, inner.take())] {
            if let Some(link) = link {
                ignore_missing(connection.del_link_by_index(link.ifindex()).await)
                    .tried(|| format!("removing a broken interface of container {id}"))?;
            }
        }
        create_pair(kernel, place, endpoint, &netns).await?;
        outer = outer_link(kernel, endpoint).await?;
        inner = inside
            .get_link_by_name(endpoint.container_interface.as_str())
            .await
            .tried(about)?;
    }
    let (Some(outer), Some(inner)) = (outer, inner) else {
        return Err(nlink::Error::interface_not_found(
            endpoint.host_interface.as_str(),
        ))
        .tried(about);
    };
    outer_properties(kernel, place, endpoint, &outer, mode, found).await?;
    let side = Inside {
        connection: &inside,
        place,
        endpoint,
        mode,
    };
    side.properties(&inner, found).await?;
    side.address(inner.ifindex(), found).await?;
    side.route(inner.ifindex(), found).await
}

/// Removes a container's interface and namespace; `false` if there was neither.
pub(crate) async fn remove(
    kernel: &Kernel,
    container: ContainerId,
    path: &Path,
) -> Result<bool, NetworkError> {
    let address = address_in(path).await.unwrap_or_default();
    let name = names::host_interface(container);
    let about = || format!("removing interface {name} of container {container}");
    let link = kernel
        .route
        .get_link_by_name(name.as_str())
        .await
        .tried(about)?
        .filter(|link| is_ours(link, container));
    let mut removed = false;
    if let Some(link) = link {
        ignore_missing(kernel.route.del_link_by_index(link.ifindex()).await).tried(about)?;
        removed = true;
    }
    let file = std::fs::symlink_metadata(path);
    if file.is_ok() {
        namespace::delete_path(path)
            .tried(|| format!("removing the network namespace of container {container}"))?;
        removed = true;
    }
    if let Some(address) = address {
        conntrack::forget_address(kernel, address).await;
    }
    Ok(removed)
}

/// The IPv4 address of the container's interface in the namespace with this file.
pub(crate) async fn address_in(path: &Path) -> Result<Option<Ipv4Addr>, NetworkError> {
    if !namespace::is_namespace_path(path) {
        return Ok(None);
    }
    let about = || format!("reading the address in {}", path.display());
    let netns = Netns::from_path(path).tried(about)?;
    let inside = Connection::<Route>::new_in(&netns).tried(about)?;
    let Some(link) = inside
        .get_link_by_name(names::CONTAINER_INTERFACE)
        .await
        .tried(about)?
    else {
        return Ok(None);
    };
    let addresses = inside
        .get_addresses_by_index(link.ifindex())
        .await
        .tried(about)?;
    Ok(addresses.iter().find_map(ipv4_of))
}

/// The host-side interface, if it is there; another program's interface of that name is an error.
async fn outer_link(
    kernel: &Kernel,
    endpoint: &Endpoint,
) -> Result<Option<LinkMessage>, NetworkError> {
    let name = &endpoint.host_interface;
    let link = kernel
        .route
        .get_link_by_name(name.as_str())
        .await
        .tried(|| format!("looking for interface {name}"))?;
    match link {
        Some(link) if !is_ours(&link, endpoint.container) => {
            let found = link.alias().map_or_else(
                || format!("of kind {}", link.kind().unwrap_or("?")),
                |a| format!("called {a:?}"),
            );
            Err(NetworkError::NotOurs {
                name: name.clone(),
                found,
                wanted: "the interface of a container of this node",
            })
        }
        other => Ok(other),
    }
}

/// The alias follows right after an interface is made; one without it was cut short by a crash.
fn is_ours(link: &LinkMessage, container: ContainerId) -> bool {
    link.kind() == Some(KIND)
        && link
            .alias()
            .is_none_or(|alias| alias == format!("{ALIAS_PREFIX}{container}"))
}

fn are_a_pair(outer: Option<&LinkMessage>, inner: Option<&LinkMessage>) -> bool {
    match (outer, inner) {
        (Some(outer), Some(inner)) => {
            inner.kind() == Some(KIND)
                && outer.link() == Some(inner.ifindex())
                && inner.link() == Some(outer.ifindex())
        }
        _ => false,
    }
}

async fn create_pair(
    kernel: &Kernel,
    place: Place<'_>,
    endpoint: &Endpoint,
    netns: &Netns,
) -> Result<(), NetworkError> {
    let link = VethLink::new(&endpoint.host_interface, &endpoint.container_interface)
        .mtu(place.network.mtu)
        .peer_address(names::hardware_address(endpoint.address))
        .peer_netns_fd(netns)
        .master(InterfaceRef::Index(place.bridge_index))
        .up()
        .alias(format!("{ALIAS_PREFIX}{}", endpoint.container));
    kernel.route.add_link(link).await.tried(|| {
        format!(
            "making the interface pair of container {}",
            endpoint.container
        )
    })
}

async fn outer_properties(
    kernel: &Kernel,
    place: Place<'_>,
    endpoint: &Endpoint,
    link: &LinkMessage,
    mode: Mode,
    found: &mut Vec<Difference>,
) -> Result<(), NetworkError> {
    let (id, name, index) = (endpoint.container, &endpoint.host_interface, link.ifindex());
    if link.master() != Some(place.bridge_index) {
        found.push(Difference::Link(
            id,
            format!("interface {name} was not in the bridge"),
        ));
        if mode == Mode::Repair {
            kernel
                .route
                .set_link_master_by_index(index, place.bridge_index)
                .await
                .tried(|| format!("putting {name} into the bridge"))?;
        }
    }
    if hairpin_of(link) != Some(true) {
        found.push(Difference::Link(
            id,
            format!("interface {name} did not take back what it sent"),
        ));
        if mode == Mode::Repair {
            let port = BridgePortConfig::new().hairpin(true);
            kernel
                .route
                .set_bridge_port_by_index(index, port)
                .await
                .tried(|| format!("setting up {name} in the bridge"))?;
        }
    }
    if link.mtu() != Some(place.network.mtu) {
        found.push(Difference::Link(
            id,
            format!("MTU of {name} was not {}", place.network.mtu),
        ));
        if mode == Mode::Repair {
            kernel
                .route
                .set_link_mtu_by_index(index, place.network.mtu)
                .await
                .tried(|| format!("setting the MTU of {name}"))?;
        }
    }
    if !link.is_up() {
        found.push(Difference::Link(id, format!("interface {name} was down")));
        if mode == Mode::Repair {
            kernel
                .route
                .set_link_up_by_index(index)
                .await
                .tried(|| format!("bringing up {name}"))?;
        }
    }
    Ok(())
}

/// Does the bridge give back through a port what came in by it? Where the host has the kernel's bridge
/// filter on, a container that calls itself through a published port needs it.
fn hairpin_of(link: &LinkMessage) -> Option<bool> {
    /// Number of the attribute (`IFLA_BRPORT_MODE`).
    const MODE: u16 = 4;
    let data = link.link_info()?.slave_data()?;
    AttrIter::new(data)
        .find(|(kind, _)| *kind == MODE)
        .and_then(|(_, value)| value.first().map(|v| *v != 0))
}

/// The container's side.
struct Inside<'a> {
    connection: &'a Connection<Route>,
    place: Place<'a>,
    endpoint: &'a Endpoint,
    mode: Mode,
}

impl Inside<'_> {
    fn about(&self) -> String {
        format!(
            "configuring {} of container {}",
            self.endpoint.container_interface, self.endpoint.container
        )
    }

    fn differs(&self, found: &mut Vec<Difference>, what: String) -> bool {
        found.push(Difference::Link(self.endpoint.container, what));
        self.mode == Mode::Repair
    }

    async fn properties(
        &self,
        link: &LinkMessage,
        found: &mut Vec<Difference>,
    ) -> Result<(), NetworkError> {
        let index = link.ifindex();
        let lo = self
            .connection
            .get_link_by_name("lo")
            .await
            .tried(|| self.about())?;
        if let Some(lo) = lo.filter(|lo| !lo.is_up())
            && self.differs(found, "interface lo was down".to_owned())
        {
            self.connection
                .set_link_up_by_index(lo.ifindex())
                .await
                .tried(|| self.about())?;
        }
        let mac = names::hardware_address(self.endpoint.address);
        if link.address() != Some(&mac)
            && self.differs(found, "hardware address was another".to_owned())
        {
            self.connection
                .set_link_address_by_index(index, mac)
                .await
                .tried(|| self.about())?;
        }
        let mtu = self.place.network.mtu;
        if link.mtu() != Some(mtu) && self.differs(found, format!("MTU was not {mtu}")) {
            self.connection
                .set_link_mtu_by_index(index, mtu)
                .await
                .tried(|| self.about())?;
        }
        let name = &self.endpoint.container_interface;
        if !link.is_up() && self.differs(found, format!("interface {name} was down")) {
            self.connection
                .set_link_up_by_index(index)
                .await
                .tried(|| self.about())?;
        }
        Ok(())
    }

    /// Exactly the one address.
    async fn address(&self, index: u32, found: &mut Vec<Difference>) -> Result<(), NetworkError> {
        let wanted = (self.endpoint.address, self.place.network.subnet.prefix());
        let messages = self
            .connection
            .get_addresses_by_index(index)
            .await
            .tried(|| self.about())?;
        let have: Vec<_> = messages
            .iter()
            .filter_map(|a| Some((ipv4_of(a)?, a.prefix_len())))
            .collect();
        if have == [wanted] {
            return Ok(());
        }
        found.push(Difference::Address(self.endpoint.container, wanted.0));
        if self.mode == Mode::Check {
            return Ok(());
        }
        for (address, prefix) in have.into_iter().filter(|a| *a != wanted) {
            ignore_missing(
                self.connection
                    .del_address_by_index(index, IpAddr::V4(address), prefix)
                    .await,
            )
            .tried(|| self.about())?;
        }
        self.connection
            .replace_address(Ipv4Address::with_index(index, wanted.0, wanted.1))
            .await
            .tried(|| self.about())
    }

    async fn route(&self, index: u32, found: &mut Vec<Difference>) -> Result<(), NetworkError> {
        let gateway = self.place.network.gateway;
        let routes = self.connection.get_routes().await.tried(|| self.about())?;
        let is_it = |r: &RouteMessage| {
            r.is_ipv4()
                && r.is_default()
                && r.gateway() == Some(&IpAddr::V4(gateway))
                && r.oif() == Some(index)
        };
        if routes.iter().any(is_it) {
            return Ok(());
        }
        found.push(Difference::Route(self.endpoint.container));
        if self.mode == Mode::Check {
            return Ok(());
        }
        let route = Ipv4Route::from_addr(Ipv4Addr::UNSPECIFIED, 0)
            .gateway(gateway)
            .dev_index(index);
        self.connection
            .replace_route(route)
            .await
            .tried(|| self.about())
    }
}
