//! The client: whom it talks to, how new the answers have to be, what the last one was.

use crate::attempts::nobody;
use crate::error::ClientError;
use crate::generated::api::warren_api_client::WarrenApiClient;
use crate::http2::Http2;
use crate::identity::IdentitySource;
use crate::link::Link;
use crate::pool::{Pool, pool_of};
use crate::target::Target;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::Request;
use tonic::metadata::{MetadataMap, MetadataValue};
use warren_proto::headers;

/// Largest answer that is taken, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// On the local socket there is no other manager to ask, so a refusal is told within a second.
const LOCAL_PATIENCE: Duration = Duration::from_millis(800);

/// How new the answer to a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// What the asked manager has. On the leader that is everything acknowledged before.
    #[default]
    Local,
    /// Everything that was acknowledged anywhere before the call, or an error.
    Linearizable,
    /// Linearizable when a quorum is in reach, else what the manager has, marked stale.
    Best,
}

impl Freshness {
    const fn header(self) -> &'static str {
        match self {
            Self::Local => headers::READ_LOCAL,
            Self::Linearizable => headers::READ_LINEARIZABLE,
            Self::Best => headers::READ_BEST,
        }
    }
}

/// How old the state is that a manager outside the quorum answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// At most so old: since then the manager has not belonged to the quorum.
    For(Duration),
    /// The manager has not belonged to the quorum since its start.
    Unknown,
}

/// What was special about an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerInfo {
    /// Address or socket that it came from.
    pub from: String,
    /// It is from a manager outside the quorum.
    pub stale: Option<Staleness>,
    /// Revision of the state that it was made from, when the manager says it.
    pub revision: Option<u64>,
}

/// A client of one cluster. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Client {
    pool: Arc<Pool>,
    target: Arc<Target>,
    read: Freshness,
    patience: Option<Duration>,
    last: Arc<Mutex<AnswerInfo>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.target)
    }
}

impl Client {
    /// Opens a connection. Later the client opens it again by itself when it breaks.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unavailable`] when nobody answers, [`crate::ErrorKind::PermissionDenied`] when the socket
    /// may not be opened, [`crate::ErrorKind::Local`] for unusable certificates.
    pub async fn connect(target: Target) -> Result<Self, ClientError> {
        let client = Self::connect_lazy(target)?;
        let mut failed = Vec::new();
        while failed.len() < client.pool.len() {
            let Some(link) = client.pool.current() else {
                break;
            };
            match link.channel(client.pool.connect_limit()).await {
                Ok(_) => return Ok(client),
                Err(error) => failed.push(error),
            }
            client.pool.leave(&link, true);
        }
        Err(nobody(failed))
    }

    /// Like [`Client::connect`], but opens the connection at the first call.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Local`] for unusable certificates.
    pub fn connect_lazy(target: Target) -> Result<Self, ClientError> {
        let pool = pool_of(&target)?;
        Ok(Self::over(pool, target))
    }

    /// A client of several managers (`host:port` each) whose identity may be exchanged; opens a connection at the first
    /// call.
    #[must_use]
    pub fn managers(addresses: &[String], identity: &IdentitySource) -> Self {
        let target = Target::Tcp {
            addresses: addresses.to_vec(),
            identity: identity.current(),
        };
        Self::over(Pool::managers(addresses, identity.clone()), target)
    }

    fn over(pool: Pool, target: Target) -> Self {
        let patience = matches!(target, Target::Unix(_)).then_some(LOCAL_PATIENCE);
        Self {
            pool: Arc::new(pool),
            target: Arc::new(target),
            read: Freshness::default(),
            patience,
            last: Arc::default(),
        }
    }

    /// The same client, with reads of this freshness. It remembers its own last answer.
    #[must_use]
    pub fn with_read(self, read: Freshness) -> Self {
        Self {
            read,
            last: Arc::default(),
            ..self
        }
    }

    /// The same client, repeating a call that no manager could take (an election, no quorum) for this long; else it does so
    /// for the call's own time limit, or 0.8 s on the local socket.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self {
            patience: Some(patience),
            ..self
        }
    }

    /// Exchanges the managers' addresses, of all clones; a connection to one that stays is kept. A client of the local
    /// socket has none.
    pub fn set_managers(&self, addresses: &[String]) {
        self.pool.set(addresses);
    }

    /// Whom this client was made to talk to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// About the last answer of a manager to this client or its clones.
    #[must_use]
    pub fn last_answer(&self) -> AnswerInfo {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How old the last answer's state is, when it came from a manager outside the quorum.
    #[must_use]
    pub fn last_stale(&self) -> Option<Staleness> {
        self.last_answer().stale
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) const fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// The API over a connection that is open.
    pub(crate) fn api_over(&self, channel: Http2) -> WarrenApiClient<Http2> {
        WarrenApiClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// A request with this client's headers.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.read != Freshness::Local {
            request.metadata_mut().insert(
                headers::READ,
                MetadataValue::from_static(self.read.header()),
            );
        }
        request
    }

    /// Remembers what was special about an answer.
    pub(crate) fn note(&self, link: &Link, metadata: &MetadataMap) {
        let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
        let info = AnswerInfo {
            from: link.way().to_string(),
            stale: text(headers::STALE).map(|text| {
                text.parse().map_or(Staleness::Unknown, |millis| {
                    Staleness::For(Duration::from_millis(millis))
                })
            }),
            revision: text(headers::REVISION).and_then(|text| text.parse().ok()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }
}
