//! The generated service trait, method by method: caller, subject for the audit record, handler.

use super::images::split_import;
use super::{Answers, Handlers, audit, caller_of};
use crate::control::ApiResult;
use crate::generated::api::warren_api_server::WarrenApi;
use tonic::{Request, Response, Status, Streaming};
use warren_proto::v1;

/// `id` when set, else `name`: what the audit record says the call was about.
fn either(id: &str, name: &str) -> String {
    if id.is_empty() { name } else { id }.to_owned()
}

fn spec_name(request: &v1::CreateServiceRequest) -> String {
    request
        .spec
        .as_ref()
        .map_or_else(|| request.name.clone(), |s| s.name.clone())
}

macro_rules! warren_api {
    (
        $($rpc:literal $method:ident($request:ident) -> $response:ident, $inner:ident, $subject:expr;)+
    ) => {
        #[tonic::async_trait]
        impl WarrenApi for Handlers {
            $(
                async fn $method(
                    &self,
                    request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    let caller = caller_of(request.extensions())?;
                    let message = request.into_inner();
                    let subject: fn(&v1::$request) -> String = $subject;
                    let subject = subject(&message);
                    // Boxed here, where it is made: from here on it is handed from hand to hand, and it is large.
                    let work = Box::pin(self.clone().$inner(caller.clone(), message));
                    self.unary($rpc, caller, subject, work).await
                }
            )+

            type WatchContainersStream = Answers<v1::ContainerEvent>;
            async fn watch_containers(
                &self,
                request: Request<v1::WatchContainersRequest>,
            ) -> Result<Response<Self::WatchContainersStream>, Status> {
                let caller = caller_of(request.extensions())?;
                stream(self.watch_inner(&caller, request.into_inner()).await)
            }

            type StreamEventsStream = Answers<v1::Event>;
            async fn stream_events(
                &self,
                request: Request<v1::StreamEventsRequest>,
            ) -> Result<Response<Self::StreamEventsStream>, Status> {
                let caller = caller_of(request.extensions())?;
                stream(self.events_inner(&caller, request.into_inner()).await)
            }

            type GetLogsStream = Answers<v1::LogEntry>;
            async fn get_logs(
                &self,
                request: Request<v1::GetLogsRequest>,
            ) -> Result<Response<Self::GetLogsStream>, Status> {
                let caller = caller_of(request.extensions())?;
                stream(self.logs_inner(&caller, request.into_inner()).await)
            }

            type BackupClusterStream = Answers<v1::BackupChunk>;
            async fn backup_cluster(
                &self,
                request: Request<v1::BackupClusterRequest>,
            ) -> Result<Response<Self::BackupClusterStream>, Status> {
                let caller = caller_of(request.extensions())?;
                let result = self.backup_inner(&caller, request.into_inner()).await;
                audit("BackupCluster", &caller, "", &result);
                stream(result)
            }

            type ExecStream = Answers<v1::ExecResponse>;
            async fn exec(
                &self,
                request: Request<Streaming<v1::ExecRequest>>,
            ) -> Result<Response<Self::ExecStream>, Status> {
                let caller = caller_of(request.extensions())?;
                let (subject, result) = self.exec_inner(&caller, request.into_inner()).await?;
                audit("Exec", &caller, &subject, &result);
                stream(result)
            }

            async fn import_image(
                &self,
                request: Request<Streaming<v1::ImportImageRequest>>,
            ) -> Result<Response<v1::ImportImageResponse>, Status> {
                let caller = caller_of(request.extensions())?;
                let (options, archive) = split_import(request.into_inner()).await?;
                let subject = options.reference.clone();
                let work = self.clone().import_inner(caller.clone(), options, archive);
                self.to_the_end("ImportImage", caller, subject, work).await
            }
        }
    };
}

fn stream<T>(answers: ApiResult<Answers<T>>) -> Result<Response<Answers<T>>, Status> {
    Ok(Response::new(answers?))
}

warren_api! {
    "RegisterNode" register_node(RegisterNodeRequest) -> RegisterNodeResponse, register_node_inner, |r| r.id.clone();
    "Heartbeat" heartbeat(HeartbeatRequest) -> HeartbeatResponse, heartbeat_inner, |r| r.node_id.clone();
    "ListNodes" list_nodes(ListNodesRequest) -> ListNodesResponse, list_nodes_inner, |_| String::new();
    "GetNode" get_node(GetNodeRequest) -> GetNodeResponse, get_node_inner, |r| r.id.clone();
    "RemoveNode" remove_node(RemoveNodeRequest) -> RemoveNodeResponse, remove_node_inner, |r| r.id.clone();
    "UpdateNode" update_node(UpdateNodeRequest) -> UpdateNodeResponse, update_node_inner, |r| r.id.clone();
    "CreateService" create_service(CreateServiceRequest) -> CreateServiceResponse, create_service_inner, spec_name;
    "UpdateService" update_service(UpdateServiceRequest) -> UpdateServiceResponse, update_service_inner, |r| either(&r.id, &r.name);
    "UpdateServiceImage" update_service_image(UpdateServiceImageRequest) -> UpdateServiceImageResponse, update_service_image_inner, |r| either(&r.id, &r.name);
    "RollbackService" rollback_service(RollbackServiceRequest) -> RollbackServiceResponse, rollback_service_inner, |r| either(&r.id, &r.name);
    "ScaleService" scale_service(ScaleServiceRequest) -> ScaleServiceResponse, scale_service_inner, |r| either(&r.id, &r.name);
    "DeleteService" delete_service(DeleteServiceRequest) -> DeleteServiceResponse, delete_service_inner, |r| either(&r.id, &r.name);
    "GetService" get_service(GetServiceRequest) -> GetServiceResponse, get_service_inner, |r| either(&r.id, &r.name);
    "ListServices" list_services(ListServicesRequest) -> ListServicesResponse, list_services_inner, |_| String::new();
    "UpdateContainerStatus" update_container_status(UpdateContainerStatusRequest) -> UpdateContainerStatusResponse, update_container_status_inner, |r| r.container_id.clone();
    "ReportContainerHealth" report_container_health(ReportContainerHealthRequest) -> ReportContainerHealthResponse, report_container_health_inner, |r| r.container_id.clone();
    "ListContainers" list_containers(ListContainersRequest) -> ListContainersResponse, list_containers_inner, |_| String::new();
    "GetContainer" get_container(GetContainerRequest) -> GetContainerResponse, get_container_inner, |r| r.id.clone();
    "CreateSecret" create_secret(CreateSecretRequest) -> CreateSecretResponse, create_secret_inner, |r| r.name.clone();
    "UpdateSecret" update_secret(UpdateSecretRequest) -> UpdateSecretResponse, update_secret_inner, |r| r.id.clone();
    "DeleteSecret" delete_secret(DeleteSecretRequest) -> DeleteSecretResponse, delete_secret_inner, |r| r.id.clone();
    "GetSecretByName" get_secret_by_name(GetSecretByNameRequest) -> GetSecretByNameResponse, get_secret_by_name_inner, |r| r.name.clone();
    "ListSecrets" list_secrets(ListSecretsRequest) -> ListSecretsResponse, list_secrets_inner, |_| String::new();
    "CreateVolume" create_volume(CreateVolumeRequest) -> CreateVolumeResponse, create_volume_inner, |r| r.name.clone();
    "DeleteVolume" delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse, delete_volume_inner, |r| r.id.clone();
    "GetVolumeByName" get_volume_by_name(GetVolumeByNameRequest) -> GetVolumeByNameResponse, get_volume_by_name_inner, |r| r.name.clone();
    "ListVolumes" list_volumes(ListVolumesRequest) -> ListVolumesResponse, list_volumes_inner, |_| String::new();
    "GenerateJoinToken" generate_join_token(GenerateJoinTokenRequest) -> GenerateJoinTokenResponse, generate_join_token_inner, |r| r.role.clone();
    "JoinCluster" join_cluster(JoinClusterRequest) -> JoinClusterResponse, join_cluster_inner, |r| r.node_id.clone();
    "GetClusterInfo" get_cluster_info(GetClusterInfoRequest) -> GetClusterInfoResponse, get_cluster_info_inner, |_| String::new();
    "RequestCertificate" request_certificate(RequestCertificateRequest) -> RequestCertificateResponse, request_certificate_inner, |r| r.node_id.clone();
    "GetStatus" get_status(GetStatusRequest) -> GetStatusResponse, get_status_inner, |_| String::new();
    "StopDaemon" stop_daemon(StopDaemonRequest) -> StopDaemonResponse, stop_daemon_inner, |_| String::new();
    "CreateIngress" create_ingress(CreateIngressRequest) -> CreateIngressResponse, create_ingress_inner, |r| r.name.clone();
    "UpdateIngress" update_ingress(UpdateIngressRequest) -> UpdateIngressResponse, update_ingress_inner, |r| either(&r.id, &r.name);
    "DeleteIngress" delete_ingress(DeleteIngressRequest) -> DeleteIngressResponse, delete_ingress_inner, |r| either(&r.id, &r.name);
    "GetIngress" get_ingress(GetIngressRequest) -> GetIngressResponse, get_ingress_inner, |r| either(&r.id, &r.name);
    "ListIngresses" list_ingresses(ListIngressesRequest) -> ListIngressesResponse, list_ingresses_inner, |_| String::new();
    "CreateTLSCertificate" create_tls_certificate(CreateTlsCertificateRequest) -> CreateTlsCertificateResponse, create_tls_certificate_inner, |r| r.name.clone();
    "GetTLSCertificate" get_tls_certificate(GetTlsCertificateRequest) -> GetTlsCertificateResponse, get_tls_certificate_inner, |r| either(&r.id, &r.name);
    "ListTLSCertificates" list_tls_certificates(ListTlsCertificatesRequest) -> ListTlsCertificatesResponse, list_tls_certificates_inner, |_| String::new();
    "DeleteTLSCertificate" delete_tls_certificate(DeleteTlsCertificateRequest) -> DeleteTlsCertificateResponse, delete_tls_certificate_inner, |r| either(&r.id, &r.name);
    "ListImages" list_images(ListImagesRequest) -> ListImagesResponse, list_images_inner, |_| String::new();
    "InspectImage" inspect_image(InspectImageRequest) -> InspectImageResponse, inspect_image_inner, |r| r.reference.clone();
    "RemoveImage" remove_image(RemoveImageRequest) -> RemoveImageResponse, remove_image_inner, |r| r.reference.clone();
    "RenewCertificate" renew_certificate(RenewCertificateRequest) -> RenewCertificateResponse, renew_certificate_inner, |_| String::new();
    "ListJoinTokens" list_join_tokens(ListJoinTokensRequest) -> ListJoinTokensResponse, list_join_tokens_inner, |_| String::new();
    "RevokeJoinToken" revoke_join_token(RevokeJoinTokenRequest) -> RevokeJoinTokenResponse, revoke_join_token_inner, |r| r.id.clone();
    "UpdateClusterSettings" update_cluster_settings(UpdateClusterSettingsRequest) -> UpdateClusterSettingsResponse, update_cluster_settings_inner, |_| String::new();
    "TransferLeadership" transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse, transfer_leadership_inner, |r| r.node.clone();
    "RecoverCluster" recover_cluster(RecoverClusterRequest) -> RecoverClusterResponse, recover_cluster_inner, |_| String::new();
    "SetAutoLock" set_auto_lock(SetAutoLockRequest) -> SetAutoLockResponse, set_auto_lock_inner, |r| r.enabled.to_string();
    "UnlockCluster" unlock_cluster(UnlockClusterRequest) -> UnlockClusterResponse, unlock_cluster_inner, |_| String::new();
    "RotateCertificateAuthority" rotate_certificate_authority(RotateCertificateAuthorityRequest) -> RotateCertificateAuthorityResponse, rotate_certificate_authority_inner, |_| String::new();
    "IssueUserCertificate" issue_user_certificate(IssueUserCertificateRequest) -> IssueUserCertificateResponse, issue_user_certificate_inner, |r| format!("{} as {}", r.name, r.role);
    "RotateDataKey" rotate_data_key(RotateDataKeyRequest) -> RotateDataKeyResponse, rotate_data_key_inner, |_| String::new();
}
