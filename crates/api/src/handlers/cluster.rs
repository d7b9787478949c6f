//! Nodes, the cluster, events, the daemon, and the older calls of nodes.

use super::checks::{own_node, target};
use super::{Answers, Handlers};
use crate::caller::Caller;
use crate::control::{ApiResult, CertificateRequest, EventQuery, NodeChange};
use crate::error::ApiError;
use warren_proto::convert::{availability_from_text, event_to_api, node_to_api, timestamp_to_api};
use warren_proto::v1;
use warren_types::validate::{validate_address, validate_labels};
use warren_types::{Duration, EventKind, NodeId, NodeRole, Revision, Role, limits};

/// Longest life of a join token, in seconds: 30 days.
const TOKEN_SECONDS_MAX: u64 = 30 * 86_400;
/// Longest token text, in bytes.
const TOKEN_BYTES_MAX: usize = 512;

fn ok() -> String {
    "ok".to_owned()
}

fn node_id(text: &str) -> ApiResult<NodeId> {
    text.parse()
        .map_err(|e| ApiError::field("node_id", format!("{e}"), "give the node's id"))
}

fn node_role(text: &str) -> ApiResult<NodeRole> {
    [NodeRole::Manager, NodeRole::Worker, NodeRole::Hybrid]
        .into_iter()
        .find(|role| role.name() == text)
        .ok_or_else(|| {
            ApiError::field(
                "role",
                "is no role of a node",
                "use manager, worker or hybrid",
            )
        })
}

impl Handlers {
    pub(super) async fn list_nodes_inner(
        self,
        caller: Caller,
        request: v1::ListNodesRequest,
    ) -> ApiResult<v1::ListNodesResponse> {
        let role = match request.role_filter.as_str() {
            "" => None,
            text => Some(node_role(text)?),
        };
        let views = self.control.list_nodes(&caller, role).await?;
        Ok(v1::ListNodesResponse {
            nodes: views.iter().map(node_to_api).collect(),
        })
    }

    pub(super) async fn get_node_inner(
        self,
        caller: Caller,
        request: v1::GetNodeRequest,
    ) -> ApiResult<v1::GetNodeResponse> {
        let name = target(&request.id, "")?;
        let view = self.control.get_node(&caller, name).await?;
        Ok(v1::GetNodeResponse {
            node: Some(node_to_api(&view)),
        })
    }

    pub(super) async fn update_node_inner(
        self,
        caller: Caller,
        request: v1::UpdateNodeRequest,
    ) -> ApiResult<v1::UpdateNodeResponse> {
        let name = target(&request.id, "")?;
        validate_labels("labels_set", &request.labels_set)?;
        if request.labels_remove.len() > limits::LABELS_MAX {
            return Err(ApiError::field(
                "labels_remove",
                "has too many keys",
                format!("a node has at most {} labels", limits::LABELS_MAX),
            ));
        }
        let change = NodeChange {
            availability: request
                .availability
                .as_deref()
                .map(availability_from_text)
                .transpose()?,
            labels_set: request.labels_set,
            labels_remove: request.labels_remove,
            expect: (request.expected_version > 0).then_some(Revision(request.expected_version)),
            role: request.role.as_deref().map(node_role).transpose()?,
        };
        let view = self.control.update_node(&caller, name, change).await?;
        Ok(v1::UpdateNodeResponse {
            node: Some(node_to_api(&view)),
        })
    }

    pub(super) async fn remove_node_inner(
        self,
        caller: Caller,
        request: v1::RemoveNodeRequest,
    ) -> ApiResult<v1::RemoveNodeResponse> {
        let name = target(&request.id, "")?;
        self.control
            .remove_node(&caller, name, request.force)
            .await?;
        Ok(v1::RemoveNodeResponse { status: ok() })
    }

    pub(super) async fn generate_join_token_inner(
        self,
        caller: Caller,
        request: v1::GenerateJoinTokenRequest,
    ) -> ApiResult<v1::GenerateJoinTokenResponse> {
        let role = Role::from_name(&request.role)
            .filter(|r| matches!(r, Role::Worker | Role::Manager))
            .ok_or_else(|| {
                ApiError::field(
                    "role",
                    "is no role of a node that joins",
                    "use worker or manager",
                )
            })?;
        if request.ttl_seconds > TOKEN_SECONDS_MAX {
            return Err(ApiError::field(
                "ttl_seconds",
                "is too long",
                format!("a token lives at most {TOKEN_SECONDS_MAX} seconds"),
            ));
        }
        let ttl = (request.ttl_seconds > 0).then(|| Duration::from_secs(request.ttl_seconds));
        let uses = (request.max_uses > 0).then_some(request.max_uses);
        let token = self
            .control
            .generate_join_token(&caller, role, ttl, uses, request.rotate)
            .await?;
        Ok(v1::GenerateJoinTokenResponse {
            token: token.token,
            role: token.role.name().to_owned(),
            expires_at: Some(timestamp_to_api(token.expires_at)),
            token_id: token.id.to_string(),
        })
    }

    pub(super) async fn request_certificate_inner(
        self,
        caller: Caller,
        request: v1::RequestCertificateRequest,
    ) -> ApiResult<v1::RequestCertificateResponse> {
        if request.token.is_empty() || request.token.len() > TOKEN_BYTES_MAX {
            return Err(ApiError::field(
                "token",
                "is no join token",
                "ask an admin of the cluster for one",
            ));
        }
        let csr_max = warren_security::ca::CSR_BYTES_MAX;
        if request.csr.len() > csr_max {
            return Err(ApiError::field(
                "csr",
                format!("has {} bytes", request.csr.len()),
                format!("at most {csr_max} are allowed"),
            ));
        }
        let csr = String::from_utf8(request.csr)
            .map_err(|_| ApiError::field("csr", "is no PEM text", "send the request in PEM"))?;
        // A node that is new has a name and no id yet; older clients send an id alone.
        let node_id = if request.node_id.is_empty() && !request.node_name.is_empty() {
            String::new()
        } else {
            target(&request.node_id, "")?.to_owned()
        };
        if !request.address.is_empty() {
            validate_address("address", &request.address)?;
        }
        let issued = self
            .control
            .request_certificate(
                &caller,
                CertificateRequest {
                    node_id,
                    node_name: request.node_name,
                    token: request.token,
                    csr_pem: (!csr.is_empty()).then_some(csr),
                    address: request.address,
                    role: match request.role.as_str() {
                        "" => None,
                        text => Some(node_role(text)?),
                    },
                },
            )
            .await?;
        Ok(v1::RequestCertificateResponse {
            certificate: issued.certificate_pem.into_bytes(),
            private_key: issued.key_pem.unwrap_or_default().into_bytes(),
            ca_cert: issued.ca_pem.into_bytes(),
            node_id: issued.node.map(|id| id.to_string()).unwrap_or_default(),
            cluster_id: issued.cluster.to_string(),
            cluster_name: issued.cluster_name,
            role: issued
                .role
                .map_or_else(String::new, |r| r.name().to_owned()),
            managers: issued.managers,
        })
    }

    pub(super) async fn get_cluster_info_inner(
        self,
        caller: Caller,
        _request: v1::GetClusterInfoRequest,
    ) -> ApiResult<v1::GetClusterInfoResponse> {
        self.control.cluster_info(&caller).await
    }

    pub(super) async fn get_status_inner(
        self,
        caller: Caller,
        _request: v1::GetStatusRequest,
    ) -> ApiResult<v1::GetStatusResponse> {
        self.control.status(&caller).await
    }

    pub(super) async fn stop_daemon_inner(
        self,
        caller: Caller,
        request: v1::StopDaemonRequest,
    ) -> ApiResult<v1::StopDaemonResponse> {
        if request.grace_ms > limits::STOP_GRACE_MS_MAX {
            return Err(ApiError::field(
                "grace_ms",
                "is too long",
                format!("at most {} ms", limits::STOP_GRACE_MS_MAX),
            ));
        }
        let grace = (request.grace_ms > 0).then_some(Duration(request.grace_ms));
        self.control.stop_daemon(&caller, grace).await
    }

    pub(super) async fn events_inner(
        &self,
        caller: &Caller,
        request: v1::StreamEventsRequest,
    ) -> ApiResult<Answers<v1::Event>> {
        let kinds = request
            .event_types
            .iter()
            .map(|text| {
                EventKind::from_name(text).ok_or_else(|| {
                    ApiError::field(
                        "event_types",
                        format!(
                            "{:?} is no event",
                            text.chars().take(40).collect::<String>()
                        ),
                        format!(
                            "use some of {}",
                            EventKind::ALL
                                .iter()
                                .map(|k| k.name())
                                .collect::<Vec<_>>()
                                .join(", ")
                        ),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let query = EventQuery {
            kinds,
            since: request.since_revision.map(Revision),
            follow: request.follow.unwrap_or(true),
        };
        let events = self.control.stream_events(caller, query).await?;
        Ok(self.answers(events, |event| event_to_api(&event)))
    }

    pub(super) async fn register_node_inner(
        self,
        caller: Caller,
        request: v1::RegisterNodeRequest,
    ) -> ApiResult<v1::RegisterNodeResponse> {
        own_node(&caller, Some(node_id(&request.id)?))?;
        let view = self.control.register_node(&caller, request).await?;
        Ok(v1::RegisterNodeResponse {
            node: Some(node_to_api(&view)),
            overlay_ip: String::new(),
        })
    }

    pub(super) async fn heartbeat_inner(
        self,
        caller: Caller,
        request: v1::HeartbeatRequest,
    ) -> ApiResult<v1::HeartbeatResponse> {
        own_node(&caller, Some(node_id(&request.node_id)?))?;
        self.control.heartbeat(&caller, request).await?;
        Ok(v1::HeartbeatResponse { status: ok() })
    }

    pub(super) async fn update_container_status_inner(
        self,
        caller: Caller,
        request: v1::UpdateContainerStatusRequest,
    ) -> ApiResult<v1::UpdateContainerStatusResponse> {
        target(&request.container_id, "")?;
        self.control
            .update_container_status(&caller, request)
            .await?;
        Ok(v1::UpdateContainerStatusResponse { status: ok() })
    }

    pub(super) async fn report_container_health_inner(
        self,
        caller: Caller,
        request: v1::ReportContainerHealthRequest,
    ) -> ApiResult<v1::ReportContainerHealthResponse> {
        target(&request.container_id, "")?;
        self.control
            .report_container_health(&caller, request)
            .await?;
        Ok(v1::ReportContainerHealthResponse { status: ok() })
    }
}
