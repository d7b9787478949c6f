//! A running node: parse, build the parts, bind, run, stop.

use crate::failure::Failure;
use crate::home::{Home, NodeSettings, Opened};
use crate::machine;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use warren_api::{ApiConfig, Limits, Server, TlsSettings};
use warren_cli::{Build, CliError, Exit};
use warren_client::{IdentitySource, InProcessTransport, TlsIdentity};
use warren_manager::{
    LocalIdentity, Manager, ManagerConfig, ManagerEvent, NewNode, NodeFacts, init,
};
use warren_security::{ClientAuth, server_config};
use warren_types::NodeRole;
use warren_worker::{Places, Worker, WorkerConfig};

/// How a daemon begins.
pub(crate) enum Begin {
    /// A new cluster; refused when the directory holds a node.
    New(NodeSettings),
    /// What the directory holds; refused when it holds none.
    Existing,
}

/// Runs a node until a signal or a call of the API stops it. Containers stay.
pub(crate) async fn run(home: Home, begin: Begin) -> Result<(), Failure> {
    let mut opened = home.open()?;
    let (identity, settings) = identity(&home, &mut opened, begin)?;
    export_admin(&home, &identity)?;
    let facts = facts(&home, &identity, &settings);
    let server = bind(&home, &identity, &settings).await?;
    let node = identity.node;
    let node_key = *identity.node_key();
    let worker_facts = worker_facts(&identity, &facts);
    let source = IdentitySource::new(TlsIdentity {
        ca_pem: identity.roots_pem.clone(),
        own: Some((identity.cert_pem.clone(), identity.key_pem.to_string())),
    })
    .map_err(|error| Failure::Daemon(error.to_string()))?;
    let Opened {
        disk,
        keyring,
        guard: _guard,
    } = opened;
    let config = ManagerConfig {
        identity,
        facts,
        disk,
        data_dir: home.data_dir.clone(),
        keyring: Arc::new(Mutex::new(keyring)),
        source,
        managers: Vec::new(),
    };
    let mut manager = Manager::start(config).await?;
    let worker = if settings.manager_only {
        None
    } else {
        let shim = std::env::current_exe()?;
        let config = WorkerConfig {
            facts: worker_facts,
            places: Places::new(home.data_dir.clone(), home.run_dir.clone(), node),
            shim: shim.clone(),
            node_key,
            transport: Arc::new(InProcessTransport::new(manager.acceptor(node))),
            hello: Some(shim),
        };
        Some(Worker::start(config).await?)
    };
    tracing::info!(node = %settings.name, api = %settings.api_addr, socket = %home.socket.display(), "node is up");
    let planes = manager.planes();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(planes, async move {
        // A dropped sender means that the daemon ends: that is a stop, too.
        let _ = stopped.await;
    }));
    let grace = wait_for_stop(&mut manager).await?;
    drop(stop);
    let served = tokio::time::timeout(grace, serving).await;
    if let Ok(Ok(ended)) = served {
        ended?;
    }
    if let Some(worker) = worker {
        worker.shutdown();
    }
    manager.hand_over().await;
    manager.shutdown().await;
    tracing::info!("node stopped; its containers go on running");
    Ok(())
}

/// Longest time for open calls to end after a signal.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// Time beyond the caller's grace until the server is left to itself.
const SERVER_EXTRA: Duration = Duration::from_secs(1);

async fn wait_for_stop(manager: &mut Manager) -> Result<Duration, Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let grace = tokio::select! {
        _ = terminate.recv() => SIGNAL_GRACE,
        _ = interrupt.recv() => SIGNAL_GRACE,
        event = manager.event() => match event {
            ManagerEvent::StopAsked(grace) => grace.to_std(),
            other => {
                tracing::error!(?other, "the manager cannot go on");
                SIGNAL_GRACE
            }
        },
    };
    Ok(grace + SERVER_EXTRA)
}

fn identity(
    home: &Home,
    opened: &mut Opened,
    begin: Begin,
) -> Result<(LocalIdentity, NodeSettings), Failure> {
    let kept = opened.settings()?;
    match (begin, kept) {
        (Begin::New(_), Some(kept)) => {
            let text = format!(
                "{} holds node {:?} of a cluster already",
                home.data_dir.display(),
                kept.name
            );
            let error = CliError::new(Exit::Exists, text);
            Err(error
                .remedy("run it with `warren node run`, or remove it with `warren node reset`")
                .into())
        }
        (Begin::Existing, None) => {
            let error = CliError::new(
                Exit::NotFound,
                format!("{} holds no node", home.data_dir.display()),
            );
            Err(error
                .remedy("make one with `warren up` or `warren cluster init`")
                .into())
        }
        (Begin::Existing, Some(kept)) => Ok((init::load(&opened.keyring)?, kept)),
        (Begin::New(settings), None) => {
            let new = NewNode {
                name: settings.name.clone(),
                api_names: api_names(&settings),
            };
            // A keyring without settings is what a crash between the two leaves: it is taken up again.
            let identity = if init::has_node(&opened.keyring) {
                init::load(&opened.keyring)?
            } else {
                init::create(&mut opened.keyring, &new)?
            };
            opened.set_settings(&settings)?;
            Ok((identity, settings))
        }
    }
}

fn api_names(settings: &NodeSettings) -> Vec<String> {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        settings.name.clone(),
    ];
    let address = settings.api_addr.ip();
    if !address.is_unspecified() && !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}

/// The first administrator's certificate, for use from another machine (`WARREN_CONTEXT_DIR`).
fn export_admin(home: &Home, identity: &LocalIdentity) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let Some((cert, key)) = &identity.admin else {
        return Ok(());
    };
    let directory = home.data_dir.join("admin");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)?;
    for (name, text) in [
        ("ca.crt", identity.roots_text().as_str()),
        ("node.crt", cert),
        ("node.key", key),
    ] {
        let path = directory.join(name);
        if path.exists() {
            continue;
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    Ok(())
}

async fn bind(
    home: &Home,
    identity: &LocalIdentity,
    settings: &NodeSettings,
) -> Result<Server, Failure> {
    // Optional: joiners have no certificate yet; the table of rights decides call by call.
    let tls = server_config(
        &identity.roots_pem,
        &identity.cert_pem,
        &identity.key_pem,
        ClientAuth::Optional,
    )?;
    let tls = TlsSettings::new(tls, Some(identity.cluster));
    let config = ApiConfig {
        tcp: Some((settings.api_addr, tls)),
        unix: Some(home.socket.clone()),
        limits: Limits::default(),
    };
    Ok(Server::bind(config).await?)
}

fn facts(home: &Home, identity: &LocalIdentity, settings: &NodeSettings) -> NodeFacts {
    NodeFacts {
        cluster_name: settings.cluster_name.clone(),
        role: if settings.manager_only {
            NodeRole::Manager
        } else {
            NodeRole::Hybrid
        },
        address: settings.api_addr.to_string(),
        hostname: machine::hostname(),
        platform: machine::platform(),
        resources: machine::resources(&home.data_dir),
        version: Build::CURRENT.version.to_owned(),
        name: identity.name.clone(),
    }
}

fn worker_facts(identity: &LocalIdentity, facts: &NodeFacts) -> warren_worker::NodeFacts {
    warren_worker::NodeFacts {
        node: identity.node,
        name: identity.name.clone(),
        role: facts.role,
        hostname: facts.hostname.clone(),
        address: facts.address.clone(),
        platform: facts.platform.clone(),
        resources: facts.resources,
        version: facts.version.clone(),
    }
}
