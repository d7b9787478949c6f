//! How a worker's session reaches a manager: over the network, or inside one process, with the same
//! messages.

use crate::attempts::Repeat;
use crate::connect::{ANSWER_BYTES_MAX, Client};
use crate::error::ClientError;
use crate::generated::session::node_session_client::NodeSessionClient;
use crate::identity::IdentitySource;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warren_proto::session::{ManagerMessage, WorkerMessage};

/// Messages that may wait in each direction; a full queue makes the sender wait.
pub const SESSION_QUEUE_MESSAGES: usize = 256;

/// Both ends of an open session as the worker sees it. The session ends when the receiver gives
/// `None`; dropping the sender ends it from this side.
pub type SessionEnds = (mpsc::Sender<WorkerMessage>, mpsc::Receiver<ManagerMessage>);

/// A way to open sessions.
#[async_trait]
pub trait SessionTransport: Send + Sync {
    /// Opens a session. The first message to send is Hello.
    ///
    /// # Errors
    /// [`ClientError`] when no manager takes the session.
    async fn open(&self) -> Result<SessionEnds, ClientError>;
}

/// The manager's side of a session inside the same process.
#[async_trait]
pub trait SessionAcceptor: Send + Sync {
    /// Takes the session over; returns as soon as it is accepted, and serves it in the background until
    /// `inbound` ends or `outbound` is closed.
    ///
    /// # Errors
    /// [`ClientError`] when the session is refused.
    async fn accept(
        &self,
        inbound: mpsc::Receiver<WorkerMessage>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) -> Result<(), ClientError>;
}

/// Sessions to the manager in the same process.
#[derive(Clone)]
pub struct InProcessTransport {
    acceptor: Arc<dyn SessionAcceptor>,
}

impl InProcessTransport {
    /// Sessions that this acceptor takes.
    #[must_use]
    pub fn new(acceptor: Arc<dyn SessionAcceptor>) -> Self {
        Self { acceptor }
    }
}

#[async_trait]
impl SessionTransport for InProcessTransport {
    async fn open(&self) -> Result<SessionEnds, ClientError> {
        let (to_manager, from_worker) = mpsc::channel(SESSION_QUEUE_MESSAGES);
        let (to_worker, from_manager) = mpsc::channel(SESSION_QUEUE_MESSAGES);
        self.acceptor.accept(from_worker, to_worker).await?;
        Ok((to_manager, from_manager))
    }
}

/// Sessions over the network, with the node's certificate.
#[derive(Clone, Debug)]
pub struct GrpcTransport {
    client: Client,
}

impl GrpcTransport {
    /// Sessions over this client's connection.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Sessions to any of these managers (`host:port` each), with an identity that may be exchanged. Whichever takes the
    /// session forwards it to the leader.
    #[must_use]
    pub fn to_managers(addresses: &[String], identity: &IdentitySource) -> Self {
        Self::new(Client::managers(addresses, identity))
    }

    /// Exchanges the managers' addresses for the next sessions; an open session stays.
    pub fn set_managers(&self, addresses: &[String]) {
        self.client.set_managers(addresses);
    }
}

#[async_trait]
impl SessionTransport for GrpcTransport {
    async fn open(&self) -> Result<SessionEnds, ClientError> {
        let (inbound, from_manager) = mpsc::channel(SESSION_QUEUE_MESSAGES);
        // Nothing is sent before a manager has taken the session, so an attempt that failed has done nothing.
        let opened = self.client.open(Repeat::Safe, |channel| {
            let (to_manager, outbound) = mpsc::channel(SESSION_QUEUE_MESSAGES);
            let mut service =
                NodeSessionClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            async move {
                let answer = service.session(ReceiverStream::new(outbound)).await?;
                Ok(answer.map(|answers| (to_manager, answers)))
            }
        });
        let (to_manager, mut answers) = opened.await?.into_inner();
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    message = answers.message() => message,
                    () = inbound.closed() => return,
                };
                match message {
                    Ok(Some(message)) => {
                        if inbound.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(status) => {
                        let error = ClientError::from(status);
                        if error.is_transient() {
                            tracing::info!(%error, "the session ended");
                        } else {
                            tracing::warn!(%error, "the session ended");
                        }
                        return;
                    }
                }
            }
        });
        Ok((to_manager, from_manager))
    }
}
