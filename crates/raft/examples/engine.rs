//! What the engine alone takes: three managers in one process on the real disk, joined by function calls, so that no network,
//! TLS or API is in the figures. `cargo run --release -p warren-raft --example engine [calls]`.

#![allow(clippy::print_stdout, reason = "the figures are the output")]

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use warren_raft::{
    Member, RaftConfig, RaftHandle, RpcKind, SnapshotBody, Transport, TransportError,
};
use warren_state::{Actor, Command, Op};
use warren_storage::RealDisk;
use warren_types::{Id128, NodeId, Revision, SealedData, Secret, SecretId, Timestamp};

/// Managers.
const MANAGERS: u128 = 3;
/// Callers at once.
const CALLERS: usize = 64;
/// Calls of one caller, and of all callers together, unless the command line says otherwise.
const CALLS: usize = 20_000;
/// Bytes of one value.
const VALUE_BYTES: usize = 256;
/// How long an election may take.
const READY_LIMIT: Duration = Duration::from_secs(10);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Clone, Default)]
struct Calls {
    id: NodeId,
    managers: Arc<Mutex<BTreeMap<NodeId, RaftHandle>>>,
    messages: Arc<AtomicU64>,
}

#[async_trait]
impl Transport for Calls {
    async fn call(
        &self,
        to: NodeId,
        _: &Member,
        kind: RpcKind,
        request: Bytes,
        _: Duration,
    ) -> std::result::Result<Bytes, TransportError> {
        self.messages.fetch_add(1, Ordering::Relaxed);
        let managers = self.managers.lock();
        let found = managers
            .unwrap_or_else(PoisonError::into_inner)
            .get(&to)
            .cloned();
        let peer = found.ok_or_else(|| TransportError::Unreachable {
            to,
            reason: "not started".to_owned(),
        })?;
        let answer = peer.serve_from(self.id, kind, request).await;
        answer.map_err(|error| TransportError::Refused {
            to,
            reason: error.to_string(),
        })
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        _: &Member,
        _: Bytes,
        _: SnapshotBody,
        _: Duration,
    ) -> std::result::Result<Bytes, TransportError> {
        Err(TransportError::Refused {
            to,
            reason: "nobody is behind here".to_owned(),
        })
    }

    async fn is_gone(&self, _: NodeId, _: &Member, _: Duration) -> bool {
        false
    }
}

fn command(number: usize) -> Command {
    let id = number as u128 + 1;
    // Spread as real ids are.
    let id = Id128::from_parts(
        1_000,
        id.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    );
    let secret = Secret {
        id: SecretId(id),
        name: format!("secret-{number}"),
        labels: BTreeMap::new(),
        data: SealedData {
            nonce: [7; 12],
            ciphertext: vec![7; VALUE_BYTES + 16],
            ..SealedData::default()
        },
        size: VALUE_BYTES as u64,
        created_at: Timestamp(1_000),
        updated_at: Timestamp(1_000),
        version: Revision(0),
    };
    let actor = Actor::Api {
        name: "engine".to_owned(),
    };
    Command::new(
        actor,
        Timestamp(1_000),
        vec![Op::SecretCreate(Box::new(secret))],
    )
    .with_key(format!("key-of-secret-{number}"))
}

/// Processor time of this process.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = ticks.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    Duration::from_millis(10) * ticks
}

async fn start(root: &std::path::Path, calls: &Calls) -> Result<RaftHandle> {
    let ids: Vec<NodeId> = (1..=MANAGERS).map(NodeId::from_u128).collect();
    for id in &ids {
        let disk = RealDisk::open(root.join(id.to_string()))?;
        let net = Calls {
            id: *id,
            ..calls.clone()
        };
        let raft = RaftHandle::start(RaftConfig::new(*id), Arc::new(disk), Arc::new(net)).await?;
        let managers = calls.managers.lock();
        managers
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*id, raft);
    }
    let managers = calls
        .managers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let first = managers.values().next().ok_or("no manager")?;
    let members = ids.iter().map(|id| (*id, Member::default())).collect();
    first.initialize(members).await?;
    let began = Instant::now();
    loop {
        if let Some(leader) = managers
            .values()
            .find(|raft| raft.leadership().borrow().ready)
        {
            return Ok(leader.clone());
        }
        if began.elapsed() > READY_LIMIT {
            return Err("no leader".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes of so many callers; prints their rate and what each took.
async fn measure(
    leader: &RaftHandle,
    calls: &Calls,
    callers: usize,
    first: usize,
    writes: usize,
) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(first));
    let (messages, syncs) = (
        calls.messages.load(Ordering::Relaxed),
        leader.status().disk.syncs,
    );
    let (began, processor) = (Instant::now(), processor_time());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (leader, next) = (leader.clone(), next.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + writes {
                        return Ok::<_, warren_raft::ProposeError>(times);
                    }
                    let begin = Instant::now();
                    leader.propose(&command(number)).await?;
                    times.push(begin.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    let (took, processor) = (began.elapsed(), processor_time() - processor);
    times.sort_unstable();
    let messages = calls.messages.load(Ordering::Relaxed) - messages;
    let syncs = leader.status().disk.syncs - syncs;
    let each = |count: u64| count as f64 / writes as f64;
    println!(
        "{callers} callers, {writes} writes: {:.0}/s, p50 {:.0?}, p99 {:.0?}; processor time per write {:.1?}, \
         messages per write {:.2}, syncs of the leader per write {:.2}",
        writes as f64 / took.as_secs_f64(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        processor / u32::try_from(writes)?,
        each(messages),
        each(syncs),
    );
    Ok(())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let writes = std::env::args()
        .nth(1)
        .map_or(Ok(CALLS), |text| text.parse())?;
    let root = std::env::temp_dir().join(format!("warren-engine-{}", std::process::id()));
    let calls = Calls::default();
    let leader = start(&root, &calls).await?;
    measure(&leader, &calls, 1, 0, writes / 10).await?;
    measure(&leader, &calls, CALLERS, writes, writes).await?;
    let managers = calls
        .managers
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    for raft in managers.values() {
        raft.shutdown().await;
    }
    std::fs::remove_dir_all(root)?;
    Ok(())
}
