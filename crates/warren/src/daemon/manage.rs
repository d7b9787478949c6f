//! The parts of a manager: the API on its port, the quorum behind it.

use super::{Life, Serving, Stop, Why};
use crate::failure::Failure;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use warren_api::metrics_http::serve_metrics;
use warren_api::{ApiConfig, Limits, Server};
use warren_client::{GrpcTransport, InProcessTransport, SessionTransport};
use warren_manager::{LocalIdentity, Manager, ManagerConfig, ManagerEvent, expired, init};
use warren_types::{NodeId, Revision};

/// Time between two looks at the records when they change all the time.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Time between two tries to get the certificate of another role.
const RENEW_AGAIN: Duration = Duration::from_secs(2);

/// Runs the manager until something ends it.
pub(super) async fn run(life: &mut Life, identity: LocalIdentity) -> Result<Why, Failure> {
    let identity = in_time(life, identity)?;
    let server = bind(life).await?;
    let (node, founder) = (identity.node, identity.is_founder());
    if life.has_containers() {
        life.ensure_worker(&identity).await?;
    }
    let mut manager = Manager::start(config(life, identity)).await?;
    if founder && manager.state().settings().is_some() {
        init::founded(&mut life.opened.keyring())?;
    }
    connect(life, &manager, node);
    let mut serving = Serving::start(server, manager.planes());
    tracing::info!(node = %life.settings.name, api = %life.settings.api_addr, socket = %life.home.socket.display(), "node is up");
    let _telling = telling(life, &manager).await;
    let (why, stop) = watch(life, &mut manager, &mut serving).await?;
    life.dial.set(Vec::new());
    if why == Why::Stop {
        // While calls are still served, so that callers are led to the new leader.
        manager.hand_over().await;
    }
    serving.end(stop).await?;
    if let Some(worker) = &life.worker {
        worker.redial();
    }
    manager.shutdown().await;
    Ok(why)
}

/// With a certificate that is over, no manager takes this one's word, nor would this one take theirs. So it signs the next one
/// itself; when it cannot, it goes on as a node does whose certificate is over, and asks the others.
fn in_time(life: &Life, identity: LocalIdentity) -> Result<LocalIdentity, Failure> {
    let now = warren_manager::edge::now();
    let signed =
        tokio::task::block_in_place(|| expired::renew_expired(&life.opened.disk, &identity, now));
    match signed {
        Ok(None) => Ok(identity),
        Ok(Some(renewed)) => {
            tracing::warn!(
                "this manager's certificate was over; it has signed the next one itself"
            );
            life.credentials.take(renewed)
        }
        Err(error) => {
            tracing::warn!(%error, "this manager's certificate is over, and it cannot sign the next one itself; it asks the others");
            Ok(identity)
        }
    }
}

/// Metrics, health and readiness on their own address. A manager that cannot tell them works all the same, so a taken port
/// is a warning; the telling ends with what is returned.
async fn telling(life: &Life, manager: &Manager) -> Option<oneshot::Sender<()>> {
    let address = life.settings.metrics_addr?;
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%address, %error, "no metrics: choose another address with --metrics-addr, or `none`");
            return None;
        }
    };
    let (open, closed) = oneshot::channel::<()>();
    let telemetry = manager.telemetry();
    tokio::spawn(async move {
        let end = async {
            // Dropping the sender is the sign.
            let _ = closed.await;
        };
        serve_metrics(listener, telemetry, end).await;
    });
    Some(open)
}

async fn bind(life: &Life) -> Result<Server, Failure> {
    let config = ApiConfig {
        tcp: Some((life.settings.api_addr, life.credentials.tls.clone())),
        unix: Some(life.home.socket.clone()),
        limits: Limits::default(),
    };
    Ok(Server::bind(config).await?)
}

fn config(life: &Life, identity: LocalIdentity) -> ManagerConfig {
    ManagerConfig {
        identity,
        facts: life.node_facts(),
        disk: life.opened.disk.clone(),
        data_dir: life.home.data_dir.clone(),
        keyring: life.opened.keyring.clone(),
        source: life.credentials.source.clone(),
        managers: life.managers(),
        raft_profile: life.settings.raft_profile,
    }
}

/// The worker's ways: through this manager, and, while it knows no leader, through the others.
fn connect(life: &Life, manager: &Manager, node: NodeId) {
    let own = life.node_facts().address;
    let mut others = life.managers();
    others.retain(|address| *address != own);
    let mut ways: Vec<Arc<dyn SessionTransport>> =
        vec![Arc::new(InProcessTransport::new(manager.acceptor(node)))];
    if !others.is_empty() {
        let over = GrpcTransport::to_managers(&others, &life.credentials.source);
        ways.push(Arc::new(over));
    }
    life.dial.set(ways);
    if let Some(worker) = &life.worker {
        worker.redial();
    }
}

/// Waits for what ends the manager, and meanwhile follows the records.
async fn watch(
    life: &mut Life,
    manager: &mut Manager,
    serving: &mut Serving,
) -> Result<(Why, Stop), Failure> {
    let credentials = life.credentials.clone();
    let managers = life.managers.clone();
    let known = move || {
        let managers = managers.lock();
        managers.map_or_else(|e| e.into_inner().clone(), |m| m.clone())
    };
    let renewing = credentials.keep(known, Some(manager.planes().control));
    tokio::pin!(renewing);
    let mut changes = manager.changes();
    let mut demoted = false;
    loop {
        follow(life, manager).await?;
        let record = manager.state().node(life.node).cloned();
        // Perhaps told from records that were older than its office.
        demoted &= !record.is_some_and(|node| node.role.is_manager());
        tokio::select! {
            stop = life.signals.asked() => return Ok((Why::Stop, stop)),
            event = manager.event() => match event {
                ManagerEvent::StopAsked(grace) => return Ok((Why::Stop, Stop::within(grace))),
                ManagerEvent::Removed => return Ok((Why::Removed, Stop::QUICK)),
                ManagerEvent::Recover => return Ok((Why::Recover, Stop::QUICK)),
                ManagerEvent::Demoted => {
                    tracing::info!("this node may be no manager any more; it asks for its present certificate");
                    demoted = true;
                    credentials.doubt();
                }
            },
            () = &mut renewing => return Ok((Why::Demoted, Stop::QUICK)),
            () = tokio::time::sleep(RENEW_AGAIN), if demoted => credentials.doubt(),
            () = changed(&mut changes) => {}
            failure = serving.failed() => return Err(failure),
        }
    }
}

/// Resolves some time after the next change.
async fn changed(changes: &mut watch::Receiver<Revision>) {
    if changes.changed().await.is_err() {
        // The engine has ended; its event tells why.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Keeps what the daemon has of the records in line with them.
async fn follow(life: &mut Life, manager: &Manager) -> Result<(), Failure> {
    let state = manager.state();
    let Some(settings) = state.settings() else {
        return Ok(());
    };
    life.set_managers(manager.managers());
    life.credentials.follow_roots(&settings.ca.roots_pem);
    if life.admin_sealed != settings.auto_lock {
        let identity = life.credentials.identity()?;
        super::admin::settle(&life.home, &identity, settings.auto_lock)?;
        life.admin_sealed = settings.auto_lock;
    }
    if life.settings.cluster_name != settings.name {
        life.settings.cluster_name.clone_from(&settings.name);
        life.opened.set_settings(&life.settings)?;
    }
    if let Some(record) = state.node(life.node)
        && record.role.is_manager()
    {
        life.set_role(record.role)?;
        if life.has_containers() && life.worker.is_none() {
            let identity = life.credentials.identity()?;
            life.ensure_worker(&identity).await?;
        }
    }
    Ok(())
}
