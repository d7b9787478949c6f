//! A manager as its clients see it: writes wherever they come in, linearizable reads, stale reads that say so.

use super::bugs::SimBugs;
use super::net::{Net, NoAnswer};
use crate::oracle::Answer;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::sleep;
use warren_raft::{RaftHandle, ReadError};
use warren_state::{ClusterState, Command};
use warren_types::NodeId;

/// How often a manager tries for its caller.
const ATTEMPTS: u32 = 4;
/// Time between attempts.
const PAUSE: Duration = Duration::from_millis(120);
/// How long a follower may lack what a read needs.
const WAIT_APPLIED: Duration = Duration::from_millis(800);

/// What one manager asks of another.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Propose this if you lead.
    Propose(Command),
    /// Up to where must I have applied to answer a read that begins now?
    ReadIndex,
}

/// What it is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Proposed(Answer),
    ReadIndex(Result<u64, String>),
}

/// The API of one manager in one of its lives.
pub(crate) struct Api {
    pub(crate) node: NodeId,
    pub(crate) raft: RaftHandle,
    pub(crate) net: Weak<Net>,
    pub(crate) bugs: SimBugs,
}

impl Api {
    /// Answers another manager.
    pub(crate) async fn serve(&self, request: Request) -> Reply {
        match request {
            Request::Propose(command) => {
                Reply::Proposed(Answer::of(self.raft.propose(&command).await))
            }
            Request::ReadIndex => {
                let index = self.raft.read_index().await;
                Reply::ReadIndex(index.map_err(|error| error.to_string()))
            }
        }
    }

    /// A write. Repeated here only while it is certain that it had no effect, or that repeating it has no other.
    pub(crate) async fn write(&self, mut command: Command) -> Answer {
        let mut answer = Answer::NotTaken("no leader is known".to_owned());
        let mut uncertain = false;
        for _ in 0..ATTEMPTS {
            answer = self.write_once(&command).await;
            let again = match &answer {
                Answer::Applied(_) | Answer::Rejected(_) => false,
                Answer::NotTaken(_) => true,
                Answer::Unknown(_) => command.idempotency_key.is_some(),
            };
            if !again {
                break;
            }
            uncertain |= matches!(answer, Answer::Unknown(_));
            if self.bugs.retry_without_key {
                command.idempotency_key = None;
            }
            sleep(PAUSE).await;
        }
        let answer = self.bugs.certain(answer, uncertain);
        match answer {
            Answer::Unknown(reason) if self.bugs.unknown_called_refused => Answer::NotTaken(reason),
            answer => answer,
        }
    }

    async fn write_once(&self, command: &Command) -> Answer {
        let leadership = self.raft.leadership().borrow().clone();
        match leadership.leader {
            _ if leadership.is_leader => Answer::of(self.raft.propose(command).await),
            Some(leader) if leader != self.node => self.forward(leader, command).await,
            _ => Answer::NotTaken("no leader is known".to_owned()),
        }
    }

    async fn forward(&self, leader: NodeId, command: &Command) -> Answer {
        let Some(net) = self.net.upgrade() else {
            return Answer::NotTaken("the world ends".to_owned());
        };
        let mut command = command.clone();
        if self.bugs.key_not_forwarded {
            command.idempotency_key = None;
        }
        match net.ask(self.node, leader, Request::Propose(command)).await {
            Ok(Reply::Proposed(answer)) => answer,
            Ok(Reply::ReadIndex(_)) | Err(NoAnswer::Lost) => {
                Answer::Unknown("the leader did not answer".to_owned())
            }
            Err(NoAnswer::NotSent) => Answer::NotTaken("the leader is not there".to_owned()),
        }
    }

    /// What there is now, at the least. An error says why that cannot be known here and now.
    pub(crate) async fn read(&self) -> Result<Arc<ClusterState>, String> {
        let leadership = self.raft.leadership().borrow().clone();
        if self.bugs.minority_read_unmarked && !self.raft.contact().in_quorum {
            return Ok(self.raft.state());
        }
        match leadership.leader {
            _ if leadership.is_leader => {
                let barrier = self.raft.read_barrier().await;
                barrier.map_err(|error| error.to_string())?;
            }
            Some(leader) if leader != self.node => self.catch_up(leader).await?,
            _ => return Err("no leader is known".to_owned()),
        }
        Ok(self.raft.state())
    }

    /// Returns when this follower has what the leader had acknowledged.
    async fn catch_up(&self, leader: NodeId) -> Result<(), String> {
        if self.bugs.follower_read_without_index {
            return Ok(());
        }
        let Some(net) = self.net.upgrade() else {
            return Err("the world ends".to_owned());
        };
        let reply = net.ask(self.node, leader, Request::ReadIndex).await;
        let Ok(Reply::ReadIndex(index)) = reply else {
            return Err("the leader did not answer".to_owned());
        };
        let index = index?;
        if self.bugs.wait_skipped {
            return Ok(());
        }
        let waited = self.raft.wait_applied(index, WAIT_APPLIED).await;
        waited.map_err(|error: ReadError| error.to_string())
    }
}
