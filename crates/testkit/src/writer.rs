//! A client of one manager that writes all the time, and when its writes were accepted.

use crate::eventually_within;
use crate::managers::Managers;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warren_client::{Client, Target};

/// Writes under way at once.
const LANES: usize = 4;
/// Pause of a lane between writes.
const PAUSE: Duration = Duration::from_millis(20);

/// The client at work.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<Instant>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts a client that knows this manager only.
    #[must_use]
    pub fn start(managers: &Managers, through: usize) -> Self {
        let (stop, accepted) = <(Arc<AtomicBool>, Arc<Mutex<Vec<Instant>>>)>::default();
        let target = Target::Tcp {
            addresses: vec![managers.address(through)],
            identity: managers.identity(),
        };
        let (ended, noted) = (stop.clone(), accepted.clone());
        let thread = managers.lab().spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.unwrap_or_else(|e| panic!("runtime: {e}"));
            runtime.block_on(async {
                let client = Client::connect_lazy(target).unwrap_or_else(|e| panic!("client: {e}"));
                let lanes: Vec<_> = (0..LANES)
                    .map(|lane| {
                        let name = format!("w{through}-{lane}");
                        let work = write(client.clone(), name, ended.clone(), noted.clone());
                        tokio::spawn(work)
                    })
                    .collect();
                for lane in lanes {
                    lane.await.unwrap_or_else(|e| panic!("writer: {e}"));
                }
            });
        });
        Self {
            stop,
            accepted,
            thread: Some(thread),
        }
    }

    fn accepted(&self) -> Vec<Instant> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.clone()
    }

    /// Waits until so many writes were accepted after a moment.
    ///
    /// # Panics
    /// When that does not happen within the limit.
    pub fn wait(&self, since: Instant, count: usize, limit: Duration) {
        eventually_within(limit, "writes are accepted", || {
            let accepted = self.accepted();
            let found = accepted.iter().filter(|at| **at > since).count();
            (found >= count)
                .then_some(())
                .ok_or_else(|| format!("{found} of {count}"))
        });
    }

    /// Longest time without an accepted write from a moment to the last accepted one.
    #[must_use]
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let mut accepted = self.accepted();
        accepted.retain(|at| *at > since);
        accepted.sort_unstable();
        let before = std::iter::once(&since).chain(&accepted);
        let gaps = before.zip(&accepted).map(|(a, b)| *b - *a);
        gaps.max().unwrap_or_default()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What it panicked with was printed; the test goes on to its own end.
            drop(thread.join());
        }
    }
}

async fn write(
    client: Client,
    name: String,
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<Instant>>>,
) {
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let name = format!("{name}-{number}");
        let made = client.create_secret(&name, vec![1; 8], BTreeMap::new());
        if made.await.is_ok() {
            accepted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
