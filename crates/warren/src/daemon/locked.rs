//! A manager with auto-lock on waits for its unlock key: it serves the local socket and nothing else, and goes on
//! starting, in the same process, as soon as the key is there.

use super::plain::{Facts, Plain, Session, State, Unlock};
use super::{Serving, Signals, Stop};
use crate::failure::Failure;
use crate::home::{Home, NodeSettings, Opened};
use async_trait::async_trait;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use warren_api::{ApiError, ApiResult};
use warren_manager::{InitError, LocalIdentity, init};
use warren_security::UnlockKey;
use warren_storage::Keyring;

/// Time between two keys that are tried: a guesser on the socket gets nowhere.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Waits for the unlock key. `None`: the daemon is to stop instead.
pub(super) async fn wait(
    home: &Home,
    opened: &Opened,
    settings: &NodeSettings,
    signals: &mut Signals,
) -> Result<Option<LocalIdentity>, Failure> {
    let who = init::who(&opened.keyring())?;
    let (opener, mut unlocked) = Opener::new(opened.keyring.clone());
    let (stop, mut stopping) = mpsc::channel(1);
    let plain = Arc::new(Plain {
        facts: Facts {
            node: who.node.to_string(),
            name: who.name,
            cluster: who.cluster.to_string(),
            role: settings.role,
            data_dir: home.data_dir.clone(),
            started_at: warren_manager::edge::now(),
        },
        state: Mutex::new(State::Locked),
        standing: Box::new(Session::default),
        unlock: Some(Arc::new(opener)),
        stop,
    });
    let serving = Serving::socket_only(home, plain.planes()).await?;
    tracing::warn!("this manager is locked: it waits for the unlock key (`warren cluster unlock`)");
    let (identity, stop) = tokio::select! {
        identity = unlocked.recv() => (identity, Stop::QUICK),
        stop = signals.asked() => (None, stop),
        grace = stopping.recv() => (None, Stop::within(grace.unwrap_or_default())),
    };
    serving.end(stop).await?;
    Ok(identity)
}

/// Tries unlock keys on the keyring.
struct Opener {
    keyring: Arc<Mutex<Keyring>>,
    /// When a wrong key was tried last.
    refused: tokio::sync::Mutex<Option<Instant>>,
    unlocked: mpsc::Sender<LocalIdentity>,
}

impl Opener {
    fn new(keyring: Arc<Mutex<Keyring>>) -> (Self, mpsc::Receiver<LocalIdentity>) {
        let (unlocked, opened) = mpsc::channel(1);
        let opener = Self {
            keyring,
            refused: tokio::sync::Mutex::new(None),
            unlocked,
        };
        (opener, opened)
    }
}

#[async_trait]
impl Unlock for Opener {
    async fn unlock(&self, key: &str) -> ApiResult<()> {
        let mut refused = self.refused.lock().await;
        if refused.is_some_and(|at| at.elapsed() < TRY_EVERY) {
            return Err(ApiError::Exhausted {
                what: "a wrong unlock key was given less than a second ago".to_owned(),
                remedy: "try again in a second".to_owned(),
            });
        }
        let wrong = |text: String| {
            ApiError::denied(
                text,
                "`warren cluster auto-lock rotate` on an unlocked manager makes a new key",
            )
        };
        let parsed: Result<UnlockKey, _> = key.trim().parse();
        let opened = match parsed {
            Ok(key) => {
                let keyring = self.keyring.lock().unwrap_or_else(PoisonError::into_inner);
                init::load_locked(&keyring, &key.wrap_key())
            }
            Err(problem) => {
                *refused = Some(Instant::now());
                return Err(wrong(problem.to_string()));
            }
        };
        match opened {
            Ok(identity) => {
                // The second of two right keys finds the way open already.
                let _ = self.unlocked.try_send(identity);
                Ok(())
            }
            Err(problem @ InitError::WrongUnlockKey) => {
                *refused = Some(Instant::now());
                Err(wrong(problem.to_string()))
            }
            Err(other) => Err(ApiError::internal(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_manager::NewNode;
    use warren_storage::RealDisk;

    fn locked(dir: &std::path::Path, key: &UnlockKey) -> Arc<Mutex<Keyring>> {
        let disk = Arc::new(RealDisk::open(dir).unwrap());
        let mut keyring = Keyring::open(disk, "keyring").unwrap();
        let new = NewNode {
            name: "n1".to_owned(),
            api_names: Vec::new(),
        };
        let identity = init::create(&mut keyring, &new).unwrap();
        init::lock(&mut keyring, identity.node_key(), &key.wrap_key()).unwrap();
        Arc::new(Mutex::new(keyring))
    }

    #[tokio::test]
    async fn the_right_key_opens_and_wrong_ones_are_slowed_down() {
        let dir = std::env::temp_dir().join(format!("warren-locked-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = UnlockKey::new([1; 16]);
        let (opener, mut unlocked) = Opener::new(locked(&dir, &key));
        for wrong in ["nonsense", &UnlockKey::new([2; 16]).reveal()] {
            let refused = opener.unlock(wrong).await;
            assert!(
                matches!(refused, Err(ApiError::Denied { .. })),
                "{refused:?}"
            );
            let at_once = opener.unlock(&key.reveal()).await;
            assert!(
                matches!(at_once, Err(ApiError::Exhausted { .. })),
                "{at_once:?}"
            );
            *opener.refused.lock().await = None;
        }
        opener.unlock(&key.reveal()).await.unwrap();
        assert_eq!(unlocked.recv().await.unwrap().name, "n1");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
