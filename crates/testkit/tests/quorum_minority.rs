//! A manager that is cut off from the quorum.
#![allow(
    clippy::print_stdout,
    reason = "the times are a result that is wanted in the test's output"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use warren_client::{Client, ErrorKind, Freshness, Target};

use warren_testkit::{Cut, Managers, eventually_within, is_root, skipped};

/// Longest time until a write that cannot be made is refused.
const REFUSAL_MAX: Duration = Duration::from_secs(1);
/// Longest time until a manager knows that it has lost the quorum, and until it knows that it has it back.
const NOTICE_MAX: Duration = Duration::from_secs(10);

/// Asks one manager over TLS from the clients' machine.
fn ask<T: Send + 'static>(
    managers: &Managers,
    member: usize,
    work: impl AsyncFnOnce(Client) -> T + Send + 'static,
) -> T {
    let target = Target::Tcp {
        addresses: vec![managers.address(member)],
        identity: managers.identity(),
    };
    managers.lab().run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.unwrap_or_else(|e| panic!("runtime: {e}"));
        runtime.block_on(async {
            let client = Client::connect(target).await;
            work(client.unwrap_or_else(|e| panic!("connect: {e}"))).await
        })
    })
}

/// What a read of the kind that the command line makes shows: names of secrets, and whether it is stale.
fn secrets(managers: &Managers, member: usize) -> Result<(Vec<String>, bool), String> {
    ask(managers, member, async |client| {
        let client = client.with_read(Freshness::Best);
        let all = client.list_secrets().await.map_err(|e| e.to_string())?;
        let names = all.into_iter().map(|s| s.name).collect();
        Ok((names, client.last_stale().is_some()))
    })
}

fn create(
    managers: &Managers,
    member: usize,
    name: &'static str,
) -> Result<(), (ErrorKind, String, Duration)> {
    ask(managers, member, async move |client| {
        let client = client.with_patience(Duration::ZERO);
        let begin = Instant::now();
        match client
            .create_secret(name, b"x".to_vec(), BTreeMap::new())
            .await
        {
            Ok(_) => Ok(()),
            Err(e) => Err((e.kind, e.to_string(), begin.elapsed())),
        }
    })
}

fn is_stale(managers: &Managers, member: usize) {
    eventually_within(NOTICE_MAX, "reads are marked stale", || {
        match secrets(managers, member)? {
            (names, true) if names == ["before"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn refuses_at_once(managers: &Managers, member: usize) {
    let (kind, text, took) = match create(managers, member, "refused") {
        Err(refused) => refused,
        Ok(()) => panic!("a write outside the quorum was accepted"),
    };
    println!("refused after {} ms: {text}", took.as_millis());
    assert_eq!(kind, ErrorKind::NotTaken, "{text}");
    assert!(took < REFUSAL_MAX, "took {took:?}");
    assert!(text.contains("quorum") || text.contains("leader"), "{text}");
    // The same through the command line on that machine.
    let begin = Instant::now();
    let node = managers.node(member);
    let said = node.cli_with_input(&["secret", "create", "refused", "--from-stdin"], b"x");
    println!(
        "the command line, after {} ms: {}",
        begin.elapsed().as_millis(),
        said.stderr.trim()
    );
    assert_ne!(said.code, 0);
    let said = node.cli(&["secret", "list"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("before"), "{said:?}");
    assert!(
        said.stderr.contains("stale") || said.stderr.contains("old"),
        "{said:?}"
    );
}

#[test]
fn outside_the_quorum_reads_are_marked_and_writes_refused_at_once() {
    if !is_root() {
        return skipped(
            "outside_the_quorum_reads_are_marked_and_writes_refused_at_once",
            "needs root",
        );
    }
    let mut managers = Managers::start(3);
    create(&managers, 0, "before").unwrap_or_else(|e| panic!("{e:?}"));
    managers.wait_quorum();

    // One of three is cut off; the others go on.
    let alone = managers.follower();
    managers.cut_from_peers(alone, Cut::Both);
    is_stale(&managers, alone);
    refuses_at_once(&managers, alone);
    let other = (alone + 1) % 3;
    create(&managers, other, "meanwhile").unwrap_or_else(|e| panic!("{e:?}"));
    assert_eq!(
        secrets(&managers, alone),
        Ok((vec!["before".to_owned()], true)),
        "it cannot know"
    );
    managers.heal(alone);
    let begin = Instant::now();
    eventually_within(NOTICE_MAX, "it catches up by itself", || {
        match secrets(&managers, alone)? {
            (names, false) if names == ["before", "meanwhile"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    println!("caught up {} ms after healing", begin.elapsed().as_millis());
    create(&managers, alone, "after").unwrap_or_else(|e| panic!("{e:?}"));
    managers.wait_quorum();
    managers.reset();
}

#[test]
fn the_last_of_three_managers_still_answers_reads() {
    if !is_root() {
        return skipped(
            "the_last_of_three_managers_still_answers_reads",
            "needs root",
        );
    }
    let mut managers = Managers::start(3);
    create(&managers, 0, "before").unwrap_or_else(|e| panic!("{e:?}"));
    managers.wait_quorum();
    // The leader is the one that is left: it must notice that nobody follows.
    let left = managers.leader();
    let others: Vec<usize> = (0..3).filter(|m| *m != left).collect();
    for other in &others {
        managers.kill(*other);
    }
    is_stale(&managers, left);
    refuses_at_once(&managers, left);
    managers.restart(others[0]);
    eventually_within(NOTICE_MAX, "writes are possible again", || {
        create(&managers, left, "after").map_err(|e| format!("{e:?}"))
    });
    managers.restart(others[1]);
    managers.wait_quorum();
    managers.reset();
}
