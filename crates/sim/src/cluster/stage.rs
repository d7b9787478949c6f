//! What clients, watchers, managers and the director of a run share.

use super::net::Net;
use super::probe::Probe;
use crate::history::HistoryOp;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use warren_state::ClusterState;
use warren_types::NodeId;

/// First moment of every run, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Names of the registers that clients write.
pub(super) const PREFIX: &str = "reg-";

#[derive(Debug, Default)]
struct Shared {
    history: Vec<HistoryOp>,
    lines: Vec<String>,
    /// How far the clocks of managers are off, in milliseconds.
    clocks: BTreeMap<NodeId, i64>,
    /// The managers that clients know.
    managers: Vec<NodeId>,
}

/// What all share.
pub(super) struct Stage {
    pub(super) net: Arc<Net>,
    pub(super) probe: Arc<Probe>,
    begin: Instant,
    stamps: AtomicU64,
    /// Clients and watchers shall end.
    over: AtomicBool,
    /// Faults have stopped: nodes do as they are told.
    calm: AtomicBool,
    shared: Mutex<Shared>,
}

impl Stage {
    pub(super) fn new(net: Arc<Net>, probe: Arc<Probe>) -> Arc<Self> {
        Arc::new(Self {
            net,
            probe,
            begin: Instant::now(),
            stamps: AtomicU64::new(0),
            over: AtomicBool::new(false),
            calm: AtomicBool::new(false),
            shared: Mutex::default(),
        })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stamp for the history: later than all before.
    pub(super) fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Milliseconds since the run began.
    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment so many milliseconds after the begin.
    pub(super) fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    /// The time as a manager's clock shows it, in milliseconds since 1970.
    pub(super) fn clock_ms(&self, manager: NodeId) -> u64 {
        let off = self.shared().clocks.get(&manager).copied().unwrap_or(0);
        (BEGIN_MS + self.elapsed_ms()).saturating_add_signed(off)
    }

    pub(super) fn set_clock(&self, manager: NodeId, off_ms: i64) {
        self.shared().clocks.insert(manager, off_ms);
    }

    pub(super) fn set_managers(&self, managers: Vec<NodeId>) {
        self.shared().managers = managers;
    }

    pub(super) fn managers(&self) -> Vec<NodeId> {
        self.shared().managers.clone()
    }

    pub(super) fn record(&self, op: HistoryOp) {
        let mut shared = self.shared();
        shared.lines.push(op.to_string());
        shared.history.push(op);
    }

    /// A line for the trace.
    pub(super) fn note(&self, line: String) {
        self.shared().lines.push(line);
    }

    /// The lines since this was last asked.
    pub(super) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.shared().lines)
    }

    pub(super) fn history(&self) -> Vec<HistoryOp> {
        self.shared().history.clone()
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }
}

/// The registers in a state.
pub(super) fn items(state: &ClusterState) -> Vec<crate::history::Item> {
    let registers = state
        .configs()
        .filter(|config| config.name.starts_with(PREFIX));
    registers
        .map(|config| crate::history::Item {
            name: config.name.clone(),
            version: config.version.0,
            value: text(&config.data),
        })
        .collect()
}

/// The text in a register.
pub(super) fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}
