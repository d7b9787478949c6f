//! Tokio for openraft, with random numbers that a test can fix, and with patience.

use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::cell::Cell;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// openraft gives a heartbeat one heartbeat interval to be answered, and a vote the shortest election timeout: over a
/// line whose round trip takes longer, nothing would ever be acknowledged. So what it asks for is stretched by this
/// factor. The deadlines of single messages are kept by `network`; no timer of elections or leases goes through here.
pub(crate) const PATIENCE: u32 = 4;

thread_local! {
    /// State of the thread's generator; none until it is used or seeded.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Fixes the election timeouts drawn on this thread from now on.
#[cfg(any(test, feature = "testing"))]
pub fn seed_random_numbers(seed: u64) {
    STATE.set(Some(seed));
}

fn next_seed() -> u64 {
    // SplitMix64, begun from the random keys that std draws from the operating system: spread is wanted here, not secrecy.
    let state = STATE
        .get()
        .unwrap_or_else(|| RandomState::new().hash_one(0_u64))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Spawns a task; in simulations it belongs to the gate of the one that spawns it.
pub(crate) fn spawn<T>(future: T) -> tokio::task::JoinHandle<T::Output>
where
    T: Future + OptionalSend + 'static,
    T::Output: OptionalSend + 'static,
{
    #[cfg(any(test, feature = "testing"))]
    if let Some(gate) = crate::gate::Gate::current() {
        return gate.spawn(future);
    }
    tokio::spawn(future)
}

/// The runtime.
#[derive(Debug)]
pub(crate) struct Rt(TokioRuntime);

impl AsyncRuntime for Rt {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = crate::fair::FairWatch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration * PATIENCE, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SmallRng::seed_from_u64(next_seed())
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}
