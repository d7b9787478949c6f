//! Recovery and restoring, with a crash at every step.

use super::cluster::Cluster;
use super::{LIMIT, config, create, fresh, holds, members, node, start, wait_for};
use crate::transport::NoPeers;
use crate::{RaftConfig, RaftError, RaftHandle, RecoverError, Recovered, recover, restore};
use std::convert::Infallible;
use std::sync::Arc;
use warren_state::{Actor, ClusterState, Command, Op};
use warren_storage::{Disk, FaultyDisk};
use warren_types::{
    CaMaterial, ClusterId, ClusterSettings, KeyEpoch, Revision, SealedData, Timestamp,
};

fn disk_of(disk: &FaultyDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn try_recover(disk: &FaultyDisk) -> Result<Recovered, RecoverError<Infallible>> {
    let member = members(&[1])[&node(1)].clone();
    recover(&disk_of(disk), &config(), member, Ok)
}

/// Writes a single manager with snapshots and some log behind them.
async fn written(disk: &FaultyDisk, config: &RaftConfig) -> u64 {
    let raft = fresh(config.clone(), disk_of(disk)).await;
    for number in 0..25 {
        raft.propose(&create(number, 100)).await.unwrap();
    }
    let hash = raft.state().hash();
    raft.shutdown().await;
    hash
}

#[tokio::test]
async fn one_of_three_goes_on_alone_with_everything() {
    let mut cluster = Cluster::new(20);
    cluster.config.snapshot_entries = 10;
    let one = cluster.form(&[1, 2, 3]).await;
    for number in 0..25 {
        one.propose(&create(number, 100)).await.unwrap();
    }
    cluster.settle().await;
    let before = cluster.get(2).status();
    cluster.stop().await;

    // The second manager is all that is left.
    let disk = cluster.disk(2);
    let mut config = cluster.config.clone();
    config.id = node(2);
    let member = members(&[2])[&node(2)].clone();
    let found = recover(&disk_of(&disk), &config, member, |state: ClusterState| {
        assert_eq!(state.configs().count(), 25);
        Ok::<_, Infallible>(state)
    })
    .unwrap();
    assert_eq!(found.found_members.len(), 3);
    assert_eq!(found.found_index, before.last_index);
    assert!(Some(found.index) > before.last_index && found.term > before.leadership.term);
    assert_eq!(found.state.configs().count(), 25);
    cluster.net.managers.lock().unwrap().clear();
    let two = cluster.start(2).await;
    two.wait_ready(LIMIT).await.unwrap();
    assert_eq!(two.status().voters.len(), 1);
    assert!((0..25).all(|number| holds(&two, number)));
    two.propose(&create(100, 10)).await.unwrap();

    // Others join again, from nothing; the old ones are told that they are out.
    for number in [4, 5] {
        cluster.start(number).await;
        cluster.join(&two, number).await;
    }
    cluster.settle().await;
    assert!(holds(&cluster.get(5), 100) && holds(&cluster.get(5), 0));
    let old = cluster.start(1).await;
    let mut removed = old.removed();
    tokio::time::timeout(LIMIT, removed.wait_for(|removed| *removed))
        .await
        .expect("it is told")
        .unwrap();
    assert_eq!(cluster.leader().await.status().id, node(2));
    cluster.stop().await;
}

#[tokio::test]
async fn a_recovery_broken_off_has_happened_or_not() {
    let original = FaultyDisk::new(3);
    let mut config = config();
    config.snapshot_entries = 10;
    let hash = written(&original, &config).await;
    let mut at = 1;
    loop {
        let disk = original.copy(at);
        disk.crash_after(at);
        let result = try_recover(&disk);
        let finished = result.is_ok() && !disk.is_down();
        disk.crash();
        // Whichever of both it is now: it starts, holds everything, and can be recovered again.
        if at % 3 == 0 {
            let raft = start(config.clone(), disk_of(&disk)).await;
            raft.wait_ready(LIMIT).await.unwrap();
            assert_eq!(raft.state().hash(), hash, "crash at operation {at}");
            raft.shutdown().await;
        }
        let again = try_recover(&disk).unwrap();
        assert_eq!(again.state.hash(), hash, "crash at operation {at}");
        let raft = start(config.clone(), disk_of(&disk)).await;
        raft.wait_ready(LIMIT).await.unwrap();
        assert_eq!(raft.state().hash(), hash);
        raft.propose(&create(1_000, 10)).await.unwrap();
        raft.shutdown().await;
        if finished {
            break;
        }
        at += 1;
    }
    println!("{at} operations");
    assert!(at > 10);
}

#[tokio::test]
async fn restoring_begins_a_cluster_or_leaves_nothing() {
    let original = FaultyDisk::new(4);
    let config = config();
    let raft = fresh(config.clone(), disk_of(&original)).await;
    for number in 0..5 {
        raft.propose(&create(number, 100)).await.unwrap();
    }
    let state = raft.state();
    raft.shutdown().await;
    let member = members(&[1])[&node(1)].clone();
    assert!(matches!(
        restore(&disk_of(&original), &config, member.clone(), &state),
        Err(RaftError::AlreadyInitialized)
    ));
    let mut at = 1;
    loop {
        let disk = FaultyDisk::new(at);
        disk.crash_after(at);
        let result = restore(&disk_of(&disk), &config, member.clone(), &state);
        let finished = result.is_ok() && !disk.is_down();
        disk.crash();
        match restore(&disk_of(&disk), &config, member.clone(), &state) {
            Ok(_) => assert!(!finished),
            // The crash came after the last step.
            Err(RaftError::AlreadyInitialized) => {}
            Err(error) => panic!("after a crash at operation {at}: {error}"),
        }
        let raft = start(config.clone(), disk_of(&disk)).await;
        raft.wait_ready(LIMIT).await.unwrap();
        assert_eq!(raft.state().hash(), state.hash());
        raft.propose(&create(50, 10)).await.unwrap();
        raft.shutdown().await;
        if finished {
            break;
        }
        at += 1;
    }
    assert!(at > 5);
}

#[tokio::test]
async fn what_cannot_be_recovered_is_refused_with_the_reason() {
    let error = try_recover(&FaultyDisk::new(1)).unwrap_err();
    assert!(error.to_string().contains("cluster restore"), "{error}");

    let disk = FaultyDisk::new(5);
    let raft = fresh(config(), disk_of(&disk)).await;
    raft.propose(&create(1, 10)).await.unwrap();
    assert!(try_recover(&disk).is_err(), "the manager runs");
    raft.shutdown().await;
    let refused = recover(&disk_of(&disk), &config(), crate::Member::default(), |_| {
        Err(std::fmt::Error)
    });
    assert!(matches!(refused, Err(RecoverError::Edit(_))));
    let raft = start(config(), disk_of(&disk)).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert!(holds(&raft, 1));
    raft.shutdown().await;
}

fn owned(mut config: RaftConfig, cluster: u128, number: u128) -> RaftConfig {
    config.cluster_id = Some(ClusterId::from_u128(cluster));
    config.id = node(number);
    config
}

fn settings(cluster: u128) -> Command {
    let settings = ClusterSettings {
        raft_profile: warren_types::RaftProfile::Lan,
        id: ClusterId::from_u128(cluster),
        name: "test".to_owned(),
        ca: CaMaterial::default(),
        key_epochs: vec![KeyEpoch {
            number: 1,
            created_at: Timestamp(0),
        }],
        container_pool: "10.89.0.0/16".to_owned(),
        node_prefix_len: 24,
        heartbeat: warren_types::Duration(2_000),
        node_down_after: warren_types::Duration(10_000),
        history_per_slot: 1,
        snapshot_entries: 10_000,
        snapshot_bytes: 64 << 20,
        log_bytes_max: 1 << 30,
        auto_lock: false,
        unlock_key: SealedData::default(),
        created_at: Timestamp(0),
        version: Revision(0),
    };
    let op = Op::SettingsInit(Box::new(settings));
    Command::new(Actor::System, Timestamp(1), vec![op])
}

async fn refused_start(config: RaftConfig, disk: &FaultyDisk) -> RaftError {
    let started = RaftHandle::start(config, disk_of(disk), Arc::new(NoPeers)).await;
    started.expect_err("somebody else's data")
}

async fn refusal(config: RaftConfig, disk: &FaultyDisk) -> RaftError {
    let before = disk.files();
    let error = refused_start(config.clone(), disk).await;
    let member = members(&[1])[&node(1)].clone();
    let recovered = recover(&disk_of(disk), &config, member, Ok::<_, Infallible>);
    let again = recovered.expect_err("nor recovered").to_string();
    assert_eq!(again, error.to_string());
    assert_eq!(disk.files(), before, "it is left as it was");
    error
}

/// A directory is one node's in one cluster: what it promised there binds nobody else.
#[tokio::test]
async fn a_directory_of_another_cluster_is_refused_before_anything_is_done() {
    let disk = FaultyDisk::new(6);
    let raft = fresh(owned(config(), 7, 1), disk_of(&disk)).await;
    raft.propose(&create(1, 10)).await.unwrap();
    raft.shutdown().await;
    for other in [owned(config(), 8, 1), owned(config(), 7, 2)] {
        let error = refusal(other.clone(), &disk).await;
        let RaftError::OtherOwner { found, own, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(Some(*found), owned(config(), 7, 1).owner());
        assert_eq!(Some(*own), other.owner());
        assert!(error.to_string().contains("warren node reset"), "{error}");
    }
    // Nor after a recovery; the owner goes on.
    let member = members(&[1])[&node(1)].clone();
    let own = owned(config(), 7, 1);
    recover(&disk_of(&disk), &own, member, Ok::<_, Infallible>).unwrap();
    refusal(owned(config(), 8, 1), &disk).await;
    let raft = start(own, disk_of(&disk)).await;
    raft.wait_ready(LIMIT).await.unwrap();
    assert!(holds(&raft, 1));
    raft.shutdown().await;
}

/// Records of older releases do not say whose they are: the state does.
#[tokio::test]
async fn a_directory_of_an_older_release_is_completed_or_refused() {
    for snapshot in [true, false] {
        let disk = FaultyDisk::new(7);
        let raft = fresh(config(), disk_of(&disk)).await;
        raft.propose(&settings(7)).await.unwrap();
        if snapshot {
            raft.request_snapshot();
            wait_for("a snapshot", || raft.status().snapshot_index.is_some()).await;
        }
        raft.shutdown().await;
        let wrong = disk.copy(1);
        if snapshot {
            let error = refused_start(owned(config(), 8, 1), &wrong).await;
            assert!(matches!(error, RaftError::OtherOwner { .. }), "{error}");
        } else {
            // The log is read while the engine runs: it stops and says why.
            let raft = start(owned(config(), 8, 1), disk_of(&wrong)).await;
            let why = || raft.status().stopped.unwrap_or_default();
            wait_for("it to stop", || why().contains("of cluster")).await;
            raft.shutdown().await;
        }
        let raft = start(owned(config(), 7, 1), disk_of(&disk)).await;
        raft.wait_ready(LIMIT).await.unwrap();
        raft.shutdown().await;
        refusal(owned(config(), 8, 1), &disk).await;
    }
}
