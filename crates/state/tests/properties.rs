//! Properties of `apply`, snapshots, codec and feed over random commands. proptest prints the seed and
//! the smallest failing case, and keeps it beside this file.

mod common;

use common::{Step, World, prelude, steps};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_state::{Change, ClusterState, Command, DecodeError, Feed, ObjectKind};
use warren_types::{Id128, Revision};

/// Commands of one random run.
const STEPS_MAX: usize = 150;

/// What a subscriber knows: each object as its last change left it.
#[derive(Default)]
struct Mirror {
    revision: Revision,
    objects: BTreeMap<(ObjectKind, Id128), Change>,
}

impl Mirror {
    /// Takes what is new; each change must begin where the last one of that object ended.
    fn follow(&mut self, feed: &Feed) {
        for set in feed.since(self.revision).expect("nothing was dropped") {
            assert_eq!(set.revision, self.revision.next(), "gap or overlap");
            self.revision = set.revision;
            for change in &set.changes {
                let key = (change.kind(), change.id());
                let known = self.objects.remove(&key);
                assert_eq!(known.is_none(), change.is_created(), "{change:?}");
                if let Some(known) = &known {
                    assert!(
                        ends_where_begins(known, change),
                        "{known:?} then {change:?}"
                    );
                }
                if !change.is_removed() {
                    self.objects.insert(key, change.clone());
                }
            }
        }
    }
}

fn ends_where_begins(first: &Change, second: &Change) -> bool {
    macro_rules! compare {
        ($($kind:ident),+) => {
            match (first, second) {
                $((Change::$kind(a), Change::$kind(b)) => a.after == b.before,)+
                _ => false,
            }
        };
    }
    compare!(
        Node,
        Service,
        Container,
        Secret,
        Config,
        Volume,
        Network,
        Ingress,
        Certificate,
        Token,
        Settings
    )
}

fn count(state: &ClusterState) -> usize {
    state.nodes().count()
        + state.services().count()
        + state.containers().count()
        + state.secrets().count()
        + state.configs().count()
        + state.volumes().count()
        + state.networks().count()
        + state.ingresses().count()
        + state.certificates().count()
        + state.tokens().count()
        + state.settings().iter().count()
}

/// Runs the steps and checks everything after each; gives the accepted and rejected operations.
fn run(steps: &[Step], restore_at: usize, seen: &mut BTreeMap<(&'static str, bool), u32>) {
    let mut world = World::default();
    let (mut state, mut twin) = (ClusterState::new(), ClusterState::new());
    let mut restored: Option<ClusterState> = None;
    let mut feed = Feed::new(Revision(0));
    let mut mirror = Mirror::default();
    for (at, step) in steps.iter().enumerate() {
        let command = match at {
            // Some runs begin with nothing.
            0 if step.actor >= 32 => prelude(),
            _ => world.command(&state, step),
        };
        let decoded = Command::decode(&command.encode()).expect("what was written can be read");
        assert_eq!(decoded, command);
        let before = state.clone();
        let result = state.apply(&command);
        // R7: the same command on an equal state gives equal results and states.
        assert_eq!(result, twin.apply(&decoded));
        assert_eq!(state.hash(), twin.hash());
        for op in &command.ops {
            *seen.entry((op.name(), result.is_ok())).or_default() += 1;
        }
        match result {
            Ok(applied) if !applied.replayed => {
                assert_eq!(applied.results.len(), command.ops.len());
                assert_eq!(state.revision(), before.revision().next());
                feed.publish(applied.changes);
            }
            // A replay answers again and changes nothing.
            Ok(applied) => {
                assert!(applied.changes.changes.is_empty());
                assert_eq!(state, before);
            }
            Err(rejection) => {
                assert!(!rejection.to_string().is_empty());
                assert_eq!(state, before, "a rejected command changed the state");
            }
        }
        let broken = state.invariants();
        assert!(broken.is_empty(), "after {command:?}: {broken:?}");
        if at % 3 == 0 {
            mirror.follow(&feed);
        }
        if let Some(restored) = &mut restored {
            let _ = restored.apply(&command);
        }
        if at == restore_at {
            let bytes = state.encode_snapshot();
            restored = Some(ClusterState::decode_snapshot(&bytes).expect("own snapshot"));
        }
    }
    assert_eq!(state, twin);
    // R8: snapshot at k and the rest is the whole.
    if let Some(restored) = restored {
        assert_eq!(restored.hash(), state.hash());
        assert_eq!(restored, state);
        assert_eq!(restored.encode_snapshot(), state.encode_snapshot());
    }
    mirror.follow(&feed);
    assert_eq!(mirror.objects.len(), count(&state));
    assert_eq!(mirror.revision, state.revision());
}

/// Random runs of each property here; `PROPTEST_CASES` asks for more (the nightly run: 200,000).
fn config() -> Config {
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 128;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_commands_keep_every_promise(
        steps in steps(STEPS_MAX),
        restore_at in 0..STEPS_MAX,
    ) {
        run(&steps, restore_at, &mut BTreeMap::new());
    }

    /// R24: a restored or recovered cluster starts sound and goes on: commands apply, and those who
    /// followed the changes from before are told to start again.
    #[test]
    fn a_forked_state_is_sound_and_goes_on(
        steps in steps(60),
        fork_at in 0..60_usize,
        keep in prop::option::of(0..4_u64),
    ) {
        let (mut world, mut state) = (World::default(), ClusterState::new());
        let _ = state.apply(&prelude());
        let mut feed = Feed::new(state.revision());
        for (at, step) in steps.iter().enumerate() {
            if at == fork_at {
                let before = state.revision();
                let now = warren_types::Timestamp(world.clock);
                state = state.forked(now, keep.map(common::node_id));
                prop_assert_eq!(state.invariants(), Vec::new());
                prop_assert!(state.revision().0 >= before.0 + warren_state::FORK_REVISIONS);
                let read = ClusterState::decode_snapshot(&state.encode_snapshot());
                prop_assert_eq!(read.as_ref(), Ok(&state));
            }
            let (command, before) = (world.command(&state, step), state.revision());
            if let Ok(applied) = state.apply(&command)
                && !applied.replayed
            {
                prop_assert_eq!(applied.revision, before.next());
                feed.publish(applied.changes);
                prop_assert_eq!(feed.latest(), applied.revision);
                if at == fork_at {
                    let old = Revision(before.0 - warren_state::FORK_REVISIONS);
                    prop_assert!(feed.since(old).is_err(), "an old subscriber starts again");
                }
            }
            prop_assert_eq!(state.invariants(), Vec::new());
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Command::decode(&bytes);
        let _ = ClusterState::decode_snapshot(&bytes);
    }

    /// A flipped or cut snapshot is found out; one that still reads is what it was.
    #[test]
    fn damaged_snapshots_are_found_out(
        steps in steps(12),
        position in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<bool>(),
    ) {
        let (mut world, mut state) = (World::default(), ClusterState::new());
        for step in &steps {
            let _ = state.apply(&world.command(&state, step));
        }
        let mut bytes = state.encode_snapshot();
        let at = position.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        match ClusterState::decode_snapshot(&bytes) {
            Ok(read) => prop_assert_eq!(read, state),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// A command with a flipped bit reads as another command or as an error, and never ends the program.
    #[test]
    fn damaged_commands_never_panic(
        steps in steps(4),
        position in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (mut world, mut state) = (World::default(), ClusterState::new());
        for step in &steps {
            let command = world.command(&state, step);
            let mut bytes = command.encode();
            let at = position.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Command::decode(&bytes) {
                let _ = state.apply(&other);
                prop_assert!(state.invariants().is_empty());
            }
            let _ = state.apply(&command);
        }
    }
}

/// The generator is worth something only when it reaches every operation, both ways.
#[test]
fn the_generator_reaches_every_operation() {
    const RUNS: u32 = 100;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = BTreeMap::new();
    for _ in 0..RUNS {
        let tree = steps(STEPS_MAX).new_tree(&mut runner).expect("a value");
        run(
            &proptest::strategy::ValueTree::current(&tree),
            20,
            &mut seen,
        );
    }
    eprintln!("operations by (name, accepted): {seen:?}");
    let names: BTreeSet<&str> = seen.keys().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), 44, "{names:?}");
    for name in names {
        assert!(seen.contains_key(&(name, true)), "{name} is never accepted");
        assert!(
            seen.contains_key(&(name, false)),
            "{name} is never rejected"
        );
    }
}

#[test]
fn a_feed_that_dropped_sets_says_so() {
    let mut state = ClusterState::new();
    let mut feed = Feed::with_limits(Revision(0), 3, 100);
    let mut publish = |feed: &mut Feed, n: u16| {
        let mut volume = common::volume(0);
        volume.id = warren_types::VolumeId::from_u128(u128::from(n));
        volume.name = format!("v{n}");
        let op = warren_state::Op::VolumeCreate(Box::new(volume));
        let command = Command::new(common::owner(&op), warren_types::Timestamp(1), vec![op]);
        let applied = state.apply(&command).expect("a new volume");
        feed.publish(Arc::clone(&applied.changes));
        state.revision()
    };
    for n in 0..4 {
        publish(&mut feed, n);
    }
    assert!(
        feed.since(Revision(0)).is_err(),
        "its first set was dropped"
    );
    assert_eq!(feed.since(Revision(1)).expect("kept").len(), 3);
    assert!(feed.since(Revision(4)).expect("kept").is_empty());
    assert!(feed.since(Revision(5)).is_err(), "that is the future");
    feed.reset(Revision(9));
    assert!(feed.since(Revision(4)).is_err());
    assert!(feed.since(Revision(9)).expect("start").is_empty());
}

/// R23: a snapshot as the release before the quorum wrote it (format 1).
#[test]
fn a_snapshot_of_format_1_still_reads() {
    let bytes = include_bytes!("data/snapshot-format-1.bin");
    assert_eq!(bytes[8], 1);
    let state = ClusterState::decode_snapshot(bytes).expect("an older format");
    assert_eq!(state.invariants(), Vec::new());
    assert_eq!(state.revision(), Revision(10));
    let names: Vec<&str> = state.nodes().map(|n| n.name.as_str()).collect();
    assert_eq!(names, ["node-0", "node-1", "node-3"]);
    assert!(state.nodes().all(|n| n.certificate_root.is_empty()));
    let settings = state.settings().expect("in it");
    assert!(!settings.auto_lock && settings.ca.rotation_started.is_none());
    assert_eq!((state.container_count(), count(&state)), (1, 13));
    assert_eq!(state.removed_nodes().count(), 0);
    let again = ClusterState::decode_snapshot(&state.encode_snapshot());
    assert_eq!(again.as_ref(), Ok(&state));
}

#[test]
fn newer_formats_are_named() {
    let mut command = Command::new(
        warren_state::Actor::System,
        warren_types::Timestamp(1),
        Vec::new(),
    );
    command.version = 99;
    let error = Command::decode(&command.encode()).expect_err("newer");
    assert!(matches!(error, DecodeError::NewerVersion { found: 99, .. }));
    command.version = 1;
    let mut bytes = command.encode();
    // Field 6 (ops) with an operation of number 900, length 0.
    bytes.extend([0x32, 0x03, 0xa2, 0x38, 0x00]);
    let error = Command::decode(&bytes).expect_err("unknown operation");
    assert_eq!(error, DecodeError::UnknownOp { position: 0 });
    let mut bytes = command.encode();
    // Field 50, a varint.
    bytes.extend([0x90, 0x03, 0x01]);
    let error = Command::decode(&bytes).expect_err("unknown field");
    assert_eq!(error, DecodeError::UnknownContent);
    let mut bytes = ClusterState::new().encode_snapshot();
    bytes[8] = 3;
    let error = ClusterState::decode_snapshot(&bytes).expect_err("newer");
    assert!(matches!(error, DecodeError::NewerVersion { found: 3, .. }));
}
