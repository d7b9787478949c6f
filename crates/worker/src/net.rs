//! The node's network as a projection of what runs: addresses, endpoints, published ports. Worked out
//! by `netplan`, made true by `network`, looked after again and again.

use crate::keep::Keep;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use warren_netplan::{
    BridgeNetwork, Endpoint, HostPort, Ipam, NodeNetwork, PlannedContainer, Subnet, plan_node,
};
use warren_network::{HostNetwork, NetworkError};
use warren_types::{ContainerId, PortMapping, ServiceId};

/// Time between two looks whether the kernel still matches.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Wait before a failed change is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a container has to do with the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) service: ServiceId,
    pub(crate) address: Ipv4Addr,
    pub(crate) serving: bool,
    pub(crate) ports: Vec<PortMapping>,
}

/// The node's network.
pub(crate) struct NodeNet {
    host: Arc<HostNetwork>,
    bridge_name: String,
    inner: Mutex<Inner>,
    bridge: watch::Sender<Option<BridgeNetwork>>,
    changed: Notify,
    /// Number of the newest projection that the kernel matches.
    applied: watch::Sender<u64>,
}

struct Inner {
    ipam: Option<Ipam>,
    leases: Vec<(ContainerId, Ipv4Addr)>,
    parts: BTreeMap<ContainerId, Part>,
    version: u64,
}

/// Why a container has no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetProblem {
    /// A value that makes no sense.
    #[error("the node's subnet {text:?} is not usable: {problem}")]
    Subnet {
        /// What the manager gave.
        text: String,
        /// In words.
        problem: String,
    },
    /// No address left.
    #[error("{0}")]
    Address(String),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] NetworkError),
    /// The disk.
    #[error("the address cannot be kept: {0}")]
    Disk(String),
}

impl NodeNet {
    pub(crate) fn new(
        host: Arc<HostNetwork>,
        bridge_name: String,
        leases: Vec<(ContainerId, Ipv4Addr)>,
    ) -> Self {
        Self {
            host,
            bridge_name,
            inner: Mutex::new(Inner {
                ipam: None,
                leases,
                parts: BTreeMap::new(),
                version: 0,
            }),
            bridge: watch::Sender::new(None),
            changed: Notify::new(),
            applied: watch::Sender::new(0),
        }
    }

    /// The kernel's side.
    pub(crate) const fn host(&self) -> &Arc<HostNetwork> {
        &self.host
    }

    /// Sets the node's subnet; once set it can only be set again unchanged.
    pub(crate) fn set_subnet(&self, text: &str) -> Result<(), NetProblem> {
        let wrong = |problem: String| NetProblem::Subnet {
            text: text.to_owned(),
            problem,
        };
        let subnet: Subnet = text
            .parse()
            .map_err(|e: warren_netplan::SubnetError| wrong(e.to_string()))?;
        let mut inner = self.lock();
        if self
            .bridge
            .borrow()
            .as_ref()
            .is_some_and(|b| b.subnet == subnet)
        {
            return Ok(());
        }
        if self.bridge.borrow().is_some() {
            return Err(wrong(
                "the node has another one in use; reset the node to change it".to_owned(),
            ));
        }
        let mut ipam = Ipam::new(subnet);
        for (id, address) in std::mem::take(&mut inner.leases) {
            if let Err(problem) = ipam.adopt(id, address) {
                tracing::warn!(container = %id, %problem, "address of an earlier run not taken over");
            }
        }
        inner.ipam = Some(ipam);
        self.bridge
            .send_replace(Some(BridgeNetwork::new(self.bridge_name.clone(), subnet)));
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Gives a container its address and network; waits until the node has a subnet.
    pub(crate) async fn attach(
        &self,
        keep: &Keep,
        id: ContainerId,
    ) -> Result<(Ipv4Addr, PathBuf), NetProblem> {
        let mut bridges = self.bridge.subscribe();
        let bridge = match bridges.wait_for(Option::is_some).await {
            Ok(bridge) => bridge.clone(),
            Err(_) => None,
        };
        let bridge =
            bridge.ok_or_else(|| NetProblem::Address("the node is stopping".to_owned()))?;
        let (address, new) = {
            let mut inner = self.lock();
            let ipam = inner
                .ipam
                .as_mut()
                .ok_or_else(|| NetProblem::Address("no subnet yet".to_owned()))?;
            let known = ipam.address_of(id);
            let address = ipam
                .allocate(id)
                .map_err(|e| NetProblem::Address(e.to_string()))?;
            (address, known != Some(address))
        };
        if new {
            keep.lease(id, address).await.map_err(NetProblem::Disk)?;
        }
        let path = self
            .host
            .attach(&bridge, &Endpoint::new(id, address))
            .await?;
        Ok((address, path))
    }

    /// Takes a container's network away and gives its address back.
    pub(crate) async fn detach(&self, id: ContainerId) -> Result<(), NetProblem> {
        self.set_part(id, None);
        self.host.detach(id).await?;
        if let Some(ipam) = self.lock().ipam.as_mut() {
            ipam.release(id);
        }
        Ok(())
    }

    /// Is the port free for the container, or held by a process of the host?
    pub(crate) async fn check_port(&self, mapping: &PortMapping) -> Result<(), NetworkError> {
        self.host
            .check_port(HostPort {
                protocol: mapping.protocol,
                port: mapping.host_port,
            })
            .await
    }

    /// Notes what a container has to do with the network.
    pub(crate) fn set_part(&self, id: ContainerId, part: Option<Part>) {
        let mut inner = self.lock();
        let same = inner.parts.get(&id) == part.as_ref();
        if same {
            return;
        }
        match part {
            Some(part) => inner.parts.insert(id, part),
            None => inner.parts.remove(&id),
        };
        inner.version += 1;
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits until the kernel matches everything noted so far, at most `limit`.
    pub(crate) async fn settled(&self, limit: Duration) {
        let version = self.lock().version;
        let mut applied = self.applied.subscribe();
        // Too late is not too bad: the container runs, and the projection goes on being made.
        let _ = tokio::time::timeout(limit, applied.wait_for(|v| *v >= version)).await;
    }

    /// Keeps the kernel in line until the task is dropped.
    pub(crate) async fn run(&self) {
        loop {
            let wait = match self.project().await {
                Ok(()) => LOOK_EVERY,
                Err(problem) => {
                    tracing::warn!(%problem, "network not as it should be yet");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn project(&self) -> Result<(), NetProblem> {
        let Some(bridge) = self.bridge.borrow().clone() else {
            return Ok(());
        };
        let (network, version) = self.desired(bridge);
        let report = self.host.apply(&network).await?;
        for repaired in &report.repaired {
            tracing::debug!(%repaired, "network brought in line");
        }
        if let Some(first) = report.repaired.first() {
            tracing::info!(%first, changes = report.repaired.len(), "network brought in line");
        }
        for problem in &report.failed {
            tracing::warn!(%problem, "part of the network not in line");
        }
        for warning in &report.warnings {
            tracing::warn!(warning, "network");
        }
        self.applied.send_replace(version);
        Ok(())
    }

    fn desired(&self, bridge: BridgeNetwork) -> (NodeNetwork, u64) {
        let inner = self.lock();
        let containers = inner.parts.iter().map(|(id, part)| PlannedContainer {
            id: *id,
            service: part.service,
            local: true,
            address: Some(part.address),
            serving: part.serving,
            ports: &part.ports,
        });
        let plan = plan_node(bridge, containers);
        for issue in &plan.issues {
            tracing::warn!(%issue, "network plan");
        }
        (plan.network, inner.version)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
