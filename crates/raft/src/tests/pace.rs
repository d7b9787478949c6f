//! How fast: failover, batches, writes beside a snapshot.

use super::cluster::Cluster;
use super::{LIMIT, config, create, fresh, holds, node, wait_for};
use crate::{IoMode, Profile, RaftConfig};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use warren_state::Op;
use warren_storage::{Disk, FaultyDisk, RealDisk, Rng};

/// Kills the leader again and again; the time to the next accepted write.
#[tokio::test(start_paused = true)]
async fn the_next_leader_takes_writes_within_a_second() {
    let mut cluster = Cluster::new(30);
    cluster.config.io = IoMode::Task;
    cluster.form(&[1, 2, 3]).await;
    cluster.weather(|weather| weather.delay = (0, 2));
    let mut times = Vec::new();
    for round in 0..60 {
        let leader = cluster.leader().await;
        leader.propose(&create(round * 2, 10)).await.unwrap();
        let id = leader.status().id;
        drop(leader);
        let pause = cluster.weather(|weather| weather.rng.below(400));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let number = (1..4).find(|number| node(*number) == id).unwrap();
        cluster.kill(number).await;
        let begin = Instant::now();
        let next = cluster.leader().await;
        next.propose(&create(round * 2 + 1, 10)).await.unwrap();
        times.push(begin.elapsed());
        cluster.start(number).await;
        cluster.settle().await;
    }
    times.sort_unstable();
    let (p50, max) = (times[30], times[59]);
    println!("p50 {p50:?}, max {max:?}");
    let longest = Duration::from_millis(Profile::Lan.election_ms().1);
    assert!(p50 < longest && max < Duration::from_secs(1), "{times:?}");
    let leader = cluster.leader().await;
    assert!((0..120).all(|number| holds(&leader, number)));
    assert!(leader.metrics().leader_changes > 0);
    cluster.stop().await;
}

/// PE-06: what is proposed at once goes through log, network and apply at once.
#[tokio::test]
async fn concurrent_proposals_share_messages_too() {
    let mut cluster = Cluster::new(31);
    cluster.config.segment_bytes = 4 * 1024 * 1024;
    let one = cluster.form(&[1, 2, 3]).await;
    one.propose(&create(0, 10)).await.unwrap();
    let calls = |cluster: &Cluster| cluster.weather(|weather| weather.calls[&1]);
    let (calls_before, syncs_before) = (calls(&cluster), one.status().disk.syncs);
    for round in 0..10 {
        let commands: Vec<_> = (1..65)
            .map(|number| create(round * 100 + number, 100))
            .collect();
        let proposals = commands.iter().map(|command| one.propose(command));
        let results = futures::future::join_all(proposals).await;
        assert!(results.iter().all(Result::is_ok));
    }
    let messages = calls(&cluster) - calls_before;
    let syncs = one.status().disk.syncs - syncs_before;
    println!("640 proposals of 64 callers: {messages} messages to two followers, {syncs} syncs");
    assert!(
        messages < 160 && syncs < 80,
        "{messages} messages, {syncs} syncs"
    );
    let metrics = one.metrics();
    assert_eq!(metrics.proposals_applied, 641);
    assert_eq!(metrics.commit_time.count, 641);
    assert_eq!(metrics.proposal_duration.count, 641);
    assert!(metrics.fsync_duration.count > 0 && metrics.apply_duration.count >= 641);
    cluster.stop().await;
}

/// However many come at once, they go in one turn; what comes beside it waits until it is as much, or until the turn is over.
#[tokio::test(start_paused = true)]
async fn proposals_that_wait_go_together() {
    let mut cluster = Cluster::new(34);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    cluster.weather(|weather| weather.delay = (5, 5));
    one.propose(&create(0, 10)).await.unwrap();
    let syncs = || one.status().disk.syncs;
    let propose = async |numbers: std::ops::Range<u64>, after: u64| {
        tokio::time::sleep(Duration::from_millis(after)).await;
        let commands: Vec<_> = numbers.map(|number| create(number, 100)).collect();
        let proposals = commands.iter().map(|command| one.propose(command));
        let results = futures::future::join_all(proposals).await;
        assert!(results.iter().all(Result::is_ok));
    };
    let before = syncs();
    propose(1..101, 0).await;
    assert_eq!(syncs() - before, 1, "syncs for 100 proposals at once");
    // The next turn goes beside the first one as soon as ten wait; else it would take three at one time and seven at another.
    let before = syncs();
    let (first, second, third) = (
        propose(101..111, 0),
        propose(111..114, 1),
        propose(114..121, 2),
    );
    futures::future::join3(first, second, third).await;
    assert_eq!(
        syncs() - before,
        2,
        "syncs for ten proposals, three and seven"
    );
    // Those that stay fewer wait no longer than until the first turn is over.
    let (before, begin) = (syncs(), Instant::now());
    futures::future::join(propose(121..131, 0), propose(131..134, 1)).await;
    assert_eq!(syncs() - before, 2, "syncs for ten proposals and three");
    assert!(
        begin.elapsed() < Duration::from_millis(35),
        "{:?}",
        begin.elapsed()
    );
    cluster.stop().await;
}

/// Calls that were woken together propose one after the other; the turn that the first one makes waits for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn proposals_of_the_same_moment_go_in_one_turn() {
    let mut config = RaftConfig::new(node(1));
    config.io = IoMode::Task;
    let raft = fresh(config, Arc::new(FaultyDisk::new(36))).await;
    raft.propose(&create(0, 10)).await.unwrap();
    let go = Arc::new(Notify::new());
    let mut callers = Vec::new();
    for number in 1..21 {
        let (raft, go) = (raft.clone(), Arc::clone(&go));
        let (ready, is_ready) = oneshot::channel();
        callers.push(tokio::spawn(async move {
            let woken = go.notified();
            ready.send(()).unwrap();
            woken.await;
            raft.propose(&create(number, 100)).await.unwrap();
        }));
        is_ready.await.unwrap();
    }
    let before = raft.status().disk.syncs;
    // On the thread that runs them all, which runs what was woken last next.
    let waker = async move { go.notify_waiters() };
    tokio::spawn(waker).await.unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(
        raft.status().disk.syncs - before,
        1,
        "syncs for 20 proposals"
    );
    raft.shutdown().await;
}

/// Who gives up holds nobody up, wherever its proposal is; one that still waits for its turn is not made.
#[tokio::test(start_paused = true)]
async fn proposals_that_are_given_up_hold_nobody_up() {
    let mut cluster = Cluster::new(35);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    cluster.weather(|weather| weather.delay = (5, 5));
    let commands: Vec<_> = (0..10).map(|number| create(number, 100)).collect();
    let under_way = commands[..6].iter().map(|command| one.propose(command));
    let waiting = commands[6..].iter().map(async |command| {
        // When the others are under way.
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::time::timeout(Duration::from_millis(1), one.propose(command)).await
    });
    let both = futures::future::join(
        futures::future::join_all(under_way),
        futures::future::join_all(waiting),
    );
    let (done, given_up) = both.await;
    assert!(done.iter().all(Result::is_ok) && given_up.iter().all(Result::is_err));
    one.propose(&create(20, 100)).await.unwrap();
    assert!(holds(&one, 5) && !holds(&one, 6) && !holds(&one, 9) && holds(&one, 20));
    // Given up while they gather, and while they are under way: what comes after them goes on.
    for round in 3..6 {
        let limit = Duration::from_millis(round - 3);
        let commands = [create(round * 10, 100), create(round * 10 + 1, 100)];
        let both = commands.iter().map(|command| one.propose(command));
        let given_up = tokio::time::timeout(limit, futures::future::join_all(both)).await;
        assert!(given_up.is_err());
    }
    one.propose(&create(99, 100)).await.unwrap();
    cluster.settle().await;
    cluster.stop().await;
}

/// What is committed is told with the next entries, and soon when there are none.
#[tokio::test(start_paused = true)]
async fn news_of_a_commit_travel_with_the_next_entries() {
    let mut cluster = Cluster::new(33);
    cluster.config.io = IoMode::Task;
    let one = cluster.form(&[1, 2, 3]).await;
    one.propose(&create(0, 10)).await.unwrap();
    let calls = |cluster: &Cluster| cluster.weather(|weather| weather.calls[&1]);
    let before = calls(&cluster);
    for number in 1..101 {
        one.propose(&create(number, 10)).await.unwrap();
    }
    let messages = calls(&cluster) - before;
    println!("100 proposals one after another: {messages} messages to two followers");
    assert!(messages < 240, "{messages} messages");
    let begin = Instant::now();
    for number in [2, 3] {
        let follower = cluster.get(number);
        wait_for("the last commit to be told", || holds(&follower, 100)).await;
    }
    let heartbeat = Duration::from_millis(Profile::Lan.heartbeat_ms());
    assert!(begin.elapsed() < heartbeat / 2, "{:?}", begin.elapsed());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_beside_a_snapshot() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let raft = fresh(RaftConfig::new(node(1)), disk).await;
    for batch in 0..20_u64 {
        let mut command = create(batch * 1_000, 1);
        command.ops.clear();
        for number in batch * 1_000..batch * 1_000 + 200 {
            let mut op = create(number, 1).ops.remove(0);
            if let Op::ConfigCreate(config) = &mut op {
                // Not to be compressed away.
                config.data = Rng::new(number).bytes(5_000);
            }
            command.ops.push(op);
        }
        raft.propose(&command).await.unwrap();
    }
    let begin = Instant::now();
    raft.request_snapshot();
    let (mut during, mut slowest) = (0, Duration::ZERO);
    while raft.status().snapshot_index.is_none() {
        let sent = Instant::now();
        raft.propose(&create(500_000 + during, 10)).await.unwrap();
        slowest = slowest.max(sent.elapsed());
        during += 1;
        assert!(begin.elapsed() < LIMIT, "no snapshot");
    }
    let took = begin.elapsed();
    println!("{during} changes beside a snapshot of {took:?}, the slowest took {slowest:?}");
    assert!(
        during > 3 && slowest < took,
        "{during}, {slowest:?} of {took:?}"
    );
    raft.shutdown().await;
}

/// One whose data are gone must not vote for somebody who lacks what it had acknowledged.
#[tokio::test(start_paused = true)]
async fn an_empty_manager_votes_for_nobody_with_a_past() {
    let mut cluster = Cluster::new(32);
    cluster.config = RaftConfig {
        io: IoMode::Task,
        ..config()
    };
    let one = cluster.form(&[1, 2, 3]).await;
    cluster.isolate(3);
    for number in 0..5 {
        one.propose(&create(number, 10)).await.unwrap();
    }
    cluster.isolate(1);
    cluster.kill(2).await;
    cluster.disks.remove(&2);
    cluster.weather(|weather| {
        weather
            .cut
            .retain(|(from, to)| *from == node(1) || *to == node(1));
    });
    cluster.start(2).await;
    let three = cluster.get(3);
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!three.leadership().borrow().is_leader);
    }
    cluster.heal();
    cluster.settle().await;
    wait_for("all to be there", || holds(&three, 4)).await;
    cluster.stop().await;
}
