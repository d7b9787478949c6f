//! The worker's way to the managers. It changes with the role of the node; the worker, and what runs, stays.

use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use warren_client::session::SessionEnds;
use warren_client::{ClientError, ErrorKind, SessionTransport};

/// How long one way may take before the next is tried.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Sessions over the first way that works.
#[derive(Default)]
pub(crate) struct Dial {
    ways: Mutex<Vec<Arc<dyn SessionTransport>>>,
}

impl Dial {
    /// From now on these ways are tried, in this order.
    pub(crate) fn set(&self, ways: Vec<Arc<dyn SessionTransport>>) {
        *self.ways.lock().unwrap_or_else(PoisonError::into_inner) = ways;
    }

    fn ways(&self) -> Vec<Arc<dyn SessionTransport>> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        ways.clone()
    }
}

fn unavailable(message: &str) -> ClientError {
    ClientError {
        kind: ErrorKind::Unavailable,
        message: message.to_owned(),
        remedy: "the session is opened by itself as soon as there is".to_owned(),
    }
}

#[async_trait]
impl SessionTransport for Dial {
    async fn open(&self) -> Result<SessionEnds, ClientError> {
        let mut last = unavailable("there is no way to a manager now");
        for way in self.ways() {
            match tokio::time::timeout(OPEN_WITHIN, way.open()).await {
                Ok(Ok(ends)) => return Ok(ends),
                Ok(Err(error)) => last = error,
                Err(_) => last = unavailable("no manager has taken the session in time"),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    struct Way(bool);

    #[async_trait]
    impl SessionTransport for Way {
        async fn open(&self) -> Result<SessionEnds, ClientError> {
            let works = self.0.then(|| (mpsc::channel(1).0, mpsc::channel(1).1));
            works.ok_or_else(|| unavailable("not this way"))
        }
    }

    #[tokio::test]
    async fn the_next_way_is_tried() {
        let dial = Dial::default();
        assert!(dial.open().await.is_err());
        dial.set(vec![Arc::new(Way(false)), Arc::new(Way(true))]);
        assert!(dial.open().await.is_ok());
        dial.set(vec![Arc::new(Way(false))]);
        let error = dial.open().await.map(drop).unwrap_err();
        assert_eq!(error.message, "not this way");
    }
}
