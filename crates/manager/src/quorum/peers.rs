//! Messages to other managers: the engine's transport over the peers' service.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
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

    async fn is_gone(&self, _: NodeId, member: &Member, deadline: Duration) -> bool {
        let deserted = deserted(&member.address);
        tokio::time::timeout(deadline, deserted)
            .await
            .unwrap_or(false)
    }
}

/// Whether the host of `address` (`host:port`) says that nobody listens there, for each address that its name has.
async fn deserted(address: &str) -> bool {
    let Ok(found) = tokio::net::lookup_host(address).await else {
        return false;
    };
    let mut refused = false;
    for address in found {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = true,
            _ => return false,
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv6Addr};
    use tokio::net::TcpListener;

    async fn gone(address: &str) -> bool {
        let deserted = deserted(address);
        tokio::time::timeout(Duration::from_millis(500), deserted)
            .await
            .unwrap_or(false)
    }

    #[tokio::test]
    async fn only_a_refusal_says_that_a_process_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(!gone(&address.to_string()).await, "it listens");
        drop(listener);
        assert!(gone(&address.to_string()).await);
        // A name with a dead and a living address; no route; no address; no such name.
        let six = TcpListener::bind((IpAddr::from(Ipv6Addr::LOCALHOST), address.port())).await;
        if six.is_ok()
            && tokio::net::lookup_host("localhost:1")
                .await
                .is_ok_and(|all| all.count() > 1)
        {
            assert!(!gone(&format!("localhost:{}", address.port())).await);
        }
        assert!(!gone("255.255.255.255:8080").await);
        assert!(!gone("").await);
        assert!(!gone("nowhere.invalid:8080").await);
    }

    #[tokio::test]
    async fn a_process_that_is_silent_is_not_gone() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let frozen = socket.listen(1).unwrap();
        let address = frozen.local_addr().unwrap();
        // Whoever comes after its queue is full gets no answer at all.
        let first = tokio::net::TcpStream::connect(address).await.unwrap();
        let second = tokio::net::TcpStream::connect(address).await.unwrap();
        assert!(!gone(&address.to_string()).await);
        drop((first, second));
    }
}
