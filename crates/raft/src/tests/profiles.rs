//! Managers with different times: what a cluster is while it moves from one profile to the other.

use super::cluster::Cluster;
use super::{create, holds, node, wait_for};
use crate::{IoMode, Profile, RaftHandle};
use std::time::Duration;
use tokio::time::Instant;

async fn mixed(seed: u64, leader: Profile, followers: Profile) -> (Cluster, RaftHandle) {
    let mut cluster = Cluster::new(seed);
    cluster.config.io = IoMode::Task;
    cluster.config.profile = leader;
    let one = cluster.form(&[1]).await;
    cluster.config.profile = followers;
    for number in [2, 3] {
        cluster.start(number).await;
        cluster.join(&one, number).await;
    }
    (cluster, one)
}

/// The one of managers 2 and 3 that leads.
async fn leader_of_the_others(cluster: &Cluster) -> RaftHandle {
    let find = || {
        [2, 3]
            .into_iter()
            .map(|number| cluster.get(number))
            .find(|raft| raft.leadership().borrow().ready)
    };
    wait_for("a leader among the others", || find().is_some()).await;
    find().expect("found a moment ago")
}

#[tokio::test(start_paused = true)]
async fn a_leader_counts_on_no_longer_lease_than_its_followers_grant() {
    let (cluster, one) = mixed(21, Profile::Wan, Profile::Lan).await;
    one.propose(&create(0, 10)).await.unwrap();
    one.read_barrier().await.unwrap();
    assert_eq!(one.peers()[&node(2)].profile, Some(Profile::Lan));
    cluster.isolate(1);
    let begin = Instant::now();
    let other = leader_of_the_others(&cluster).await;
    other.propose(&create(1, 10)).await.unwrap();
    let own_lease = Duration::from_millis(Profile::Wan.lease_ms() / 5 * 4);
    assert!(
        begin.elapsed() < own_lease,
        "{:?}: too late to prove anything",
        begin.elapsed()
    );
    assert!(!holds(&one, 1));
    assert!(one.read_barrier().await.is_err(), "it would be stale");
    cluster.heal();
    cluster.settle().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn followers_with_shorter_times_than_their_leader_hold_no_elections() {
    for (leader, followers) in [
        (Profile::Wan, Profile::Lan),
        (Profile::Lan, Profile::Wan),
        (Profile::Wan, Profile::Wan),
    ] {
        let (cluster, one) = mixed(22, leader, followers).await;
        one.propose(&create(0, 10)).await.unwrap();
        let before = one.leadership().borrow().clone();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            *one.leadership().borrow(),
            before,
            "{leader:?} leads {followers:?}"
        );
        let elections: u64 = cluster.all().iter().map(|m| m.metrics().elections).sum();
        assert!(
            elections <= 1,
            "{elections} with {leader:?} and {followers:?}"
        );
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_promise_outlives_a_restart_with_shorter_times() {
    let (mut cluster, one) = mixed(23, Profile::Wan, Profile::Wan).await;
    one.propose(&create(0, 10)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    cluster.isolate(1);
    let begin = Instant::now();
    cluster.config.profile = Profile::Lan;
    for number in [2, 3] {
        cluster.kill(number).await;
        cluster.start(number).await;
        // Once more, before the promise is over.
        cluster.kill(number).await;
        cluster.start(number).await;
    }
    leader_of_the_others(&cluster).await;
    let lease = Duration::from_millis(Profile::Wan.lease_ms());
    assert!(begin.elapsed() >= lease, "{:?}", begin.elapsed());

    // It is over now, and the next restart waits as the shorter times say.
    cluster.kill(1).await;
    let begin = Instant::now();
    for number in [2, 3] {
        cluster.kill(number).await;
        cluster.start(number).await;
    }
    leader_of_the_others(&cluster).await;
    assert!(begin.elapsed() < lease, "{:?}", begin.elapsed());
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_profile_that_was_left_is_started_with() {
    let mut cluster = Cluster::new(24);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1]).await;
    one.keep_profile(Profile::Wan).unwrap();
    assert_eq!(one.profile(), Profile::Lan, "until it is started again");
    cluster.kill(1).await;
    let one = cluster.start(1).await;
    assert_eq!(one.profile(), Profile::Wan);
    let written = cluster.disk(1);
    let before = warren_storage::Disk::stats(&written);
    one.keep_profile(Profile::Wan).unwrap();
    assert_eq!(warren_storage::Disk::stats(&written), before);
    cluster.stop().await;
}
