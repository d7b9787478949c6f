//! Tests of the whole engine on the faulty and the real disk.

#![allow(clippy::print_stdout, reason = "tests report what they measured")]

mod cluster;
mod damage;
mod offline;
mod pace;
mod profiles;
mod quorum;

use crate::transport::NoPeers;
use crate::{IoMode, Member, ProposeError, RaftConfig, RaftError, RaftHandle};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use warren_state::{Actor, Command, Op, Rejection};
use warren_storage::{Disk, FaultyDisk, RealDisk, StorageError};
use warren_types::{Config, ConfigId, NodeId, Revision, Timestamp};

const LIMIT: Duration = Duration::from_secs(20);

fn node(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn config() -> RaftConfig {
    let mut config = RaftConfig::new(node(1));
    config.segment_bytes = 32 * 1024;
    config
}

fn create(number: u64, bytes: usize) -> Command {
    let op = Op::ConfigCreate(Box::new(Config {
        id: ConfigId::from_u128(u128::from(number) + 1),
        name: format!("config-{number}"),
        labels: BTreeMap::new(),
        data: vec![7; bytes],
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }));
    Command::new(
        Actor::Api {
            name: "test".to_owned(),
        },
        Timestamp(1_000 + number),
        vec![op],
    )
}

/// Writes, from a number on, until the log does not go back to its beginning. Snapshots are written beside the proposals, and
/// the log is purged after the second one: how many proposals that takes is up to the machine.
async fn purge(raft: &RaftHandle, first: u64) {
    for number in first..first + 5_000 {
        if raft.status().purged_index.is_some() {
            return;
        }
        raft.propose(&create(number, 100)).await.unwrap();
    }
    panic!("the log is never purged");
}

fn members(numbers: &[u128]) -> BTreeMap<NodeId, Member> {
    numbers
        .iter()
        .map(|number| {
            (
                node(*number),
                Member {
                    name: format!("m{number}"),
                    address: String::new(),
                },
            )
        })
        .collect()
}

async fn start(config: RaftConfig, disk: Arc<dyn Disk>) -> RaftHandle {
    RaftHandle::start(config, disk, Arc::new(NoPeers))
        .await
        .expect("the engine starts")
}

async fn fresh(config: RaftConfig, disk: Arc<dyn Disk>) -> RaftHandle {
    let raft = start(config, disk).await;
    raft.initialize(members(&[1])).await.expect("a new cluster");
    raft.wait_ready(LIMIT).await.expect("alone, so leader");
    raft
}

async fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = tokio::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed() < LIMIT, "waited too long for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn holds(raft: &RaftHandle, number: u64) -> bool {
    raft.state()
        .config(ConfigId::from_u128(u128::from(number) + 1))
        .is_some()
}

#[tokio::test]
async fn a_restart_brings_everything_back() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let raft = fresh(config(), Arc::clone(&disk)).await;
    assert!(matches!(
        raft.initialize(members(&[1])).await,
        Err(RaftError::AlreadyInitialized)
    ));
    for number in 0..20 {
        let applied = raft.propose(&create(number, 10)).await.unwrap();
        assert_eq!(
            raft.state().revision(),
            applied.revision,
            "an acknowledged change is visible"
        );
    }
    let before = raft.state();
    let term = raft.leadership().borrow().term;
    raft.shutdown().await;
    assert!(matches!(
        raft.propose(&create(99, 1)).await,
        Err(ProposeError::Stopped { .. })
    ));
    for round in 1..3 {
        let raft = start(config(), Arc::clone(&disk)).await;
        let leadership = raft.wait_ready(LIMIT).await.unwrap();
        assert_eq!(leadership.term, term + round, "a restart takes a new term");
        assert_eq!(*raft.state(), *before);
        raft.read_barrier().await.unwrap();
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn a_refused_command_says_why_and_changes_nothing() {
    let raft = fresh(config(), Arc::new(FaultyDisk::new(1))).await;
    raft.propose(&create(1, 1)).await.unwrap();
    let before = raft.state();
    let refused = raft.propose(&create(1, 1)).await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::Rejected(Rejection::AlreadyExists { .. }))
        ),
        "{refused:?}"
    );
    assert_eq!(*raft.state(), *before);
    raft.shutdown().await;
}

#[tokio::test]
async fn a_node_that_is_in_no_cluster_refuses() {
    let raft = start(config(), Arc::new(FaultyDisk::new(1))).await;
    assert!(!raft.is_initialized().await.unwrap());
    assert!(matches!(
        raft.propose(&create(1, 1)).await,
        Err(ProposeError::NotLeader { leader: None, .. })
    ));
    assert!(matches!(
        raft.initialize(members(&[2])).await,
        Err(RaftError::NotAMember(_))
    ));
    raft.shutdown().await;
}

#[tokio::test]
async fn snapshots_purge_the_log_and_are_started_from() {
    let disk = FaultyDisk::new(1);
    let mut config = config();
    config.snapshot_entries = 20;
    config.segment_bytes = 4 * 1024;
    let raft = fresh(config.clone(), Arc::new(disk.clone())).await;
    for number in 0..200 {
        raft.propose(&create(number, 100)).await.unwrap();
    }
    wait_for("the log to be purged", || {
        raft.status().purged_index > Some(100)
    })
    .await;
    let status = raft.status();
    assert!(
        status.purged_index < status.snapshot_index,
        "the log reaches back to before the newest snapshot"
    );
    assert!(
        status.log_bytes < 100 * 1024,
        "{} bytes of log",
        status.log_bytes
    );
    let before = raft.state();
    raft.shutdown().await;
    let snapshots: Vec<String> = disk
        .files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with(".snap"))
        .collect();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");

    let raft = start(config.clone(), Arc::new(disk.clone())).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert_eq!(*raft.state(), *before);
    raft.shutdown().await;

    // The newest one damaged: the older one and the log do.
    let damaged = disk.copy(1);
    damaged.tamper(snapshots.last().unwrap(), |data| data[200] ^= 1);
    let raft = start(config.clone(), Arc::new(damaged)).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert_eq!(*raft.state(), *before);
    raft.shutdown().await;

    // Both damaged: named, with the remedy.
    let damaged = disk.copy(1);
    for path in &snapshots {
        damaged.tamper(path, |data| data[200] ^= 1);
    }
    let error = RaftHandle::start(config, Arc::new(damaged), Arc::new(NoPeers))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RaftError::Storage(StorageError::Corrupt { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("restore"), "{error}");
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_goes_on_reading() {
    let disk = FaultyDisk::new(1);
    let raft = fresh(config(), Arc::new(disk.clone())).await;
    raft.propose(&create(0, 10)).await.unwrap();
    disk.set_capacity(Some(disk.used() + 10_000));
    let mut number = 1;
    let error = loop {
        match raft.propose(&create(number, 1_000)).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 1_000, "the disk never gets full");
    };
    assert!(
        matches!(error, ProposeError::DiskFull { maybe: false }),
        "{error}"
    );
    assert!(raft.status().disk_full);
    assert!(!holds(&raft, number), "what was refused was not written");
    assert!(holds(&raft, number - 1));
    raft.read_barrier().await.unwrap();

    disk.set_capacity(None);
    raft.propose(&create(number, 1_000))
        .await
        .expect("space is found again by itself");
    assert!(!raft.status().disk_full);
    let before = raft.state();
    raft.shutdown().await;
    let raft = start(config(), Arc::new(disk)).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert_eq!(*raft.state(), *before);
    raft.shutdown().await;
}

/// The writer holds what it cannot write, and is told to end meanwhile.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_stopped_while_the_disk_is_full_ends() {
    let disk = FaultyDisk::new(1);
    let mut config = config();
    config.io = IoMode::Task;
    let raft = fresh(config.clone(), Arc::new(disk.clone())).await;
    raft.propose(&create(0, 10)).await.unwrap();
    disk.set_capacity(Some(disk.used()));
    let error = raft.propose(&create(1, 100_000)).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::DiskFull { maybe: true }),
        "{error}"
    );
    let end = tokio::time::timeout(LIMIT, raft.shutdown());
    end.await.expect("the engine ends");
    disk.set_capacity(None);
    let raft = start(config, Arc::new(disk)).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert!(holds(&raft, 0));
    raft.shutdown().await;
}

#[tokio::test]
async fn what_is_under_way_when_the_disk_is_full_waits_for_space() {
    let disk = FaultyDisk::new(1);
    let raft = fresh(config(), Arc::new(disk.clone())).await;
    disk.set_capacity(Some(disk.used()));
    // Larger than a segment, so that the space taken in advance does not help.
    let error = raft.propose(&create(0, 100_000)).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::DiskFull { maybe: true }),
        "{error}"
    );
    let error = raft.propose(&create(1, 10)).await.unwrap_err();
    assert!(
        matches!(error, ProposeError::DiskFull { maybe: false }),
        "{error}"
    );
    disk.set_capacity(None);
    wait_for("the held command to be applied", || holds(&raft, 0)).await;
    wait_for("proposals to be taken again", || !raft.status().disk_full).await;
    raft.propose(&create(1, 10)).await.unwrap();
    raft.shutdown().await;
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_acknowledged() {
    for seed in 0..40 {
        let disk = FaultyDisk::new(seed);
        let mut config = config();
        config.snapshot_entries = 7;
        config.segment_bytes = 4 * 1024;
        let mut raft = fresh(config.clone(), Arc::new(disk.clone())).await;
        let mut number = 0;
        for _ in 0..3 {
            disk.crash_after(1 + (seed * 7) % 40);
            let mut acknowledged = Vec::new();
            loop {
                match raft.propose(&create(number, 300)).await {
                    Ok(_) => acknowledged.push(number),
                    Err(ProposeError::Stopped { .. } | ProposeError::Uncertain) => break,
                    Err(other) => panic!("seed {seed}: {other}"),
                }
                number += 1;
            }
            number += 1;
            assert!(raft.status().stopped.is_some());
            raft.shutdown().await;
            disk.crash();
            raft = start(config.clone(), Arc::new(disk.clone())).await;
            raft.wait_ready(LIMIT)
                .await
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for number in acknowledged {
                assert!(holds(&raft, number), "seed {seed}: change {number} is lost");
            }
        }
        raft.shutdown().await;
    }
}

#[tokio::test]
async fn a_second_daemon_on_the_directory_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let raft = fresh(config(), Arc::clone(&disk)).await;
    let error = RaftHandle::start(config(), Arc::clone(&disk), Arc::new(NoPeers))
        .await
        .unwrap_err();
    assert!(
        matches!(
            &error,
            RaftError::Storage(StorageError::Locked { pid: Some(_), .. })
        ),
        "{error}"
    );
    raft.shutdown().await;
    start(config(), disk).await.shutdown().await;
}

#[tokio::test]
async fn concurrent_proposals_share_syncs() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let raft = fresh(RaftConfig::new(node(1)), Arc::clone(&disk)).await;
    raft.propose(&create(0, 10)).await.unwrap();
    let before = disk.stats();
    let commands: Vec<Command> = (1..65).map(|number| create(number, 100)).collect();
    let results =
        futures::future::join_all(commands.iter().map(|command| raft.propose(command))).await;
    assert!(results.iter().all(Result::is_ok));
    let syncs = disk.stats().syncs - before.syncs;
    println!("64 concurrent proposals took {syncs} syncs");
    assert!(syncs < 16, "{syncs} syncs");
    raft.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_manager_writes_nothing() {
    let disk = FaultyDisk::new(1);
    let mut config = config();
    config.io = IoMode::Task;
    let raft = fresh(config, Arc::new(disk.clone())).await;
    raft.propose(&create(0, 10)).await.unwrap();
    let before = disk.stats();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(disk.stats(), before, "five minutes without proposals");
    assert!(raft.leadership().borrow().ready);
    raft.shutdown().await;
}

#[tokio::test]
async fn a_subscription_has_no_gap_and_no_overlap() {
    let raft = fresh(config(), Arc::new(FaultyDisk::new(1))).await;
    raft.propose(&create(0, 1)).await.unwrap();
    let mut subscription = raft.subscribe();
    let begin = subscription.snapshot().revision();
    assert_eq!(begin, raft.state().revision());
    let commands: Vec<Command> = (1..50).map(|number| create(number, 1)).collect();
    let proposals = futures::future::join_all(commands.iter().map(|command| raft.propose(command)));
    let reads = async {
        for offset in 1..50 {
            let set = subscription.next().await.unwrap().unwrap();
            assert_eq!(set.revision, Revision(begin.0 + offset));
        }
    };
    let (results, ()) = tokio::join!(proposals, reads);
    assert!(results.iter().all(Result::is_ok));
    assert!(
        raft.subscribe()
            .from_revision(Revision(10_000))
            .next()
            .await
            .unwrap()
            .is_err(),
        "the future is no place to begin"
    );
    raft.shutdown().await;
    assert!(subscription.next().await.is_none());
}

#[tokio::test]
async fn too_large_a_command_is_refused() {
    let raft = fresh(config(), Arc::new(FaultyDisk::new(1))).await;
    let ops: Vec<Op> = (0..9)
        .flat_map(|number| create(number, 1_000_000).ops)
        .collect();
    let command = Command::new(Actor::System, Timestamp(1), ops);
    assert!(matches!(
        raft.propose(&command).await,
        Err(ProposeError::TooLarge { .. })
    ));
    raft.shutdown().await;
}
