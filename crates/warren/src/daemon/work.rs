//! The parts of a worker: a session to any manager, and a local socket that leads to one.

use super::plain::{Asked, Plain, Session, State};
use super::{Life, Serving, Stop, Why};
use crate::failure::Failure;
use crate::home::role_of;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use warren_client::{Client, ClientError, ErrorKind, GrpcTransport};
use warren_manager::{LocalIdentity, RAFT_DIR, init};
use warren_proto::v1;
use warren_security::CaDigest;
use warren_types::{NodeRole, Role};
use warren_worker::News;

/// Time between two looks at who the managers are.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Time between two tries to get the certificate of another role.
const RENEW_AGAIN: Duration = Duration::from_secs(2);
/// What the log of a former manager is called until it is removed.
const RAFT_OLD: &str = "raft.old";

/// Runs the worker until something ends it.
pub(super) async fn run(life: &mut Life, identity: LocalIdentity) -> Result<Why, Failure> {
    forget_office(life)?;
    if life.settings.role.is_manager() {
        life.set_role(NodeRole::Worker)?;
    }
    let managers = life.managers();
    let transport = GrpcTransport::to_managers(&managers, &life.credentials.source);
    life.dial.set(vec![Arc::new(transport.clone())]);
    life.ensure_worker(&identity).await?;
    let (news, standing) = standing(life)?;
    let (stop, stopping) = mpsc::channel(1);
    let plain = Arc::new(Plain {
        facts: life.facts.clone(),
        state: Mutex::new(State::Worker(managers.clone())),
        standing,
        unlock: None,
        stop,
    });
    let serving = Serving::socket_only(&life.home, plain.planes()).await?;
    tracing::info!(node = %life.settings.name, managers = %managers.join(","), socket = %life.home.socket.display(), "node is up as a worker");
    let mut watching = Watching {
        plain,
        client: Client::managers(&managers, &life.credentials.source),
        transport,
        news,
        stopping,
        serving,
    };
    let (why, stop) = watching.watch(life).await?;
    watching.serving.end(stop).await?;
    Ok(why)
}

/// A former manager keeps neither the cluster's keys nor its log. Repeated at each start, because a crash may come
/// at any point.
fn forget_office(life: &Life) -> Result<(), Failure> {
    init::become_worker(&mut life.opened.keyring())?;
    let (log, old) = (
        life.home.data_dir.join(RAFT_DIR),
        life.home.data_dir.join(RAFT_OLD),
    );
    remove(&old)?;
    if log.exists() {
        // Under another name first: half a log must never be taken for one.
        std::fs::rename(&log, &old)?;
        std::fs::File::open(&life.home.data_dir)?.sync_all()?;
        remove(&old)?;
        tracing::info!("the log of this former manager is removed");
    }
    Ok(())
}

/// Removes a directory with what is in it; one that is not there is gone already.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::Daemon(format!(
                "{} cannot be removed: {error}; remove it by hand",
                path.display()
            )))
        }
        _ => Ok(()),
    }
}

fn standing(life: &Life) -> Result<(watch::Receiver<News>, Asked), Failure> {
    let worker = life.worker.as_ref();
    let worker = worker.ok_or_else(|| Failure::Daemon("the worker has not started".to_owned()))?;
    let (news, running) = (worker.news(), worker.running());
    let seen = news.clone();
    let asked = move || Session {
        connected: seen.borrow().connected,
        running: running(),
    };
    Ok((news, Box::new(asked)))
}

struct Watching {
    plain: Arc<Plain>,
    client: Client,
    transport: GrpcTransport,
    news: watch::Receiver<News>,
    stopping: mpsc::Receiver<warren_types::Duration>,
    serving: Serving,
}

impl Watching {
    /// Waits for what ends the worker's part alone, and meanwhile keeps the list of managers fresh.
    async fn watch(&mut self, life: &mut Life) -> Result<(Why, Stop), Failure> {
        let credentials = life.credentials.clone();
        let managers = life.managers.clone();
        let known = move || {
            let managers = managers.lock();
            managers.map_or_else(|e| e.into_inner().clone(), |m| m.clone())
        };
        let renewing = credentials.keep(known, None);
        tokio::pin!(renewing);
        let mut role = credentials.role();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut promoted = false;
        loop {
            if *role.borrow_and_update() == Role::Manager {
                return Ok((Why::Changed, Stop::QUICK));
            }
            let news = self.news.borrow_and_update().clone();
            if news.removed {
                return Ok((Why::Removed, Stop::QUICK));
            }
            if let Some(wanted) = news.role
                && wanted.is_manager()
                && !promoted
            {
                tracing::info!("this node is a manager now; it asks for a manager's certificate");
                life.set_role(wanted)?;
                promoted = true;
                credentials.hurry();
            }
            tokio::select! {
                stop = life.signals.asked() => return Ok((Why::Stop, stop)),
                grace = self.stopping.recv() => {
                    return Ok((Why::Stop, Stop::within(grace.unwrap_or_default())));
                }
                // It has had a manager's certificate for a moment.
                () = &mut renewing => return Ok((Why::Demoted, Stop::QUICK)),
                changed = role.changed() => if changed.is_err() { return Ok((Why::Stop, Stop::QUICK)) },
                changed = self.news.changed() => match changed {
                    Ok(()) => look.reset_immediately(),
                    Err(_) => return Err(Failure::Daemon("the worker has ended".to_owned())),
                },
                () = tokio::time::sleep(RENEW_AGAIN), if promoted => credentials.hurry(),
                info = tick(&mut look, &self.client) => match info {
                    Ok(info) => self.refresh(life, &info),
                    Err(error) if error.kind == ErrorKind::Removed => {
                        return Ok((Why::Removed, Stop::QUICK));
                    }
                    Err(error) => tracing::debug!(%error, "no manager tells who the managers are"),
                },
                failure = self.serving.failed() => return Err(failure),
            }
        }
    }

    fn refresh(&self, life: &Life, info: &v1::GetClusterInfoResponse) {
        // A member on its way out is listed, too.
        let is_manager = |name: &str| role_of(name).is_some_and(NodeRole::is_manager);
        let managers = info.servers.iter().filter(|s| is_manager(&s.role));
        let addresses = managers.map(|s| s.address.clone());
        let addresses: Vec<String> = addresses.filter(|a| !a.is_empty()).collect();
        if life.set_managers(addresses) {
            let managers = life.managers();
            tracing::info!(managers = %managers.join(","), "the managers' addresses");
            self.transport.set_managers(&managers);
            self.client.set_managers(&managers);
            self.plain.set(State::Worker(managers));
        }
        let own = life.credentials.source.current().ca_pem;
        if info.ca_fingerprint.is_empty() {
            return;
        }
        let is_newest = |pem: &String| {
            CaDigest::of_pem(pem).is_ok_and(|digest| digest.hex() == info.ca_fingerprint)
        };
        match own.iter().find(|pem| is_newest(pem)) {
            None => {
                tracing::info!("the cluster has a new certificate authority");
                life.credentials.hurry();
            }
            Some(newest) if !info.ca_rotation => {
                life.credentials.follow_roots(std::slice::from_ref(newest));
            }
            Some(_) => {}
        }
    }
}

async fn tick(
    look: &mut tokio::time::Interval,
    client: &Client,
) -> Result<v1::GetClusterInfoResponse, ClientError> {
    look.tick().await;
    client.cluster_info().await
}
