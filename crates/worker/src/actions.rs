//! Carrying out the actions that `lifecycle` decides on. Nothing is decided here.

use crate::edge;
use crate::probes;
use crate::runspec::{self, Unfit};
use crate::shared::Shared;
use std::path::PathBuf;
use std::sync::Arc;
use warren_image::{ErrorKind, ImageError, ResolvedImage, RootfsMode};
use warren_lifecycle::{Action, Assignment, Local, Observation};
use warren_network::NetworkError;
use warren_runtime::{RuntimeError, RuntimeState};
use warren_types::{ContainerId, Duration, Mount};

/// One action on one container.
pub(crate) struct Work {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: ContainerId,
    pub(crate) local: Local,
    pub(crate) desired: Option<Assignment>,
}

/// An action that failed.
struct Failure {
    permanent: bool,
    reason: String,
}

impl Failure {
    fn again(reason: impl ToString) -> Self {
        Self {
            permanent: false,
            reason: reason.to_string(),
        }
    }
    fn forever(reason: impl ToString) -> Self {
        Self {
            permanent: true,
            reason: reason.to_string(),
        }
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        Self::forever(unfit)
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let permanent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput);
        Self {
            permanent,
            reason: error.to_string(),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        // The user's program cannot be run (no such file, no such user, …), or the spec is unfit.
        let permanent = matches!(
            error,
            RuntimeError::Invalid { .. } | RuntimeError::Start { .. }
        );
        Self {
            permanent,
            reason: error.to_string(),
        }
    }
}

impl Work {
    /// Gets image, volumes, network and root file system ready.
    pub(crate) async fn prepare(self) -> Observation {
        // The semaphore is never closed, so a permit always comes.
        let _permit = self.shared.preparing.acquire().await;
        let outcome = async {
            let assignment = self.assignment()?;
            self.check_mounts(assignment)?;
            self.check_files(assignment)?;
            self.check_ports(assignment).await?;
            self.rootfs(assignment).await?;
            let (address, _) = self
                .shared
                .network
                .attach(&self.shared.keep, self.id)
                .await
                .map_err(Failure::again)?;
            Ok(Observation::Prepared {
                address: Some(address),
            })
        };
        outcome.await.unwrap_or_else(failed)
    }

    /// Any other action; `None` when its outcome comes as an event of its own.
    pub(crate) async fn run(self, action: Action) -> Option<Observation> {
        let outcome = match action {
            Action::Create { attempt } => self.create(attempt).await,
            Action::Start { .. } => self.start().await,
            Action::SendStop { grace } => self.send_stop(grace).await,
            Action::Kill => self.kill().await,
            Action::RunProbe { attempt, kind } => {
                return Some(probes::run(&self, attempt, kind).await);
            }
            Action::Cleanup => self.cleanup().await.map(|()| Some(Observation::Cleaned)),
            Action::Forget => self.forget().await,
            Action::Prepare | Action::Cancel => return None,
        };
        outcome.unwrap_or_else(|failure| Some(failed(failure)))
    }

    fn assignment(&self) -> Result<&Assignment, Failure> {
        self.desired
            .as_ref()
            .ok_or_else(|| Failure::again("the assignment was taken back"))
    }

    /// Volumes must be known, and bind sources must exist: the kernel's own words would not say which.
    fn check_mounts(&self, assignment: &Assignment) -> Result<(), Failure> {
        let wanted = self.shared.wanted();
        for mount in &assignment.spec.mounts {
            match mount {
                Mount::Volume { source, .. } => {
                    let volume = wanted.volumes.get(source).ok_or_else(|| {
                        Failure::again(format!("volume {source:?} is not known here yet"))
                    })?;
                    let path = runspec::volume_path(&self.shared.data_dir, volume)?;
                    std::fs::create_dir_all(&path).map_err(|e| {
                        Failure::again(format!("volume {source:?}: {}: {e}", path.display()))
                    })?;
                }
                Mount::Bind { source, .. } if !PathBuf::from(source).exists() => {
                    return Err(Failure::forever(format!(
                        "bind source {source} does not exist on this node: make it, or change the mount"
                    )));
                }
                Mount::Bind { .. } | Mount::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    fn check_files(&self, assignment: &Assignment) -> Result<(), Failure> {
        let wanted = self.shared.wanted();
        let missing = |kind: &str, name: &str| {
            Failure::again(format!("{kind} {name:?} has not reached this node yet"))
        };
        for secret in &assignment.spec.secrets {
            wanted
                .secrets
                .get(&secret.source)
                .ok_or_else(|| missing("secret", &secret.source))?;
        }
        for config in &assignment.spec.configs {
            wanted
                .configs
                .get(&config.source)
                .ok_or_else(|| missing("config", &config.source))?;
        }
        Ok(())
    }

    /// A port that a process of the host has would never lead to the container.
    async fn check_ports(&self, assignment: &Assignment) -> Result<(), Failure> {
        for mapping in assignment.ports.iter().filter(|m| m.host_port != 0) {
            match self.shared.network.check_port(mapping).await {
                Ok(()) => {}
                Err(taken @ NetworkError::PortInUse { .. }) => return Err(Failure::forever(taken)),
                Err(other) => return Err(Failure::again(other)),
            }
        }
        Ok(())
    }

    async fn rootfs(&self, assignment: &Assignment) -> Result<(), Failure> {
        let (images, id, reference) = (self.shared.images.clone(), self.id, reference(assignment));
        blocking(move || {
            let image = images.resolve(&reference)?;
            images.prepare(id, &image.digest, RootfsMode::Writable)?;
            Ok(())
        })
        .await
    }

    async fn create(&self, attempt: u32) -> Result<Option<Observation>, Failure> {
        let assignment = self.assignment()?.clone();
        let (images, id, reference) = (self.shared.images.clone(), self.id, reference(&assignment));
        let (image, rootfs): (ResolvedImage, PathBuf) = blocking(move || {
            let image = images.resolve(&reference)?;
            let rootfs = images.prepare(id, &image.digest, RootfsMode::Writable)?;
            Ok((image, rootfs.path))
        })
        .await?;
        let ground = runspec::Ground {
            facts: &self.shared.facts,
            data_dir: &self.shared.data_dir,
            wanted: &self.shared.wanted(),
            image: &image.config,
            rootfs,
            netns: self.shared.network.host().netns_path(self.id),
            address: self.local.address,
        };
        let spec = runspec::build(&assignment, attempt, &ground)?;
        self.shared.driver.create(spec).await?;
        Ok(Some(Observation::Created))
    }

    async fn start(&self) -> Result<Option<Observation>, Failure> {
        let info = self.shared.driver.start(self.id).await?;
        let started_at = info.started_at.unwrap_or_else(edge::now);
        Ok(Some(Observation::Started {
            pid: info.pid.unwrap_or_default(),
            started_at,
        }))
    }

    /// The end comes as an event; here only a failure to ask for it is told.
    async fn send_stop(&self, grace: Duration) -> Result<Option<Observation>, Failure> {
        match self.shared.driver.stop(self.id, grace).await {
            Ok(_) | Err(RuntimeError::NotFound { .. } | RuntimeError::WrongState { .. }) => {
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn kill(&self) -> Result<Option<Observation>, Failure> {
        match self.shared.driver.signal(self.id, libc::SIGKILL).await {
            Ok(()) | Err(RuntimeError::NotFound { .. } | RuntimeError::WrongState { .. }) => {
                Ok(None)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Removes process, mounts and network; the log stays with the runtime until `forget`.
    async fn cleanup(&self) -> Result<(), Failure> {
        match self.shared.driver.inspect(self.id).await {
            Ok(info) => match info.state {
                RuntimeState::Running => {
                    self.shared.driver.stop(self.id, Duration(0)).await?;
                }
                // It has no log yet that would be worth keeping.
                RuntimeState::Created => self.shared.driver.delete(self.id).await?,
                RuntimeState::Exited(_) => {}
            },
            Err(RuntimeError::NotFound { .. }) => {}
            Err(other) => return Err(other.into()),
        }
        self.shared
            .network
            .detach(self.id)
            .await
            .map_err(Failure::again)?;
        let (images, id) = (self.shared.images.clone(), self.id);
        blocking(move || Ok(images.release(id)?)).await
    }

    async fn forget(&self) -> Result<Option<Observation>, Failure> {
        self.cleanup().await?;
        self.shared.driver.delete(self.id).await?;
        Ok(Some(Observation::Forgotten))
    }
}

/// The image that the container runs: the digest pinned at deploy when there is one.
fn reference(assignment: &Assignment) -> String {
    let spec = &assignment.spec;
    spec.image_digest
        .clone()
        .unwrap_or_else(|| spec.image.clone())
}

fn failed(failure: Failure) -> Observation {
    Observation::Failed {
        permanent: failure.permanent,
        reason: failure.reason,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Failure::again(format!("internal fault: {panic}"))))
}
