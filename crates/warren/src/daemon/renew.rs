//! The node's certificate, renewed in time, and put in force wherever it is used.
//!
//! It is renewed at half of its life, at once when it has expired, when the cluster moves to another CA, and when the
//! node has another role: the new certificate says what the node is. Failing is tried again for ever: a node that was
//! away for long comes back by itself.
//!
//! A worker's certificate for a manager is a dismissal, and is only kept aside: what is told about the office may have
//! changed again when it arrives, and a manager that removed its log while its vote counts would cost a quorum. See
//! [`super::office`].

use crate::failure::Failure;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use warren_api::{Caller, ControlPlane, TlsSettings};
use warren_client::{ClientError, IdentitySource, TlsIdentity, join};
use warren_manager::{InitError, LocalIdentity, Renewed, edge, init};
use warren_proto::v1;
use warren_security::identity::renew_at;
use warren_security::{
    ClientAuth, IdentityError, RenewalError, TlsError, identity_from_pem, make_renewal,
    server_config,
};
use warren_storage::Keyring;
use warren_types::{NodeId, Role};
use zeroize::Zeroizing;

/// Longest wait until the clock is looked at again: it may jump, and machines sleep.
const LOOK_MAX: Duration = Duration::from_secs(3600);
/// Shortest time between two renewals that nobody hurries: a clock far ahead must not make it a loop.
const RENEW_EVERY_MIN: Duration = Duration::from_secs(60);
/// First wait after a failed renewal; doubles, with jitter.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest wait after a failed renewal.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why a renewal failed.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Proof(#[from] RenewalError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the manager's answer is no PEM text")]
    NoText,
}

/// What a renewal has come to.
#[derive(PartialEq, Eq)]
enum Outcome {
    InForce,
    /// The certificate would take the manager's office away.
    Dismissal,
}

/// What the node shows and trusts, everywhere in this process.
pub(crate) struct Credentials {
    keyring: Arc<Mutex<Keyring>>,
    node_key: Zeroizing<[u8; 32]>,
    node: NodeId,
    name: String,
    /// For every client of this process.
    pub(crate) source: IdentitySource,
    /// For the server.
    pub(crate) tls: TlsSettings,
    role: watch::Sender<Role>,
    hurry: Notify,
    /// The others say that this manager is none any more: its own records are not to be asked.
    doubted: AtomicBool,
    /// A worker's certificate for this manager.
    dismissal: Mutex<Option<Renewed>>,
}

impl Credentials {
    pub(crate) fn new(
        keyring: Arc<Mutex<Keyring>>,
        identity: &LocalIdentity,
    ) -> Result<Self, Failure> {
        let own = tls_identity(identity);
        let tls = server_settings(&own)?;
        Ok(Self {
            keyring,
            node_key: Zeroizing::new(*identity.node_key()),
            node: identity.node,
            name: identity.name.clone(),
            source: IdentitySource::new(own)?,
            tls: TlsSettings::new(tls, Some(identity.cluster)),
            role: watch::Sender::new(identity.role),
            hurry: Notify::new(),
            doubted: AtomicBool::new(false),
            dismissal: Mutex::new(None),
        })
    }

    /// The identity as the keyring has it now.
    pub(crate) fn identity(&self) -> Result<LocalIdentity, Failure> {
        Ok(init::reload(&self.keyring(), &self.node_key)?)
    }

    /// Keeps a certificate, and puts it in force: one that this manager has signed itself, or its dismissal.
    pub(crate) fn take(&self, renewed: Renewed) -> Result<LocalIdentity, Failure> {
        self.adopt(renewed)
            .map_err(|error| Failure::Daemon(error.to_string()))?;
        self.identity()
    }

    /// The worker's certificate with which [`Credentials::keep`] has ended.
    pub(crate) fn dismissal(&self) -> Option<Renewed> {
        self.aside().take()
    }

    /// What the certificate in force says.
    pub(crate) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Renews at once.
    pub(crate) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Renews at once, and takes nobody's word but the others'.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.hurry();
    }

    /// The cluster's roots as the records have them: a new one is a reason to renew, one that has gone is not trusted
    /// any more.
    pub(crate) fn follow_roots(&self, roots: &[String]) {
        let own = self.source.current();
        let (Some(newest), Some(known)) = (roots.last(), own.ca_pem.last()) else {
            return;
        };
        if newest.trim() != known.trim() {
            tracing::info!("the cluster has a new certificate authority");
            self.hurry();
        } else if roots.len() < own.ca_pem.len() {
            let kept = init::store_roots(&mut self.keyring(), roots);
            let ca_pem = roots.to_vec();
            let put = kept
                .map_err(RenewError::from)
                .and_then(|()| self.put_in_force(TlsIdentity { ca_pem, ..own }));
            match put {
                Ok(()) => tracing::info!("the old certificate authority is not trusted any more"),
                Err(error) => tracing::warn!(%error, "the cluster's roots cannot be exchanged"),
            }
        }
    }

    /// Renews whenever it is time. `managers` gives the addresses to ask; a manager asks itself first, because nobody
    /// else may be there. Ends when this manager is given a worker's certificate, which is kept aside
    /// ([`Credentials::dismissal`]).
    pub(crate) async fn keep(
        &self,
        managers: impl Fn() -> Vec<String>,
        local: Option<Arc<dyn ControlPlane>>,
    ) {
        let mut pause = Duration::ZERO;
        loop {
            let jitter = u64::from_le_bytes(edge::random::<8>());
            tokio::select! {
                () = async {
                    tokio::time::sleep(pause).await;
                    self.due(jitter).await;
                } => {}
                () = self.hurry.notified() => {}
            }
            pause = RENEW_EVERY_MIN;
            let doubted = self.doubted.swap(false, Ordering::Relaxed);
            let local = local.as_deref().filter(|_| !doubted);
            if self.renew_until_done(&managers, local).await == Outcome::Dismissal {
                return;
            }
        }
    }

    async fn renew_until_done(
        &self,
        managers: &impl Fn() -> Vec<String>,
        local: Option<&dyn ControlPlane>,
    ) -> Outcome {
        let mut wait = RETRY_MIN;
        loop {
            match self.renew(&managers(), local).await {
                Ok(outcome) => return outcome,
                Err(error) => {
                    tracing::warn!(%error, "the certificate is not renewed yet; trying again");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Ends when the certificate is to be renewed.
    async fn due(&self, jitter: u64) {
        loop {
            let identity = self.source.current();
            let cert = identity.own.as_ref().map(|(cert, _)| cert.as_str());
            let at = match renew_at(cert.unwrap_or_default(), jitter) {
                Ok(at) => at,
                Err(error) => {
                    tracing::error!(%error, "this node's certificate cannot be read");
                    return std::future::pending().await;
                }
            };
            let left = at.since(edge::now()).to_std();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_MAX)).await;
        }
    }

    async fn renew(
        &self,
        managers: &[String],
        local: Option<&dyn ControlPlane>,
    ) -> Result<Outcome, RenewError> {
        let own = self.source.current();
        let (cert, key) = own.own.clone().unwrap_or_default();
        let renewal = make_renewal(&cert, &key)?;
        let request = v1::RenewCertificateRequest {
            certificate: cert.into_bytes(),
            csr: renewal.csr_pem.clone().into_bytes(),
            proof: renewal.proof.clone(),
        };
        let answer = self.ask(managers, local, &own.ca_pem, request).await?;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| RenewError::NoText);
        let renewed = Renewed {
            cert_pem: text(answer.certificate)?,
            key_pem: renewal.key_pem,
            roots_pem: init::split_pem(&text(answer.ca_cert)?),
        };
        let role = identity_from_pem(&renewed.cert_pem)?.role;
        if role != Role::Manager && *self.role.borrow() == Role::Manager {
            *self.aside() = Some(renewed);
            return Ok(Outcome::Dismissal);
        }
        self.adopt(renewed)?;
        Ok(Outcome::InForce)
    }

    /// On disk first: what is in force must be there after a crash.
    fn adopt(&self, renewed: Renewed) -> Result<(), RenewError> {
        let role = identity_from_pem(&renewed.cert_pem)?.role;
        init::store_renewed(&mut self.keyring(), &self.node_key, &renewed)?;
        self.put_in_force(shown(&renewed))?;
        tracing::info!(role = role.name(), "certificate renewed");
        self.role
            .send_if_modified(|now| std::mem::replace(now, role) != role);
        Ok(())
    }

    async fn ask(
        &self,
        managers: &[String],
        local: Option<&dyn ControlPlane>,
        roots: &[String],
        request: v1::RenewCertificateRequest,
    ) -> Result<v1::RenewCertificateResponse, ClientError> {
        if let Some(local) = local {
            let role = *self.role.borrow();
            let own = Caller::in_process(role, self.name.clone(), Some(self.node));
            match local.renew_certificate(&own, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => tracing::debug!(%error, "not renewed here; asking the others"),
            }
        }
        join::renew_certificate(managers, roots, request).await
    }

    fn put_in_force(&self, identity: TlsIdentity) -> Result<(), RenewError> {
        let server = server_settings(&identity)?;
        self.source.replace(identity)?;
        self.tls.replace(server);
        Ok(())
    }

    fn aside(&self) -> std::sync::MutexGuard<'_, Option<Renewed>> {
        let dismissal = self.dismissal.lock();
        dismissal.unwrap_or_else(PoisonError::into_inner)
    }

    fn keyring(&self) -> std::sync::MutexGuard<'_, Keyring> {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tls_identity(identity: &LocalIdentity) -> TlsIdentity {
    TlsIdentity {
        ca_pem: identity.roots_pem.clone(),
        own: Some((identity.cert_pem.clone(), identity.key_pem.to_string())),
    }
}

/// A renewed certificate as it is shown to others.
pub(super) fn shown(renewed: &Renewed) -> TlsIdentity {
    TlsIdentity {
        ca_pem: renewed.roots_pem.clone(),
        own: Some((renewed.cert_pem.clone(), renewed.key_pem.to_string())),
    }
}

/// Optional: joiners have no certificate yet; the table of rights decides call by call.
fn server_settings(identity: &TlsIdentity) -> Result<rustls::ServerConfig, TlsError> {
    let (cert, key) = identity.own.clone().unwrap_or_default();
    server_config(&identity.ca_pem, &cert, &key, ClientAuth::Optional)
}
