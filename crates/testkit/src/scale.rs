//! A cluster with many services and container records, made through the API, and the check that none is missing.
//!
//! Every service asks for a node that there is not, so its containers wait, each with its reason, and nothing is started
//! on this machine.

use crate::managers::Managers;
use crate::wait::eventually_within;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use warren_client::{Client, Target, v1};
use warren_types::{Mode, ServiceSpec};

/// Callers that make services at once.
pub const CALLERS: usize = 64;
/// A constraint that no node satisfies.
const NOWHERE: &str = "node.labels.site == nowhere";
/// How the reason of a container begins that no node takes: for the constraint, or because managers take none.
const NO_NODE: &str = "no node fits: ";
/// How long the planners may take for all records after the last service was made.
const COMPLETE_LIMIT: Duration = Duration::from_secs(600);
/// How long the managers may take to hold the same, in a quiet cluster.
const EQUAL_LIMIT: Duration = Duration::from_secs(60);
/// Time limit of a question about everything.
const LIST_LIMIT: Duration = Duration::from_secs(60);

/// How many records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Services.
    pub services: usize,
    /// Containers of each.
    pub replicas: u32,
}

impl Size {
    /// Containers of all services.
    #[must_use]
    pub const fn containers(self) -> usize {
        self.services * self.replicas as usize
    }
}

/// How long loading took.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    /// Until the last service was acknowledged.
    pub services: Duration,
    /// Until every container had its record and its reason.
    pub complete: Duration,
}

/// Makes the services by [`CALLERS`] callers and waits until the planners have made all containers.
///
/// # Errors
/// In words, when a service is refused.
///
/// # Panics
/// When the records do not come.
pub fn load(managers: &Managers, size: Size) -> Result<Loaded, String> {
    let begin = Instant::now();
    let addresses = managers.addresses().into_iter().map(|a| a.address);
    let target = Target::Tcp {
        addresses: addresses.collect(),
        identity: managers.identity(),
    };
    managers.lab().run(move || create(target, size))?;
    let services = begin.elapsed();
    let leader = managers.leader();
    eventually_within(COMPLETE_LIMIT, "every container has its record", || {
        let info = managers.info(leader)?;
        let there = usize::try_from(info.containers).unwrap_or(usize::MAX);
        (there == size.containers())
            .then_some(())
            .ok_or_else(|| format!("{there} of {}", size.containers()))
    });
    // The services tell it of their containers: an answer with all of those would take memory that is then measured.
    eventually_within(COMPLETE_LIMIT, "every service says why it waits", || {
        services_wait(managers, leader, size)
    });
    Ok(Loaded {
        services,
        complete: begin.elapsed(),
    })
}

fn create(target: Target, size: Size) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| format!("runtime: {e}"))?;
    runtime.block_on(async {
        let client = Client::connect(target).await.map_err(|e| e.to_string())?;
        let next = Arc::new(AtomicUsize::new(0));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| tokio::spawn(caller(client.clone(), next.clone(), size)))
            .collect();
        for caller in callers {
            caller.await.map_err(|e| e.to_string())??;
        }
        Ok(())
    })
}

async fn caller(client: Client, next: Arc<AtomicUsize>, size: Size) -> Result<(), String> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= size.services {
            return Ok(());
        }
        let made = client.create_service(&spec(number, size.replicas)).await;
        let _ = made.map_err(|e| format!("{}: {e}", name(number)))?;
    }
}

fn name(number: usize) -> String {
    format!("scale-{number:06}")
}

fn spec(number: usize, replicas: u32) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name(number),
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    spec.container.image = "registry.example.org/team/app:1.2.3".to_owned();
    spec.container.env = (0..4)
        .map(|i| warren_types::EnvVar {
            name: format!("VARIABLE_{i}"),
            value: format!("value-{number}-{i}"),
        })
        .collect();
    spec.placement.constraints = vec![NOWHERE.to_owned()];
    spec
}

/// Looks at every service; their names.
fn services_wait(
    managers: &Managers,
    number: usize,
    size: Size,
) -> Result<BTreeSet<String>, String> {
    let services = managers.ask(number, LIST_LIMIT, async |client| {
        client.list_services().await
    })?;
    let wanted: BTreeSet<String> = (0..size.services).map(name).collect();
    let there: BTreeSet<String> = services.iter().map(|s| s.name.clone()).collect();
    if there != wanted {
        let missing: Vec<&String> = wanted.symmetric_difference(&there).take(5).collect();
        return Err(format!(
            "services {} of {}: {missing:?}",
            there.len(),
            wanted.len()
        ));
    }
    match services.iter().find(|s| !s.reason.starts_with(NO_NODE)) {
        Some(service) => Err(format!("{} waits for {:?}", service.name, service.reason)),
        None => Ok(wanted),
    }
}

/// Looks at every service and every container, as this manager answers.
///
/// # Errors
/// What is missing, doubled, or has no reason.
pub fn records(managers: &Managers, number: usize, size: Size) -> Result<(), String> {
    let wanted = services_wait(managers, number, size)?;
    let containers = managers.ask(number, LIST_LIMIT, async |client| {
        let all = v1::ListContainersRequest {
            include_ended: true,
            ..Default::default()
        };
        client.list_containers(all).await
    })?;
    let mut slots: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for container in &containers {
        if container.state != "pending" || !container.reason.starts_with(NO_NODE) {
            return Err(format!(
                "{} is {}: {:?}",
                container.name, container.state, container.reason
            ));
        }
        slots
            .entry(&container.service_name)
            .or_default()
            .push(container.slot);
    }
    for slots in slots.values_mut() {
        slots.sort_unstable();
    }
    let all: Vec<u32> = (1..=size.replicas).collect();
    let whole = |name: &&String| slots.get(name.as_str()) != Some(&all);
    match wanted.iter().find(whole) {
        Some(name) => Err(format!("places of {name}: {:?}", slots.get(name.as_str()))),
        None if containers.len() == size.containers() => Ok(()),
        None => Err(format!(
            "{} containers, {} wanted",
            containers.len(),
            size.containers()
        )),
    }
}

/// Waits until all running managers are at one revision, and compares what they hold there by its hash.
///
/// # Errors
/// The hashes, when they differ.
///
/// # Panics
/// When the managers do not come to one revision.
pub fn equal(managers: &Managers) -> Result<u64, String> {
    let states = eventually_within(EQUAL_LIMIT, "all managers are at one revision", || {
        let running = managers.running().into_iter();
        let all: Result<Vec<_>, String> = running
            .map(|number| {
                let status = managers.status(number)?;
                Ok((status.revision, status.state_hash))
            })
            .collect();
        let all = all?;
        let same = all.windows(2).all(|pair| pair[0].0 == pair[1].0);
        same.then_some(all.clone())
            .ok_or_else(|| format!("{all:?}"))
    });
    let first = states.first().map_or(0, |state| state.1);
    if first == 0 || states.iter().any(|state| state.1 != first) {
        return Err(format!(
            "the managers hold different states (revision, hash): {states:?}"
        ));
    }
    Ok(first)
}
