//! Right histories pass; every kind of wrong one is found.

use super::*;

fn op(client: u32, invoked: u64, completed: u64, action: Action, outcome: Outcome) -> HistoryOp {
    HistoryOp {
        client: format!("c{client}"),
        session: String::new(),
        invoked,
        completed: Some(completed),
        action,
        outcome,
    }
}

fn create(value: &str) -> Action {
    Action::Create {
        name: "a".to_owned(),
        value: value.to_owned(),
    }
}

fn update(value: &str, expect: Option<u64>) -> Action {
    Action::Update {
        name: "a".to_owned(),
        value: value.to_owned(),
        expect,
    }
}

fn delete() -> Action {
    Action::Delete {
        name: "a".to_owned(),
        expect: None,
    }
}

fn get(read: ReadKind) -> Action {
    Action::Get {
        name: "a".to_owned(),
        read,
    }
}

fn written(version: u64) -> Outcome {
    Outcome::Written { version }
}

fn found(version: u64, value: &str) -> Outcome {
    Outcome::Found {
        version,
        value: value.to_owned(),
    }
}

fn unknown() -> Outcome {
    Outcome::Unknown {
        reason: "no answer".to_owned(),
    }
}

/// A write that nobody was told the end of.
fn lost_write(action: Action) -> HistoryOp {
    HistoryOp {
        completed: None,
        ..op(1, 2, 0, action, unknown())
    }
}

/// "x" is made, as version 3.
fn made() -> HistoryOp {
    op(1, 0, 1, create("x"), written(3))
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed {
        reason: reason.to_owned(),
    }
}

fn item(name: &str, version: u64, value: &str) -> Item {
    Item {
        name: name.to_owned(),
        version,
        value: value.to_owned(),
    }
}

fn event(revision: u64, name: &str, value: Option<&str>) -> Event {
    Event {
        revision,
        name: name.to_owned(),
        value: value.map(str::to_owned),
    }
}

const EXACT: ReadKind = ReadKind::Linearizable;
const STALE: ReadKind = ReadKind::Stale;

fn create_of(name: &str, value: &str, at: u64, version: u64) -> HistoryOp {
    let action = Action::Create {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    op(1, at, at + 1, action, written(version))
}

#[track_caller]
fn wrong(history: &[HistoryOp], what: &str) {
    let violation = check(history).expect_err("the history is wrong");
    let text = violation.to_string();
    assert!(text.contains(what), "{text}");
}

#[test]
fn a_simple_history_is_right() {
    let history = [
        made(),
        op(2, 2, 5, update("y", Some(3)), written(7)),
        op(1, 3, 4, get(EXACT), found(3, "x")),
        op(1, 6, 7, get(EXACT), found(7, "y")),
        op(1, 6, 7, get(STALE), found(3, "x")),
        op(1, 8, 9, delete(), Outcome::Deleted { revision: None }),
        op(1, 10, 11, get(EXACT), Outcome::Absent),
        op(1, 12, 13, create("z"), written(9)),
        op(1, 12, 13, create("w"), failed("exists")),
    ];
    let summary = check(&history).unwrap();
    assert_eq!(
        (summary.written, summary.failed, summary.objects),
        (4, 1, 1)
    );
}

#[test]
fn a_stale_read_that_claims_to_be_exact_is_found() {
    let history = [
        made(),
        op(1, 2, 3, update("y", None), written(4)),
        op(2, 4, 5, get(EXACT), found(3, "x")),
    ];
    wrong(&history, "not linearizable");
}

#[test]
fn a_lost_write_is_found() {
    let history = [made(), op(2, 4, 5, get(EXACT), Outcome::Absent)];
    wrong(&history, "not linearizable");
}

#[test]
fn versions_and_real_time_must_agree() {
    let history = [
        op(1, 0, 1, create("x"), written(5)),
        op(1, 2, 3, update("y", None), written(4)),
    ];
    wrong(&history, "not linearizable");
    // At the same time either may have been first.
    let history = [
        made(),
        op(1, 2, 9, update("y", None), written(5)),
        op(2, 2, 9, update("z", None), written(4)),
        op(2, 10, 11, get(EXACT), found(5, "y")),
    ];
    check(&history).unwrap();
}

#[test]
fn two_writes_with_one_version_are_found() {
    let history = [
        made(),
        op(1, 2, 9, update("y", None), written(4)),
        op(2, 2, 9, update("z", None), written(4)),
    ];
    wrong(&history, "not linearizable");
}

#[test]
fn a_broken_precondition_is_found() {
    let history = [
        made(),
        op(1, 2, 3, update("y", None), written(4)),
        op(2, 4, 5, update("z", Some(3)), written(5)),
    ];
    wrong(&history, "not linearizable");
}

#[test]
fn a_name_made_twice_is_found() {
    let history = [made(), op(2, 2, 3, create("y"), written(4))];
    wrong(&history, "not linearizable");
}

#[test]
fn an_unknown_write_may_have_happened_or_not_and_late() {
    let lost = lost_write(update("y", None));
    let begin = made();
    for outcome in [found(3, "x"), found(4, "y")] {
        let history = [
            begin.clone(),
            lost.clone(),
            op(2, 4, 5, get(EXACT), outcome),
        ];
        check(&history).unwrap();
    }
    let late = [
        begin.clone(),
        lost.clone(),
        op(2, 4, 5, get(EXACT), found(3, "x")),
        op(2, 6, 7, get(EXACT), found(9, "y")),
    ];
    assert_eq!(check(&late).unwrap().unknown_seen, 1);
    // But not come and go.
    let undone = [
        begin,
        lost,
        op(2, 4, 5, get(EXACT), found(4, "y")),
        op(2, 6, 7, get(EXACT), found(3, "x")),
    ];
    wrong(&undone, "not linearizable");
}

#[test]
fn an_expected_version_that_nobody_was_told_comes_from_an_unknown_write() {
    let lost = lost_write(update("y", None));
    let begin = made();
    let next = op(2, 4, 5, update("z", Some(4)), written(5));
    check(&[begin.clone(), lost, next.clone()]).unwrap();
    wrong(&[begin, next], "not linearizable");
}

#[test]
fn an_unknown_delete_or_create_explains_what_others_found() {
    let gone = lost_write(delete());
    let history = [made(), gone, op(2, 4, 5, create("y"), written(8))];
    assert_eq!(check(&history).unwrap().unknown_seen, 1);
    let made = op(1, 0, 1, create("x"), unknown());
    let history = [made, op(2, 4, 5, update("y", None), written(8))];
    assert_eq!(check(&history).unwrap().unknown_seen, 1);
    wrong(
        &[op(2, 4, 5, update("y", None), written(8))],
        "not linearizable",
    );
}

#[test]
fn a_failed_write_that_took_effect_is_found() {
    for (read, what) in [(EXACT, "not linearizable"), (STALE, "nobody wrote")] {
        let history = [
            made(),
            op(1, 2, 3, update("y", None), failed("not the leader")),
            op(2, 4, 5, get(read), found(4, "y")),
        ];
        wrong(&history, what);
    }
}

#[test]
fn phantoms_and_the_future_are_found() {
    let history = [made(), op(2, 4, 5, get(STALE), found(3, "other"))];
    wrong(&history, "which wrote");
    let history = [
        op(1, 8, 9, create("x"), written(3)),
        op(2, 4, 5, get(STALE), found(3, "x")),
    ];
    wrong(&history, "before it was asked for");
}

#[test]
fn a_session_that_goes_back_is_found() {
    let begin = [made(), op(1, 2, 3, update("y", None), written(4))];
    let read = |at, outcome, session: &str| HistoryOp {
        session: session.to_owned(),
        ..op(2, at, at + 1, get(STALE), outcome)
    };
    let mut history = begin.to_vec();
    history.push(read(10, found(4, "y"), "s1"));
    history.push(read(12, found(3, "x"), "s2"));
    check(&history).unwrap();
    history.push(read(14, found(3, "x"), "s1"));
    wrong(&history, "went back");
    let mut history = begin.to_vec();
    history.push(op(
        1,
        4,
        5,
        delete(),
        Outcome::Deleted { revision: Some(6) },
    ));
    history.push(read(10, found(4, "y"), "s1"));
    history.push(read(12, Outcome::Absent, "s1"));
    history.push(read(14, found(4, "y"), "s1"));
    wrong(&history, "went back");
}

#[test]
fn lists_are_pictures_of_one_moment() {
    let list = |read, at, items: &[Item]| {
        let action = Action::List {
            prefix: String::new(),
            read,
        };
        let outcome = Outcome::Listed {
            items: items.to_vec(),
        };
        op(2, at, at + 1, action, outcome)
    };
    let begin = [
        create_of("a", "x", 0, 3),
        create_of("b", "y", 2, 4),
        op(1, 4, 5, update("z", None), written(6)),
    ];
    let with = |list: HistoryOp| {
        let mut history = begin.to_vec();
        history.push(list);
        history
    };
    let (old, new, other) = (item("a", 3, "x"), item("a", 6, "z"), item("b", 4, "y"));
    check(&with(list(EXACT, 8, &[new.clone(), other.clone()]))).unwrap();
    check(&with(list(STALE, 8, std::slice::from_ref(&old)))).unwrap();
    check(&with(list(STALE, 8, &[]))).unwrap();
    check(&with(list(STALE, 8, &[old.clone(), other.clone()]))).unwrap();
    wrong(
        &with(list(STALE, 8, std::slice::from_ref(&new))),
        "lacks it",
    );
    wrong(&with(list(EXACT, 8, &[old.clone(), other])), "not linear");
    let mut torn = with(list(STALE, 20, &[old, item("c", 9, "w")]));
    torn.push(create_of("c", "w", 10, 9));
    wrong(&torn, "before revision");
}

fn watched(from: u64, items: &[Item], events: &[Event], until: u64) -> HistoryOp {
    let action = Action::Watch {
        prefix: String::new(),
    };
    let outcome = Outcome::Watched {
        from,
        items: items.to_vec(),
        events: events.to_vec(),
        until,
    };
    op(3, 0, 100, action, outcome)
}

#[test]
fn watches_have_no_gap_and_no_overlap() {
    let begin = [
        create_of("a", "x", 0, 3),
        create_of("b", "y", 2, 4),
        op(1, 4, 5, update("z", None), written(6)),
        op(1, 6, 7, delete(), Outcome::Deleted { revision: Some(8) }),
    ];
    let with = |watch: HistoryOp| {
        let mut history = begin.to_vec();
        history.push(watch);
        history
    };
    let all = [
        event(4, "b", Some("y")),
        event(6, "a", Some("z")),
        event(8, "a", None),
    ];
    check(&with(watched(3, &[item("a", 3, "x")], &all, 8))).unwrap();
    check(&with(watched(0, &[], &[event(3, "a", Some("x"))], 3))).unwrap();
    let gap = [all[0].clone(), all[2].clone()];
    wrong(&with(watched(3, &[item("a", 3, "x")], &gap, 8)), "a gap");
    let twice = [
        all[0].clone(),
        all[1].clone(),
        all[1].clone(),
        all[2].clone(),
    ];
    wrong(
        &with(watched(3, &[item("a", 3, "x")], &twice, 8)),
        "overlap",
    );
    let swapped = [all[1].clone(), all[0].clone(), all[2].clone()];
    wrong(
        &with(watched(3, &[item("a", 3, "x")], &swapped, 8)),
        "overlap",
    );
    wrong(&with(watched(3, &[], &all, 8)), "begins without");
    wrong(
        &with(watched(6, &[item("a", 3, "x")], &all[2..], 8)),
        "begins with version 3",
    );
    let invented = [event(5, "b", Some("q"))];
    wrong(
        &with(watched(
            4,
            &[item("a", 3, "x"), item("b", 4, "y")],
            &invented,
            5,
        )),
        "nobody wrote",
    );
}

#[test]
fn a_record_that_makes_no_sense_is_refused() {
    wrong(
        &[op(1, 5, 4, create("x"), written(1))],
        "before the request",
    );
    wrong(&[op(1, 4, 5, create("x"), found(1, "x"))], "such an answer");
}

#[test]
fn lines_come_back_as_they_were() {
    let history = vec![
        create_of("a", "x", 0, 3),
        op(1, 4, 5, update("z", Some(3)), unknown()),
        op(1, 4, 5, get(EXACT), Outcome::Absent),
        watched(3, &[item("a", 3, "x")], &[event(4, "b", None)], 8),
    ];
    let mut text = Vec::new();
    write_lines(&history, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert_eq!(read_lines(&text).unwrap(), history);
    assert!(
        read_lines(&text[..text.len() - 9])
            .unwrap_err()
            .contains("line 4")
    );
}

/// A register as it should be, run in a random order of overlapping requests: right, and wrong after any one answer is
/// exchanged for an older one.
#[test]
fn random_right_histories_pass_and_changed_ones_are_found() {
    for seed in 0..300_u64 {
        let mut rng = warren_storage::Rng::new(seed);
        let history = random(&mut rng);
        check(&history).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let mut reads: Vec<usize> = Vec::new();
        for (at, op) in history.iter().enumerate() {
            if matches!(op.outcome, Outcome::Found { .. }) {
                reads.push(at);
            }
        }
        let Some(last) = reads.last() else { continue };
        let mut changed = history.clone();
        if let Outcome::Found { value, .. } = &mut changed[*last].outcome {
            *value = "never written".to_owned();
        }
        assert!(check(&changed).is_err(), "seed {seed}");
    }
}

fn random(rng: &mut warren_storage::Rng) -> Vec<HistoryOp> {
    let mut history = Vec::new();
    let (mut now, mut revision) = (0, 0);
    let mut state: Option<(u64, String)> = None;
    for number in 0..40 {
        // The request takes effect at `now`, somewhere between its two stamps.
        now += 1 + rng.below(6);
        let (before, after) = (rng.below(10), rng.below(10));
        let value = format!("v{number}");
        let (action, outcome) = match rng.below(5) {
            0 if state.is_none() => {
                revision += 1;
                state = Some((revision, value.clone()));
                (create(&value), written(revision))
            }
            1 if state.is_some() => {
                revision += 1;
                state = Some((revision, value.clone()));
                (update(&value, None), written(revision))
            }
            2 if state.is_some() && rng.chance(40) => {
                revision += 1;
                state = None;
                (delete(), Outcome::Deleted { revision: None })
            }
            _ => {
                let seen = state.clone();
                let outcome = seen.map_or(Outcome::Absent, |(version, value)| Outcome::Found {
                    version,
                    value,
                });
                (get(EXACT), outcome)
            }
        };
        let lost = rng.chance(10) && !matches!(action, Action::Get { .. });
        let mut op = op(
            1,
            (now * 10).saturating_sub(before),
            now * 10 + after,
            action,
            outcome,
        );
        if lost {
            op.outcome = unknown();
            op.completed = None;
        }
        history.push(op);
    }
    history
}
