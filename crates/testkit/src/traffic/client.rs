//! One client.

use super::Shared;
use crate::Rng;
use crate::managers::Address;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use warren_client::{Client, ClientError, ErrorKind, Freshness, Target, v1};
use warren_proto::store::v1 as store;
use warren_sim::history::{Action, HistoryOp, Item, Outcome, ReadKind};

/// Time limit of one request; then nobody knows whether it took effect.
const REQUEST_LIMIT: Duration = Duration::from_secs(3);
/// Pause after a failure, so that an outage is not filled with refusals.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Label of a service that holds the register's value.
const VALUE_LABEL: &str = "value";
/// Share of the writes that name the version they expect, in percent.
const EXPECTING_PERCENT: u64 = 20;
/// Beginning of the services' names.
const SERVICES: &str = "reg-";
/// Beginning of the secrets' names.
const SECRETS: &str = "sec-";

/// An answer of the API as the history wants it.
type Answer = Result<Outcome, ClientError>;

struct Worker {
    shared: Arc<Shared>,
    number: usize,
    rng: Rng,
    client: Client,
    /// The manager that it is bound to.
    bound: Option<Address>,
    generation: u32,
    /// Versions that this client has seen.
    versions: BTreeMap<String, u64>,
    writes: u64,
}

/// Asks until it is told to stop.
pub(super) async fn run(shared: Arc<Shared>, number: usize, mut rng: Rng) {
    let load = shared.load.clone();
    let per_second = (load.writes_per_second + load.reads_per_second).max(1);
    let interval = Duration::from_secs(1) * load.clients as u32 / per_second;
    let first = Duration::from_nanos(rng.below(interval.as_nanos().max(1) as u64));
    let mut due = Instant::now() + first;
    let mut worker = Worker::new(shared.clone(), number, rng);
    // What there is to change, so that few writes find nothing.
    for mine in (number..load.names).step_by(load.clients) {
        worker.write_service(mine).await;
        worker.create_secret(mine).await;
    }
    while !shared.stop.load(Ordering::SeqCst) {
        sleep_until(due).await;
        // A late client does not catch up in a burst.
        due = (due + interval).max(Instant::now());
        worker.follow_changes();
        let read = worker.rng.below(u64::from(per_second)) < u64::from(load.reads_per_second);
        let fine = if read {
            worker.read().await
        } else {
            worker.write().await
        };
        if !fine {
            due = due.max(Instant::now() + AFTER_FAILURE);
        }
    }
}

/// Reads everything through whichever manager answers, linearizable, and records it.
///
/// # Panics
/// When no manager answers within the limit.
pub(super) fn read_everything(shared: &Arc<Shared>, limit: Duration) {
    let begin = std::time::Instant::now();
    let work = async {
        // An odd number: bound to nobody.
        let mut worker = Worker::new(shared.clone(), shared.load.clients | 1, Rng::new(0));
        for prefix in [SERVICES, SECRETS] {
            loop {
                if worker.list(prefix).await {
                    break;
                }
                assert!(begin.elapsed() < limit, "no manager answers at the end");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap_or_else(|e| panic!("runtime: {e}"))
        .block_on(work);
}

impl Worker {
    fn new(shared: Arc<Shared>, number: usize, rng: Rng) -> Self {
        let generation = shared.generation.load(Ordering::SeqCst);
        let managers = shared.managers();
        // Every second client is bound to one manager, all managers by turns.
        let bound = (number.is_multiple_of(2) && !managers.is_empty())
            .then(|| managers[number / 2 % managers.len()].clone());
        let target = Target::Tcp {
            addresses: bound
                .iter()
                .chain(managers.iter().filter(|_| bound.is_none()))
                .map(|a| a.address.clone())
                .collect(),
            identity: shared.identity.clone(),
        };
        let client =
            Client::connect_lazy(target).unwrap_or_else(|e| panic!("client {number}: {e}"));
        let client = if bound.is_some() {
            client
        } else {
            client.with_read(Freshness::Linearizable)
        };
        Self {
            shared,
            number,
            rng,
            client,
            bound,
            generation,
            versions: BTreeMap::new(),
            writes: 0,
        }
    }

    /// Takes the managers' list again when it has changed.
    fn follow_changes(&mut self) {
        let now = self.shared.generation.load(Ordering::SeqCst);
        if now != self.generation {
            let rng = Rng::new(self.rng.next_u64());
            let (writes, versions) = (self.writes, std::mem::take(&mut self.versions));
            *self = Self {
                writes,
                versions,
                ..Self::new(self.shared.clone(), self.number, rng)
            };
        }
    }

    // ------------------------------------------------------------ requests

    async fn write(&mut self) -> bool {
        self.writes += 1;
        let number = self.rng.below(self.shared.load.names as u64) as usize;
        if self.rng.below(2) == 0 {
            self.write_service(number).await
        } else {
            self.write_secret(number).await
        }
    }

    /// Each service is made by one client, changed by all, and never deleted: a deletion takes effect in steps.
    async fn write_service(&mut self, number: usize) -> bool {
        let name = format!("{SERVICES}{number}");
        let value = format!("c{}-{}", self.number, self.writes);
        let expect = self.expected(&name);
        let spec = spec(&name, &value);
        if number % self.shared.load.clients == self.number && !self.versions.contains_key(&name) {
            let action = Action::Create {
                name: name.clone(),
                value: value.clone(),
            };
            let request = v1::CreateServiceRequest {
                spec: Some(spec),
                ..Default::default()
            };
            let client = self.client.clone();
            let asked = async { Ok(written(client.create_service_with(request).await?, &value)) };
            self.versions.insert(name.clone(), 0);
            return self.ask(action, asked).await;
        }
        let action = Action::Update {
            name: name.clone(),
            value: value.clone(),
            expect,
        };
        let request = v1::UpdateServiceRequest {
            name,
            spec: Some(spec),
            expected_version: expect.unwrap_or(0),
            ..Default::default()
        };
        let client = self.client.clone();
        let asked = async {
            let answer = client.update_service(request).await?;
            Ok(written(answer.service.unwrap_or_default(), &value))
        };
        self.ask(action, asked).await
    }

    /// The next size of a secret, as the history's value and as bytes.
    fn next_size(&self, number: usize) -> (usize, String, Vec<u8>) {
        let size = self.shared.sizes[number].fetch_add(1, Ordering::SeqCst) as usize;
        (size, size.to_string(), vec![b'x'; size])
    }

    async fn create_secret(&mut self, number: usize) -> bool {
        let name = format!("{SECRETS}{number}");
        let (size, value, data) = self.next_size(number);
        let client = self.client.clone();
        let action = Action::Create {
            name: name.clone(),
            value,
        };
        let asked = async {
            let made = client.create_secret(&name, data, BTreeMap::new()).await?;
            Ok(stored(&made, size))
        };
        self.ask(action, asked).await
    }

    async fn write_secret(&mut self, number: usize) -> bool {
        let name = format!("{SECRETS}{number}");
        let client = self.client.clone();
        match self.rng.below(16) {
            0..3 => self.create_secret(number).await,
            3 => {
                let action = Action::Delete {
                    name: name.clone(),
                    expect: None,
                };
                let asked = async {
                    client.delete_secret(&name).await?;
                    Ok(Outcome::Deleted { revision: None })
                };
                self.ask(action, asked).await
            }
            _ => {
                let (size, value, data) = self.next_size(number);
                let expect = self.expected(&name);
                let action = Action::Update {
                    name: name.clone(),
                    value,
                    expect,
                };
                let version = expect.map(warren_types::Revision);
                let asked = async {
                    let made = client.update_secret(&name, data, version).await?;
                    Ok(stored(&made, size))
                };
                self.ask(action, asked).await
            }
        }
    }

    fn expected(&mut self, name: &str) -> Option<u64> {
        let known = self.versions.get(name).copied().filter(|v| *v > 0);
        known.filter(|_| self.rng.below(100) < EXPECTING_PERCENT)
    }

    async fn read(&mut self) -> bool {
        let number = self.rng.below(self.shared.load.names as u64);
        let client = self.client.clone();
        match self.rng.below(10) {
            0 => self.list(SERVICES).await,
            1 => self.list(SECRETS).await,
            2..6 => {
                let name = format!("{SERVICES}{number}");
                let action = self.get(&name);
                let asked = async {
                    Ok(match client.get_service(&name).await {
                        Err(e) if e.kind == ErrorKind::NotFound => Outcome::Absent,
                        other => found(service_item(&other?)),
                    })
                };
                self.ask(action, asked).await
            }
            _ => {
                let name = format!("{SECRETS}{number}");
                let action = self.get(&name);
                let asked = async {
                    Ok(match client.get_secret(&name).await {
                        Err(e) if e.kind == ErrorKind::NotFound => Outcome::Absent,
                        other => found(secret_item(&other?)),
                    })
                };
                self.ask(action, asked).await
            }
        }
    }

    fn get(&self, name: &str) -> Action {
        Action::Get {
            name: name.to_owned(),
            read: self.read_kind(),
        }
    }

    const fn read_kind(&self) -> ReadKind {
        if self.bound.is_some() {
            ReadKind::Stale
        } else {
            ReadKind::Linearizable
        }
    }

    async fn list(&mut self, prefix: &str) -> bool {
        let action = Action::List {
            prefix: prefix.to_owned(),
            read: self.read_kind(),
        };
        let client = self.client.clone();
        let services = prefix == SERVICES;
        let asked = async {
            let items: Vec<Item> = if services {
                let all = client.list_services().await?;
                all.iter().map(service_item).collect()
            } else {
                let all = client.list_secrets().await?;
                all.iter().map(secret_item).collect()
            };
            let items = items.into_iter().filter(|i| i.name.starts_with(prefix));
            Ok(Outcome::Listed {
                items: items.collect(),
            })
        };
        self.ask(action, asked).await
    }

    /// Makes a request and records it; false when it failed for another reason than the state of an object.
    async fn ask(&mut self, action: Action, asked: impl Future<Output = Answer>) -> bool {
        let life = |worker: &Self| {
            let bound = worker.bound.as_ref()?;
            Some((bound.member, worker.shared.lives.of(bound.member)))
        };
        let before = life(self);
        let invoked = self.shared.stamp();
        let answer = tokio::time::timeout(REQUEST_LIMIT, asked).await;
        let completed = self.shared.stamp();
        let after = life(self);
        let (outcome, completed, fine) = match answer {
            Ok(Ok(outcome)) => (outcome, Some(completed), true),
            Ok(Err(error)) => {
                let reason = format!("{:?}: {error}", error.kind);
                if certainly_not(error.kind) {
                    let fine = error.kind != ErrorKind::NotTaken;
                    (Outcome::Failed { reason }, Some(completed), fine)
                } else {
                    (Outcome::Unknown { reason }, Some(completed), false)
                }
            }
            Err(_) => {
                let reason = format!("no answer within {REQUEST_LIMIT:?}");
                (Outcome::Unknown { reason }, None, false)
            }
        };
        self.learn(&action, &outcome);
        // Answers of two lives of one manager are no session: a new life may know less for a moment.
        let session = match (before, after) {
            (Some(before), Some(after)) if before == after => {
                format!("c{}@m{}#{}", self.number, after.0 + 1, after.1)
            }
            _ => String::new(),
        };
        let op = HistoryOp {
            client: format!("c{}", self.number),
            session,
            invoked,
            completed,
            action,
            outcome,
        };
        self.shared.record(|r| r.add(op));
        fine
    }

    fn learn(&mut self, action: &Action, outcome: &Outcome) {
        let (Action::Create { name, .. } | Action::Update { name, .. } | Action::Get { name, .. }) =
            action
        else {
            return;
        };
        if let Outcome::Written { version } | Outcome::Found { version, .. } = outcome {
            self.versions.insert(name.clone(), *version);
        }
    }
}

/// Errors after which the request has certainly had no effect.
const fn certainly_not(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidArgument
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::PermissionDenied
            | ErrorKind::FailedPrecondition
            | ErrorKind::Conflict
            | ErrorKind::ResourceExhausted
            | ErrorKind::Unimplemented
            | ErrorKind::NotTaken
    )
}

fn spec(name: &str, value: &str) -> store::ServiceSpec {
    store::ServiceSpec {
        name: name.to_owned(),
        labels: [(VALUE_LABEL.to_owned(), value.to_owned())].into(),
        mode: Some(store::service_spec::Mode::Replicated(store::Replicated {
            replicas: 0,
        })),
        container: Some(store::ContainerSpec {
            image: "test/none:1".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn service_item(service: &v1::Service) -> Item {
    let labels = service.spec.as_ref().map(|spec| &spec.labels);
    Item {
        name: service.name.clone(),
        version: service.version,
        value: labels
            .and_then(|labels| labels.get(VALUE_LABEL))
            .cloned()
            .unwrap_or_default(),
    }
}

fn secret_item(secret: &v1::Secret) -> Item {
    Item {
        name: secret.name.clone(),
        version: secret.version,
        value: secret.size.to_string(),
    }
}

fn found(item: Item) -> Outcome {
    Outcome::Found {
        version: item.version,
        value: item.value,
    }
}

/// The answer to a write shows the object as it is after it, or after a later one of somebody else; then its own version is not known.
fn written(service: v1::Service, value: &str) -> Outcome {
    answer(service_item(&service), value)
}

fn stored(secret: &v1::Secret, size: usize) -> Outcome {
    answer(secret_item(secret), &size.to_string())
}

fn answer(item: Item, value: &str) -> Outcome {
    if item.value == value {
        Outcome::Written {
            version: item.version,
        }
    } else {
        Outcome::Unknown {
            reason: "accepted, but the answer shows a later write".to_owned(),
        }
    }
}
