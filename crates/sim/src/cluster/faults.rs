//! What goes wrong, and how often it did.

use super::net::Weather;
use std::collections::BTreeMap;
use warren_storage::{Damage, Rng};

/// Kinds of things that happened to a cluster. Each must have had an effect often, or nothing is proven by a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The power of a manager went, and writes were lost.
    PowerLoss,
    /// The power went in the middle of an operation of the disk.
    PowerLossInWrite,
    /// `kill -9`.
    Kill,
    /// A clean stop.
    Stop,
    /// A manager was started again.
    Restart,
    /// A message ran into a symmetric partition.
    Partition,
    /// A message ran into a partition of one direction.
    OneWay,
    /// A message was lost.
    Loss,
    /// A message took long.
    Delay,
    /// A message was overtaken by a later one.
    Reorder,
    /// A message came twice.
    Duplicate,
    /// A disk was slow.
    SlowDisk,
    /// A write was refused or held up by a full disk.
    FullDisk,
    /// A clock jumped.
    ClockJump,
    /// All tasks of a manager stood still for a while.
    Pause,
    /// Leadership was handed over on request.
    HandOver,
    /// A manager joined as a learner.
    LearnerAdded,
    /// A learner became a voter.
    Promoted,
    /// A voter became a learner.
    Demoted,
    /// A manager was removed.
    Removed,
    /// A change of the members was cut short by a crash or the loss of the quorum.
    MembershipCut,
    /// A snapshot was installed from the leader.
    SnapshotInstalled,
    /// A transfer of a snapshot went on where it was broken off.
    SnapshotResumed,
    /// A manager began to lead.
    LeaderChange,
    /// Entries were cut off a log because another leader's took their place.
    LogCut,
    /// A command was refused by the state.
    Rejected,
    /// A command with a known idempotency key came again.
    Replayed,
    /// A write was forwarded to the leader.
    Forwarded,
    /// A client never heard how its write ended.
    UnknownOutcome,
    /// A linearizable read was answered by a follower.
    FollowerRead,
    /// A planner's decision was refused because what it was made on had changed.
    Fenced,
    /// A watch was told to start again.
    WatchLagged,
    /// All managers were down at once.
    AllDown,
    /// Stored bytes of a manager that was down were flipped.
    Flipped,
    /// The end of a stored file was cut off.
    CutShort,
    /// A region of a stored file was zeroed.
    Zeroed,
    /// The damage made no difference to what the manager needs.
    Harmless,
    /// A manager set its damaged files aside, fetched everything anew from the others, and takes part again.
    Healed,
    /// A manager refused to start on damaged files, and named the command that helps.
    Refused,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 39] = [
        Self::PowerLoss,
        Self::PowerLossInWrite,
        Self::Kill,
        Self::Stop,
        Self::Restart,
        Self::Partition,
        Self::OneWay,
        Self::Loss,
        Self::Delay,
        Self::Reorder,
        Self::Duplicate,
        Self::SlowDisk,
        Self::FullDisk,
        Self::ClockJump,
        Self::Pause,
        Self::HandOver,
        Self::LearnerAdded,
        Self::Promoted,
        Self::Demoted,
        Self::Removed,
        Self::MembershipCut,
        Self::SnapshotInstalled,
        Self::SnapshotResumed,
        Self::LeaderChange,
        Self::LogCut,
        Self::Rejected,
        Self::Replayed,
        Self::Forwarded,
        Self::UnknownOutcome,
        Self::FollowerRead,
        Self::Fenced,
        Self::WatchLagged,
        Self::AllDown,
        Self::Flipped,
        Self::CutShort,
        Self::Zeroed,
        Self::Harmless,
        Self::Healed,
        Self::Refused,
    ];
}

/// How often things happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<Kind, u64>);

impl Tally {
    pub(crate) fn add(&mut self, kind: Kind) {
        *self.0.entry(kind).or_default() += 1;
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (kind, count) in &other.0 {
            *self.0.entry(*kind).or_default() += count;
        }
    }

    /// How often this happened.
    #[must_use]
    pub fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }
}

/// A fault, as the seed chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The power goes at some operation of the disk from now on.
    PowerInWrite {
        manager: usize,
        after: u64,
    },
    Power {
        manager: usize,
    },
    Kill {
        manager: usize,
    },
    Stop {
        manager: usize,
    },
    AllDown,
    /// Managers with a bit in the mask on one side, the others on the other.
    Split {
        mask: u64,
    },
    /// Nothing from one to the other.
    OneWay {
        from: usize,
        to: usize,
    },
    /// One manager hears nobody, but is heard; or the other way round.
    Deaf {
        manager: usize,
        mute: bool,
    },
    Weather(Weather),
    Way {
        from: usize,
        to: usize,
        weather: Weather,
    },
    SlowDisk {
        manager: usize,
        ms: u64,
    },
    FullDisk {
        manager: usize,
        room: u64,
    },
    Clock {
        manager: usize,
        minutes: i64,
    },
    Pause {
        manager: usize,
    },
    HandOver,
    Snapshot {
        manager: usize,
    },
    /// The manager goes down in some way, unless it is down already, and one of its files is damaged before it starts again.
    Damage {
        manager: usize,
        end: End,
        how: Damage,
        /// Chooses the file.
        file: usize,
    },
}

/// A way in which a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Power,
    Kill,
    Stop,
}

fn damage(rng: &mut Rng, manager: usize) -> Fault {
    Fault::Damage {
        manager,
        end: match rng.below(3) {
            0 => End::Power,
            1 => End::Kill,
            _ => End::Stop,
        },
        how: match rng.below(3) {
            0 => Damage::Flip,
            1 => Damage::Cut,
            _ => Damage::Zero,
        },
        file: usize::try_from(rng.below(1 << 16)).unwrap_or(0),
    }
}

fn weather(rng: &mut Rng) -> Weather {
    Weather {
        loss: rng.below(25),
        delay_ms: 1 + rng.below(80),
        jitter_ms: rng.below(60),
        twice: rng.below(20),
        late: rng.below(15),
    }
}

/// Chooses a fault for a cluster of so many managers.
pub(super) fn choose(rng: &mut Rng, managers: usize) -> Fault {
    let one = |rng: &mut Rng| usize::try_from(rng.below(managers as u64)).unwrap_or(0);
    let manager = one(rng);
    let to = one(rng);
    match rng.below(45) {
        0..4 => Fault::PowerInWrite {
            manager,
            after: 1 + rng.below(30),
        },
        4..7 => Fault::Power { manager },
        7..10 => Fault::Kill { manager },
        10 | 11 => Fault::Stop { manager },
        12 => Fault::AllDown,
        13..18 => Fault::Split {
            mask: rng.next_u64(),
        },
        18 | 19 => Fault::OneWay { from: manager, to },
        20..22 => Fault::Deaf {
            manager,
            mute: rng.chance(50),
        },
        22..25 => Fault::Weather(weather(rng)),
        25..27 => Fault::Way {
            from: manager,
            to,
            weather: weather(rng),
        },
        27..29 => Fault::SlowDisk {
            manager,
            ms: 5 + rng.below(60),
        },
        29..32 => Fault::FullDisk {
            manager,
            room: rng.below(10_000),
        },
        32 | 33 => Fault::Clock {
            manager,
            minutes: i64::try_from(rng.below(3_000)).unwrap_or(0) - 1_500,
        },
        34..37 => Fault::Pause { manager },
        37..39 => Fault::HandOver,
        39 | 40 => Fault::Snapshot { manager },
        _ => damage(rng, manager),
    }
}
