//! The network between simulated managers: loses, delays, reorders and doubles messages, and can be cut.
//!
//! Raft's messages travel as datagrams would: each on its own, so that a later one may overtake. Requests of the API
//! (forwarded writes, read indexes) travel as on a connection: never twice, and when one is lost the connection is.

use super::api::{Api, Reply, Request};
use super::bugs::SimBugs;
use super::faults::Kind;
use super::probe::Probe;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use warren_raft::testing::{self, Gate};
use warren_raft::{
    Member, RaftError, RaftHandle, RpcKind, SnapshotBody, Transport, TransportError,
};
use warren_storage::Rng;
use warren_types::NodeId;

/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 700;
/// Chunks on the way at a time.
const CHUNKS_WAITING: usize = 2;
/// How long a connection that carries a snapshot may be silent.
const CHUNK_LIMIT: Duration = Duration::from_millis(400);

/// What the network does to messages on one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Messages lost, in percent.
    pub(crate) loss: u64,
    /// Time on the way, in milliseconds.
    pub(crate) delay_ms: u64,
    /// Up to so much more, in milliseconds.
    pub(crate) jitter_ms: u64,
    /// Messages that come twice, in percent.
    pub(crate) twice: u64,
    /// Messages that take ten times as long, in percent: later ones overtake them.
    pub(crate) late: u64,
}

/// A good day on a LAN.
pub(crate) const FAIR: Weather = Weather {
    loss: 0,
    delay_ms: 1,
    jitter_ms: 2,
    twice: 0,
    late: 0,
};

/// A manager that runs.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) raft: RaftHandle,
    pub(crate) gate: Arc<Gate>,
    pub(crate) api: Arc<Api>,
    pub(crate) life: u64,
}

struct State {
    rng: Rng,
    endpoints: BTreeMap<NodeId, Endpoint>,
    weather: Weather,
    /// Weather on single ways.
    ways: BTreeMap<(NodeId, NodeId), Weather>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// The moment at which the last message sent on a way arrives: an earlier one has overtaken.
    arrivals: BTreeMap<(NodeId, NodeId), tokio::time::Instant>,
}

/// The network.
pub(crate) struct Net {
    state: Mutex<State>,
    probe: Arc<Probe>,
    bugs: SimBugs,
}

/// What becomes of a message.
struct Fate {
    /// When it arrives; twice when it is doubled, never when it is lost.
    arrivals: Vec<Duration>,
}

/// Why a request to another manager's API has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It certainly did not arrive.
    NotSent,
    /// Nobody knows.
    Lost,
}

impl Net {
    pub(crate) fn new(rng: Rng, probe: Arc<Probe>, bugs: SimBugs) -> Arc<Self> {
        let state = State {
            rng,
            endpoints: BTreeMap::new(),
            weather: FAIR,
            ways: BTreeMap::new(),
            cuts: BTreeSet::new(),
            arrivals: BTreeMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            probe,
            bugs,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manager answers from now on.
    pub(crate) fn plug(&self, node: NodeId, endpoint: Endpoint) {
        self.state().endpoints.insert(node, endpoint);
    }

    /// The manager is gone.
    pub(crate) fn unplug(&self, node: NodeId) {
        self.state().endpoints.remove(&node);
    }

    pub(crate) fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        self.state().endpoints.get(&node).cloned()
    }

    /// Sets the weather everywhere.
    pub(crate) fn set_weather(&self, weather: Weather) {
        let mut state = self.state();
        state.weather = weather;
        state.ways.clear();
    }

    /// Sets the weather on one way.
    pub(crate) fn set_way(&self, from: NodeId, to: NodeId, weather: Weather) {
        self.state().ways.insert((from, to), weather);
    }

    /// Lets nothing through from one to the other.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cuts.insert((from, to));
    }

    /// All ways are open again, the weather is fair.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.ways.clear();
        state.weather = FAIR;
    }

    /// All ways are open again.
    pub(crate) fn mend(&self) {
        self.state().cuts.clear();
    }

    /// Whether nothing gets from one to the other. Noted as a cut that had an effect.
    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.state();
        let cut = state.cuts.contains(&(from, to));
        let back = state.cuts.contains(&(to, from));
        drop(state);
        if cut {
            self.probe
                .count(if back { Kind::Partition } else { Kind::OneWay });
        }
        cut
    }

    fn fate(&self, from: NodeId, to: NodeId, datagram: bool) -> Fate {
        let mut state = self.state();
        let way = state.ways.get(&(from, to));
        let weather = *way.unwrap_or(&state.weather);
        let rng = &mut state.rng;
        let lost = rng.chance(weather.loss);
        let twice = rng.chance(weather.twice) && datagram;
        let late = rng.chance(weather.late) && datagram;
        let copies = if lost { 0 } else { 1 + usize::from(twice) };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let ms = weather.delay_ms + rng.below(weather.jitter_ms + 1);
            arrivals.push(Duration::from_millis(if late { ms * 10 } else { ms }));
        }
        let mut overtaken = false;
        if let Some(first) = arrivals.first() {
            let at = tokio::time::Instant::now() + *first;
            let last = state.arrivals.entry((from, to)).or_insert(at);
            overtaken = at < *last;
            *last = at.max(*last);
        }
        drop(state);
        for (kind, happened) in [
            (Kind::Loss, lost),
            (Kind::Duplicate, twice && !lost),
            (Kind::Reorder, overtaken),
            (Kind::Delay, weather.delay_ms >= 20 && !lost),
        ] {
            if happened {
                self.probe.count(kind);
            }
        }
        Fate { arrivals }
    }

    /// Carries one copy of a Raft message there and its answer back.
    async fn carry(
        self: Arc<Self>,
        from: NodeId,
        to: NodeId,
        kind: RpcKind,
        request: Bytes,
        delay: Duration,
    ) -> Option<Result<Bytes, TransportError>> {
        sleep(delay).await;
        if self.is_cut(from, to) {
            return None;
        }
        let answer = match self.endpoint(to) {
            None => Err(TransportError::Unreachable {
                to,
                reason: "connection refused".to_owned(),
            }),
            Some(endpoint) => {
                let net = Arc::clone(&self);
                let serve = async move { net.serve(&endpoint.raft, from, to, kind, request).await };
                let gate = self.endpoint(to)?.gate;
                // Never returns when the manager dies meanwhile.
                gate.spawn(serve).await.ok()?
            }
        };
        let back = self.fate(to, from, true).arrivals.first().copied()?;
        sleep(back).await;
        (!self.is_cut(to, from)).then_some(answer)
    }

    /// What happens at the receiver.
    async fn serve(
        &self,
        raft: &RaftHandle,
        from: NodeId,
        to: NodeId,
        kind: RpcKind,
        request: Bytes,
    ) -> Result<Bytes, TransportError> {
        let election = matches!(kind, RpcKind::Vote | RpcKind::PreVote);
        let seen = if self.bugs.commit_on_receipt && kind == RpcKind::Append {
            testing::commit_on_receipt(&request)
        } else if self.bugs.vote_ignores_log && election {
            testing::longest_log(&request)
        } else {
            request.clone()
        };
        let answer = raft.serve_from(from, kind, seen).await;
        let answer = match answer {
            Ok(answer) if self.bugs.vote_twice && election => testing::grant(&request, &answer),
            Ok(answer) => answer,
            Err(RaftError::Removed { .. }) => return Err(TransportError::Removed { to }),
            Err(error) => {
                return Err(TransportError::Refused {
                    to,
                    reason: error.to_string(),
                });
            }
        };
        if kind == RpcKind::Vote
            && testing::is_granted(&answer)
            && let Some(vote) = testing::peek_vote(&request)
        {
            self.probe.granted(to, vote);
        }
        Ok(answer)
    }

    /// The planted bugs: who answers in the stead of a voter that does not.
    fn stand_in(&self, from: NodeId, to: NodeId, kind: RpcKind) -> Option<(NodeId, Endpoint)> {
        let vote = matches!(kind, RpcKind::Vote | RpcKind::PreVote);
        let learner = self.bugs.learner_counted && (vote || kind == RpcKind::Append);
        let removed = self.bugs.removed_counted && vote;
        if !learner && !removed {
            return None;
        }
        let (voters, learners) = self.endpoint(from)?.raft.members();
        let endpoints = self.state().endpoints.clone();
        endpoints.into_iter().find(|(node, _)| {
            let member = voters.contains_key(node) || learners.contains_key(node);
            voters.contains_key(&to)
                && ((learner && learners.contains_key(node)) || (removed && !member))
        })
    }

    /// Whether nothing from one reaches the other.
    fn is_silent(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.state();
        state.cuts.contains(&(from, to)) || !state.endpoints.contains_key(&to)
    }

    /// A request to the API of another manager.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        from: NodeId,
        to: NodeId,
        request: Request,
    ) -> Result<Reply, NoAnswer> {
        let Some(delay) = self.fate(from, to, false).arrivals.first().copied() else {
            // The connection breaks; whether it had delivered, the sender cannot know.
            return Err(NoAnswer::Lost);
        };
        sleep(delay).await;
        if self.is_cut(from, to) {
            return Err(NoAnswer::Lost);
        }
        let Some(endpoint) = self.endpoint(to) else {
            return Err(NoAnswer::NotSent);
        };
        let api = Arc::clone(&endpoint.api);
        let answer = endpoint.gate.spawn(async move { api.serve(request).await });
        let reply = answer.await.map_err(|_| NoAnswer::Lost)?;
        let Some(delay) = self.fate(to, from, false).arrivals.first().copied() else {
            return Err(NoAnswer::Lost);
        };
        sleep(delay).await;
        if self.is_cut(to, from) {
            return Err(NoAnswer::Lost);
        }
        Ok(reply)
    }

    /// Carries one piece of a stream; false when the connection breaks.
    async fn piece(&self, from: NodeId, to: NodeId) -> bool {
        let Some(delay) = self.fate(from, to, false).arrivals.first().copied() else {
            return false;
        };
        sleep(delay).await;
        !self.is_cut(from, to)
    }

    async fn stream(
        &self,
        from: NodeId,
        to: NodeId,
        header: Bytes,
        mut body: SnapshotBody,
    ) -> Result<Bytes, TransportError> {
        let broken = || TransportError::Timeout {
            to,
            after: CHUNK_LIMIT,
        };
        let refused = |error: String| TransportError::Refused { to, reason: error };
        if !self.piece(from, to).await {
            return Err(broken());
        }
        let Some(endpoint) = self.endpoint(to) else {
            return Err(TransportError::Unreachable {
                to,
                reason: "connection refused".to_owned(),
            });
        };
        let (have_tx, have) = oneshot::channel();
        let (chunks, received) = mpsc::channel(CHUNKS_WAITING);
        let receiver = receive(endpoint.raft, from, header, have_tx, received);
        let receiver = endpoint.gate.spawn(receiver);
        let have = match timeout(CHUNK_LIMIT, have).await {
            Ok(Ok(have)) => have,
            _ => return Err(broken()),
        };
        if !self.piece(to, from).await {
            return Err(broken());
        }
        body.resume_from(have)
            .map_err(|error| refused(error.to_string()))?;
        if have > 0 {
            self.probe.count(Kind::SnapshotResumed);
        }
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let read = body
                .read(&mut chunk)
                .map_err(|error| refused(error.to_string()))?;
            if !self.piece(from, to).await {
                return Err(broken());
            }
            chunk.truncate(read);
            let end = chunk.is_empty();
            if !matches!(timeout(CHUNK_LIMIT, chunks.send(chunk)).await, Ok(Ok(()))) {
                return Err(broken());
            }
            if end {
                break;
            }
        }
        let answer = match timeout(CHUNK_LIMIT * 4, receiver).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(RaftError::Removed { .. }))) => return Err(TransportError::Removed { to }),
            Ok(Ok(Err(error))) => return Err(refused(error.to_string())),
            _ => return Err(broken()),
        };
        if self.piece(to, from).await {
            Ok(answer)
        } else {
            Err(broken())
        }
    }
}

/// The receiver of a snapshot. An empty chunk is the end.
async fn receive(
    raft: RaftHandle,
    from: NodeId,
    header: Bytes,
    have: oneshot::Sender<u64>,
    mut chunks: mpsc::Receiver<Vec<u8>>,
) -> Result<Bytes, RaftError> {
    let mut sink = raft.receive_snapshot(from, header)?;
    // The sender may have given up.
    let _ = have.send(sink.received());
    while let Some(chunk) = chunks.recv().await {
        if chunk.is_empty() {
            return sink.finish().await;
        }
        sink.add(&chunk)?;
    }
    // What came is kept for another attempt.
    drop(sink);
    Err(RaftError::BadMessage("snapshot"))
}

/// The network as one manager has it.
pub(crate) struct Line {
    pub(crate) from: NodeId,
    pub(crate) net: Arc<Net>,
}

#[async_trait]
impl Transport for Line {
    async fn call(
        &self,
        to: NodeId,
        _: &Member,
        kind: RpcKind,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let arrivals = self.net.fate(self.from, to, true).arrivals;
        let late = TransportError::Timeout {
            to,
            after: deadline,
        };
        if (arrivals.is_empty() || self.net.is_silent(self.from, to))
            && let Some((other, endpoint)) = self.net.stand_in(self.from, to, kind)
        {
            let (net, from) = (Arc::clone(&self.net), self.from);
            let serve = async move { net.serve(&endpoint.raft, from, other, kind, request).await };
            return endpoint.gate.spawn(serve).await.unwrap_or(Err(late));
        }
        if arrivals.is_empty() {
            if self.net.bugs.acknowledge_before_quorum && kind == RpcKind::Append {
                return Ok(testing::append_success());
            }
            sleep(deadline).await;
            return Err(late);
        }
        let (done, mut answers) = mpsc::unbounded_channel();
        for delay in arrivals {
            let carried = Arc::clone(&self.net).carry(self.from, to, kind, request.clone(), delay);
            let done = done.clone();
            // Not inside the gate of the sender: what is on the way arrives although the sender dies.
            drop(tokio::spawn(async move {
                if let Some(answer) = carried.await {
                    // The caller may have given up, or had the other copy's answer.
                    let _ = done.send(answer);
                }
            }));
        }
        // Kept here, so that the end of all copies is no answer.
        let _open = done;
        match timeout(deadline, answers.recv()).await {
            Ok(Some(answer)) => answer,
            _ => Err(late),
        }
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        _: &Member,
        header: Bytes,
        body: SnapshotBody,
        _: Duration,
    ) -> Result<Bytes, TransportError> {
        self.net.stream(self.from, to, header, body).await
    }

    async fn is_gone(&self, to: NodeId, _: &Member, deadline: Duration) -> bool {
        let answer = async {
            let there = self.net.piece(self.from, to).await;
            let gone = self.net.endpoint(to).is_none();
            there && gone && self.net.piece(to, self.from).await
        };
        timeout(deadline, answer).await.unwrap_or(false)
    }
}
