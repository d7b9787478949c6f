//! The cluster behind the client.

mod quorum;
mod views;

use crate::api::{
    Api, Archive, ClusterView, Connector, ContainerView, EventQuery, EventView, ExecInput,
    ExecOutput, ExecStart, ImageDetails, ImageView, LogLine, LogQuery, NewSecret, NewVolume,
    NodeChange, NodeView, SecretView, ServiceView, StatusView, Target, VolumeView,
};
use crate::error::{CliError, Exit, Result};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use views::missing;
use warren_client::{Client, ClientError, Freshness, TargetOptions, v1};
use warren_types::{Availability, Duration, Revision, ServiceSpec};

/// How long a command goes on asking managers that refuse because nobody leads: longer than an election takes, and no
/// longer than somebody at a terminal likes to wait for the reason.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(1_500);

/// Connects with the client: to the named manager over TLS, else to the local socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoteConnector;

#[async_trait]
impl Connector for RemoteConnector {
    async fn connect(&self, target: &Target) -> Result<Box<dyn Api>> {
        let options = TargetOptions {
            manager: target.manager.clone(),
            socket: target.socket.clone(),
            context_dir: None,
        };
        let target = options.or_env().resolve()?;
        let local = matches!(target, warren_client::Target::Unix(_));
        let client = Client::connect(target).await?;
        // On the local socket the client's own patience is shorter.
        let client = if local {
            client
        } else {
            client.with_patience(PATIENCE)
        };
        Ok(Box::new(Remote::new(client)))
    }
}

/// The commands' view of a connected client.
#[derive(Debug, Clone)]
pub struct Remote {
    client: Client,
}

impl Remote {
    /// Wraps a client. Its reads are as new as can be had: outside the quorum they are old, and told to be.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client: client.with_read(Freshness::Best),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let exit = match error.exit_code() {
            2 => Exit::Usage,
            3 => Exit::NoConnection,
            4 => Exit::NotFound,
            5 => Exit::Exists,
            6 => Exit::Denied,
            7 => Exit::RolloutFailed,
            _ => Exit::General,
        };
        let remedy = Some(error.remedy).filter(|r| !r.is_empty());
        Self {
            exit,
            message: error.message,
            remedy,
        }
    }
}

fn text(option: Option<&str>) -> String {
    option.unwrap_or_default().to_owned()
}

#[async_trait]
impl Api for Remote {
    async fn status(&self) -> Result<StatusView> {
        Ok(views::status(self.client.status().await?))
    }

    async fn stop_daemon(&self, grace: Duration) -> Result<u32> {
        Ok(self.client.stop_daemon(Some(grace)).await?.pid)
    }

    async fn cluster(&self) -> Result<ClusterView> {
        Ok(views::cluster(self.client.cluster_info().await?))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>> {
        let nodes = self.client.list_nodes().await?;
        Ok(nodes.into_iter().map(views::node).collect())
    }

    async fn node(&self, name: &str) -> Result<NodeView> {
        Ok(views::node(self.client.get_node(name).await?))
    }

    async fn update_node(&self, name: &str, change: NodeChange) -> Result<NodeView> {
        let availability = change.availability.map(|a| {
            match a {
                Availability::Active => "active",
                Availability::Pause => "pause",
                Availability::Drain => "drain",
            }
            .to_owned()
        });
        let request = v1::UpdateNodeRequest {
            id: name.to_owned(),
            availability,
            labels_set: change.labels_set,
            labels_remove: change.labels_remove,
            expected_version: 0,
            role: None,
        };
        let answer = self.client.update_node(request).await?;
        Ok(views::node(answer.node.ok_or_else(|| missing("node"))?))
    }

    async fn remove_node(&self, name: &str, force: bool) -> Result<()> {
        Ok(self.client.remove_node(name, force).await?)
    }

    async fn services(&self) -> Result<Vec<ServiceView>> {
        self.client
            .list_services()
            .await?
            .into_iter()
            .map(views::service)
            .collect()
    }

    async fn service(&self, name: &str) -> Result<ServiceView> {
        views::service(self.client.get_service(name).await?)
    }

    async fn create_service(&self, spec: &ServiceSpec, dry_run: bool) -> Result<ServiceView> {
        let request = v1::CreateServiceRequest {
            spec: Some(spec.into()),
            dry_run,
            ..Default::default()
        };
        views::service(self.client.create_service_with(request).await?)
    }

    async fn update_service(
        &self,
        id: &str,
        spec: &ServiceSpec,
        expected: u64,
        dry_run: bool,
    ) -> Result<ServiceView> {
        let request = v1::UpdateServiceRequest {
            id: id.to_owned(),
            spec: Some(spec.into()),
            expected_version: expected,
            dry_run,
            ..Default::default()
        };
        let answer = self.client.update_service(request).await?;
        views::service(answer.service.ok_or_else(|| missing("service"))?)
    }

    async fn scale_service(&self, name: &str, replicas: u32) -> Result<ServiceView> {
        views::service(self.client.scale_service(name, replicas).await?)
    }

    async fn rollback_service(&self, name: &str, to: Option<u32>) -> Result<ServiceView> {
        views::service(self.client.rollback(name, to).await?)
    }

    async fn delete_service(&self, name: &str) -> Result<()> {
        Ok(self.client.delete_service(name).await?)
    }

    async fn containers(
        &self,
        service: Option<&str>,
        node: Option<&str>,
        ended: bool,
    ) -> Result<Vec<ContainerView>> {
        // A service may be named by its id or its name; the manager takes both in this field.
        let request = v1::ListContainersRequest {
            service_id: text(service),
            node_id: if service.is_some() {
                String::new()
            } else {
                text(node)
            },
            include_ended: ended,
            ..Default::default()
        };
        let all = self.client.list_containers(request).await?;
        // On the wire the service filter wins when both are set, so the node is filtered here.
        all.into_iter()
            .filter(|c| {
                service.is_none() || node.is_none_or(|n| c.node_id == n || c.node_name == n)
            })
            .map(views::container)
            .collect()
    }

    async fn watch(&self, service: &str) -> Result<BoxStream<'static, Result<()>>> {
        let request = v1::WatchContainersRequest {
            service_id: service.to_owned(),
            include_ended: true,
            ..Default::default()
        };
        let stream = self.client.watch_containers(request).await?;
        Ok(stream
            .map(|item| item.map(drop).map_err(Into::into))
            .boxed())
    }

    async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        let mut request = v1::GetLogsRequest {
            service: text(query.service.as_deref()),
            container: text(query.container.as_deref()),
            follow: query.follow,
            tail: query.tail,
            stdout: query.stdout,
            stderr: query.stderr,
            ..Default::default()
        };
        if let Some(since) = query.since {
            let at = request.since.insert(Default::default());
            at.seconds = i64::try_from(since.0 / 1000).unwrap_or(i64::MAX);
            at.nanos = i32::try_from(since.0 % 1000 * 1_000_000).unwrap_or(0);
        }
        let stream = self.client.logs(request).await?;
        Ok(stream
            .map(|item| item.map(views::log_line).map_err(Into::into))
            .boxed())
    }

    async fn exec(
        &self,
        start: ExecStart,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        let start = v1::ExecStart {
            container: start.container,
            command: start.command,
            env: start.env,
            working_dir: start.workdir.unwrap_or_default(),
            user: start.user.unwrap_or_default(),
            tty: start.tty,
            stdin: start.stdin,
            size: start.size.map(|(columns, rows)| v1::TerminalSize {
                columns: u32::from(columns),
                rows: u32::from(rows),
            }),
        };
        let input = ReceiverStream::new(input).map(|item| match item {
            ExecInput::Stdin(bytes) => warren_client::ExecInput::Stdin(bytes.into()),
            ExecInput::Resize(columns, rows) => warren_client::ExecInput::Resize { columns, rows },
            ExecInput::Eof => warren_client::ExecInput::Eof,
        });
        let output = self.client.exec(start, input).await?;
        let output = output.map(|item| {
            Ok(match item.map_err(CliError::from)? {
                warren_client::ExecOutput::Stdout(bytes) => ExecOutput::Stdout(bytes.to_vec()),
                warren_client::ExecOutput::Stderr(bytes) => ExecOutput::Stderr(bytes.to_vec()),
                warren_client::ExecOutput::Exit(code) => ExecOutput::Exit(code),
            })
        });
        Ok(output.boxed())
    }

    async fn import_image(
        &self,
        archive: Archive,
        reference: Option<String>,
        node: Option<String>,
    ) -> Result<Vec<ImageView>> {
        let options = v1::ImportOptions {
            reference: reference.unwrap_or_default(),
            node: node.unwrap_or_default(),
        };
        let images = self.client.import_image(options, archive).await?;
        Ok(images.into_iter().map(views::image).collect())
    }

    async fn images(&self, node: Option<&str>) -> Result<Vec<ImageView>> {
        let images = self.client.list_images(node).await?;
        Ok(images.into_iter().map(views::image).collect())
    }

    async fn image(&self, reference: &str) -> Result<ImageDetails> {
        Ok(views::image_details(
            self.client.inspect_image(reference, None).await?,
        ))
    }

    async fn remove_image(&self, reference: &str, node: Option<&str>) -> Result<Vec<ImageView>> {
        let images = self.client.remove_image(reference, node).await?;
        Ok(images.into_iter().map(views::image).collect())
    }

    async fn secrets(&self) -> Result<Vec<SecretView>> {
        let secrets = self.client.list_secrets().await?;
        Ok(secrets.into_iter().map(views::secret).collect())
    }

    async fn create_secret(&self, secret: NewSecret) -> Result<SecretView> {
        let made = self
            .client
            .create_secret(&secret.name, secret.data, secret.labels)
            .await?;
        Ok(views::secret(made))
    }

    async fn update_secret(&self, name: &str, data: Vec<u8>) -> Result<SecretView> {
        Ok(views::secret(
            self.client
                .update_secret(name, data, None::<Revision>)
                .await?,
        ))
    }

    async fn delete_secret(&self, name: &str) -> Result<()> {
        Ok(self.client.delete_secret(name).await?)
    }

    async fn volumes(&self) -> Result<Vec<VolumeView>> {
        let volumes = self.client.list_volumes().await?;
        Ok(volumes.into_iter().map(views::volume).collect())
    }

    async fn create_volume(&self, volume: NewVolume) -> Result<VolumeView> {
        let request = v1::CreateVolumeRequest {
            name: volume.name,
            driver: volume.driver,
            driver_opts: volume.driver_opts,
            labels: volume.labels,
            ..Default::default()
        };
        Ok(views::volume(self.client.create_volume(request).await?))
    }

    async fn delete_volume(&self, name: &str, force: bool) -> Result<()> {
        Ok(self.client.delete_volume(name, force).await?)
    }

    async fn events(&self, query: EventQuery) -> Result<BoxStream<'static, Result<EventView>>> {
        let request = v1::StreamEventsRequest {
            event_types: query.types,
            since_revision: query.since,
            follow: Some(query.follow),
        };
        let stream = self.client.stream_events(request).await?;
        Ok(stream
            .map(|item| item.map(views::event).map_err(Into::into))
            .boxed())
    }
}
