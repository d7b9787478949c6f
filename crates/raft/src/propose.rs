//! Changes of the state.

use crate::error::ProposeError;
use crate::handle::{RaftHandle, target};
use crate::types::{CommandBytes, Outcome};
use bytes::Bytes;
use openraft::errors::{ClientWriteError, ForwardReason, RaftError as EngineError};
use std::sync::atomic::Ordering;
use tokio::time::Instant;
use warren_state::{Applied, Command};

/// Most proposals under way at a time.
pub const MAX_PROPOSALS_WAITING: usize = 4_096;
/// Largest encoded command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 * 1024 * 1024;

impl RaftHandle {
    /// Proposes a command. When this returns `Ok` it is durable on a quorum, applied here, and visible in [`RaftHandle::state`].
    /// Proposals made at the same time share one write.
    pub async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        let begin = Instant::now();
        let result = self.try_propose(command, begin).await;
        let meter = &self.inner.meter;
        meter.proposal.observe(begin.elapsed());
        let counter = match &result {
            Ok(_) => &meter.applied,
            Err(ProposeError::Rejected(_)) => &meter.rejected,
            Err(_) => &meter.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn try_propose(
        &self,
        command: &Command,
        begin: Instant,
    ) -> Result<Applied, ProposeError> {
        let inner = &*self.inner;
        let bytes = Bytes::from(command.encode());
        if bytes.len() > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_COMMAND_BYTES,
            });
        }
        let _permit = inner
            .permits
            .try_acquire()
            .map_err(|_| ProposeError::Overloaded {
                limit: MAX_PROPOSALS_WAITING,
            })?;
        let held = inner.log.shared.held();
        if !inner.log.shared.has_room() {
            let held_up = *held.borrow();
            if held_up || !inner.log.probe().await {
                return Err(self
                    .failure()
                    .map_or(ProposeError::DiskFull { maybe: false }, |reason| {
                        ProposeError::Stopped { reason }
                    }));
            }
        }
        loop {
            if self.lost_the_quorum() {
                return Err(ProposeError::NoContact);
            }
            let again = self.write(&bytes, begin, held.clone()).await?;
            match again {
                Some(applied) => return Ok(applied),
                // The lease has run out: nothing was written. It may be back in a moment.
                None if begin.elapsed() < inner.pulse.profile.election_max() => {
                    tokio::time::sleep(inner.pulse.profile.heartbeat() / 2).await;
                }
                None => return Err(ProposeError::NoContact),
            }
        }
    }

    /// One attempt; none when this node leads but its lease has run out.
    async fn write(
        &self,
        bytes: &Bytes,
        begin: Instant,
        mut held: crate::fair::Receiver<bool>,
    ) -> Result<Option<Applied>, ProposeError> {
        let inner = &*self.inner;
        let command = CommandBytes {
            bytes: bytes.clone(),
            proposed: Some(begin),
        };
        let result = tokio::select! {
            biased;
            result = self.append(command) => result,
            Ok(_) = held.wait_for(|held| *held) => return Err(ProposeError::DiskFull { maybe: true }),
            () = self.quorum_lost() => return Err(ProposeError::NoQuorum),
            () = tokio::time::sleep_until(begin + inner.propose_timeout) => return Err(ProposeError::NoQuorum),
        };
        match result {
            Ok(Outcome::Applied(applied)) => Ok(Some(applied)),
            Ok(Outcome::Rejected(rejection)) => Err(ProposeError::Rejected(rejection)),
            // openraft answers a command with what applying that command gave.
            Ok(Outcome::Nothing) => Err(ProposeError::Uncertain),
            Err(EngineError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                if forward.reason == ForwardReason::LeaseExpired {
                    return Ok(None);
                }
                let (leader, address) = target(forward);
                Err(ProposeError::NotLeader { leader, address })
            }
            Err(EngineError::APIError(_)) => Err(ProposeError::Uncertain),
            Err(EngineError::Fatal(error)) => Err(ProposeError::Stopped {
                reason: self.failure().unwrap_or_else(|| error.to_string()),
            }),
        }
    }

    /// Whether this node leads and has not heard a quorum for the longest election timeout.
    fn lost_the_quorum(&self) -> bool {
        let limit = self.inner.pulse.profile.election_max();
        self.inner.leadership.borrow().is_leader
            && self
                .contact()
                .silence
                .is_none_or(|silence| silence >= limit)
    }

    /// Returns when the quorum is lost: who waits for an answer shall hear soon that none can be had.
    async fn quorum_lost(&self) {
        while !self.lost_the_quorum() {
            tokio::time::sleep(self.inner.pulse.profile.heartbeat()).await;
        }
    }
}
