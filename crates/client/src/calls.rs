//! The unary calls, one method each.

use crate::attempts::Repeat;
use crate::connect::Client;
use crate::error::{ClientError, ErrorKind};
use ring::rand::{SecureRandom, SystemRandom};
use std::collections::BTreeMap;
use std::time::Duration;
use warren_proto::v1;
use warren_types::{Revision, ServiceSpec};

/// Time limit of a call.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of an image update (older clients wait for its answer as long).
const IMAGE_UPDATE_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Time limit of a rollback.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Time limit of joining the quorum.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of what moves leadership or re-seals every secret.
const CLUSTER_LIMIT: Duration = Duration::from_secs(60);
/// A key that makes a repeated create harmless. Without randomness there is no key and no repeating.
fn idempotency_key() -> Option<String> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bytes)))
}

/// Fills in a key when the caller gave none; says whether the call may be repeated.
fn with_key(key: &mut String) -> Repeat {
    if key.is_empty()
        && let Some(made) = idempotency_key()
    {
        *key = made;
    }
    if key.is_empty() {
        Repeat::Never
    } else {
        Repeat::Safe
    }
}

fn filled<T>(value: Option<T>, what: &'static str) -> Result<T, ClientError> {
    value.ok_or_else(|| {
        ClientError::new(
            ErrorKind::Internal,
            format!("the manager's answer lacks the {what}"),
            "client and manager may be of different versions; compare `warren version`",
        )
    })
}

fn expected(version: Option<Revision>) -> u64 {
    version.map_or(0, |v| v.0)
}

macro_rules! send {
    ($self:ident, $name:ident, $limit:expr, $repeat:expr, $request:expr) => {
        $self
            .call(
                stringify!($name),
                $limit,
                $repeat,
                $request,
                |mut client, request| async move { client.$name(request).await },
            )
            .await
    };
}

macro_rules! raw_calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $repeat:ident, $limit:ident;)+) => {
        /// The calls as they are on the wire. All fail with [`ClientError`].
        #[allow(missing_docs, reason = "each has the documentation of its RPC")]
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`ClientError`], by the status code of the manager.
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, ClientError> {
                send!(self, $name, $limit, Repeat::$repeat, request)
            }
        )+}
    };
}

raw_calls! {
    /// Rolls out another image.
    update_service_image(UpdateServiceImageRequest) -> UpdateServiceImageResponse, Never, IMAGE_UPDATE_LIMIT;
    /// Goes back to another revision.
    rollback_service(RollbackServiceRequest) -> RollbackServiceResponse, Never, ROLLBACK_LIMIT;
    /// Changes availability and labels of a node.
    update_node(UpdateNodeRequest) -> UpdateNodeResponse, Never, CALL_LIMIT;
    /// Makes a join token.
    generate_join_token(GenerateJoinTokenRequest) -> GenerateJoinTokenResponse, Never, CALL_LIMIT;
    /// Lets a manager join the quorum. Asking again is harmless.
    join_cluster(JoinClusterRequest) -> JoinClusterResponse, Safe, JOIN_LIMIT;
    /// Asks for a new certificate with proof of the old one's key. Safe to repeat: a certificate more does no harm.
    renew_certificate(RenewCertificateRequest) -> RenewCertificateResponse, Safe, CALL_LIMIT;
    /// Asks for a certificate with a join token.
    request_certificate(RequestCertificateRequest) -> RequestCertificateResponse, Never, CALL_LIMIT;
    /// All join tokens, without their secrets.
    list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse, Safe, CALL_LIMIT;
    /// Makes a join token worthless.
    revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse, Never, CALL_LIMIT;
    /// Changes settings of the cluster. Safe to repeat: the values are absolute.
    update_cluster_settings(UpdateClusterSettingsRequest) -> UpdateClusterSettingsResponse, Safe, CALL_LIMIT;
    /// Hands leadership to another manager.
    transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse, Never, CLUSTER_LIMIT;
    /// Lets the manager that answers go on alone.
    recover_cluster(RecoverClusterRequest) -> RecoverClusterResponse, Never, CLUSTER_LIMIT;
    /// Switches auto-lock.
    set_auto_lock(SetAutoLockRequest) -> SetAutoLockResponse, Never, CLUSTER_LIMIT;
    /// Gives a locked manager its key.
    unlock_cluster(UnlockClusterRequest) -> UnlockClusterResponse, Never, CALL_LIMIT;
    /// Begins the change to a new certificate authority.
    rotate_certificate_authority(RotateCertificateAuthorityRequest) -> RotateCertificateAuthorityResponse, Never, CLUSTER_LIMIT;
    /// Signs a certificate for a person. Safe to repeat: nothing is recorded.
    issue_user_certificate(IssueUserCertificateRequest) -> IssueUserCertificateResponse, Safe, CALL_LIMIT;
    /// Makes a new data key and seals every secret with it.
    rotate_data_key(RotateDataKeyRequest) -> RotateDataKeyResponse, Never, CLUSTER_LIMIT;
    /// Makes an ingress.
    create_ingress(CreateIngressRequest) -> CreateIngressResponse, Never, CALL_LIMIT;
    /// Changes an ingress.
    update_ingress(UpdateIngressRequest) -> UpdateIngressResponse, Never, CALL_LIMIT;
    /// Removes an ingress.
    delete_ingress(DeleteIngressRequest) -> DeleteIngressResponse, Never, CALL_LIMIT;
    /// One ingress.
    get_ingress(GetIngressRequest) -> GetIngressResponse, Safe, CALL_LIMIT;
    /// All ingresses.
    list_ingresses(ListIngressesRequest) -> ListIngressesResponse, Safe, CALL_LIMIT;
    /// Stores a TLS certificate.
    create_tls_certificate(CreateTlsCertificateRequest) -> CreateTlsCertificateResponse, Never, CALL_LIMIT;
    /// One TLS certificate.
    get_tls_certificate(GetTlsCertificateRequest) -> GetTlsCertificateResponse, Safe, CALL_LIMIT;
    /// All TLS certificates.
    list_tls_certificates(ListTlsCertificatesRequest) -> ListTlsCertificatesResponse, Safe, CALL_LIMIT;
    /// Removes a TLS certificate.
    delete_tls_certificate(DeleteTlsCertificateRequest) -> DeleteTlsCertificateResponse, Never, CALL_LIMIT;
}

/// Services. `target` is an id or a name. All fail with [`ClientError`].
impl Client {
    /// Makes a service. Repeated safely: each call carries a key of its own.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn create_service(&self, spec: &ServiceSpec) -> Result<v1::Service, ClientError> {
        self.create_service_with(v1::CreateServiceRequest {
            spec: Some(spec.into()),
            ..Default::default()
        })
        .await
    }

    /// Makes a service from a whole request (dry run, own key, older fields).
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn create_service_with(
        &self,
        mut request: v1::CreateServiceRequest,
    ) -> Result<v1::Service, ClientError> {
        let repeat = with_key(&mut request.idempotency_key);
        let answer = send!(self, create_service, CALL_LIMIT, repeat, request)?;
        filled(answer.service, "service")
    }

    /// Replaces the spec of a service, or some of its fields. Repeated safely.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn update_service(
        &self,
        mut request: v1::UpdateServiceRequest,
    ) -> Result<v1::UpdateServiceResponse, ClientError> {
        let repeat = with_key(&mut request.idempotency_key);
        send!(self, update_service, CALL_LIMIT, repeat, request)
    }

    /// Replaces the spec of a service that has this version (`None`: whatever it has).
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the version is another; else by the status code of the manager.
    pub async fn replace_service(
        &self,
        target: &str,
        spec: &ServiceSpec,
        version: Option<Revision>,
    ) -> Result<v1::Service, ClientError> {
        let answer = self
            .update_service(v1::UpdateServiceRequest {
                id: target.to_owned(),
                spec: Some(spec.into()),
                expected_version: expected(version),
                ..Default::default()
            })
            .await?;
        filled(answer.service, "service")
    }

    /// Changes the number of replicas. Safe to repeat: the number is absolute.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn scale_service(
        &self,
        target: &str,
        replicas: u32,
    ) -> Result<v1::Service, ClientError> {
        let request = v1::ScaleServiceRequest {
            id: target.to_owned(),
            replicas,
            ..Default::default()
        };
        let answer = send!(self, scale_service, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.service, "service")
    }

    /// Goes back to a revision; `None` means the one before.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn rollback(
        &self,
        target: &str,
        to_revision: Option<u32>,
    ) -> Result<v1::Service, ClientError> {
        let answer = self
            .rollback_service(v1::RollbackServiceRequest {
                id: target.to_owned(),
                to_revision: to_revision.unwrap_or(0),
                ..Default::default()
            })
            .await?;
        filled(answer.service, "service")
    }

    /// Takes a service away.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn delete_service(&self, target: &str) -> Result<(), ClientError> {
        let request = v1::DeleteServiceRequest {
            id: target.to_owned(),
            ..Default::default()
        };
        send!(self, delete_service, CALL_LIMIT, Repeat::Never, request).map(drop)
    }

    /// One service, with its kept revisions.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn get_service(&self, target: &str) -> Result<v1::Service, ClientError> {
        let request = v1::GetServiceRequest {
            id: target.to_owned(),
            ..Default::default()
        };
        let answer = send!(self, get_service, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.service, "service")
    }

    /// All services.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_services(&self) -> Result<Vec<v1::Service>, ClientError> {
        let request = v1::ListServicesRequest {};
        Ok(send!(self, list_services, CALL_LIMIT, Repeat::Safe, request)?.services)
    }
}

/// Containers. All fail with [`ClientError`].
impl Client {
    /// Containers of a service, a node, or all.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_containers(
        &self,
        request: v1::ListContainersRequest,
    ) -> Result<Vec<v1::Container>, ClientError> {
        Ok(send!(self, list_containers, CALL_LIMIT, Repeat::Safe, request)?.containers)
    }

    /// One container, by id or name.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn get_container(&self, target: &str) -> Result<v1::Container, ClientError> {
        let request = v1::GetContainerRequest {
            id: target.to_owned(),
        };
        let answer = send!(self, get_container, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.container, "container")
    }
}

/// Nodes and the cluster. All fail with [`ClientError`].
impl Client {
    /// All nodes.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_nodes(&self) -> Result<Vec<v1::Node>, ClientError> {
        let request = v1::ListNodesRequest::default();
        Ok(send!(self, list_nodes, CALL_LIMIT, Repeat::Safe, request)?.nodes)
    }

    /// One node, by id or name.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn get_node(&self, target: &str) -> Result<v1::Node, ClientError> {
        let request = v1::GetNodeRequest {
            id: target.to_owned(),
        };
        let answer = send!(self, get_node, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.node, "node")
    }

    /// Takes a node out of the cluster.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn remove_node(&self, target: &str, force: bool) -> Result<(), ClientError> {
        let request = v1::RemoveNodeRequest {
            id: target.to_owned(),
            force,
        };
        send!(self, remove_node, CALL_LIMIT, Repeat::Never, request).map(drop)
    }

    /// About the cluster.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn cluster_info(&self) -> Result<v1::GetClusterInfoResponse, ClientError> {
        let request = v1::GetClusterInfoRequest {};
        send!(self, get_cluster_info, CALL_LIMIT, Repeat::Safe, request)
    }

    /// About the daemon that answers.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn status(&self) -> Result<v1::GetStatusResponse, ClientError> {
        let request = v1::GetStatusRequest {};
        send!(self, get_status, CALL_LIMIT, Repeat::Safe, request)
    }

    /// Stops the daemon that answers; its containers go on running.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn stop_daemon(
        &self,
        grace: Option<warren_types::Duration>,
    ) -> Result<v1::StopDaemonResponse, ClientError> {
        let request = v1::StopDaemonRequest {
            grace_ms: grace.map_or(0, warren_types::Duration::as_millis),
        };
        send!(self, stop_daemon, CALL_LIMIT, Repeat::Never, request)
    }
}

/// Secrets and volumes. All fail with [`ClientError`].
impl Client {
    /// Stores a secret. Repeated safely.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn create_secret(
        &self,
        name: &str,
        data: Vec<u8>,
        labels: BTreeMap<String, String>,
    ) -> Result<v1::Secret, ClientError> {
        let mut request = v1::CreateSecretRequest {
            name: name.to_owned(),
            data,
            labels,
            ..Default::default()
        };
        let repeat = with_key(&mut request.idempotency_key);
        let answer = send!(self, create_secret, CALL_LIMIT, repeat, request)?;
        filled(answer.secret, "secret")
    }

    /// Gives a secret a new value.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn update_secret(
        &self,
        target: &str,
        data: Vec<u8>,
        version: Option<Revision>,
    ) -> Result<v1::Secret, ClientError> {
        let request = v1::UpdateSecretRequest {
            id: target.to_owned(),
            data,
            expected_version: expected(version),
        };
        let answer = send!(self, update_secret, CALL_LIMIT, Repeat::Never, request)?;
        filled(answer.secret, "secret")
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn delete_secret(&self, target: &str) -> Result<(), ClientError> {
        let request = v1::DeleteSecretRequest {
            id: target.to_owned(),
        };
        send!(self, delete_secret, CALL_LIMIT, Repeat::Never, request).map(drop)
    }

    /// One secret, without its value.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn get_secret(&self, target: &str) -> Result<v1::Secret, ClientError> {
        let request = v1::GetSecretByNameRequest {
            name: target.to_owned(),
        };
        let answer = send!(self, get_secret_by_name, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.secret, "secret")
    }

    /// All secrets, without values.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_secrets(&self) -> Result<Vec<v1::Secret>, ClientError> {
        let request = v1::ListSecretsRequest {};
        Ok(send!(self, list_secrets, CALL_LIMIT, Repeat::Safe, request)?.secrets)
    }

    /// Makes a volume. Repeated safely.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn create_volume(
        &self,
        mut request: v1::CreateVolumeRequest,
    ) -> Result<v1::Volume, ClientError> {
        let repeat = with_key(&mut request.idempotency_key);
        let answer = send!(self, create_volume, CALL_LIMIT, repeat, request)?;
        filled(answer.volume, "volume")
    }

    /// Removes a volume and its data.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn delete_volume(&self, target: &str, force: bool) -> Result<(), ClientError> {
        let request = v1::DeleteVolumeRequest {
            id: target.to_owned(),
            force,
        };
        send!(self, delete_volume, CALL_LIMIT, Repeat::Never, request).map(drop)
    }

    /// One volume.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn get_volume(&self, target: &str) -> Result<v1::Volume, ClientError> {
        let request = v1::GetVolumeByNameRequest {
            name: target.to_owned(),
        };
        let answer = send!(self, get_volume_by_name, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.volume, "volume")
    }

    /// All volumes.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_volumes(&self) -> Result<Vec<v1::Volume>, ClientError> {
        let request = v1::ListVolumesRequest {};
        Ok(send!(self, list_volumes, CALL_LIMIT, Repeat::Safe, request)?.volumes)
    }
}

/// Images. All fail with [`ClientError`].
impl Client {
    /// Images of a node, or of all.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn list_images(&self, node: Option<&str>) -> Result<Vec<v1::Image>, ClientError> {
        let request = v1::ListImagesRequest {
            node: node.unwrap_or_default().to_owned(),
        };
        Ok(send!(self, list_images, CALL_LIMIT, Repeat::Safe, request)?.images)
    }

    /// One image.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn inspect_image(
        &self,
        reference: &str,
        node: Option<&str>,
    ) -> Result<v1::ImageDetails, ClientError> {
        let request = v1::InspectImageRequest {
            reference: reference.to_owned(),
            node: node.unwrap_or_default().to_owned(),
        };
        let answer = send!(self, inspect_image, CALL_LIMIT, Repeat::Safe, request)?;
        filled(answer.details, "image")
    }

    /// Removes an image; says what went.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn remove_image(
        &self,
        reference: &str,
        node: Option<&str>,
    ) -> Result<Vec<v1::Image>, ClientError> {
        let request = v1::RemoveImageRequest {
            reference: reference.to_owned(),
            node: node.unwrap_or_default().to_owned(),
        };
        Ok(send!(self, remove_image, CALL_LIMIT, Repeat::Never, request)?.removed)
    }
}
