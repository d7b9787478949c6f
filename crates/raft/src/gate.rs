//! Processes inside one process, for simulation: all tasks of a manager can be held for a while, or ended at once.
//!
//! Tasks that are spawned inside a gate belong to it, and so do those that they spawn.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::JoinHandle;

thread_local! {
    /// The gate of the task that is being polled.
    static CURRENT: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    dead: bool,
    /// Tasks that wanted to go on while held, or that wait to be told that they are dead, in the order of their coming.
    wakers: Vec<Waker>,
}

/// Holds the tasks of one simulated process.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
}

impl Gate {
    /// A gate that is open.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No task goes on until [`Gate::release`]. Time does: what a task waits for meanwhile is over when it goes on.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// All tasks go on.
    pub fn release(&self) {
        let mut state = self.state();
        state.held = false;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends all tasks where they stand, as `kill -9` does: none is polled again.
    pub fn kill(&self) {
        self.state().dead = true;
        self.release();
    }

    /// Whether the tasks were ended.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Whether the tasks are held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state().held
    }

    /// Spawns a task inside the gate. One that is ended by [`Gate::kill`] never completes.
    pub fn spawn<F>(self: &Arc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(self.wrap(future))
    }

    /// The future, as one of the gate.
    pub fn wrap<F: Future>(self: &Arc<Self>, future: F) -> Gated<F> {
        Gated {
            gate: Arc::clone(self),
            future: Some(Box::pin(future)),
        }
    }

    /// The gate of the task that is being polled.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.with_borrow(Clone::clone)
    }
}

/// A future inside a gate.
#[derive(Debug)]
pub struct Gated<F> {
    gate: Arc<Gate>,
    /// None once it was ended.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        {
            let mut state = this.gate.state();
            if state.dead {
                drop(state);
                this.future = None;
                return Poll::Pending;
            }
            if state.held {
                state.wakers.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        let outer = CURRENT.replace(Some(Arc::clone(&this.gate)));
        let polled = future.as_mut().poll(context);
        CURRENT.set(outer);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn held_tasks_go_on_later_and_dead_ones_never() {
        let gate = Gate::new();
        let count = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&count);
        drop(gate.spawn(async move {
            // The inner one belongs to the gate too.
            drop(crate::runtime::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }));
        let pass = |ms| tokio::time::sleep(Duration::from_millis(ms));
        pass(105).await;
        assert_eq!(count.load(Ordering::SeqCst), 10);
        gate.hold();
        pass(100).await;
        assert_eq!(count.load(Ordering::SeqCst), 10);
        gate.release();
        pass(100).await;
        let now = count.load(Ordering::SeqCst);
        assert!((19..=21).contains(&now), "{now}");
        gate.kill();
        pass(100).await;
        assert_eq!(count.load(Ordering::SeqCst), now);
        assert_eq!(Arc::strong_count(&count), 1, "what dead tasks held is free");
    }
}
