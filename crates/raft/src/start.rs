//! Putting the engine together.

use crate::config::{IoMode, RaftConfig};
use crate::early::EarlyElections;
use crate::error::RaftError;
use crate::handle::{Engine, Inner, Running};
use crate::hashes::Hashes;
use crate::healing::Healer;
use crate::home::Home;
use crate::io::Writer;
use crate::log_store::{LogShared, LogStore};
use crate::machine::Machine;
use crate::metrics::Meter;
use crate::network::Network;
use crate::propose::MAX_PROPOSALS_WAITING;
use crate::pulse::Pulse;
use crate::reads::SuspendWatch;
use crate::snapshots::{self, Candidate, Snapshots, Thresholds};
use crate::status::Leadership;
use crate::transport::Transport;
use crate::types::{Entry, LogId};
use crate::view::View;
use crate::watch::watch_leadership;
use crate::wire::Wire;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use warren_storage::{DirGuard, Disk, Log, LogOptions, SnapshotStore, StorageError};

/// What the parts of the engine share.
struct Parts {
    home: Arc<Home>,
    snapshots: Arc<Snapshots>,
    view: Arc<View>,
    hashes: Arc<Hashes>,
    meter: Arc<Meter>,
    log_bytes: Arc<AtomicU64>,
    pulse: Arc<Pulse>,
}

/// Starts everything on what is on the disk.
pub(crate) async fn start(
    mut config: RaftConfig,
    disk: Arc<dyn Disk>,
    transport: Arc<dyn Transport>,
) -> Result<Inner, RaftError> {
    let guard = DirGuard::acquire(&disk, &config.dir, "raft log")?;
    let mut home = Home::open(&disk, &config.dir)?;
    home.claim(config.owner())?;
    let home = Arc::new(home);
    config.profile = home.record().profile.unwrap_or(config.profile);
    let settings = config
        .openraft()
        .validate()
        .map_err(|error| RaftError::Config(error.to_string()))?;
    let (log, snapshots, found) = open_or_heal(&home, &config)?;
    let known = found.as_ref().and_then(|found| found.state.settings());
    if let Some(known) = known.filter(|_| home.is_unclaimed()) {
        home.complete(known.id)?;
    }
    let parts = Parts::new(&config, home, snapshots, &log, found.as_ref());
    // What is promised from now on has to be known after the next start, whatever this node runs then.
    parts
        .home
        .change(|record| record.promised = record.promised.max(config.profile))?;
    #[cfg(any(test, feature = "testing"))]
    let told = found.clone();
    let machine = parts.machine(&config, found);
    let shared = parts.log_shared(&config, log)?;
    #[cfg(any(test, feature = "testing"))]
    shared.tell_start(parts.home.record().healing, told.as_ref())?;
    let (log, writer, mut tasks) = start_writer(shared, &parts.snapshots, config.io)?;
    let network = Network {
        id: config.id,
        transport: Arc::clone(&transport),
        snapshots: Arc::clone(&parts.snapshots),
        pulse: Arc::clone(&parts.pulse),
        hashes: Arc::clone(&parts.hashes),
    };
    let engine = Engine::new(config.id, Arc::new(settings), network, log.clone(), machine)
        .await
        .map_err(|error| RaftError::Stopped {
            reason: parts.view.failure().unwrap_or_else(|| error.to_string()),
        })?;
    let (stop, stopped) = watch::channel(false);
    let leadership = parts.spawn(&config, &engine, transport, &stopped, &mut tasks);
    Ok(Inner {
        id: config.id,
        figures: engine.metrics(),
        engine,
        view: parts.view,
        log,
        snapshots: parts.snapshots,
        disk,
        home: parts.home,
        pulse: parts.pulse,
        hashes: parts.hashes,
        meter: parts.meter,
        leadership,
        permits: Semaphore::new(MAX_PROPOSALS_WAITING),
        batches: Arc::default(),
        propose_timeout: config.propose_timeout,
        lease_reads: config.lease_reads,
        io: config.io,
        suspend: SuspendWatch::default(),
        partial: Mutex::default(),
        #[cfg(any(test, feature = "testing"))]
        bugs: config.bugs,
        stop,
        running: Mutex::new(Some(Running {
            guard,
            tasks,
            writer,
        })),
    })
}

impl Parts {
    fn new(
        config: &RaftConfig,
        home: Arc<Home>,
        snapshots: Arc<Snapshots>,
        log: &Log,
        found: Option<&Candidate>,
    ) -> Self {
        let (state, applied) = found.map_or_else(Default::default, |found| {
            (found.state.clone(), found.meta.last_log_id)
        });
        let view = Arc::new(View::new(state, applied));
        let hashes = Arc::<Hashes>::default();
        if let Some(applied) = applied {
            // Nothing is awaited yet, so nothing can differ.
            let _ = hashes.reset(applied.index, view.state().hash());
        }
        // One that never voted nor heard a leader has promised nothing.
        // A log that was set aside says nothing of what was promised.
        let promised = !log.meta().is_empty() || log.next_index() > 0 || home.record().healing;
        let hold = if promised {
            config.profile.max(home.record().promised).lease()
        } else {
            Duration::ZERO
        };
        let pulse = Arc::new(Pulse::new(config.profile, hold));
        let healing = home.record().healing;
        #[cfg(any(test, feature = "testing"))]
        let healing = healing && !config.bugs.healing_votes;
        pulse.set_healing(healing);
        Self {
            home,
            snapshots,
            view,
            hashes,
            meter: Arc::default(),
            log_bytes: Arc::default(),
            pulse,
        }
    }

    #[cfg_attr(
        not(any(test, feature = "testing")),
        allow(unused_variables, reason = "the settings matter to tests only")
    )]
    fn machine(&self, config: &RaftConfig, found: Option<Candidate>) -> Machine {
        Machine::new(
            Arc::clone(&self.view),
            Arc::clone(&self.snapshots),
            found,
            Arc::clone(&self.hashes),
            Arc::clone(&self.meter),
            Arc::clone(&self.log_bytes),
            #[cfg(any(test, feature = "testing"))]
            config.lab(),
        )
    }

    #[cfg_attr(
        not(any(test, feature = "testing")),
        allow(unused_variables, reason = "the settings matter to tests only")
    )]
    fn log_shared(&self, config: &RaftConfig, log: Log) -> Result<LogShared, RaftError> {
        LogShared::new(
            log,
            Arc::clone(&self.view),
            Arc::clone(&self.log_bytes),
            Arc::clone(&self.meter),
            #[cfg(any(test, feature = "testing"))]
            config.lab(),
        )
    }

    /// Starts what runs beside openraft.
    fn spawn(
        &self,
        config: &RaftConfig,
        engine: &Engine,
        transport: Arc<dyn Transport>,
        stopped: &watch::Receiver<bool>,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> watch::Receiver<Leadership> {
        let (leader_tx, leadership) = watch::channel(Leadership::default());
        tasks.push(crate::runtime::spawn(watch_leadership(
            config.id,
            engine.clone(),
            Arc::clone(&self.view),
            Arc::clone(&self.pulse),
            Arc::clone(&self.home),
            leader_tx,
            stopped.clone(),
        )));
        let early = EarlyElections {
            id: config.id,
            engine: engine.clone(),
            transport: Arc::clone(&transport),
            pulse: Arc::clone(&self.pulse),
            leadership: leadership.clone(),
        };
        tasks.push(crate::runtime::spawn(early.run(stopped.clone())));
        if self.pulse.is_healing() {
            let healer = Healer {
                id: config.id,
                transport,
                pulse: Arc::clone(&self.pulse),
                view: Arc::clone(&self.view),
                home: Arc::clone(&self.home),
            };
            tasks.push(crate::runtime::spawn(healer.run(stopped.clone())));
        }
        tasks.push(crate::runtime::spawn(allow_elections(
            engine.clone(),
            Arc::clone(&self.pulse),
            Arc::clone(&self.home),
            stopped.clone(),
        )));
        tasks.push(crate::runtime::spawn(send_heartbeats(
            engine.clone(),
            Arc::clone(&self.pulse),
            stopped.clone(),
        )));
        tasks.push(crate::runtime::spawn(snapshots::run(
            Arc::clone(&self.snapshots),
            engine.clone(),
            Arc::clone(&self.meter),
            stopped.clone(),
        )));
        leadership
    }
}

/// Opens the log of the generation in use.
pub(crate) fn open_log(home: &Home, config: &RaftConfig) -> Result<Log, RaftError> {
    let options = LogOptions::new(config.segment_bytes);
    #[cfg(any(test, feature = "testing"))]
    let options = options.with_bugs(config.bugs.storage);
    let dir = home.log_dir(home.record().generation);
    let (log, recovery) = Log::open(Arc::clone(&home.disk), &dir, options)?;
    if let Some(torn) = &recovery.torn {
        tracing::info!(
            ?torn,
            "removed a write that a crash had cut off; it was never acknowledged"
        );
    }
    Ok(log)
}

type Opened = (Log, Arc<Snapshots>, Option<Candidate>);

fn open(home: &Home, config: &RaftConfig) -> Result<Opened, RaftError> {
    let mut log = open_log(home, config)?;
    let dir = home.snapshot_dir(home.record().generation);
    let store = SnapshotStore::open(Arc::clone(&home.disk), &dir)?;
    let snapshots = Arc::new(Snapshots::new(
        store,
        Thresholds {
            entries: config.snapshot_entries,
            bytes: config.snapshot_bytes,
            log_bytes_max: config.log_bytes_max,
        },
        config.io,
    ));
    let start = snapshots.load(log.first_index())?;
    if let Some(last) = start.as_ref().and_then(|start| start.meta.last_log_id) {
        cut_what_contradicts(&mut log, last)?;
    }
    Ok((log, snapshots, start))
}

/// A snapshot of the leader is durable before the entries that contradict it are cut off the log, so a crash may
/// come between. What contradicts a snapshot was never committed.
fn cut_what_contradicts(log: &mut Log, last: LogId) -> Result<(), RaftError> {
    if last.index < log.first_index() || last.index >= log.next_index() {
        return Ok(());
    }
    let records = log.read(last.index..last.index + 1, usize::MAX)?;
    let found = records
        .into_iter()
        .next()
        .map(|record| Entry::decode(record.into()));
    match found {
        Some(Ok(entry)) if entry.log_id != last => {
            tracing::info!(
                index = last.index,
                "the log contradicts the newest snapshot from there on and is cut"
            );
            Ok(log.cut_from(last.index)?)
        }
        // What cannot be read is reported where the log is read as a whole.
        _ => Ok(()),
    }
}

/// Opens what is there. Damaged files are set aside when there are other managers to fetch everything from; a manager that
/// is alone is refused, with the remedy.
fn open_or_heal(home: &Home, config: &RaftConfig) -> Result<Opened, RaftError> {
    home.sweep()?;
    let error = match open(home, config) {
        Err(RaftError::Storage(error)) => error,
        other => return other,
    };
    let missing = matches!(error, StorageError::NotFound { .. });
    if !(error.is_corrupt() || missing) || !home.set_aside(config.id)? {
        return Err(error.into());
    }
    tracing::error!(
        %error,
        "the damaged files are set aside; this manager fetches everything from the others and does not vote until it has"
    );
    open(home, config)
}

type Started = (
    LogStore,
    Option<std::thread::JoinHandle<()>>,
    Vec<JoinHandle<()>>,
);

fn start_writer(
    shared: LogShared,
    snapshots: &Arc<Snapshots>,
    mode: IoMode,
) -> Result<Started, RaftError> {
    let shared = Arc::new(shared);
    // Bounded by the proposals that openraft has under way.
    let (ops, requests) = tokio::sync::mpsc::unbounded_channel();
    let log = LogStore::new(Arc::clone(&shared), Arc::clone(snapshots), ops);
    let writer = Writer::new(shared, requests);
    match mode {
        IoMode::Task => Ok((log, None, vec![crate::runtime::spawn(writer.run_task())])),
        IoMode::Thread => {
            let spawned = std::thread::Builder::new()
                .name("warren-log".to_owned())
                .spawn(move || writer.run_thread());
            let thread = spawned.map_err(|error| RaftError::Stopped {
                reason: format!("no thread for the log: {error}"),
            })?;
            Ok((log, Some(thread), Vec::new()))
        }
    }
}

/// Lets this node stand for election once the lease is over that it may have granted before it was restarted,
/// and once it has healed.
async fn allow_elections(
    engine: Engine,
    pulse: Arc<Pulse>,
    home: Arc<Home>,
    mut stop: watch::Receiver<bool>,
) {
    let mut healing = pulse.healing();
    let wait = async {
        tokio::time::sleep_until(pulse.hold_until).await;
        // What was promised before this start is over.
        if let Err(error) = home.change(|record| record.promised = pulse.profile) {
            tracing::warn!(%error, "the next start will wait longer than it needs to before it votes");
        }
        healing.wait_for(|healing| !healing).await.is_ok()
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        true = wait => engine.runtime_config().elect(true),
        else => {}
    }
}

/// Sends heartbeats beyond the regular ones: when asked to, and as often as followers with shorter times than this
/// leader's need them.
async fn send_heartbeats(engine: Engine, pulse: Arc<Pulse>, mut stop: watch::Receiver<bool>) {
    let metrics = engine.metrics();
    loop {
        let leads = metrics.borrow_watched().state == ServerState::Leader;
        let pace = pulse.pace().filter(|_| leads);
        let paced = async {
            match pace {
                Some(pace) => tokio::time::sleep(pace).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = pulse.beat.notified() => {}
            () = paced => {}
        }
        if engine.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}
