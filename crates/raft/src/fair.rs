//! A watch channel that wakes those who wait in the order in which they began to.
//!
//! tokio's spreads them by random numbers, so that two runs of the same simulation differ. The simulator shall run what
//! daemons run, so this one serves both.

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};

/// The kind of watch channel, for openraft.
#[derive(Debug)]
pub(crate) struct FairWatch;

struct Versioned<T> {
    value: T,
    version: u64,
}

#[derive(Default)]
struct Waiting {
    senders: usize,
    receivers: usize,
    tickets: u64,
    queue: VecDeque<(u64, Waker)>,
}

struct Channel<T> {
    value: RwLock<Versioned<T>>,
    waiting: Mutex<Waiting>,
}

impl<T> Channel<T> {
    fn read(&self) -> RwLockReadGuard<'_, Versioned<T>> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all, the first to come first.
    fn wake(&self) {
        let queue = std::mem::take(&mut self.waiting().queue);
        queue.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut guard = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let modified = modify(&mut guard.value);
        guard.version += u64::from(modified);
        drop(guard);
        if modified {
            self.wake();
        }
        modified
    }
}

/// Makes a channel.
pub(crate) fn channel<T>(init: T) -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        value: RwLock::new(Versioned {
            value: init,
            version: 0,
        }),
        waiting: Mutex::new(Waiting {
            senders: 1,
            receivers: 1,
            ..Waiting::default()
        }),
    });
    let receiver = Receiver {
        channel: Arc::clone(&channel),
        seen: 0,
    };
    (Sender { channel }, receiver)
}

/// Changes the value.
pub(crate) struct Sender<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.channel.waiting().senders += 1;
        Self {
            channel: Arc::clone(&self.channel),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut waiting = self.channel.waiting();
        waiting.senders -= 1;
        let last = waiting.senders == 0;
        drop(waiting);
        if last {
            self.channel.wake();
        }
    }
}

/// Sees the value, and when it changes.
pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.channel.waiting().receivers += 1;
        Self {
            channel: Arc::clone(&self.channel),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.waiting().receivers -= 1;
    }
}

/// A look at the value; senders wait while it lasts.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, Versioned<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Sender<T> {
    /// A sender whose receivers come later.
    pub(crate) fn new(init: T) -> Self {
        channel(init).0
    }

    /// Changes the value; whoever waits is woken when `modify` says so.
    pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        self.channel.modify(modify)
    }

    /// Sets the value, whoever listens.
    pub(crate) fn send_replace(&self, value: T) {
        self.channel.modify(|now| {
            *now = value;
            true
        });
    }

    /// The value.
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.channel.read())
    }

    /// A receiver that has seen the value of now.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        self.channel.waiting().receivers += 1;
        let seen = self.channel.read().version;
        Receiver {
            channel: Arc::clone(&self.channel),
            seen,
        }
    }
}

impl<T> Receiver<T> {
    /// The value.
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.channel.read())
    }

    /// Returns when there is a value that this receiver has not seen; an error when there will never be one.
    pub(crate) fn changed(&mut self) -> Changed<'_, T> {
        Changed {
            receiver: self,
            ticket: None,
        }
    }

    /// Returns once the value is so; an error when it never will be.
    pub(crate) async fn wait_for(
        &mut self,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<(), RecvError> {
        loop {
            {
                let value = self.channel.read();
                self.seen = value.version;
                if condition(&value.value) {
                    return Ok(());
                }
            }
            self.changed().await?;
        }
    }
}

/// See [`Receiver::changed`].
pub(crate) struct Changed<'a, T> {
    receiver: &'a mut Receiver<T>,
    ticket: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let channel = Arc::clone(&this.receiver.channel);
        // Held while the version is looked at: a sender wakes only after it has changed the version, so it finds this
        // waker, or the new version is found here.
        let mut waiting = channel.waiting();
        let version = channel.read().version;
        if version != this.receiver.seen {
            this.receiver.seen = version;
            return Poll::Ready(Ok(()));
        }
        if waiting.senders == 0 {
            return Poll::Ready(Err(RecvError(())));
        }
        let known = this
            .ticket
            .and_then(|ticket| waiting.queue.iter_mut().find(|(known, _)| *known == ticket));
        if let Some((_, waker)) = known {
            waker.clone_from(context.waker());
        } else {
            waiting.tickets += 1;
            let ticket = waiting.tickets;
            waiting.queue.push_back((ticket, context.waker().clone()));
            this.ticket = Some(ticket);
        }
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut waiting = self.receiver.channel.waiting();
            waiting.queue.retain(|(known, _)| *known != ticket);
        }
    }
}

impl Watch for FairWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        channel(init)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<FairWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.channel.waiting().receivers == 0 {
            return Err(SendError(value));
        }
        self.channel.modify(|now| {
            *now = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        self.channel.modify(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.channel.read())
    }

    fn subscribe(&self) -> Receiver<T> {
        Self::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<FairWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Self::changed(self).await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.channel.read();
        self.seen = value.version;
        Ref(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn changes_are_seen_once_and_the_end_is_told() {
        let (sender, mut receiver) = channel(1);
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_modified(|_| false));
        assert!(receiver.changed().now_or_never().is_none());
        assert!(sender.send_if_modified(|value| {
            *value = 2;
            true
        }));
        assert_eq!(*receiver.borrow(), 2);
        assert!(receiver.changed().now_or_never().unwrap().is_ok());
        assert!(receiver.changed().now_or_never().is_none());
        assert!(
            receiver
                .wait_for(|value| *value == 2)
                .now_or_never()
                .unwrap()
                .is_ok()
        );
        let later = sender.subscribe();
        drop(sender);
        assert!(receiver.changed().now_or_never().unwrap().is_err());
        assert_eq!(*later.borrow(), 2);
    }

    /// Wakes are counted in the order in which the wakers were registered.
    #[tokio::test(flavor = "current_thread")]
    async fn waiters_wake_in_the_order_of_their_coming() {
        for _ in 0..20 {
            let (sender, receiver) = channel(0);
            let woken = Arc::new(AtomicUsize::new(0));
            let mut tasks = Vec::new();
            for number in 0..12 {
                let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
                tasks.push(tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    assert_eq!(woken.fetch_add(1, Ordering::SeqCst), number);
                }));
            }
            tokio::task::yield_now().await;
            WatchSender::send(&sender, 1).unwrap();
            for task in tasks {
                task.await.unwrap();
            }
        }
    }

    #[test]
    fn who_gives_up_waiting_leaves_nothing_behind() {
        let (sender, mut receiver) = channel(0);
        assert!(receiver.changed().now_or_never().is_none());
        assert!(sender.channel.waiting().queue.is_empty());
        drop(receiver);
        assert_eq!(WatchSender::send(&sender, 1), Err(SendError(1)));
    }
}
