use super::*;
use proptest::prelude::*;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Waker;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

/// Keeps what comes, write by write; takes a part of it at a time, or nothing yet, as it was told to.
#[derive(Default)]
struct Recorder {
    writes: Vec<Vec<u8>>,
    /// How many bytes the next writes take; 0 = not yet. Behind the end: all.
    takes: Vec<usize>,
    flushed: usize,
    shut: bool,
}

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let takes = match self.takes.pop() {
            Some(0) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(takes) => takes.min(buf.len()),
            None => buf.len(),
        };
        self.writes.push(buf[..takes].to_vec());
        Poll::Ready(Ok(takes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flushed = self.writes.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut = true;
        Poll::Ready(Ok(()))
    }
}

/// One task speaks for a connection, as it does with HTTP/2; the others hand it their pieces and wake it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_written_at_the_same_time_goes_out_together() {
    let (pieces, mut received) = tokio::sync::mpsc::unbounded_channel::<&[u8]>();
    let connection = tokio::spawn(async move {
        let mut gather = Gather::new(Recorder::default());
        poll_fn(|cx| {
            let mut ended = false;
            while let Poll::Ready(piece) = received.poll_recv(cx) {
                let Some(piece) = piece else {
                    ended = true;
                    break;
                };
                assert!(Pin::new(&mut gather).poll_write(cx, piece).is_ready());
            }
            let flushed = Pin::new(&mut gather).poll_flush(cx).is_ready();
            if ended && flushed {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        gather.io
    });
    let go = Arc::new(Notify::new());
    let callers = [b"one", b"two", b"six"].map(|piece| {
        let (pieces, go) = (pieces.clone(), Arc::clone(&go));
        let ready = Arc::new(Notify::new());
        let is_ready = Arc::clone(&ready);
        let task = tokio::spawn(async move {
            let notified = go.notified();
            is_ready.notify_one();
            notified.await;
            pieces.send(piece).unwrap();
        });
        (ready, task)
    });
    for (ready, _) in &callers {
        ready.notified().await;
    }
    // All at once, on the thread that runs them: each wakes the connection, which goes next then.
    tokio::spawn(async move { go.notify_waiters() })
        .await
        .unwrap();
    for (_, task) in callers {
        task.await.unwrap();
    }
    drop(pieces);
    let io = connection.await.unwrap();
    let all = io.writes.concat();
    assert_eq!(all.len(), 9);
    assert_eq!((io.writes.len(), io.flushed), (1, 1), "{:?}", io.writes);
}

#[tokio::test]
async fn nothing_stays_behind() {
    let mut gather = Gather::new(Recorder::default());
    gather.write_all(b"one").await.unwrap();
    gather.flush().await.unwrap();
    assert_eq!(gather.io.writes.concat(), b"one");
    gather.write_all(b"two").await.unwrap();
    gather.shutdown().await.unwrap();
    assert_eq!(gather.io.writes.concat(), b"onetwo");
    assert!(gather.io.shut);
}

#[test]
fn a_large_piece_waits_for_nobody_and_is_not_copied() {
    let mut gather = Gather::new(Recorder::default());
    let mut cx = Context::from_waker(Waker::noop());
    let large = vec![7; ENOUGH];
    let written = Pin::new(&mut gather).poll_write(&mut cx, &large);
    assert!(matches!(written, Poll::Ready(Ok(ENOUGH))));
    assert_eq!((gather.io.writes.len(), gather.kept.capacity()), (1, 0));
    assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_ready());
    // A small one lets others have their turn, once.
    assert!(
        Pin::new(&mut gather)
            .poll_write(&mut cx, b"small")
            .is_ready()
    );
    assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_pending());
    assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_ready());
    assert_eq!(gather.io.writes.concat(), [&large[..], b"small"].concat());
}

#[tokio::test]
async fn a_peer_that_takes_nothing_any_more_is_an_error() {
    struct Full;
    impl AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut gather = Gather::new(Full);
    gather.write_all(b"one").await.unwrap();
    let error = gather.flush().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WriteZero);
}

proptest! {
    #[test]
    fn bytes_come_out_as_they_went_in(
        pieces in prop::collection::vec((0_usize..3 * ENOUGH, any::<bool>()), 1..12),
        takes in prop::collection::vec(0_usize..2 * ENOUGH, 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut gather = Gather::new(Recorder { takes, ..Recorder::default() });
        let mut all = Vec::new();
        runtime.block_on(async {
            for (number, (bytes, flush)) in pieces.into_iter().enumerate() {
                let piece = vec![u8::try_from(number).unwrap(); bytes];
                gather.write_all(&piece).await.unwrap();
                all.extend(piece);
                if flush {
                    gather.flush().await.unwrap();
                    assert_eq!(gather.io.writes.concat(), all);
                }
                assert!(gather.kept.len() <= KEPT_MAX);
            }
            gather.shutdown().await.unwrap();
        });
        prop_assert_eq!(gather.io.writes.concat(), all);
    }
}
