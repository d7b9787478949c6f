//! Commands against a cluster in memory: what is asked of it, what is printed, how it ends.

use crate::api::*;
use crate::error::{CliError, Exit, Result};
use crate::{Cli, Context, DaemonCommand, Io, Outcome, golden};
use async_trait::async_trait;
use clap::Parser;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use warren_types::{Duration, ExitInfo, Mode, ServiceSpec, Timestamp};

/// A moment that all ages in golden files count from.
const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn at(seconds_ago: u64) -> Time {
    Time(Some(Timestamp(NOW.0 - seconds_ago * 1000)))
}

/// How containers of new revisions behave.
#[derive(Debug, Clone, Default, PartialEq)]
enum Fate {
    /// They run at the second look.
    #[default]
    Run,
    /// They wait for ever.
    Pend(&'static str),
    /// They end at once.
    Fail,
    /// They end, and the cluster goes back to the revision before.
    RollBack,
}

#[derive(Debug, Default)]
struct World {
    services: BTreeMap<String, ServiceView>,
    containers: Vec<ContainerView>,
    secrets: Vec<SecretView>,
    volumes: Vec<VolumeView>,
    nodes: Vec<NodeView>,
    images: Vec<ImageView>,
    calls: Vec<String>,
    fate: Fate,
    next: u64,
    stopped: bool,
    imported: usize,
}

impl World {
    fn id(&mut self) -> String {
        self.next += 1;
        format!("01hzz0000000000000000000{:02}", self.next)
    }

    /// What the planners and workers of a cluster do with a changed service.
    fn converge(&mut self, name: &str) {
        let service = self.services[name].clone();
        for c in self
            .containers
            .iter_mut()
            .filter(|c| c.service == name && !c.ended())
        {
            c.state = "shutdown".into();
            c.desired = "shutdown".into();
        }
        let Mode::Replicated { replicas } = service.spec.mode else {
            return;
        };
        for slot in 1..=replicas {
            let (state, reason, exit) = match self.fate {
                Fate::Run => ("starting", "image is being unpacked", None),
                Fate::Pend(reason) => ("pending", reason, None),
                Fate::Fail | Fate::RollBack => (
                    "failed",
                    "the program ended",
                    Some(ExitInfo {
                        code: 3,
                        signal: None,
                        oom: false,
                    }),
                ),
            };
            let container = ContainerView {
                id: self.id(),
                name: format!("{name}.{slot}"),
                service_id: service.id.clone(),
                service: name.into(),
                slot,
                revision: service.revision,
                node_id: "n1".into(),
                node: "edge-1".into(),
                desired: "running".into(),
                state: state.into(),
                reason: reason.into(),
                image: service.spec.container.image.clone(),
                exit,
                created_at: at(180),
                updated_at: at(180),
                ..ContainerView::default()
            };
            self.containers.push(container);
        }
        if self.fate == Fate::RollBack && service.revision > 1 {
            let view = self.services.get_mut(name).unwrap();
            view.revision -= 1;
            view.rollout = Some(RolloutView {
                from: service.revision,
                to: service.revision - 1,
                state: "rolled-back".into(),
                message: "1 of 1 new containers failed".into(),
            });
        }
    }

    /// The next step of everything that is starting.
    fn tick(&mut self) {
        for c in self.containers.iter_mut().filter(|c| c.state == "starting") {
            c.state = "running".into();
            c.reason.clear();
            c.started_at = at(60);
        }
        for (name, view) in &mut self.services {
            let mine = self.containers.iter().filter(|c| c.service == *name);
            view.running = mine.filter(|c| c.state == "running").count() as u32;
            view.ready = view.running;
        }
    }

    fn find(&self, name: &str) -> Result<ServiceView> {
        let found = self
            .services
            .values()
            .find(|s| s.name() == name || s.id == name);
        found.cloned().ok_or_else(|| {
            CliError::not_found(format!("service {name} does not exist"))
                .remedy("warren service list")
        })
    }
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<World>>);

impl Fake {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
    fn called(&self, text: impl Into<String>) {
        self.world().calls.push(text.into());
    }
}

#[async_trait]
impl Connector for Fake {
    async fn connect(&self, target: &Target) -> Result<Box<dyn Api>> {
        if target.manager.as_deref() == Some("nobody:1") || self.world().stopped {
            return Err(
                CliError::new(Exit::NoConnection, "no manager can be reached").remedy("warren up"),
            );
        }
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Api for Fake {
    async fn status(&self) -> Result<StatusView> {
        Ok(StatusView {
            version: "0.1.0".into(),
            node: "edge-1".into(),
            pid: 7,
            ..StatusView::default()
        })
    }
    async fn stop_daemon(&self, grace: Duration) -> Result<u32> {
        self.called(format!("stop {grace}"));
        self.world().stopped = true;
        Ok(7)
    }
    async fn cluster(&self) -> Result<ClusterView> {
        Ok(ClusterView {
            id: "01hzzcluster".into(),
            name: "home".into(),
            leader: "edge-1".into(),
            leader_address: "10.0.0.1:7946".into(),
            quorum: true,
            managers: 1,
            nodes: 2,
            nodes_ready: 1,
            members: vec![MemberView {
                id: "n1".into(),
                address: "10.0.0.1:7946".into(),
                suffrage: "Voter".into(),
            }],
            created_at: at(86_400 * 3),
            ..ClusterView::default()
        })
    }
    async fn nodes(&self) -> Result<Vec<NodeView>> {
        Ok(self.world().nodes.clone())
    }
    async fn node(&self, name: &str) -> Result<NodeView> {
        let found = self
            .world()
            .nodes
            .iter()
            .find(|n| n.name == name || n.id == name)
            .cloned();
        found.ok_or_else(|| CliError::not_found(format!("node {name} does not exist")))
    }
    async fn update_node(&self, name: &str, change: NodeChange) -> Result<NodeView> {
        self.called(format!("update_node {name} {change:?}"));
        self.node(name).await
    }
    async fn remove_node(&self, name: &str, force: bool) -> Result<()> {
        self.called(format!("remove_node {name} {force}"));
        Ok(())
    }
    async fn services(&self) -> Result<Vec<ServiceView>> {
        Ok(self.world().services.values().cloned().collect())
    }
    async fn service(&self, name: &str) -> Result<ServiceView> {
        let mut world = self.world();
        world.tick();
        world.find(name)
    }
    async fn create_service(&self, spec: &ServiceSpec, dry_run: bool) -> Result<ServiceView> {
        let mut world = self.world();
        world
            .calls
            .push(format!("create_service {} dry_run={dry_run}", spec.name));
        if world.services.contains_key(&spec.name) {
            return Err(CliError::new(
                Exit::Exists,
                format!("service {} exists already", spec.name),
            ));
        }
        let view = ServiceView {
            id: format!("01hzzservice{}", spec.name),
            spec: spec.clone(),
            desired: 1,
            revision: 1,
            version: 10,
            created_at: at(200),
            updated_at: at(200),
            ..ServiceView::default()
        };
        if !dry_run {
            world.services.insert(spec.name.clone(), view.clone());
            world.converge(&spec.name);
        }
        Ok(view)
    }
    async fn update_service(
        &self,
        id: &str,
        spec: &ServiceSpec,
        expected: u64,
        dry_run: bool,
    ) -> Result<ServiceView> {
        let mut world = self.world();
        world.calls.push(format!(
            "update_service {} expected={expected} dry_run={dry_run}",
            spec.name
        ));
        let mut view = world.find(id)?;
        if view.version != expected {
            return Err(CliError::general(format!(
                "service {} was changed meanwhile",
                spec.name
            )));
        }
        if !dry_run {
            view.spec = spec.clone();
            view.revision += 1;
            view.version += 1;
            world.services.insert(spec.name.clone(), view.clone());
            world.converge(&spec.name);
        }
        Ok(view)
    }
    async fn scale_service(&self, name: &str, replicas: u32) -> Result<ServiceView> {
        let mut world = self.world();
        world.calls.push(format!("scale {name} {replicas}"));
        let mut view = world.find(name)?;
        view.spec.mode = Mode::Replicated { replicas };
        let name = view.name().to_owned();
        world.services.insert(name.clone(), view.clone());
        world.converge(&name);
        Ok(view)
    }
    async fn rollback_service(&self, name: &str, to: Option<u32>) -> Result<ServiceView> {
        self.called(format!("rollback {name} {to:?}"));
        self.service(name).await
    }
    async fn delete_service(&self, name: &str) -> Result<()> {
        let mut world = self.world();
        let view = world.find(name)?;
        world.calls.push(format!("delete {}", view.name()));
        world.services.remove(view.name());
        world.containers.retain(|c| c.service != view.name());
        Ok(())
    }
    async fn containers(
        &self,
        service: Option<&str>,
        node: Option<&str>,
        ended: bool,
    ) -> Result<Vec<ContainerView>> {
        let world = self.world();
        let service = match service {
            Some(name) => Some(world.find(name)?.id),
            None => None,
        };
        let wanted = |c: &&ContainerView| {
            service.as_ref().is_none_or(|s| c.service_id == *s)
                && node.is_none_or(|n| c.node_id == n)
                && (ended || !c.ended())
        };
        Ok(world.containers.iter().filter(wanted).cloned().collect())
    }
    async fn watch(&self, _service: &str) -> Result<BoxStream<'static, Result<()>>> {
        Ok(futures::stream::iter([Ok(())])
            .chain(futures::stream::pending())
            .boxed())
    }
    async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.called(format!("logs {query:?}"));
        let line = |stderr: bool, data: &str| {
            Ok(LogLine {
                container_id: "c1".into(),
                container: "web.1".into(),
                time: at(5),
                stderr,
                data: data.as_bytes().to_vec(),
            })
        };
        let lines = [
            line(false, "long "),
            line(false, "line\n"),
            line(true, "oops\n"),
            line(false, "next\n"),
        ];
        Ok(futures::stream::iter(lines).boxed())
    }
    async fn exec(
        &self,
        start: ExecStart,
        _input: mpsc::Receiver<ExecInput>,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        self.called(format!("exec {start:?}"));
        let output = [
            Ok(ExecOutput::Stdout(b"out".to_vec())),
            Ok(ExecOutput::Stderr(b"err".to_vec())),
            Ok(ExecOutput::Exit(42)),
        ];
        Ok(futures::stream::iter(output).boxed())
    }
    async fn import_image(
        &self,
        mut archive: Box<dyn AsyncRead + Send + Unpin>,
        reference: Option<String>,
        _node: Option<String>,
    ) -> Result<Vec<ImageView>> {
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).await?;
        self.world().imported = bytes.len();
        self.called(format!("import {reference:?}"));
        Ok(self.world().images.clone())
    }
    async fn images(&self, _node: Option<&str>) -> Result<Vec<ImageView>> {
        Ok(self.world().images.clone())
    }
    async fn image(&self, reference: &str) -> Result<ImageDetails> {
        let image = self.world().images.first().cloned();
        let image = image
            .ok_or_else(|| CliError::not_found(format!("image {reference} does not exist")))?;
        Ok(ImageDetails {
            image,
            cmd: vec!["nginx".into()],
            ..ImageDetails::default()
        })
    }
    async fn remove_image(&self, reference: &str, _node: Option<&str>) -> Result<Vec<ImageView>> {
        if reference == "used" {
            return Err(CliError::general("image used is in use by service web"));
        }
        self.called(format!("remove_image {reference}"));
        Ok(Vec::new())
    }
    async fn secrets(&self) -> Result<Vec<SecretView>> {
        Ok(self.world().secrets.clone())
    }
    async fn create_secret(&self, secret: NewSecret) -> Result<SecretView> {
        self.called(format!("create_secret {secret:?}"));
        let view = SecretView {
            id: "01hzzsecret".into(),
            name: secret.name,
            size: secret.data.len() as u64,
            created_at: at(30),
            ..SecretView::default()
        };
        self.world().secrets.push(view.clone());
        Ok(view)
    }
    async fn update_secret(&self, name: &str, data: Vec<u8>) -> Result<SecretView> {
        self.called(format!("update_secret {name} {} bytes", data.len()));
        Ok(SecretView::default())
    }
    async fn delete_secret(&self, name: &str) -> Result<()> {
        if name == "used" {
            return Err(CliError::general("secret used is used by service web"));
        }
        self.called(format!("delete_secret {name}"));
        Ok(())
    }
    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        Ok(self.world().volumes.clone())
    }
    async fn create_volume(&self, volume: NewVolume) -> Result<VolumeView> {
        self.called(format!("create_volume {volume:?}"));
        let view = VolumeView {
            id: "01hzzvolume".into(),
            name: volume.name,
            driver: volume.driver,
            driver_opts: volume.driver_opts,
            labels: volume.labels,
            created_at: at(30),
            ..VolumeView::default()
        };
        self.world().volumes.push(view.clone());
        Ok(view)
    }
    async fn delete_volume(&self, name: &str, force: bool) -> Result<()> {
        self.called(format!("delete_volume {name} {force}"));
        Ok(())
    }
    async fn events(&self, query: EventQuery) -> Result<BoxStream<'static, Result<EventView>>> {
        self.called(format!("events {query:?}"));
        let event = EventView {
            id: "e1".into(),
            kind: "service.created".into(),
            time: at(5),
            revision: 9,
            message: "service web was made".into(),
            metadata: BTreeMap::from([("service_id".to_owned(), "s1".to_owned())]),
        };
        Ok(futures::stream::iter([Ok(event)]).boxed())
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// What a command line did.
#[derive(Debug)]
struct Ran {
    exit: u8,
    out: String,
    err: String,
}

async fn run_with(fake: &Fake, input: &str, line: &str) -> Ran {
    let (out, err) = (Sink::default(), Sink::default());
    let input = std::io::Cursor::new(input.as_bytes().to_vec());
    let mut io = Io::with(
        Box::new(out.clone()),
        Box::new(err.clone()),
        Box::new(input),
    );
    io.now = || NOW;
    let mut context = Context {
        io,
        connector: Box::new(fake.clone()),
    };
    let words = crate::flags::words(line).unwrap().0;
    let cli = Cli::try_parse_from(std::iter::once("warren".to_owned()).chain(words))
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    match crate::run(cli, &mut context).await {
        Outcome::Exit(exit) => Ran {
            exit,
            out: out.text(),
            err: err.text(),
        },
        Outcome::Daemon(command) => panic!("{line}: {command:?}"),
    }
}

async fn run(fake: &Fake, line: &str) -> Ran {
    run_with(fake, "", line).await
}

async fn ok(fake: &Fake, line: &str) -> Ran {
    let ran = run(fake, line).await;
    assert_eq!(ran.exit, 0, "{line}: {ran:?}");
    ran
}

fn house() -> Fake {
    let fake = Fake::default();
    {
        let mut world = fake.world();
        world.nodes = vec![
            NodeView {
                id: "n1".into(),
                name: "edge-1".into(),
                role: "hybrid".into(),
                status: "ready".into(),
                availability: "active".into(),
                address: "10.0.0.1:8080".into(),
                cpu_milli: 4000,
                memory_bytes: 8 << 30,
                reserved_cpu_milli: 1500,
                reserved_memory_bytes: 1 << 30,
                containers: 3,
                platform: "linux/arm64".into(),
                created_at: at(86_400 * 3),
                ..NodeView::default()
            },
            NodeView {
                id: "n2".into(),
                name: "edge-2".into(),
                role: "worker".into(),
                status: "down".into(),
                availability: "active".into(),
                reason: "silent for 40 s".into(),
                ..NodeView::default()
            },
        ];
        world.images = vec![ImageView {
            references: vec!["nginx:1".into()],
            digest: "sha256:0123456789abcdef0123".into(),
            size_bytes: 50 << 20,
            layers: 3,
            platform: "linux/arm64".into(),
            in_use: true,
            node: "edge-1".into(),
            created_at: at(86_400 * 30),
        }];
    }
    fake
}

#[tokio::test(start_paused = true)]
async fn golden_tables_and_blocks() {
    let fake = house();
    ok(&fake, "service create web --image nginx:1 --replicas 2 -p 8080:80 -e A=1 --memory 256m --cpus 0.5 --health-http /h").await;
    ok(
        &fake,
        "service create db --image redis:7 --volume data:/data:ro --secret pass -l tier=back",
    )
    .await;
    ok(&fake, "secret create pass --from-literal geheim").await;
    ok(&fake, "volume create data --opt type=none").await;
    let mut text = String::new();
    for line in [
        "service list",
        "service list -o wide",
        "service ls -o yaml",
        "service inspect web",
        "service inspect db -o json",
        "service ps web db",
        "service ps web -o wide",
        "container list",
        "container list -o wide",
        "container inspect web.1",
        "node list",
        "node ls -o wide",
        "node inspect edge-2",
        "image list",
        "image inspect nginx:1",
        "secret list",
        "secret inspect pass",
        "volume list",
        "volume list -o wide",
        "volume inspect data",
        "cluster info",
        "events --no-follow",
        "events --no-follow -o json",
        "events --no-follow -o yaml",
        "service logs web -t",
        "version",
    ] {
        let ran = ok(&fake, line).await;
        text.push_str(&format!("$ warren {line}\n{}", ran.out));
        if !ran.err.is_empty() {
            text.push_str(&format!("[stderr]\n{}", ran.err));
        }
        text.push('\n');
    }
    golden::check("tables.txt", &text);
}

#[test]
fn golden_help() {
    fn page(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!(
            "$ {path} --help\n{}\n",
            command.render_long_help()
        ));
        let names: Vec<String> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        for name in names {
            if let Some(sub) = command.find_subcommand_mut(&name) {
                page(sub, &format!("{path} {name}"), text);
            }
        }
    }
    let mut command = crate::command().term_width(100);
    command.build();
    let mut text = String::new();
    page(&mut command, "warren", &mut text);
    let text: String = text
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    golden::check("help.txt", &text);
    crate::command().debug_assert();
}

#[tokio::test(start_paused = true)]
async fn empty_lists_print_nothing_to_standard_output() {
    let fake = Fake::default();
    for what in ["service", "container", "node", "image", "secret", "volume"] {
        let ran = ok(&fake, &format!("{what} list")).await;
        assert_eq!(ran.out, "", "{what}");
        assert_eq!(ran.err, format!("No {what}s.\n"));
        assert_eq!(ok(&fake, &format!("{what} list -o json")).await.out, "[]\n");
    }
}

#[tokio::test(start_paused = true)]
async fn create_waits_and_shows_progress_lines() {
    let fake = house();
    fake.world().fate = Fate::Pend("no node has 64 GiB of memory free");
    let ran = run(&fake, "service create big --image a --timeout 3s").await;
    assert_eq!(ran.exit, Exit::RolloutFailed as u8, "{ran:?}");
    assert!(
        ran.err
            .contains("big: 0/1 running; 1 pending: no node has 64 GiB of memory free"),
        "{ran:?}"
    );
    assert!(ran.err.contains("not done within 3s"), "{ran:?}");
    assert_eq!(ran.out, "");
    // One line for one reason, however often it was looked at.
    assert_eq!(ran.err.matches("big: 0/1 running").count(), 2, "{ran:?}");
    let detached = ok(&fake, "service create later --image a --detach -q").await;
    assert_eq!(detached.out, "01hzzservicelater\n");
}

#[tokio::test(start_paused = true)]
async fn a_failed_container_ends_the_wait_with_its_log() {
    let fake = house();
    fake.world().fate = Fate::Fail;
    let ran = run(&fake, "service create bad --image a").await;
    assert_eq!(ran.exit, 7, "{ran:?}");
    for part in [
        "bad.1 does not run: the program ended (exit 3)",
        "Last log lines of",
        "  oops",
        "warren service logs bad",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_by_the_cluster_is_a_failed_update() {
    let fake = house();
    ok(&fake, "service create web --image a:1").await;
    fake.world().fate = Fate::RollBack;
    let ran = run(&fake, "service update web --image a:2").await;
    assert_eq!(ran.exit, 7, "{ran:?}");
    assert!(ran.err.contains("the rollout of web to revision 2 was rolled back to revision 1: 1 of 1 new containers failed; web.1: the program ended (exit 3)"), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn update_sends_the_version_it_read_and_only_what_changes() {
    let fake = house();
    ok(
        &fake,
        "service create web --image a:1 -e A=1 -p 80:80 --secret s",
    )
    .await;
    let same = ok(&fake, "service update web --image a:1").await;
    assert_eq!(same.err, "service web: unchanged\n");
    let dry = ok(
        &fake,
        "service update web --env-add A=2 --env-add B=3 --publish-rm 80 --secret-rm s --dry-run",
    )
    .await;
    assert_eq!(
        dry.out,
        "~ container.env.A: \"1\" -> \"2\"\n+ container.env.B: \"3\"\n- container.secrets[0].gid: 0\n- container.secrets[0].source: \"s\"\n- container.secrets[0].uid: 0\n- ports[0].containerPort: 80\n- ports[0].hostPort: 80\n- ports[0].protocol: \"tcp\"\n- ports[0].publishMode: \"host\"\n"
    );
    ok(&fake, "service update web --image a:2 --replicas 0").await;
    ok(&fake, "service update web --force").await;
    let calls = fake.world().calls.join("\n");
    assert!(calls.contains("update_service web expected=10 dry_run=true\nupdate_service web expected=10 dry_run=false\nupdate_service web expected=11 dry_run=false"), "{calls}");
    for wrong in [
        "--env-rm X",
        "--publish-rm 81",
        "--secret-rm X",
        "--mount-rm /x",
        "--label-rm x",
        "--constraint-rm x",
        "--health-interval 5s",
    ] {
        let ran = run(&fake, &format!("service update web {wrong}")).await;
        assert_eq!(ran.exit, 2, "{wrong}: {ran:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn scale_and_delete() {
    let fake = house();
    ok(&fake, "service create a --image a").await;
    ok(&fake, "service create b --image a").await;
    let ran = ok(&fake, "service scale a=3 b --replicas 0").await;
    assert!(
        ran.err.contains("service a: 1 -> 3 replicas\n")
            && ran
                .err
                .contains("service a: scaled, revision 1, 3/3 running"),
        "{ran:?}"
    );
    assert_eq!(run(&fake, "service scale a").await.exit, 2);
    assert_eq!(run(&fake, "service scale a=many").await.exit, 2);
    let ran = run(&fake, "service delete a nothing").await;
    assert_eq!(ran.exit, Exit::NotFound as u8);
    assert!(
        ran.err.contains("service a: deleted")
            && ran.err.contains("service nothing does not exist"),
        "{ran:?}"
    );
    assert!(fake.world().services.contains_key("b"));
}

const APP: &str = "kind: Service\nmetadata: {name: web}\nspec: {image: 'a:1', secrets: [pass]}\n---\nkind: Secret\nmetadata: {name: pass}\nspec: {stringData: x}\n---\nkind: Volume\nmetadata: {name: data}\n";

#[tokio::test(start_paused = true)]
async fn apply_creates_then_converges_then_updates() {
    let fake = house();
    let dry = run_with(&fake, APP, "apply -f - --dry-run").await;
    assert_eq!(dry.exit, 0, "{dry:?}");
    assert!(
        dry.out.starts_with(
            "secret/pass: create\nvolume/data: create\nservice/web: create\n  + container.healt"
        ),
        "{dry:?}"
    );
    assert!(fake.world().services.is_empty());
    let made = run_with(&fake, APP, "apply -f -").await;
    assert_eq!(
        made.out, "secret/pass created\nvolume/data created\nservice/web created\n",
        "{made:?}"
    );
    let again = run_with(&fake, APP, "apply -f -").await;
    assert_eq!(
        again.out,
        "secret/pass unchanged (exists; its value is not compared, --force-secrets sets it)\nvolume/data unchanged\nservice/web unchanged\n",
        "{again:?}"
    );
    let other = APP.replace("a:1", "a:2");
    let diff = run_with(&fake, &other, "diff -f - --exit-code").await;
    assert_eq!(
        (diff.exit, diff.out.as_str()),
        (
            1,
            "secret/pass: unchanged (exists; its value is not compared, --force-secrets sets it)\nvolume/data: unchanged\nservice/web: change\n  ~ container.image: \"a:1\" -> \"a:2\"\n"
        )
    );
    let changed = run_with(&fake, &other, "apply -f - --force-secrets").await;
    assert!(
        changed.out.contains("secret/pass changed\n")
            && changed.out.contains("service/web changed\n"),
        "{changed:?}"
    );
    let calls = fake.world().calls.clone();
    let order: Vec<&String> = calls
        .iter()
        .filter(|c| c.starts_with("create_") && !c.contains("dry_run=true"))
        .collect();
    assert!(
        order[0].starts_with("create_secret")
            && order[1].starts_with("create_volume")
            && order[2].starts_with("create_service"),
        "{order:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_manifest_changes_nothing() {
    let fake = house();
    let ran = run_with(
        &fake,
        &format!("{APP}---\nkind: Service\nmetadata: {{name: b}}\nspec: {{imgae: x}}\n"),
        "apply -f -",
    )
    .await;
    assert_eq!(ran.exit, 2);
    assert!(
        ran.err
            .contains("stdin:14:8: spec.imgae: unknown key; did you mean image?"),
        "{ran:?}"
    );
    let missing = run_with(
        &fake,
        "kind: Secret\nmetadata: {name: x}\nspec: {external: true}\n",
        "apply -f -",
    )
    .await;
    assert_eq!(missing.exit, Exit::NotFound as u8, "{missing:?}");
    assert_eq!(run(&fake, "apply -f /nowhere/app.yaml").await.exit, 2);
    assert!(fake.world().calls.is_empty(), "{:?}", fake.world().calls);
}

#[tokio::test(start_paused = true)]
async fn directories_files_and_secret_files() {
    let fake = house();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("b.yaml"),
        "kind: Volume\nmetadata: {name: b}\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("a.yml"),
        "kind: Secret\nmetadata: {name: a}\nspec: {fromFile: value.txt}\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("value.txt"), "from a file").unwrap();
    let ran = ok(&fake, &format!("apply -f {}", dir.path().display())).await;
    assert_eq!(ran.out, "secret/a created\nvolume/b created\n");
    assert!(
        fake.world()
            .calls
            .contains(&"create_secret NewSecret(a, 11 bytes)".to_owned())
    );
    let twice = run(
        &fake,
        &format!("apply -f {0}/b.yaml -f {0}/b.yaml", dir.path().display()),
    )
    .await;
    assert!(
        twice.exit == 2 && twice.err.contains("stands here a second time"),
        "{twice:?}"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        run(&fake, &format!("apply -f {}", empty.path().display()))
            .await
            .exit,
        2
    );
}

#[tokio::test(start_paused = true)]
async fn up_labels_and_down_takes_away() {
    let fake = house();
    ok(&fake, "service create mine --image a").await;
    let cli = Cli::try_parse_from(["warren", "up", "--hello-port", "1", "--detach"]).unwrap();
    let (out, err) = (Sink::default(), Sink::default());
    let mut context = Context {
        io: Io::with(
            Box::new(out.clone()),
            Box::new(err.clone()),
            Box::new(std::io::empty()),
        ),
        connector: Box::new(fake.clone()),
    };
    let Outcome::Daemon(DaemonCommand::Up(args)) = crate::run(cli, &mut context).await else {
        panic!()
    };
    let manifest = crate::up_manifest(&args, &mut context.io).unwrap();
    crate::up_apply(&fake, manifest.clone(), &args, &mut context.io)
        .await
        .unwrap();
    crate::up_apply(&fake, manifest, &args, &mut context.io)
        .await
        .unwrap();
    assert_eq!(
        out.text(),
        "service/hello created\nservice/hello unchanged\n"
    );
    assert!(err.text().contains("warren down"));
    let ran = ok(&fake, "down").await;
    assert_eq!(ran.err, "service hello: deleted\n");
    assert_eq!(ok(&fake, "down").await.err, "No services to take away.\n");
    assert_eq!(ok(&fake, "down --all").await.err, "service mine: deleted\n");
}

/// A page that answers, to knock at.
fn web(status: &'static str) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 256];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let _ = stream.write_all(format!("HTTP/1.0 {status}\r\n\r\nhello").as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn up_waits_until_the_page_answers() {
    let fake = house();
    for (status, good) in [("200 OK", true), ("503 Busy", false)] {
        let port = web(status);
        let words = [
            "warren",
            "up",
            "--timeout",
            "2s",
            "--hello-port",
            &port.to_string(),
        ]
        .map(str::to_owned);
        let cli = Cli::try_parse_from(words).unwrap();
        let (out, err) = (Sink::default(), Sink::default());
        let mut io = Io::with(
            Box::new(out.clone()),
            Box::new(err.clone()),
            Box::new(std::io::empty()),
        );
        let crate::args::Command::Up(args) = cli.command else {
            panic!()
        };
        let manifest = crate::up_manifest(&args, &mut io).unwrap();
        let result = crate::up_apply(&fake, manifest, &args, &mut io).await;
        let line = format!("hello answers at http://127.0.0.1:{port}\n");
        assert_eq!(result.is_ok(), good, "{result:?} {}", err.text());
        assert_eq!(out.text().contains(&line), good);
        if let Err(error) = result {
            assert_eq!(error.exit, Exit::RolloutFailed);
            assert!(error.message.contains("503"), "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn exec_passes_the_exit_status_and_streams_on() {
    let fake = house();
    ok(&fake, "service create web --image a").await;
    for name in ["web", "web.1"] {
        let ran = run(
            &fake,
            &format!("container exec -e A=1 -u www -w /srv {name} ls -la --color"),
        )
        .await;
        assert_eq!(
            (ran.exit, ran.out.as_str(), ran.err.as_str()),
            (42, "out", "err"),
            "{name}"
        );
    }
    let calls = fake.world().calls.join("\n");
    assert!(calls.contains(r#"command: ["ls", "-la", "--color"], env: {"A": "1"}, user: Some("www"), workdir: Some("/srv"), tty: false, stdin: false"#), "{calls}");
    assert_eq!(
        run(&fake, "container exec nothing ls").await.exit,
        Exit::NotFound as u8
    );
    assert_eq!(
        run(&fake, "container exec -it web sh").await.exit,
        2,
        "no terminal here"
    );
}

#[tokio::test(start_paused = true)]
async fn logs_keep_parts_of_a_line_together() {
    let fake = house();
    ok(&fake, "service create web --image a").await;
    let ran = ok(&fake, "service logs web --tail 5 --since 10m").await;
    assert_eq!(ran.out, "web.1 | long line\nweb.1 | next\n");
    assert_eq!(ran.err, "web.1 | oops\n");
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains(&format!(
            "tail: Some(5), since: Some(Timestamp({}))",
            NOW.0 - 600_000
        )),
        "{calls}"
    );
    assert_eq!(
        ok(&fake, "container logs web.1").await.out,
        "long line\nnext\n"
    );
}

#[tokio::test(start_paused = true)]
async fn secrets_images_volumes_nodes() {
    let fake = house();
    assert_eq!(
        run_with(&fake, "from stdin", "secret create s --from-stdin")
            .await
            .exit,
        0
    );
    assert_eq!(
        run_with(&fake, "", "secret create s --from-stdin")
            .await
            .exit,
        2,
        "empty value"
    );
    let ran = run(&fake, "secret rm s used").await;
    assert_eq!(ran.exit, 1);
    assert_eq!(
        ran.err,
        "secret s: deleted\nerror: secret used is used by service web\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, [7; 1000]).unwrap();
    ok(
        &fake,
        &format!("image import {} --tag x:1", archive.display()),
    )
    .await;
    assert_eq!(fake.world().imported, 1000);
    assert_eq!(
        run(&fake, &format!("image import {}", dir.path().display()))
            .await
            .exit,
        2
    );
    assert_eq!(run(&fake, "image rm a used").await.exit, 1);
    ok(&fake, "volume rm a --force").await;
    ok(
        &fake,
        "node update edge-1 --availability pause --label zone=a --label-rm old",
    )
    .await;
    ok(&fake, "node drain edge-1").await;
    ok(&fake, "node undrain edge-1").await;
    ok(&fake, "node rm edge-2 --force").await;
    assert_eq!(
        run(&fake, "node inspect nobody").await.exit,
        Exit::NotFound as u8
    );
    assert_eq!(run(&fake, "events --type service.exploded").await.exit, 2);
    assert_eq!(
        ok(&fake, "node stop --grace 3s").await.err,
        "daemon stopped; containers keep running\n"
    );
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains("stop 3s") && calls.contains("remove_node edge-2 true"),
        "{calls}"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_have_their_exit_status_and_say_what_to_do() {
    let fake = house();
    let ran = run(&fake, "--manager nobody:1 service list").await;
    assert_eq!((ran.exit, ran.out.as_str()), (3, ""));
    assert_eq!(
        ran.err,
        "error: no manager can be reached\n  try: warren up\n"
    );
    assert_eq!(run(&fake, "service inspect nothing").await.exit, 4);
    ok(&fake, "service create web --image a").await;
    assert_eq!(run(&fake, "service create web --image a").await.exit, 5);
    assert_eq!(
        run(&fake, "service create Bad_Name --image a").await.exit,
        2
    );
    assert!(
        ok(&fake, "--manager nobody:1 version")
            .await
            .out
            .contains("does not answer")
    );
    assert!(ok(&fake, "completion bash").await.out.contains("_warren"));
}

#[test]
fn every_client_error_has_an_exit_status() {
    use warren_client::{ClientError, ErrorKind};
    for (kind, exit) in [
        (ErrorKind::InvalidArgument, Exit::Usage),
        (ErrorKind::Unavailable, Exit::NoConnection),
        (ErrorKind::NotFound, Exit::NotFound),
        (ErrorKind::AlreadyExists, Exit::Exists),
        (ErrorKind::PermissionDenied, Exit::Denied),
        (ErrorKind::RolloutFailed, Exit::RolloutFailed),
        (ErrorKind::Conflict, Exit::General),
        (ErrorKind::Internal, Exit::General),
    ] {
        let error = CliError::from(ClientError::new(kind, "what", "do"));
        assert_eq!((error.exit, error.remedy.as_deref()), (exit, Some("do")));
    }
}

#[test]
fn what_needs_the_daemon_is_handed_back() {
    let fake = Fake::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for line in [
        "up app.yaml --foreground",
        "cluster init --manager-only",
        "node run",
        "node start --data-dir /x",
        "node reset -y",
    ] {
        let cli = Cli::try_parse_from(format!("warren {line}").split(' ')).unwrap();
        let mut context = Context {
            io: Io::with(
                Box::new(std::io::sink()),
                Box::new(std::io::sink()),
                Box::new(std::io::empty()),
            ),
            connector: Box::new(fake.clone()),
        };
        assert!(
            matches!(
                runtime.block_on(crate::run(cli, &mut context)),
                Outcome::Daemon(_)
            ),
            "{line}"
        );
    }
}
