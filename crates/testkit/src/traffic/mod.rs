//! Clients that write and read while managers fail, and the record of what they saw.
//!
//! Half of the clients talk to one manager each, the other half to whichever answers. The values are registers: a label of
//! services without containers, and the size of secrets, both with versions. What was asked and answered is kept as
//! `warren_sim::history` wants it, and checked the same way as the simulator's runs.

mod client;
mod record;

pub use record::{Record, Verdict};

use crate::host::run_in;
use crate::lab::Lab;
use crate::managers::{Address, Lives, Managers};
use crate::{Rng, eventually_within};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warren_client::TlsIdentity;

/// Requests a second below which a run means nothing.
const FLOOR_PER_SECOND: u64 = 200;
/// Time over which the floor is counted.
const FLOOR_WINDOW: Duration = Duration::from_secs(2);
/// How long the clients may take to get up to speed.
const SPEED_LIMIT: Duration = Duration::from_secs(60);
/// How long the reads at the end may take.
const LAST_READS_LIMIT: Duration = Duration::from_secs(60);

/// How much is asked.
#[derive(Debug, Clone)]
pub struct Load {
    /// Clients; half of them bound to one manager.
    pub clients: usize,
    /// Writes a second, all clients together.
    pub writes_per_second: u32,
    /// Reads a second, all clients together.
    pub reads_per_second: u32,
    /// Services, and as many secrets, that all clients share.
    pub names: usize,
    /// Seed of what is asked.
    pub seed: u64,
}

impl Load {
    /// 200 writes and 100 reads a second of 16 clients on 16 services and 16 secrets.
    #[must_use]
    pub const fn standard(seed: u64) -> Self {
        Self {
            clients: 16,
            writes_per_second: 200,
            reads_per_second: 100,
            names: 16,
            seed,
        }
    }
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    load: Load,
    /// Namespace of the clients.
    clients: String,
    begin: Instant,
    stop: AtomicBool,
    identity: TlsIdentity,
    lives: Lives,
    /// Managers, and the number of their last change.
    managers: Mutex<Vec<Address>>,
    generation: AtomicU32,
    /// The next size of each secret: no two writes of one secret have the same.
    sizes: Vec<AtomicU32>,
    record: Mutex<Record>,
    last_stamp: AtomicU64,
}

impl Shared {
    /// The present moment: nanoseconds since the beginning, never the same twice.
    fn stamp(&self) -> u64 {
        let now = self.begin.elapsed().as_nanos() as u64;
        let before = self
            .last_stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                Some(now.max(last + 1))
            })
            .unwrap_or_else(|last| last);
        now.max(before + 1)
    }

    fn record<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn managers(&self) -> Vec<Address> {
        let list = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        list.clone()
    }
}

/// A moment of the traffic's clock, in nanoseconds since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(pub u64);

/// Clients at work.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Starts the clients and waits until they are up to speed.
    ///
    /// # Panics
    /// When they do not reach the floor of 200 requests a second: such a run would mean nothing.
    #[must_use]
    pub fn start(managers: &Managers, load: Load) -> Self {
        let traffic = Self::start_slow(managers, load);
        traffic.wait_speed();
        traffic
    }

    /// Starts the clients, however fast they get.
    #[must_use]
    pub fn start_slow(managers: &Managers, load: Load) -> Self {
        let names = load.names;
        let shared = Arc::new(Shared {
            load,
            clients: managers.lab().clients(),
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            identity: managers.identity(),
            lives: managers.lives(),
            managers: Mutex::new(managers.addresses()),
            generation: AtomicU32::new(0),
            sizes: (0..names).map(|_| AtomicU32::new(1)).collect(),
            record: Mutex::default(),
            last_stamp: AtomicU64::new(0),
        });
        let thread = Some(run(managers.lab(), &shared));
        Self { shared, thread }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Stamp {
        Stamp(self.shared.stamp())
    }

    /// Tells the clients which managers there are.
    pub fn set_managers(&self, managers: &Managers) {
        *self
            .shared
            .managers
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = managers.addresses();
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until the clients make as many requests a second as a run has to have.
    ///
    /// # Panics
    /// When they do not.
    pub fn wait_speed(&self) {
        let begin = self.now();
        eventually_within(SPEED_LIMIT, "200 requests a second", || {
            let now = self.now();
            let window = FLOOR_WINDOW.as_nanos() as u64;
            if now.0 - begin.0 < window {
                return Err("no time has passed yet".to_owned());
            }
            let (count, failed) = self.shared.record(|r| r.answered_since(now.0 - window));
            let rate = count * 1_000_000_000 / window;
            if rate >= FLOOR_PER_SECOND {
                return Ok(());
            }
            Err(format!(
                "{rate} a second; last failure: {}",
                failed.unwrap_or_default()
            ))
        });
    }

    /// Waits until so many writes were accepted after a moment.
    ///
    /// # Panics
    /// When that does not happen within the limit.
    pub fn wait_writes(&self, since: Stamp, count: usize, limit: Duration) {
        let what = format!("{count} writes are accepted");
        eventually_within(limit, &what, || {
            let (found, failed) = self.shared.record(|r| r.accepted_since(since.0));
            if found >= count {
                return Ok(());
            }
            Err(format!(
                "{found}; last failure: {}",
                failed.unwrap_or_default()
            ))
        });
    }

    /// Time from a moment to the answer of the first write that was asked for after it and accepted.
    ///
    /// # Panics
    /// When none is within the limit.
    #[must_use]
    pub fn outage(&self, since: Stamp, limit: Duration) -> Duration {
        eventually_within(limit, "a write is accepted again", || {
            let (found, failed) = self
                .shared
                .record(|r| (r.first_accepted(since.0), r.last_failure()));
            found
                .map(|at| Duration::from_nanos(at - since.0))
                .ok_or_else(|| failed.unwrap_or_default())
        })
    }

    /// Longest time without any accepted write since a moment, up to now.
    #[must_use]
    pub fn longest_gap(&self, since: Stamp) -> Duration {
        let now = self.now();
        self.shared.record(|r| r.longest_gap(since.0, now.0))
    }

    /// Ends the clients, reads everything once more, and checks the whole record.
    ///
    /// # Panics
    /// When the record cannot be that of a correct store; it is kept in a file that the message names.
    #[must_use]
    pub fn finish(mut self, test: &str) -> Verdict {
        self.halt();
        let shared = self.shared.clone();
        let reader = shared.clone();
        run_in(&shared.clients, move || {
            client::read_everything(&reader, LAST_READS_LIMIT);
        });
        shared.record(|r| r.check(test, shared.load.seed))
    }

    fn halt(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if let (Err(panic), false) = (ended, std::thread::panicking()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.halt();
    }
}

/// One thread on the clients' machine that runs all clients.
fn run(lab: &Lab, shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = shared.clone();
    lab.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("runtime: {e}"));
        runtime.block_on(async {
            let mut rng = Rng::new(shared.load.seed);
            let clients: Vec<_> = (0..shared.load.clients)
                .map(|number| {
                    let work = client::run(shared.clone(), number, Rng::new(rng.next_u64()));
                    tokio::spawn(work)
                })
                .collect();
            for client in clients {
                client.await.unwrap_or_else(|e| panic!("client: {e}"));
            }
        });
    })
}
