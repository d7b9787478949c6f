//! The network of this host: what the rest of the program talks to.

use crate::bridge;
use crate::config::NetworkConfig;
use crate::conntrack;
use crate::endpoint::{self, Place};
use crate::error::{NetworkError, Tried};
use crate::foreign;
use crate::ports::{self, PortHolder};
use crate::report::{Difference, Report};
use crate::rules;
use nlink::netlink::namespace::{self, Netns};
use nlink::netlink::nftables::Family;
use nlink::netlink::nftables::config::{NftablesConfig, NftablesDiff};
use nlink::netlink::{Connection, Netfilter, Nftables, Route};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tokio::sync::Mutex;
use warren_netplan::{BridgeNetwork, Endpoint, HostPort, NodeNetwork, names};
use warren_types::{ContainerId, Protocol};

/// How often a change of the table is worked out again when another program changed the firewall in
/// between.
const RULE_ATTEMPTS_MAX: usize = 8;
/// Locks that keep two operations on one container apart; containers share them by their id.
const CONTAINER_LOCKS: usize = 32;

/// Whether differences are repaired or only found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write nothing.
    Check,
    /// Write what differs.
    Repair,
}

/// Sockets that speak to the kernel about the host's network namespace, whatever thread uses them.
pub(crate) struct Kernel {
    pub(crate) route: Connection<Route>,
    pub(crate) nft: Connection<Nftables>,
    pub(crate) conntrack: Connection<Netfilter>,
    pub(crate) netns: Netns,
}

/// A container that has a network namespace on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachedContainer {
    /// The container.
    pub container: ContainerId,
    /// File of its namespace.
    pub netns: PathBuf,
    /// Its address, if its interface has one.
    pub address: Option<Ipv4Addr>,
}

/// The network of this host. Needs a tokio runtime from `open` to drop; operations may run at once.
pub struct HostNetwork {
    config: NetworkConfig,
    kernel: Kernel,
    /// Ports this process has published: they stay ours when somebody deletes the table.
    published: Mutex<BTreeSet<HostPort>>,
    /// Held by whoever compares or changes the bridge.
    bridge_lock: Mutex<()>,
    /// Held by whoever compares or changes the table.
    rules_lock: Mutex<()>,
    container_locks: [Mutex<()>; CONTAINER_LOCKS],
}

impl HostNetwork {
    /// Opens the network of the namespace that the calling thread is in. Changes nothing. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// Names that cannot be used; no netlink socket.
    pub fn open(config: NetworkConfig) -> Result<Self, NetworkError> {
        config.validate()?;
        let open = || "opening netlink sockets".to_owned();
        let netns = Netns::current().tried(open)?;
        let kernel = Kernel {
            route: Connection::new_in(&netns).tried(open)?,
            nft: Connection::new_in(&netns).tried(open)?,
            conntrack: Connection::new_in(&netns).tried(open)?,
            netns,
        };
        Ok(Self {
            config,
            kernel,
            published: Mutex::default(),
            bridge_lock: Mutex::default(),
            rules_lock: Mutex::default(),
            container_locks: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// File of a container's network namespace; it exists while the container is attached.
    #[must_use]
    pub fn netns_path(&self, container: ContainerId) -> PathBuf {
        self.config.netns_dir.join(container.to_string())
    }

    /// Gives a container its network: namespace, interface, address, route. Makes the bridge if it is
    /// not there yet. What is there already stays, so it may be called again at any time.
    ///
    /// # Errors
    /// A value that is not valid; a refusal by the kernel. What was made until then stays for the
    /// next attempt or for [`Self::detach`].
    pub async fn attach(
        &self,
        network: &BridgeNetwork,
        endpoint: &Endpoint,
    ) -> Result<PathBuf, NetworkError> {
        self.check_names(network)?;
        endpoint.validate(network)?;
        let mut found = Vec::new();
        let index = self
            .reconcile_bridge(network, Mode::Repair, &mut found)
            .await?;
        let path = self.netns_path(endpoint.container);
        let _guard = self.container_lock(endpoint.container).lock().await;
        endpoint::ensure_netns(endpoint.container, &path)?;
        let place = Place {
            network,
            bridge_index: index,
            path: &path,
        };
        endpoint::reconcile(&self.kernel, place, endpoint, Mode::Repair, &mut found).await?;
        Ok(path)
    }

    /// Takes a container's network away; `false` if there was none. Its processes must have ended:
    /// those that have not lose their interface.
    ///
    /// # Errors
    /// A refusal by the kernel; a file that cannot be removed.
    pub async fn detach(&self, container: ContainerId) -> Result<bool, NetworkError> {
        let _guard = self.container_lock(container).lock().await;
        endpoint::remove(&self.kernel, container, &self.netns_path(container)).await
    }

    /// The containers that have a network namespace here, in the order of their ids; to find what is
    /// nobody's, and to learn addresses after a restart.
    ///
    /// # Errors
    /// The namespace directory cannot be read.
    pub async fn list(&self) -> Result<Vec<AttachedContainer>, NetworkError> {
        let mut attached = Vec::new();
        for (container, netns) in self.namespace_files()? {
            let address = endpoint::address_in(&netns).await.unwrap_or_default();
            attached.push(AttachedContainer {
                container,
                netns,
                address,
            });
        }
        Ok(attached)
    }

    /// Makes the kernel match. Writes nothing when nothing differs. A failure that concerns one
    /// container or one port is in the report and stops nothing else.
    ///
    /// # Errors
    /// A value that is not valid; a failure that concerns bridge or table as a whole.
    pub async fn apply(&self, network: &NodeNetwork) -> Result<Report, NetworkError> {
        self.reconcile(network, Mode::Repair).await
    }

    /// Compares the kernel with `network`; the differences, none if they match.
    ///
    /// # Errors
    /// A value that is not valid; a kernel that cannot be asked.
    pub async fn verify(&self, network: &NodeNetwork) -> Result<Vec<Difference>, NetworkError> {
        let report = self.reconcile(network, Mode::Check).await?;
        if let Some(error) = report
            .failed
            .into_iter()
            .find(|e| !matches!(e, NetworkError::PortInUse { .. }))
        {
            return Err(error);
        }
        Ok(report.repaired.into_iter().chain(report.missing).collect())
    }

    /// Is this port of the host free, or ours already? To be asked before a container starts.
    ///
    /// # Errors
    /// [`NetworkError::PortInUse`] with the process that has it.
    pub async fn check_port(&self, port: HostPort) -> Result<(), NetworkError> {
        let mut refused = self.refused_ports(BTreeSet::from([port])).await?;
        refused.pop().map_or(Ok(()), Err)
    }

    /// Removes all that was ever made here: containers' namespaces and interfaces, bridge, table,
    /// empty namespace directory. The kernel's `ip_forward` setting stays on, for others may rely on
    /// it meanwhile.
    ///
    /// # Errors
    /// The first thing that could not be removed; calling again goes on.
    pub async fn teardown(&self) -> Result<(), NetworkError> {
        for (container, _) in self.namespace_files()? {
            self.detach(container).await?;
        }
        let _bridge = self.bridge_lock.lock().await;
        let _rules = self.rules_lock.lock().await;
        let table = &self.config.table;
        self.kernel
            .nft
            .del_table_if_exists(table.as_str(), Family::Ip)
            .await
            .tried(|| format!("removing nftables table {table}"))?;
        bridge::remove(&self.kernel, &self.config.bridge).await?;
        self.published.lock().await.clear();
        match std::fs::remove_dir(&self.config.netns_dir) {
            // Somebody else's file in it is no reason to fail.
            Err(source)
                if !matches!(
                    source.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(NetworkError::File {
                    action: "removing",
                    path: self.config.netns_dir.clone(),
                    source,
                })
            }
            _ => Ok(()),
        }
    }

    async fn reconcile(&self, network: &NodeNetwork, mode: Mode) -> Result<Report, NetworkError> {
        network.validate()?;
        self.check_names(&network.bridge)?;
        let mut report = Report::default();
        let bridge_index = self
            .reconcile_bridge(&network.bridge, mode, &mut report.repaired)
            .await?;
        // Only a check leaves the bridge missing; then nothing can be said of what hangs on it.
        if bridge_index != bridge::MISSING {
            self.reconcile_endpoints(network, bridge_index, mode, &mut report)
                .await;
        }
        self.reconcile_rules(network, mode, &mut report).await?;
        if mode == Mode::Repair {
            report.warnings = foreign::warnings(&self.kernel, &self.config).await?;
        }
        Ok(report)
    }

    async fn reconcile_bridge(
        &self,
        network: &BridgeNetwork,
        mode: Mode,
        found: &mut Vec<Difference>,
    ) -> Result<u32, NetworkError> {
        let _guard = self.bridge_lock.lock().await;
        bridge::reconcile(&self.kernel, network, mode, found).await
    }

    async fn reconcile_endpoints(
        &self,
        network: &NodeNetwork,
        bridge_index: u32,
        mode: Mode,
        report: &mut Report,
    ) {
        for endpoint in network.endpoints.values() {
            let path = self.netns_path(endpoint.container);
            let _guard = self.container_lock(endpoint.container).lock().await;
            if !namespace::is_namespace_path(&path) {
                report
                    .missing
                    .push(Difference::NotAttached(endpoint.container));
                continue;
            }
            let place = Place {
                network: &network.bridge,
                bridge_index,
                path: &path,
            };
            if let Err(error) =
                endpoint::reconcile(&self.kernel, place, endpoint, mode, &mut report.repaired).await
            {
                report.failed.push(error);
            }
        }
    }

    async fn reconcile_rules(
        &self,
        network: &NodeNetwork,
        mode: Mode,
        report: &mut Report,
    ) -> Result<(), NetworkError> {
        let _guard = self.rules_lock.lock().await;
        let mut wanted = network.clone();
        wanted.published.retain(|_, backends| !backends.is_empty());
        let refused = self
            .refused_ports(wanted.published.keys().copied().collect())
            .await?;
        for error in refused {
            if let NetworkError::PortInUse { port, .. } = &error {
                wanted.published.remove(port);
            }
            report.failed.push(error);
        }
        let config = rules::declare(&self.config.table, &wanted);
        let changes = match mode {
            Mode::Check => self.diff(&config).await?,
            Mode::Repair => self.change_table(&config).await?,
        };
        let changed = !changes.is_empty();
        report
            .repaired
            .extend(changes.into_iter().map(Difference::Rules));
        if mode == Mode::Repair {
            *self.published.lock().await = wanted.published.keys().copied().collect();
            if changed
                && network
                    .published
                    .keys()
                    .any(|p| p.protocol == Protocol::Udp)
            {
                conntrack::forget_stale_udp(&self.kernel, &wanted).await;
            }
        }
        Ok(())
    }

    async fn diff(&self, config: &NftablesConfig) -> Result<Vec<String>, NetworkError> {
        let diff = config
            .diff(&self.kernel.nft)
            .await
            .tried(|| self.about_table("reading"))?;
        Ok(changes_in_words(&diff))
    }

    /// Brings the table to `config` in one transaction; the changes, in words. Another program's
    /// change in between makes the kernel refuse; then it is worked out again.
    async fn change_table(&self, config: &NftablesConfig) -> Result<Vec<String>, NetworkError> {
        let mut attempt = 1;
        loop {
            let diff = config
                .diff(&self.kernel.nft)
                .await
                .tried(|| self.about_table("reading"))?;
            if diff.is_empty() {
                return Ok(Vec::new());
            }
            match diff.apply(&self.kernel.nft).await {
                Ok(_) => return Ok(changes_in_words(&diff)),
                Err(error) if error.is_restart() && attempt < RULE_ATTEMPTS_MAX => attempt += 1,
                Err(error) => return Err(error).tried(|| self.about_table("changing")),
            }
        }
    }

    fn about_table(&self, verb: &str) -> String {
        format!("{verb} nftables table {}", self.config.table)
    }

    /// Those of `ports` that a process of the host listens on, and that are not ours already.
    async fn refused_ports(
        &self,
        mut ports: BTreeSet<HostPort>,
    ) -> Result<Vec<NetworkError>, NetworkError> {
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        for ours in self.published.lock().await.iter() {
            ports.remove(ours);
        }
        if !ports.is_empty() {
            // After a restart of this process the kernel knows which ports are ours.
            let rules = self
                .kernel
                .nft
                .list_rules(&self.config.table, Family::Ip)
                .await;
            for rule in rules
                .or_else(|e| {
                    if e.is_not_found() {
                        Ok(Vec::new())
                    } else {
                        Err(e)
                    }
                })
                .tried(|| self.about_table("reading"))?
            {
                if let Some(ours) = rule.key.as_deref().and_then(rules::port_of_key) {
                    ports.remove(&ours);
                }
            }
        }
        if ports.is_empty() {
            return Ok(Vec::new());
        }
        let listening = self
            .kernel
            .netns
            .run(ports::listening)
            .tried(|| "reading the host's sockets".to_owned())?;
        let listening = listening.map_err(|source| NetworkError::File {
            action: "reading",
            path: PathBuf::from("/proc/thread-self/net"),
            source,
        })?;
        let refuse = |port: HostPort| {
            let holder: PortHolder = ports::holder(*listening.get(&port)?);
            Some(NetworkError::PortInUse { port, holder })
        };
        Ok(ports.into_iter().filter_map(refuse).collect())
    }

    fn check_names(&self, network: &BridgeNetwork) -> Result<(), NetworkError> {
        network.validate()?;
        if network.bridge != self.config.bridge {
            return Err(NetworkError::OtherBridge {
                desired: network.bridge.clone(),
                configured: self.config.bridge.clone(),
            });
        }
        Ok(())
    }

    fn container_lock(&self, container: ContainerId) -> &Mutex<()> {
        let bytes = names::host_interface(container).into_bytes();
        let sum: usize = bytes.iter().map(|b| usize::from(*b)).sum();
        &self.container_locks[sum % CONTAINER_LOCKS]
    }

    /// Files of the namespace directory that are named after a container.
    fn namespace_files(&self) -> Result<Vec<(ContainerId, PathBuf)>, NetworkError> {
        let dir: &Path = &self.config.netns_dir;
        let fail = |source| NetworkError::File {
            action: "reading",
            path: dir.to_owned(),
            source,
        };
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(fail)?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let id = entry.file_name().to_str().and_then(|n| n.parse().ok());
            // The text form must be ours exactly: parsing also takes capitals.
            files.extend(
                id.filter(|id: &ContainerId| entry.file_name() == id.to_string().as_str())
                    .map(|id| (id, entry.path())),
            );
        }
        files.sort();
        Ok(files)
    }
}

/// The lines of a difference, without its heading.
fn changes_in_words(diff: &NftablesDiff) -> Vec<String> {
    if diff.is_empty() {
        return Vec::new();
    }
    diff.to_string()
        .lines()
        .skip(1)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations run in tasks of a runtime with many threads.
    #[expect(dead_code, reason = "compiling it is the test")]
    fn operations_can_be_spawned(host: &HostNetwork, network: &NodeNetwork, endpoint: &Endpoint) {
        fn spawnable(_: impl Send) {}
        spawnable(host.attach(&network.bridge, endpoint));
        spawnable(host.detach(endpoint.container));
        spawnable(host.apply(network));
        spawnable(host.verify(network));
        spawnable(host.list());
        spawnable(host.teardown());
        spawnable(host);
    }
}
