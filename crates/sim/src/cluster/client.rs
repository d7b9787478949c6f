//! Clients: each asks one thing after the other, of the manager of its choice, and notes what it was told.

use super::bugs::SimBugs;
use super::faults::Kind;
use super::net::Endpoint;
use super::stage::{PREFIX, Stage, items, text};
use crate::history::{Action, HistoryOp, Item, Outcome, ReadKind};
use crate::oracle::Answer;
use crate::workload::Workload;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep_until, timeout};
use warren_raft::testing::Gate;
use warren_state::{Actor, ClusterState, Command, Op, OpResult};
use warren_storage::Rng;
use warren_types::{Config, ConfigId, NodeId, Revision, Timestamp};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often it looks whether the other side has died.
const LOOK: Duration = Duration::from_millis(25);
/// Registers.
const NAMES: u64 = 4;
/// Attempts of a client at a create whose outcome it does not know.
const RETRIES: u32 = 3;

/// A client.
pub(super) struct Client {
    pub(super) number: u64,
    /// Clients act in different milliseconds, so that their order never hangs on anything but the seed.
    pub(super) of: u64,
    pub(super) rng: Rng,
    pub(super) workload: Workload,
    pub(super) stage: Arc<Stage>,
    pub(super) bugs: SimBugs,
    pub(super) made: u64,
    /// Longest pause between requests, in milliseconds.
    pub(super) think_ms: u64,
}

/// Waits for a task of a manager; none when the manager dies or takes too long.
pub(super) async fn answer_of<T: Send + 'static>(
    gate: &Arc<Gate>,
    job: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut job = gate.spawn(job);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        match timeout(LOOK, &mut job).await {
            Ok(answer) => return answer.ok(),
            Err(_) if gate.is_dead() => return None,
            Err(_) => waited += LOOK,
        }
    }
    None
}

impl Client {
    /// Asks until it is over.
    pub(super) async fn run(mut self) {
        loop {
            let think = 5 + self.rng.below(self.think_ms);
            self.pause(think).await;
            if self.stage.is_over() {
                return;
            }
            let managers = self.stage.managers();
            let home = usize::try_from(self.number).unwrap_or(0) % managers.len().max(1);
            let any = usize::try_from(self.rng.below(managers.len() as u64)).unwrap_or(0);
            let choice = if self.rng.chance(70) { home } else { any };
            let Some(node) = managers.get(choice).copied() else {
                continue;
            };
            // Nobody answers at that door; that is no request.
            if let Some(endpoint) = self.stage.net.endpoint(node) {
                self.act(node, &endpoint).await;
            }
        }
    }

    async fn pause(&self, ms: u64) {
        let mut at = self.stage.elapsed_ms() + ms;
        at += (self.of + self.number - at % self.of) % self.of;
        sleep_until(self.stage.at(at)).await;
    }

    async fn act(&mut self, node: NodeId, endpoint: &Endpoint) {
        let name = format!("{PREFIX}{}", self.rng.below(NAMES));
        match self.rng.below(20) {
            0..4 => self.create(node, endpoint, name).await,
            4..8 => self.update(node, endpoint, name).await,
            8..10 => self.delete(node, endpoint, name).await,
            10..13 => self.read(node, endpoint, Some(name)).await,
            13 => self.read(node, endpoint, None).await,
            14 | 15 => self.look(node, endpoint, Some(name)),
            16 => self.look(node, endpoint, None),
            _ => self.order(node, endpoint).await,
        }
    }

    fn session(&self, node: NodeId, endpoint: &Endpoint) -> String {
        format!("c{} {node} life {}", self.number, endpoint.life)
    }

    fn command(&self, node: NodeId, op: Op) -> Command {
        let actor = Actor::Api {
            name: format!("c{}", self.number),
        };
        Command::new(actor, Timestamp(self.stage.clock_ms(node)), vec![op])
    }

    /// A text that no other write has.
    fn value(&mut self) -> String {
        self.made += 1;
        let filler = usize::try_from(self.rng.below(200)).unwrap_or(0);
        format!("c{}.{} {}", self.number, self.made, "x".repeat(filler))
    }

    fn config(&self, name: &str, id: ConfigId, value: &str) -> Box<Config> {
        Box::new(Config {
            id,
            name: name.to_owned(),
            labels: BTreeMap::new(),
            data: value.as_bytes().to_vec(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Revision(0),
        })
    }

    async fn write(&self, endpoint: &Endpoint, command: &Command) -> Answer {
        let api = Arc::clone(&endpoint.api);
        if !endpoint.raft.leadership().borrow().is_leader {
            self.stage.probe.count(Kind::Forwarded);
        }
        let job = command.clone();
        let answer = answer_of(&endpoint.gate, async move { api.write(job).await }).await;
        let answer = answer.unwrap_or_else(|| Answer::Unknown("the connection broke".to_owned()));
        match &answer {
            Answer::Applied(applied) => self.stage.probe.acknowledged(command, applied),
            Answer::Unknown(_) => self.stage.probe.count(Kind::UnknownOutcome),
            Answer::Rejected(_) | Answer::NotTaken(_) => {}
        }
        answer
    }

    fn record(&self, invoked: u64, session: String, action: Action, outcome: Outcome) {
        let stamp = self.stage.stamp();
        let known = !matches!(outcome, Outcome::Unknown { .. });
        self.stage.record(HistoryOp {
            client: format!("c{}", self.number),
            session,
            invoked,
            completed: known.then_some(stamp),
            action,
            outcome,
        });
    }

    async fn create(&mut self, node: NodeId, endpoint: &Endpoint, name: String) {
        let value = self.value();
        let id = ConfigId::from_u128((u128::from(self.number + 1) << 64) | u128::from(self.made));
        let op = Op::ConfigCreate(self.config(&name, id, &value));
        let key = format!("key-{}-{}", self.number, self.made);
        let mut command = self.command(node, op).with_key(key);
        let invoked = self.stage.stamp();
        let mut answer = self.write(endpoint, &command).await;
        let mut uncertain = false;
        for attempt in 0..RETRIES {
            if !matches!(answer, Answer::Unknown(_)) {
                break;
            }
            uncertain = true;
            // The same again is safe, wherever: it has a key.
            let pause = 60 + self.rng.below(200);
            self.pause(pause).await;
            if self.bugs.retry_without_key {
                command.idempotency_key = None;
            }
            if self.bugs.retry_with_new_key {
                command =
                    command.with_key(format!("again-{}-{}-{attempt}", self.number, self.made));
            }
            let managers = self.stage.managers();
            let at = usize::try_from(self.rng.below(managers.len() as u64)).unwrap_or(0);
            if let Some(other) = managers
                .get(at)
                .and_then(|node| self.stage.net.endpoint(*node))
            {
                answer = self.write(&other, &command).await;
            }
        }
        let answer = self.bugs.certain(answer, uncertain);
        let action = Action::Create { name, value };
        self.record(invoked, String::new(), action, outcome(&answer));
    }

    /// The register as this manager shows it, right or old.
    fn known(&self, endpoint: &Endpoint, name: &str) -> Option<Item> {
        let state = endpoint.raft.state();
        items(&state).into_iter().find(|item| item.name == name)
    }

    fn id_of(endpoint: &Endpoint, name: &str) -> Option<ConfigId> {
        let state = endpoint.raft.state();
        let mut configs = state.configs();
        configs
            .find(|config| config.name == name)
            .map(|config| config.id)
    }

    async fn update(&mut self, node: NodeId, endpoint: &Endpoint, name: String) {
        let (Some(item), Some(id)) = (self.known(endpoint, &name), Self::id_of(endpoint, &name))
        else {
            return self.create(node, endpoint, name).await;
        };
        let value = self.value();
        let expect = self.rng.chance(50).then_some(item.version);
        let op = Op::ConfigUpdate {
            expect: expect.map(Revision),
            config: self.config(&name, id, &value),
        };
        let command = self.command(node, op);
        let invoked = self.stage.stamp();
        let answer = self.write(endpoint, &command).await;
        let action = Action::Update {
            name,
            value,
            expect,
        };
        self.record(invoked, String::new(), action, outcome(&answer));
    }

    async fn delete(&mut self, node: NodeId, endpoint: &Endpoint, name: String) {
        let (Some(item), Some(id)) = (self.known(endpoint, &name), Self::id_of(endpoint, &name))
        else {
            return self.create(node, endpoint, name).await;
        };
        let expect = self.rng.chance(50).then_some(item.version);
        let op = Op::ConfigDelete {
            id,
            expect: expect.map(Revision),
        };
        let command = self.command(node, op);
        let invoked = self.stage.stamp();
        let answer = self.write(endpoint, &command).await;
        let outcome = match &answer {
            Answer::Applied(applied) => Outcome::Deleted {
                revision: Some(applied.revision.0),
            },
            other => outcome(other),
        };
        let action = Action::Delete { name, expect };
        self.record(invoked, String::new(), action, outcome);
    }

    /// A linearizable read of one register, or of all.
    async fn read(&mut self, node: NodeId, endpoint: &Endpoint, name: Option<String>) {
        let api = Arc::clone(&endpoint.api);
        let invoked = self.stage.stamp();
        let follower = !endpoint.raft.leadership().borrow().is_leader;
        let state = answer_of(&endpoint.gate, async move { api.read().await }).await;
        let session = self.session(node, endpoint);
        match state {
            Some(Ok(state)) => {
                if follower {
                    self.stage.probe.count(Kind::FollowerRead);
                }
                self.show(invoked, session, &state, name, ReadKind::Linearizable);
            }
            Some(Err(reason)) => self
                .stage
                .note(format!("c{}: no read: {reason}", self.number)),
            None => self
                .stage
                .note(format!("c{}: no answer to a read", self.number)),
        }
    }

    /// A stale read.
    fn look(&mut self, node: NodeId, endpoint: &Endpoint, name: Option<String>) {
        let invoked = self.stage.stamp();
        let state = endpoint.raft.state();
        let session = self.session(node, endpoint);
        self.show(invoked, session, &state, name, ReadKind::Stale);
    }

    fn show(
        &self,
        invoked: u64,
        session: String,
        state: &ClusterState,
        name: Option<String>,
        read: ReadKind,
    ) {
        let Some(name) = name else {
            let items = items(state);
            let prefix = PREFIX.to_owned();
            let action = Action::List { prefix, read };
            return self.record(invoked, session, action, Outcome::Listed { items });
        };
        let mut configs = state.configs();
        let outcome = match configs.find(|config| config.name == name) {
            None => Outcome::Absent,
            Some(config) => Outcome::Found {
                version: config.version.0,
                value: text(&config.data),
            },
        };
        self.record(invoked, session, Action::Get { name, read }, outcome);
    }

    /// An operator's wish: services, nodes.
    async fn order(&mut self, node: NodeId, endpoint: &Endpoint) {
        self.workload.set_time(self.stage.clock_ms(node));
        let command = self.workload.request(&endpoint.raft.state());
        let answer = self.write(endpoint, &command).await;
        let line = match &answer {
            Answer::Applied(applied) => format!("applied at {}", applied.revision),
            Answer::Rejected(rejection) => format!("refused: {rejection}"),
            Answer::NotTaken(why) => format!("not taken: {why}"),
            Answer::Unknown(why) => format!("unknown: {why}"),
        };
        self.stage.note(format!("c{} orders: {line}", self.number));
    }
}

fn outcome(answer: &Answer) -> Outcome {
    match answer {
        Answer::Applied(applied) => {
            let version = applied.results.iter().find_map(|result| match result {
                OpResult::Changed { version, .. } => Some(version.0),
                _ => None,
            });
            Outcome::Written {
                version: version.unwrap_or(applied.revision.0),
            }
        }
        Answer::Rejected(rejection) => Outcome::Failed {
            reason: rejection.to_string(),
        },
        Answer::NotTaken(reason) => Outcome::Failed {
            reason: reason.clone(),
        },
        Answer::Unknown(reason) => Outcome::Unknown {
            reason: reason.clone(),
        },
    }
}
