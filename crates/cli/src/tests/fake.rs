//! A cluster in memory.

use super::fake_quorum::Quorum;
use crate::api::*;
use crate::error::{CliError, Exit, Result};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use warren_types::{Duration, ExitInfo, Mode, ServiceSpec, Timestamp};

/// A process id that no process has.
const NO_PROCESS: u32 = u32::MAX;

/// A moment that all ages in golden files count from.
pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub(super) fn at(seconds_ago: u64) -> Time {
    Time(Some(Timestamp(NOW.0 - seconds_ago * 1000)))
}

/// How containers of new revisions behave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Fate {
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
pub(super) struct World {
    pub(super) services: BTreeMap<String, ServiceView>,
    pub(super) containers: Vec<ContainerView>,
    pub(super) secrets: Vec<SecretView>,
    pub(super) volumes: Vec<VolumeView>,
    pub(super) nodes: Vec<NodeView>,
    pub(super) images: Vec<ImageView>,
    pub(super) calls: Vec<String>,
    pub(super) fate: Fate,
    pub(super) next: u64,
    pub(super) stopped: bool,
    pub(super) imported: usize,
    pub(super) quorum: Quorum,
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
            c.health = "healthy".into();
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
pub(super) struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub(super) fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
    pub(super) fn called(&self, text: impl Into<String>) {
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
        let world = self.world();
        let role = world.nodes.iter().find(|n| n.id == "n1");
        let locked = world.quorum.locked;
        Ok(StatusView {
            version: "0.1.0".into(),
            node_id: "n1".into(),
            node: "edge-1".into(),
            role: role.map(|n| n.role.clone()).unwrap_or_default(),
            ready: !locked,
            locked,
            removed: world.quorum.removed,
            pid: 7,
            ..StatusView::default()
        })
    }
    async fn stop_daemon(&self, grace: Duration) -> Result<u32> {
        self.called(format!("stop {grace}"));
        self.world().stopped = true;
        Ok(NO_PROCESS)
    }
    async fn cluster(&self) -> Result<ClusterView> {
        self.world().quorum.look()
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
        mut archive: Archive,
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
