//! Work that goes on to its end when nobody waits for its answer any more.

use futures::FutureExt;
use futures::future::{BoxFuture, CatchUnwind};
use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The work panicked.
pub(crate) type Panic = Box<dyn Any + Send>;

/// Runs where it is awaited, because nearly every caller stays until it has its answer, and a task for each call costs much
/// of what a call costs at all. Dropped before its end, it becomes a task and goes on there.
pub(crate) struct ToTheEnd<T: Send + 'static> {
    work: Option<CatchUnwind<AssertUnwindSafe<BoxFuture<'static, T>>>>,
}

impl<T: Send + 'static> ToTheEnd<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        // Whatever it panics in the middle of is not looked at again: only the panic is told.
        let work = AssertUnwindSafe(work.boxed()).catch_unwind();
        Self { work: Some(work) }
    }
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let result = std::task::ready!(work.poll_unpin(cx));
        self.work = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Without a runtime the whole program ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    /// Work that waits for a word and passes it on.
    fn relay() -> (
        oneshot::Sender<u8>,
        oneshot::Receiver<u8>,
        ToTheEnd<Option<u8>>,
    ) {
        let (begin, word) = oneshot::channel();
        let (pass, end) = oneshot::channel();
        let work = ToTheEnd::new(async move {
            let word = word.await.ok()?;
            pass.send(word).ok()?;
            Some(word)
        });
        (begin, end, work)
    }

    #[tokio::test]
    async fn who_waits_gets_the_answer() {
        let (begin, end, work) = relay();
        begin.send(7).unwrap();
        assert_eq!(work.await.unwrap(), Some(7));
        assert_eq!(end.await, Ok(7));
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits() {
        let (begin, end, work) = relay();
        // Begun, then given up.
        let limit = Duration::from_millis(1);
        assert!(tokio::time::timeout(limit, work).await.is_err());
        begin.send(7).unwrap();
        assert_eq!(end.await, Ok(7));
        // Never begun at all.
        let (begin, end, work) = relay();
        drop(work);
        begin.send(8).unwrap();
        assert_eq!(end.await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let work = ToTheEnd::new(async { panic!("on purpose") });
        assert!(work.await.is_err());
    }
}
