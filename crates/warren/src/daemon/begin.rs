//! How a node comes to be: founded, joined, restored, or found on the disk.

use super::address::advertised;
use crate::failure::Failure;
use crate::home::{Home, NodeSettings, Opened, role_of};
use crate::machine;
use std::net::SocketAddr;
use std::path::PathBuf;
use warren_cli::args::{ClusterInitArgs, Hidden, JoinArgs, JoinRole, NodeRunArgs, RestoreArgs};
use warren_cli::{CliError, Exit};
use warren_client::join;
use warren_manager::{InitError, Joined, NewNode, RAFT_DIR, init, recovery};
use warren_types::{NodeRole, RaftProfile};

/// How a daemon begins.
pub(crate) enum Begin {
    /// A new cluster; refused when the directory holds a node.
    New(NodeSettings),
    /// A new node of a cluster; refused when the directory holds one.
    Join(Join),
    /// The first manager of a cluster from a backup; refused when the directory holds a node.
    Restore(Restore),
    /// What the directory holds; refused when it holds none.
    Existing(Changes),
}

/// What joining needs.
pub(crate) struct Join {
    settings: NodeSettings,
    role: JoinRole,
    managers: Vec<String>,
    token: Hidden,
}

/// What restoring needs.
pub(crate) struct Restore {
    settings: NodeSettings,
    input: PathBuf,
    passphrase: Hidden,
}

/// Settings of a node that are changed from now on; absent ones stay.
#[derive(Default)]
pub(crate) struct Changes {
    api_addr: Option<SocketAddr>,
    advertise_addr: Option<String>,
    metrics_addr: Option<Option<SocketAddr>>,
}

impl From<&ClusterInitArgs> for Begin {
    fn from(args: &ClusterInitArgs) -> Self {
        Self::New(NodeSettings {
            name: args.node_id.clone().unwrap_or_else(machine::default_name),
            cluster_name: args.cluster_name.clone(),
            api_addr: args.api_addr,
            advertise_addr: args.advertise_addr.clone(),
            metrics_addr: args.metrics_addr.0,
            role: manager_role(args.manager_only),
            raft_profile: args.raft_profile.into(),
        })
    }
}

impl From<JoinArgs> for Begin {
    fn from(args: JoinArgs) -> Self {
        Self::Join(Join {
            settings: NodeSettings {
                name: args.node_id.unwrap_or_else(machine::default_name),
                cluster_name: String::new(),
                api_addr: args.api_addr,
                advertise_addr: args.advertise_addr,
                metrics_addr: args.metrics_addr.0,
                // The cluster's answer says it.
                role: NodeRole::Worker,
                raft_profile: RaftProfile::default(),
            },
            role: args.role,
            managers: args.managers,
            token: args.token,
        })
    }
}

impl From<RestoreArgs> for Begin {
    fn from(args: RestoreArgs) -> Self {
        Self::Restore(Restore {
            settings: NodeSettings {
                name: args.node_id.unwrap_or_else(machine::default_name),
                cluster_name: String::new(),
                api_addr: args.api_addr,
                advertise_addr: args.advertise_addr,
                metrics_addr: args.metrics_addr.0,
                role: manager_role(args.manager_only),
                // The backup says it.
                raft_profile: RaftProfile::default(),
            },
            input: args.input,
            passphrase: args.passphrase,
        })
    }
}

impl From<&NodeRunArgs> for Begin {
    fn from(args: &NodeRunArgs) -> Self {
        Self::Existing(Changes {
            api_addr: args.api_addr,
            advertise_addr: args.advertise_addr.clone(),
            metrics_addr: args.metrics_addr.map(|address| address.0),
        })
    }
}

const fn manager_role(manager_only: bool) -> NodeRole {
    if manager_only {
        NodeRole::Manager
    } else {
        NodeRole::Hybrid
    }
}

/// Makes sure that the directory holds a node, and says how it was told to be.
pub(super) async fn settle(
    home: &Home,
    opened: &Opened,
    begin: Begin,
) -> Result<NodeSettings, Failure> {
    let kept = opened.settings()?;
    match (begin, kept) {
        (Begin::Existing(changes), Some(kept)) => change(opened, kept, changes),
        (Begin::Existing(_), None) => Err(CliError::new(
            Exit::NotFound,
            format!("{} holds no node", home.data_dir.display()),
        )
        .remedy("make one with `warren up`, `warren cluster init` or `warren node join`")
        .into()),
        (_, Some(kept)) => Err(CliError::new(
            Exit::Exists,
            format!(
                "{} holds node {:?} already",
                home.data_dir.display(),
                kept.name
            ),
        )
        .remedy("run it with `warren node run`, or remove it with `warren node reset`")
        .into()),
        (Begin::New(settings), None) => {
            // A keyring without settings is what a crash between the two leaves: it is taken up again.
            let mut settings = settings;
            if init::has_node(&opened.keyring()) {
                settings.name = init::who(&opened.keyring())?.name;
            } else {
                init::create(&mut opened.keyring(), &new_node(&settings))?;
            }
            opened.set_settings(&settings)?;
            Ok(settings)
        }
        (Begin::Join(asked), None) => joined(opened, asked).await,
        (Begin::Restore(asked), None) => restored(home, opened, asked),
    }
}

fn change(opened: &Opened, kept: NodeSettings, changes: Changes) -> Result<NodeSettings, Failure> {
    let mut settings = kept.clone();
    if let Some(address) = changes.api_addr {
        settings.api_addr = address;
        // The one told before belonged to the old address.
        settings.advertise_addr = None;
    }
    if changes.advertise_addr.is_some() {
        settings.advertise_addr = changes.advertise_addr;
    }
    if let Some(address) = changes.metrics_addr {
        settings.metrics_addr = address;
    }
    if settings != kept {
        opened.set_settings(&settings)?;
    }
    Ok(settings)
}

/// Asks a manager for a certificate. The key is on the disk before it is asked for, and the answer is there before
/// anything is done with it, so that an interrupted join can be repeated.
async fn joined(opened: &Opened, asked: Join) -> Result<NodeSettings, Failure> {
    let Join {
        mut settings,
        role,
        managers,
        token,
    } = asked;
    if init::has_node(&opened.keyring()) {
        // The cluster had answered; only the settings are missing.
        let who = init::who(&opened.keyring())?;
        tracing::info!(node = %who.name, "taking up an earlier join that was interrupted");
        settings.name = who.name;
        opened.set_managers(&managers)?;
        opened.set_settings(&settings)?;
        return Ok(settings);
    }
    let request = init::begin_join(&mut opened.keyring())?;
    let request = join::JoinRequest {
        csr_pem: request.csr_pem,
        node_id: String::new(),
        node_name: settings.name.clone(),
        address: advertised(&settings),
        role: role.wire().to_owned(),
    };
    let answer = join::request_certificate(&managers, token.reveal(), request)
        .await
        .map_err(CliError::from)?;
    let unreadable = || {
        Failure::Daemon(
            "the manager's answer cannot be understood; compare `warren version` here and there"
                .to_owned(),
        )
    };
    settings.role = role_of(&answer.role).ok_or_else(unreadable)?;
    settings.cluster_name = answer.cluster_name;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| unreadable());
    let joined = Joined {
        cert_pem: text(answer.certificate)?,
        roots_pem: init::split_pem(&text(answer.ca_cert)?),
    };
    let told = answer.managers.into_iter().map(|m| m.address);
    let told: Vec<String> = told.filter(|a| !a.is_empty()).collect();
    opened.set_managers(if told.is_empty() { &managers } else { &told })?;
    let identity = init::join(&mut opened.keyring(), &joined)?;
    settings.name.clone_from(&identity.name);
    opened.set_settings(&settings)?;
    tracing::info!(node = %identity.name, role = settings.role.name(), "joined");
    Ok(settings)
}

/// Makes this machine the first manager of the cluster in a backup. The settings are written last: until then nothing
/// here counts as a node, and restoring can be repeated.
fn restored(home: &Home, opened: &Opened, asked: Restore) -> Result<NodeSettings, Failure> {
    let Restore {
        mut settings,
        input,
        passphrase,
    } = asked;
    let unreadable = |error: std::io::Error| {
        CliError::new(Exit::NotFound, format!("{}: {error}", input.display()))
            .remedy("name a file that `warren cluster backup` wrote with --input")
    };
    let backup = std::fs::File::open(&input).map_err(unreadable)?;
    super::work::remove(&home.data_dir.join(RAFT_DIR))?;
    let facts = super::node_facts(home, &settings);
    let restored = tokio::task::block_in_place(|| {
        recovery::restore(
            &opened.disk,
            &mut opened.keyring(),
            &new_node(&settings),
            &facts,
            backup,
            passphrase.reveal(),
        )
    })?;
    settings.cluster_name = restored.cluster_name;
    settings.name.clone_from(&restored.identity.name);
    opened.set_settings(&settings)?;
    let (services, secrets) = restored.objects;
    tracing::info!(cluster = %settings.cluster_name, services, secrets, made_at = restored.backup_of.0, "restored");
    Ok(settings)
}

/// The first manager, as its certificate names it.
fn new_node(settings: &NodeSettings) -> NewNode {
    let mut names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        settings.name.clone(),
    ];
    let advertised = advertised(settings);
    let host = advertised.rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if !host.is_empty() && !names.iter().any(|n| n == host) {
        names.push(host.to_owned());
    }
    NewNode {
        name: settings.name.clone(),
        api_names: names,
    }
}

/// The identity as it lies on the disk; `None` while it is locked.
pub(super) fn identity(opened: &Opened) -> Result<Option<warren_manager::LocalIdentity>, Failure> {
    match init::load(&opened.keyring()) {
        Ok(identity) => Ok(Some(identity)),
        Err(InitError::Locked) => Ok(None),
        Err(other) => Err(other.into()),
    }
}
