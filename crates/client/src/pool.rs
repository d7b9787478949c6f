//! The managers that a client knows, and which of them it talks to now.

use crate::identity::IdentitySource;
use crate::link::{Link, Tuning, Way};
use crate::target::Target;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Longest time to open a connection when there is no other address.
const CONNECT_ONLY: Duration = Duration::from_secs(5);
/// Longest time to open a connection when others can be tried.
const CONNECT_ONE_OF_MANY: Duration = Duration::from_secs(1);
/// Managers remembered besides those that the client was told of.
const HINTS_MAX: usize = 7;
/// An address that a manager named as the leader's, and that did not answer, is left alone this long.
const HINT_REST: Duration = Duration::from_secs(10);
/// A manager that does not answer a probe is left: silence before the probe, and time for the answer.
pub(crate) const MANAGER_TUNING: Tuning = Tuning {
    probe_after: Duration::from_secs(2),
    probe_limit: Duration::from_secs(3),
    stream_window: None,
    connection_window: None,
};
/// The same on the local socket, where only a stopped process does not answer.
const LOCAL_TUNING: Tuning = Tuning {
    probe_after: Duration::from_secs(10),
    probe_limit: Duration::from_secs(5),
    stream_window: None,
    connection_window: None,
};

/// All addresses of one client.
pub(crate) struct Pool {
    places: Mutex<Places>,
    identity: Option<IdentitySource>,
}

struct Places {
    links: Vec<Arc<Link>>,
    /// So many of them, the first ones, were given; the others are hints.
    given: usize,
    current: usize,
    /// The hint that failed last.
    resting: Option<(String, Instant)>,
}

impl Pool {
    pub(crate) fn local(path: std::path::PathBuf) -> Self {
        Self {
            places: Mutex::new(Places {
                links: vec![Link::new(Way::Unix(path), LOCAL_TUNING)],
                given: 1,
                current: 0,
                resting: None,
            }),
            identity: None,
        }
    }

    pub(crate) fn managers(addresses: &[String], identity: IdentitySource) -> Self {
        let pool = Self {
            places: Mutex::new(Places {
                links: Vec::new(),
                given: 0,
                current: 0,
                resting: None,
            }),
            identity: Some(identity),
        };
        pool.set(addresses);
        pool
    }

    /// Exchanges the given addresses; connections to those that stay are kept. The socket's pool has none.
    pub(crate) fn set(&self, addresses: &[String]) {
        let Some(identity) = &self.identity else {
            return;
        };
        let mut places = self.lock();
        let now = places.links.get(places.current).cloned();
        let links: Vec<_> = addresses
            .iter()
            .map(|address| {
                places.find(address).map_or_else(
                    || tls_link(address, identity),
                    |at| places.links[at].clone(),
                )
            })
            .collect();
        places.current = now
            .and_then(|now| links.iter().position(|link| Arc::ptr_eq(link, &now)))
            .unwrap_or(0);
        places.given = links.len();
        places.links = links;
    }

    /// The one to talk to; `None` when no address is known at all.
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        let places = self.lock();
        places.links.get(places.current).cloned()
    }

    /// How many addresses there are to try.
    pub(crate) fn len(&self) -> usize {
        self.lock().links.len()
    }

    /// Time limit for opening a connection.
    pub(crate) fn connect_limit(&self) -> Duration {
        if self.len() > 1 {
            CONNECT_ONE_OF_MANY
        } else {
            CONNECT_ONLY
        }
    }

    /// Goes on to the next address, unless another call has left this one already. `unreachable`: no connection to it
    /// could be opened.
    pub(crate) fn leave(&self, link: &Arc<Link>, unreachable: bool) {
        let mut places = self.lock();
        let Some(at) = places.links.iter().position(|l| Arc::ptr_eq(l, link)) else {
            return;
        };
        let is_current = at == places.current;
        if unreachable && at >= places.given {
            places.links.remove(at);
            places.resting = Some((link.way().to_string(), Instant::now()));
            if places.current > at {
                places.current -= 1;
            }
        }
        if is_current && !places.links.is_empty() {
            places.current = if unreachable && at >= places.given {
                0
            } else {
                (at + 1) % places.links.len()
            };
        }
    }

    /// Talks to this address from now on, when it can be tried: a manager said that it is the leader's. Whether it is a
    /// manager at all is for its certificate to say.
    pub(crate) fn prefer(&self, address: &str) -> bool {
        let Some(identity) = &self.identity else {
            return false;
        };
        let mut places = self.lock();
        if let Some(at) = places.find(address) {
            places.current = at;
            return true;
        }
        let rests = places
            .resting
            .as_ref()
            .is_some_and(|(resting, since)| resting == address && since.elapsed() < HINT_REST);
        if rests {
            return false;
        }
        if places.links.len() >= places.given + HINTS_MAX {
            let oldest = places.given;
            places.links.remove(oldest);
        }
        places.links.push(tls_link(address, identity));
        places.current = places.links.len() - 1;
        true
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing that holds it can panic half way through a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn find(&self, address: &str) -> Option<usize> {
        self.links
            .iter()
            .position(|link| matches!(link.way(), Way::Tls { address: a, .. } if a == address))
    }
}

fn tls_link(address: &str, identity: &IdentitySource) -> Arc<Link> {
    let way = Way::Tls {
        address: address.to_owned(),
        identity: identity.clone(),
        expect: None,
    };
    Link::new(way, MANAGER_TUNING)
}

/// The addresses of a target.
pub(crate) fn pool_of(target: &Target) -> Result<Pool, crate::error::ClientError> {
    Ok(match target {
        Target::Unix(path) => Pool::local(path.clone()),
        Target::Tcp {
            addresses,
            identity,
        } => Pool::managers(addresses, IdentitySource::new(identity.clone())?),
    })
}
