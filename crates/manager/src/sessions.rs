//! The session of the worker in the same process: served here when this manager leads, else carried to the leader over
//! the connection that the managers have among themselves.

use crate::control::Control;
use crate::quorum::peers::Peers;
use crate::quorum::waiting::{Waiting, given_up};
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use warren_client::{ClientError, ErrorKind, GrpcTransport, SessionAcceptor, SessionTransport};
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_types::NodeId;

/// Takes the session of the worker in the same process.
pub(crate) struct Acceptor {
    pub(crate) control: Arc<Control>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) node: NodeId,
}

fn unavailable(message: String) -> ClientError {
    ClientError {
        kind: ErrorKind::Unavailable,
        message,
        remedy: "the session is opened again by itself".to_owned(),
    }
}

#[async_trait]
impl SessionAcceptor for Acceptor {
    async fn accept(
        &self,
        inbound: mpsc::Receiver<WorkerMessage>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) -> Result<(), ClientError> {
        let dispatcher = self.control.dispatcher.borrow().clone();
        if let Some(dispatcher) = dispatcher {
            let node = self.node;
            tokio::spawn(async move { dispatcher.serve(Some(node), inbound, outbound).await });
            return Ok(());
        }
        let leader = self.control.raft.leadership().borrow().leader;
        let leader = leader.filter(|leader| *leader != self.node);
        let leader = leader.ok_or_else(|| unavailable("no leader is known".to_owned()))?;
        let (voters, _) = self.control.raft.members();
        let member = voters.get(&leader);
        let member = member.ok_or_else(|| unavailable(format!("leader {leader} is not known")))?;
        let way = GrpcTransport::to_managers(
            std::slice::from_ref(&member.address),
            self.peers.identity(),
        );
        let lost = self.waiting.on(leader);
        let (to_leader, from_leader) = way.open().await?;
        tokio::spawn(carry(inbound, to_leader, lost.clone()));
        tokio::spawn(carry(from_leader, outbound, lost));
        Ok(())
    }
}

/// Passes messages on until either end is gone, or the leader is waited for no longer.
async fn carry<T>(
    mut from: mpsc::Receiver<T>,
    to: mpsc::Sender<T>,
    mut lost: watch::Receiver<bool>,
) {
    loop {
        let message = tokio::select! {
            message = from.recv() => message,
            () = to.closed() => return,
            () = given_up(&mut lost) => return,
        };
        let Some(message) = message else { return };
        if to.send(message).await.is_err() {
            return;
        }
    }
}
