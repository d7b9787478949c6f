//! Several managers in one process, joined by a network that loses, delays and cuts.

use super::{LIMIT, config, members, node, wait_for};
use crate::transport::{RpcKind, SnapshotBody, Transport, TransportError};
use crate::{Member, RaftConfig, RaftError, RaftHandle};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warren_storage::{FaultyDisk, Rng};
use warren_types::NodeId;

/// What the network does.
pub(super) struct Weather {
    pub(super) rng: Rng,
    /// Messages lost, in percent.
    pub(super) loss: u64,
    /// Shortest and longest time on the way, in milliseconds.
    pub(super) delay: (u64, u64),
    /// Directions (from, to) that carry nothing.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// A snapshot breaks off after so many bytes, once.
    pub(super) break_snapshot: Option<u64>,
    /// So many snapshots arrive with a bit changed, or (every other) cut short.
    pub(super) spoil_snapshots: u64,
    /// Bytes of snapshots carried.
    pub(super) snapshot_bytes: u64,
    /// Messages by kind.
    pub(super) calls: BTreeMap<u32, u64>,
    /// All addresses are said to be deserted.
    pub(super) refuse: bool,
}

/// The network of one manager.
#[derive(Clone)]
pub(super) struct Net {
    id: NodeId,
    pub(super) managers: Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>,
    pub(super) weather: Arc<Mutex<Weather>>,
}

impl Net {
    fn find(&self, to: NodeId) -> Result<RaftHandle, TransportError> {
        let found = self.managers.lock().unwrap().get(&to).cloned();
        found.ok_or(TransportError::Unreachable {
            to,
            reason: "switched off".to_owned(),
        })
    }

    /// One way: none when the message is lost.
    fn way(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut weather = self.weather.lock().unwrap();
        let loss = weather.loss;
        if weather.cut.contains(&(from, to)) || (loss > 0 && weather.rng.below(100) < loss) {
            return None;
        }
        let (least, most) = weather.delay;
        Some(Duration::from_millis(
            least + weather.rng.below(most - least + 1),
        ))
    }

    async fn travel(&self, from: NodeId, to: NodeId) {
        match self.way(from, to) {
            Some(delay) if delay.is_zero() => {}
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
    }
}

fn refusal(to: NodeId, error: &RaftError) -> TransportError {
    match error {
        RaftError::Removed { .. } => TransportError::Removed { to },
        error => TransportError::Refused {
            to,
            reason: error.to_string(),
        },
    }
}

#[async_trait]
impl Transport for Net {
    async fn call(
        &self,
        to: NodeId,
        _: &Member,
        kind: RpcKind,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        *self
            .weather
            .lock()
            .unwrap()
            .calls
            .entry(kind.number())
            .or_default() += 1;
        let net = self.clone();
        // Served whether or not the caller still waits, as on a real network.
        let work = tokio::spawn(async move {
            net.travel(net.id, to).await;
            let answer = net.find(to)?.serve_from(net.id, kind, request).await;
            net.travel(to, net.id).await;
            answer.map_err(|error| refusal(to, &error))
        });
        match tokio::time::timeout(deadline, work).await {
            Ok(answer) => answer.expect("no panic"),
            Err(_) => Err(TransportError::Timeout {
                to,
                after: deadline,
            }),
        }
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        _: &Member,
        header: Bytes,
        mut body: SnapshotBody,
        _: Duration,
    ) -> Result<Bytes, TransportError> {
        let refused = |reason: String| TransportError::Refused { to, reason };
        let mut sink = self
            .find(to)?
            .receive_snapshot(self.id, header)
            .map_err(|error| refusal(to, &error))?;
        body.resume_from(sink.received())
            .map_err(|error| refused(error.to_string()))?;
        let mut piece = vec![0; 1000];
        let spoil = {
            let mut weather = self.weather.lock().unwrap();
            let before = weather.spoil_snapshots;
            weather.spoil_snapshots = before.saturating_sub(1);
            before
        };
        loop {
            self.travel(self.id, to).await;
            let len = body
                .read(&mut piece)
                .map_err(|error| refused(error.to_string()))?;
            if len == 0 {
                break;
            }
            if spoil % 2 == 1 {
                piece[len / 2] ^= 1;
            } else if spoil > 0 {
                break;
            }
            sink.add(&piece[..len])
                .map_err(|error| refusal(to, &error))?;
            let mut weather = self.weather.lock().unwrap();
            weather.snapshot_bytes += len as u64;
            if weather
                .break_snapshot
                .is_some_and(|at| body.position() >= at)
            {
                weather.break_snapshot = None;
                return Err(TransportError::Unreachable {
                    to,
                    reason: "broken off".to_owned(),
                });
            }
        }
        sink.finish().await.map_err(|error| refusal(to, &error))
    }

    async fn is_gone(&self, to: NodeId, _: &Member, deadline: Duration) -> bool {
        if self.weather.lock().unwrap().refuse {
            return true;
        }
        let answer = async {
            self.travel(self.id, to).await;
            let gone = self.find(to).is_err();
            self.travel(to, self.id).await;
            gone
        };
        tokio::time::timeout(deadline, answer)
            .await
            .unwrap_or(false)
    }
}

/// The managers and their disks.
pub(super) struct Cluster {
    pub(super) net: Net,
    pub(super) disks: BTreeMap<u128, FaultyDisk>,
    pub(super) config: RaftConfig,
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        crate::seed_random_numbers(seed);
        Self {
            net: Net {
                id: NodeId::default(),
                managers: Arc::default(),
                weather: Arc::new(Mutex::new(Weather {
                    rng: Rng::new(seed),
                    loss: 0,
                    delay: (0, 0),
                    cut: BTreeSet::new(),
                    break_snapshot: None,
                    spoil_snapshots: 0,
                    snapshot_bytes: 0,
                    calls: BTreeMap::new(),
                    refuse: false,
                })),
            },
            disks: BTreeMap::new(),
            config: config(),
        }
    }

    pub(super) fn disk(&mut self, number: u128) -> FaultyDisk {
        let seed = u64::try_from(number).unwrap();
        self.disks
            .entry(number)
            .or_insert_with(|| FaultyDisk::new(seed))
            .clone()
    }

    pub(super) async fn try_start(&mut self, number: u128) -> Result<RaftHandle, RaftError> {
        let mut config = self.config.clone();
        config.id = node(number);
        let net = Net {
            id: node(number),
            ..self.net.clone()
        };
        let disk = self.disk(number);
        let raft = RaftHandle::start(config, Arc::new(disk), Arc::new(net)).await?;
        let mut managers = self.net.managers.lock().unwrap();
        managers.insert(node(number), raft.clone());
        Ok(raft)
    }

    pub(super) async fn start(&mut self, number: u128) -> RaftHandle {
        self.try_start(number).await.expect("the manager starts")
    }

    /// As a killed process: nothing is said to anybody, unsynced bytes are lost.
    pub(super) async fn kill(&mut self, number: u128) {
        let raft = self.net.managers.lock().unwrap().remove(&node(number));
        if let Some(raft) = raft {
            let disk = self.disk(number);
            disk.crash();
            raft.shutdown().await;
            disk.crash();
        }
    }

    pub(super) fn get(&self, number: u128) -> RaftHandle {
        self.net.managers.lock().unwrap()[&node(number)].clone()
    }

    pub(super) fn all(&self) -> Vec<RaftHandle> {
        self.net
            .managers
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect()
    }

    /// A cluster whose managers all have a vote; number 1 leads.
    pub(super) async fn form(&mut self, numbers: &[u128]) -> RaftHandle {
        let first = self.start(numbers[0]).await;
        first.initialize(members(&numbers[..1])).await.unwrap();
        first.wait_ready(LIMIT).await.unwrap();
        for number in &numbers[1..] {
            self.start(*number).await;
            self.join(&first, *number).await;
        }
        first
    }

    /// Learner first, then voter.
    pub(super) async fn join(&self, leader: &RaftHandle, number: u128) {
        let member = members(&[number])[&node(number)].clone();
        leader.add_learner(node(number), member).await.unwrap();
        leader
            .wait_caught_up(node(number), 10, LIMIT)
            .await
            .unwrap();
        let (voters, _) = leader.members();
        let mut voters: BTreeSet<NodeId> = voters.into_keys().collect();
        voters.insert(node(number));
        leader.set_voters(voters, true).await.unwrap();
    }

    /// Whoever leads and is ready.
    pub(super) async fn leader(&self) -> RaftHandle {
        let find = || {
            let ready =
                |raft: &RaftHandle| raft.leadership().borrow().ready && raft.contact().in_quorum;
            self.all().into_iter().find(ready)
        };
        wait_for("a leader", || find().is_some()).await;
        find().expect("found a moment ago")
    }

    /// Until all hold the same.
    pub(super) async fn settle(&self) {
        let leader = self.leader().await;
        for raft in self.all() {
            wait_for("all to hold the same", || {
                raft.state().hash() == leader.state().hash()
                    && raft.status().applied_index == leader.status().applied_index
            })
            .await;
        }
    }

    pub(super) fn weather<R>(&self, change: impl FnOnce(&mut Weather) -> R) -> R {
        change(&mut self.net.weather.lock().unwrap())
    }

    /// Cuts one manager off from the others, both ways.
    pub(super) fn isolate(&self, number: u128) {
        let all: Vec<NodeId> = self.net.managers.lock().unwrap().keys().copied().collect();
        self.weather(|weather| {
            for other in all.into_iter().filter(|other| *other != node(number)) {
                weather.cut.insert((node(number), other));
                weather.cut.insert((other, node(number)));
            }
        });
    }

    pub(super) fn heal(&self) {
        self.weather(|weather| weather.cut.clear());
    }

    pub(super) async fn stop(&self) {
        for raft in self.all() {
            raft.shutdown().await;
        }
    }
}
