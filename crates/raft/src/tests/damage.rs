//! Damaged files, lost promises, states that differ, snapshots that break off.

use super::cluster::Cluster;
use super::{LIMIT, config, create, fresh, holds, members, node, purge, wait_for};
use crate::healing::Testimony;
use crate::transport::NoPeers;
use crate::{IoMode, Profile, RaftConfig, RaftError, RaftHandle, RecoverError, recover};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use warren_storage::{Disk, FaultyDisk};

/// The regions that damage is tried on, in bytes.
const REGION: usize = 4 * 1024;

/// Every region of log and snapshots, each damaged in its own way: (file, offset, cut off instead of flipped).
fn damages(disk: &FaultyDisk) -> Vec<(String, usize, bool)> {
    let mut found = Vec::new();
    for (path, bytes) in disk.files() {
        let data = path.ends_with(".seg") || path.ends_with(".snap");
        let bytes = usize::try_from(bytes).unwrap();
        for offset in (0..bytes).step_by(REGION).filter(|_| data) {
            found.extend([(path.clone(), offset, false), (path.clone(), offset, true)]);
        }
    }
    found
}

fn damage(disk: &FaultyDisk, (path, offset, cut): &(String, usize, bool)) {
    assert!(disk.tamper(path, |data| {
        if *cut {
            let end = data.len().min(offset + REGION);
            data.drain(*offset..end);
        } else {
            // In the middle of the region, or of what there is of it.
            let at = offset + (data.len() - offset).min(REGION) / 2;
            data[at] ^= 0x20;
        }
    }));
}

fn small() -> RaftConfig {
    let mut config = config();
    config.snapshot_entries = 40;
    config.segment_bytes = 8 * 1024;
    config
}

/// R9, alone: each region of log and snapshots flipped or cut.
#[tokio::test]
async fn damage_to_any_region_is_harmless_or_named() {
    let original = FaultyDisk::new(1);
    let raft = fresh(small(), Arc::new(original.clone())).await;
    for number in 0..100 {
        raft.propose(&create(number, 200)).await.unwrap();
    }
    let hash = raft.state().hash();
    raft.shutdown().await;
    let (mut harmless, mut refused) = (0, 0);
    for what in damages(&original) {
        let disk = original.copy(1);
        damage(&disk, &what);
        match RaftHandle::start(small(), Arc::new(disk), Arc::new(NoPeers)).await {
            Ok(raft) => {
                raft.wait_ready(LIMIT).await.unwrap();
                assert_eq!(raft.state().hash(), hash, "{what:?}");
                raft.shutdown().await;
                harmless += 1;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("warren cluster restore"), "{what:?}: {text}");
                refused += 1;
            }
        }
    }
    println!("{harmless} harmless, {refused} refused");
    assert!(harmless > 0 && refused > 0);
}

/// R9, with others: it heals, and what was acknowledged survives the loss of the leader afterwards.
#[tokio::test]
async fn damage_to_any_region_heals_from_the_others() {
    let mut cluster = Cluster::new(2);
    cluster.config = small();
    let one = cluster.form(&[1, 2, 3]).await;
    for number in 0..100 {
        one.propose(&create(number, 200)).await.unwrap();
    }
    cluster.settle().await;
    cluster.kill(3).await;
    let original = cluster.disk(3);
    let mut acknowledged: Vec<u64> = (0..100).collect();
    let mut healed = 0;
    let all = damages(&original);
    for (round, what) in all.iter().enumerate() {
        let disk = original.copy(u64::try_from(round).unwrap());
        damage(&disk, what);
        cluster.disks.insert(3, disk.clone());
        let three = cluster.try_start(3).await.unwrap();
        let was_healing = three.status().healing;
        let number = 1_000 + u64::try_from(round).unwrap();
        one.propose(&create(number, 10)).await.unwrap();
        acknowledged.push(number);
        wait_for("it to heal", || !three.status().healing).await;
        wait_for("it to hold everything", || {
            three.state().hash() == one.state().hash()
        })
        .await;
        if was_healing {
            healed += 1;
            let files = disk.files();
            let aside = files.iter().any(|(path, _)| path.starts_with("raft/log/"));
            assert!(aside, "the damaged files are kept");
        }
        cluster.kill(3).await;
    }
    println!("{healed} healings");
    assert!(healed > 3);

    // Healed, and then the leader dies: with the second it is a quorum.
    let three = cluster.start(3).await;
    wait_for("it to hold everything", || {
        three.state().hash() == one.state().hash()
    })
    .await;
    drop(one);
    cluster.kill(1).await;
    let leader = cluster.leader().await;
    assert!(acknowledged.iter().all(|number| holds(&leader, *number)));
    leader.propose(&create(5_000, 10)).await.unwrap();
    cluster.stop().await;
}

/// It votes for nobody while it heals; nor after that, as long as its leader may rely on what it had promised before.
#[tokio::test(start_paused = true)]
async fn a_promise_outlives_the_log_that_it_stood_in() {
    let mut cluster = Cluster::new(37);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    one.propose(&create(0, 10)).await.unwrap();
    cluster.settle().await;
    cluster.kill(2).await;
    ruin(&cluster.disk(2));
    let begin = Instant::now();
    let two = cluster.start(2).await;
    assert!(two.status().healing);
    let lease = Duration::from_millis(Profile::Lan.lease_ms());
    assert!(two.inner.pulse.hold_until >= begin + lease);
    cluster.stop().await;
}

/// What a leader says that is asked for the end of its log: also of what it waits for.
#[tokio::test(start_paused = true)]
async fn a_leader_tells_the_end_of_its_log() {
    let mut cluster = Cluster::new(38);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    one.propose(&create(0, 10)).await.unwrap();
    let before = one.status().applied_index;
    cluster.isolate(1);
    let command = create(1, 10);
    let (_, told) = futures::future::join(one.propose(&command), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Testimony::of(&one.inner.engine, &one.inner.pulse)
    })
    .await;
    assert_eq!(told.committed.map(|committed| committed.index), before);
    assert_eq!(told.last, before.map(|index| index + 1));
    cluster.stop().await;
}

/// The newest snapshot, with its last index in its name.
fn newest_snapshot(disk: &FaultyDisk) -> String {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.ends_with(".snap")).max().unwrap()
}

/// A damaged snapshot that nobody needs is out of the way: neither is it in the way of later starts, nor does it take the
/// place of a sound one. Found by the simulator.
#[tokio::test]
async fn a_damaged_snapshot_costs_nothing_again_and_again() {
    let disk = FaultyDisk::new(2);
    let mut raft = fresh(small(), Arc::new(disk.clone())).await;
    for round in 0..6 {
        for number in 0..50 {
            raft.propose(&create(round * 100 + number, 20))
                .await
                .unwrap();
        }
        wait_for("a snapshot of this round", || {
            raft.status().snapshot_index > Some(round * 50)
        })
        .await;
        let hash = raft.state().hash();
        raft.shutdown().await;
        // In its head, by which even an older one is known.
        assert!(disk.tamper(&newest_snapshot(&disk), |data| data[30] ^= 1));
        let arc = Arc::new(disk.clone());
        raft = RaftHandle::start(small(), arc, Arc::new(NoPeers))
            .await
            .unwrap();
        raft.wait_ready(LIMIT).await.unwrap();
        assert_eq!(raft.state().hash(), hash, "round {round}");
    }
    raft.shutdown().await;
}

fn ruin(disk: &FaultyDisk) {
    for (path, _) in disk.files() {
        if path.ends_with(".seg") {
            disk.tamper(&path, |data| data[600..700].fill(0xaa));
        }
    }
}

/// Three managers: the third misses what the first two acknowledge, then the second forgets its log and the first is
/// cut off. The second and the third are left with each other.
async fn forgetful(seed: u64, bug: bool) -> Cluster {
    let mut cluster = Cluster::new(seed);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    one.propose(&create(0, 10)).await.unwrap();
    cluster.settle().await;
    cluster.isolate(3);
    for number in 1..20 {
        one.propose(&create(number, 10)).await.unwrap();
    }
    cluster.isolate(1);
    cluster.kill(2).await;
    ruin(&cluster.disk(2));
    cluster.weather(|weather| {
        weather
            .cut
            .retain(|(from, to)| *from == node(1) || *to == node(1));
    });
    cluster.config.bugs.healing_votes = bug;
    cluster.start(2).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_forgot_its_log_helps_nobody_to_lead_without_it() {
    let mut cluster = forgetful(3, false).await;
    let (two, three) = (cluster.get(2), cluster.get(3));
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(two.status().healing);
        assert!(
            !three.leadership().borrow().is_leader,
            "it lacks what was acknowledged"
        );
        assert!(!two.leadership().borrow().is_leader);
    }
    assert!(matches!(
        two.initialize(members(&[2])).await,
        Err(RaftError::AlreadyInitialized)
    ));
    // A restart changes nothing.
    drop(two);
    cluster.kill(2).await;
    let disk: Arc<dyn Disk> = Arc::new(cluster.disk(2));
    let mut alone = cluster.config.clone();
    alone.id = node(2);
    let refused = recover(&disk, &alone, members(&[2])[&node(2)].clone(), |state| {
        Ok::<_, Infallible>(state)
    });
    assert!(matches!(
        refused,
        Err(RecoverError::Raft(RaftError::Incomplete))
    ));
    let two = cluster.start(2).await;
    assert!(two.status().healing);
    cluster.heal();
    cluster.settle().await;
    wait_for("it to heal", || !two.status().healing).await;
    assert!((0..20).all(|number| holds(&three, number) && holds(&two, number)));
    cluster.stop().await;
}

/// The test above can fail.
#[tokio::test(start_paused = true)]
async fn without_that_rule_what_was_acknowledged_is_lost() {
    let cluster = forgetful(3, true).await;
    let three = cluster.get(3);
    wait_for("the one that was behind to lead", || {
        three.leadership().borrow().ready
    })
    .await;
    assert!(!holds(&three, 19));
    cluster.stop().await;
}

/// R7: a state that differs stops the manager that has it, and it says what to do.
#[tokio::test(start_paused = true)]
async fn a_manager_that_differs_stops_and_says_so() {
    let mut cluster = Cluster::new(4);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2]).await;
    for number in 0..5 {
        one.propose(&create(number, 10)).await.unwrap();
    }
    cluster.config.bugs.skip_command_at = one.status().last_index.unwrap() + 5;
    let three = cluster.start(3).await;
    cluster.config.bugs.skip_command_at = 0;
    cluster.join(&one, 3).await;
    assert_eq!(three.status().stopped, None);
    for number in 5..15 {
        one.propose(&create(number, 10)).await.unwrap();
    }
    wait_for("it to stop", || three.status().stopped.is_some()).await;
    let reason = three.status().stopped.unwrap();
    assert!(reason.contains("warren node reset"), "{reason}");
    assert!(matches!(
        three.read_barrier().await,
        Err(crate::ReadError::Stopped { .. } | crate::ReadError::NotLeader { .. })
    ));
    one.propose(&create(100, 10)).await.unwrap();
    assert_eq!(cluster.get(2).status().stopped, None);
    assert_eq!(one.status().stopped, None);
    cluster.stop().await;
}

/// A snapshot that breaks off is gone on with, and its slow transfer delays nobody.
#[tokio::test(start_paused = true)]
async fn a_snapshot_is_gone_on_with_and_stalls_nobody() {
    let mut cluster = Cluster::new(5);
    cluster.config.io = IoMode::Task;
    cluster.config.snapshot_entries = 20;
    let one = cluster.form(&[1, 2]).await;
    for number in 0..60 {
        let mut command = create(number, 1);
        // Not to be compressed away.
        if let warren_state::Op::ConfigCreate(config) = &mut command.ops[0] {
            config.data = warren_storage::Rng::new(number).bytes(2_000);
        }
        one.propose(&command).await.unwrap();
    }
    purge(&one, 10_000).await;
    // A newer snapshot would be another one.
    one.set_thresholds(1 << 20, 1 << 40, 1 << 40);
    let size = one.status().snapshot_bytes;
    cluster.weather(|weather| {
        weather.delay = (5, 5);
        weather.break_snapshot = Some(size / 2);
    });
    cluster.start(3).await;
    let three = cluster.get(3);
    let member = members(&[3])[&node(3)].clone();
    one.add_learner(node(3), member).await.unwrap();
    let changes = || [1, 2].map(|number| cluster.get(number).status().leader_changes);
    let before = changes();
    let (mut slowest, mut number) = (Duration::ZERO, 100);
    while !holds(&three, 59) {
        let begin = tokio::time::Instant::now();
        one.propose(&create(number, 100)).await.unwrap();
        slowest = slowest.max(begin.elapsed());
        number += 1;
        assert!(number < 2_000, "the snapshot never arrives");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "{} changes meanwhile, the slowest took {slowest:?}",
        number - 100
    );
    assert!(slowest < Duration::from_millis(100), "{slowest:?}");
    assert_eq!(changes(), before);
    let carried = cluster.weather(|weather| weather.snapshot_bytes);
    assert!(
        carried < size * 3 / 2,
        "{carried} bytes carried, {size} in the snapshot"
    );
    cluster.settle().await;
    cluster.stop().await;
}

/// What arrives changed or cut short is never taken for a snapshot.
#[tokio::test]
async fn a_changed_snapshot_is_not_taken() {
    let mut cluster = Cluster::new(7);
    cluster.config.snapshot_entries = 10;
    let one = cluster.form(&[1]).await;
    purge(&one, 0).await;
    cluster.start(2).await;
    cluster.weather(|weather| weather.spoil_snapshots = 4);
    cluster.join(&one, 2).await;
    assert_eq!(cluster.weather(|weather| weather.spoil_snapshots), 0);
    cluster.settle().await;
    cluster.stop().await;
}

/// TR-04, PE-03: thresholds at run time; the log stays near its bound.
#[tokio::test]
async fn the_log_is_bounded() {
    let disk = FaultyDisk::new(6);
    let mut config = config();
    config.segment_bytes = 16 * 1024;
    let disk_dyn: Arc<dyn Disk> = Arc::new(disk.clone());
    let raft = fresh(config, disk_dyn).await;
    let limit = 256 * 1024;
    raft.set_thresholds(1_000_000, 1 << 40, limit);
    for number in 0..2_000 {
        raft.propose(&create(number, 600)).await.unwrap();
        // The snapshot that makes room is written beside the proposals, as fast as the machine can.
        wait_for("the log to be within its bound", || {
            raft.status().log_bytes <= limit + 2 * 16 * 1024
        })
        .await;
    }
    raft.set_thresholds(10, 1 << 40, 1 << 40);
    let before = raft.status().snapshot_index;
    for number in 2_000..2_030 {
        raft.propose(&create(number, 10)).await.unwrap();
    }
    wait_for("a snapshot by the new threshold", || {
        raft.status().snapshot_index > before
    })
    .await;
    raft.shutdown().await;
}
