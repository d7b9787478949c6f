//! `warren up` once a daemon runs, and `warren down`.

use super::apply::{self, OWN_LABEL_PREFIX, Options};
use super::service::delete_views;
use super::{all_failures, show};
use crate::api::{Api, ServiceView};
use crate::args::{DownArgs, UpArgs};
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::manifest::{self, Manifest};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use warren_types::{PortMapping, Protocol, PublishMode, ServiceSpec};

/// Name of the hello service.
pub const HELLO_SERVICE: &str = "hello";
/// Image of the hello service; the daemon makes it from its own program.
pub const HELLO_IMAGE: &str = "warren/hello:latest";
/// Port of the hello service inside its container.
pub const HELLO_CONTAINER_PORT: u16 = 8080;
/// Default port of the hello service on the node.
pub const HELLO_HOST_PORT: u16 = 8088;
/// Label of services that `up` made; `down` takes those away.
pub const UP_LABEL: &str = "warren.up";

/// Time between two attempts to reach a published port.
const KNOCK_EVERY: Duration = Duration::from_millis(100);
/// Limit of one attempt.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read; the status line is enough.
const ANSWER_BYTES: usize = 64;

/// Specification of the hello service.
#[must_use]
pub fn hello(port: u16) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: HELLO_SERVICE.to_owned(),
        ..ServiceSpec::default()
    };
    spec.container.image = HELLO_IMAGE.to_owned();
    spec.ports = vec![PortMapping {
        name: Some("http".to_owned()),
        container_port: HELLO_CONTAINER_PORT,
        host_port: port,
        // Several replicas share the port, so that scaling it is the natural next step.
        publish_mode: PublishMode::Ingress,
        ..PortMapping::default()
    }];
    spec
}

/// Reads what `up` was asked to apply; called before anything is started, so that a wrong file has no
/// effect at all.
///
/// # Errors
/// As [`manifest::load`].
pub fn up_manifest(args: &UpArgs, io: &mut Io) -> Result<Manifest> {
    let mut manifest = match &args.file {
        Some(file) => manifest::load(std::slice::from_ref(file), io)?,
        None => Manifest {
            services: vec![hello(args.hello_port)],
            ..Manifest::default()
        },
    };
    for spec in &mut manifest.services {
        debug_assert!(UP_LABEL.starts_with(OWN_LABEL_PREFIX));
        spec.labels.insert(UP_LABEL.to_owned(), "true".to_owned());
    }
    for warning in &manifest.warnings {
        io.say(&format!("warning: {warning}"))?;
    }
    Ok(manifest)
}

/// Applies, waits until the services run and their published ports answer on this machine, and prints
/// the addresses (standard output) and the next useful commands (standard error).
///
/// # Errors
/// As `warren apply`; exit status 7 when a service runs but its port does not answer in time.
pub async fn up_apply(api: &dyn Api, manifest: Manifest, args: &UpArgs, io: &mut Io) -> Result<()> {
    let hello = args.file.is_none();
    let plan = apply::plan(manifest, api, Options::default()).await?;
    let names = apply::execute(plan, &args.wait, api, io).await?;
    if args.wait.detach {
        return next_commands(&names, io);
    }
    let deadline = Instant::now() + args.wait.timeout.to_std();
    let node = api.status().await?.node;
    for name in &names {
        let view = api.service(name).await?;
        for port in local_tcp_ports(&view, &node, api).await? {
            io.progress(&format!(
                "{name}: waiting for port {} to answer",
                port.host_port
            ))?;
            knock(name, port.host_port, hello, deadline).await?;
            io.clear()?;
            let scheme = if hello { "http://" } else { "" };
            io.print(&format!(
                "{name} answers at {scheme}127.0.0.1:{}\n",
                port.host_port
            ))?;
        }
        let rest: Vec<PortMapping> = view
            .spec
            .ports
            .iter()
            .filter(|p| p.protocol == Protocol::Udp)
            .cloned()
            .collect();
        if !rest.is_empty() {
            io.print(&format!(
                "{name} has open {}\n",
                show::ports_text(&rest, false)
            ))?;
        }
    }
    next_commands(&names, io)
}

fn next_commands(names: &[String], io: &mut Io) -> Result<()> {
    let name = names.first().map_or(HELLO_SERVICE, String::as_str);
    io.say(&format!(
        "\nNext:\n  warren service list             what runs\n  warren service logs -f {name}\n  \
         warren service scale {name}=3\n  warren down                     take it away again\n  \
         warren node stop                stop the daemon, containers keep running"
    ))
}

/// Published TCP ports that are open on this node.
async fn local_tcp_ports(
    view: &ServiceView,
    node: &str,
    api: &dyn Api,
) -> Result<Vec<PortMapping>> {
    let containers = api.containers(Some(&view.id), None, false).await?;
    let here = containers
        .iter()
        .any(|c| c.node == node && c.state == "running");
    let open = |p: &&PortMapping| {
        p.host_port != 0
            && p.protocol == Protocol::Tcp
            && !containers.is_empty()
            && (here || p.publish_mode == PublishMode::Ingress)
    };
    Ok(view.spec.ports.iter().filter(open).cloned().collect())
}

/// Tries a port of this machine until it answers.
async fn knock(name: &str, port: u16, http: bool, deadline: Instant) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    loop {
        let attempt = async {
            let mut stream = TcpStream::connect(address).await?;
            if http {
                http_ok(&mut stream).await
            } else {
                Ok(())
            }
        };
        let problem = match timeout(KNOCK_TIMEOUT, attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            return Err(CliError::new(
                Exit::RolloutFailed,
                format!("service {name} runs, but {address} does not answer: {problem}"),
            )
            .remedy(format!(
                "warren service ps {name}; warren service logs {name}"
            )));
        }
        sleep_until((Instant::now() + KNOCK_EVERY).min(deadline)).await;
    }
}

async fn http_ok(stream: &mut TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES as u64)
        .read_to_end(&mut answer)
        .await?;
    let status = String::from_utf8_lossy(&answer);
    let line = status.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("answered {line:?}")))
    }
}

/// `warren down`.
pub(crate) async fn down(args: DownArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let named: Option<Vec<String>> = match &args.file {
        Some(file) => {
            let manifest = manifest::load(std::slice::from_ref(file), io)?;
            Some(manifest.services.into_iter().map(|s| s.name).collect())
        }
        None => None,
    };
    let mut views = api.services().await?;
    views.retain(|v| match &named {
        Some(names) => names.iter().any(|n| n == v.name()),
        None => args.all || v.spec.labels.contains_key(UP_LABEL),
    });
    if views.is_empty() {
        return io.say("No services to take away.");
    }
    if args.dry_run {
        for view in &views {
            io.say(&format!(
                "service {} would be deleted, {} running",
                view.name(),
                view.running
            ))?;
        }
        return Ok(());
    }
    all_failures(delete_views(&views, &args.wait, api, io).await?)
}
