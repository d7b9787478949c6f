//! Messages to other managers: the engine's transport over the peers' service.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use warren_client::{ClientError, ErrorKind, IdentitySource, PeerClient};
use warren_raft::{Member, RpcKind, SnapshotBody, Transport, TransportError};
use warren_types::NodeId;

/// Connections to the other managers, one set for each; made when first needed, made anew when the address changes.
pub(crate) struct Peers {
    identity: IdentitySource,
    known: Mutex<BTreeMap<NodeId, PeerClient>>,
}

impl Peers {
    pub(crate) fn new(identity: IdentitySource) -> Self {
        Self {
            identity,
            known: Mutex::default(),
        }
    }

    /// The certificate and key that this manager shows.
    pub(crate) const fn identity(&self) -> &IdentitySource {
        &self.identity
    }

    /// The connections to a manager that was last found at `address`.
    pub(crate) fn client(&self, to: NodeId, address: &str) -> PeerClient {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&to)
            && client.address() == address
        {
            return client.clone();
        }
        let client = PeerClient::connect_lazy(address.to_owned(), to, &self.identity);
        known.insert(to, client.clone());
        client
    }
}

fn failed(to: NodeId, deadline: Duration, error: &ClientError) -> TransportError {
    match error.kind {
        ErrorKind::DeadlineExceeded => TransportError::Timeout {
            to,
            after: deadline,
        },
        ErrorKind::Removed => TransportError::Removed { to },
        ErrorKind::Unavailable | ErrorKind::NotTaken | ErrorKind::Local => {
            TransportError::Unreachable {
                to,
                reason: error.to_string(),
            }
        }
        _ => TransportError::Refused {
            to,
            reason: error.to_string(),
        },
    }
}

#[async_trait]
impl Transport for Peers {
    async fn call(
        &self,
        to: NodeId,
        member: &Member,
        kind: RpcKind,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        let answer = self
            .client(to, &member.address)
            .call(kind.number(), request, deadline)
            .await;
        answer.map_err(|error| failed(to, deadline, &error))
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        member: &Member,
        header: Bytes,
        body: SnapshotBody,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        // The client watches over the progress; how long the whole takes is up to its size.
        let client = self.client(to, &member.address);
        let sent = client.send_snapshot(header, body).await;
        sent.map_err(|error| failed(to, deadline, &error))
    }
}
