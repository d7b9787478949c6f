//! Join tokens, and the certificates that they, or old certificates, are exchanged for (MM-61, MM-64..66).

use super::{Control, failure, info, members};
use crate::authority;
use crate::edge;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_api::{
    ApiError, ApiResult, Caller, CertificateRequest, ChangeOptions, IssuedCertificate, IssuedToken,
};
use warren_proto::convert::timestamp_to_api;
use warren_proto::v1;
use warren_security::ca::CERTIFICATE_VALIDITY;
use warren_security::token::TOKEN_TTL_DEFAULT;
use warren_security::{
    CaDigest, CaError, CertificateAuthority, Identity, NewToken, PresentedToken, SubjectName,
    issue_token, verify_renewal, verify_token,
};
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_types::{
    Availability, ClusterSettings, Duration, JoinToken, Liveness, Node, NodeId, NodeResources,
    NodeRole, Platform, Revision, Role, Timestamp, TokenId, TokenState,
};

pub(super) async fn generate(
    control: &Control,
    caller: &Caller,
    role: Role,
    ttl: Option<Duration>,
    uses: Option<u32>,
    rotate: bool,
) -> ApiResult<IssuedToken> {
    let now = edge::now();
    let state = control.state();
    let roots = &info::settings(&state)?.ca.roots_pem;
    let root = roots.last().map(String::as_str).unwrap_or_default();
    let new = NewToken {
        id: TokenId(edge::new_id()),
        role,
        ca: CaDigest::of_pem(root).map_err(|e| ApiError::internal(e.to_string()))?,
        ttl: ttl.unwrap_or(TOKEN_TTL_DEFAULT),
        uses,
    };
    let made = issue_token(new, now, edge::random::<16>());
    let (record, token) =
        made.map_err(|e| ApiError::field("token", e.to_string(), "correct the request"))?;
    let expires_at = record.expires_at;
    let mut ops = vec![Op::TokenCreate(Box::new(record))];
    if rotate {
        let earlier = state.tokens().filter(|t| t.role == role && !t.revoked);
        ops.extend(earlier.map(|t| Op::TokenRevoke { id: t.id }));
    }
    control
        .change(caller, now, ops, &ChangeOptions::default())
        .await?;
    Ok(IssuedToken {
        token: token.reveal().to_string(),
        id: new.id,
        role,
        expires_at,
    })
}

/// MT-04: all tokens, never their secrets (SEC-04).
pub(super) fn list(state: &ClusterState) -> v1::ListJoinTokensResponse {
    let now = edge::now();
    let view = |token: &JoinToken| v1::JoinTokenInfo {
        id: token.id.to_string(),
        role: token.role.name().to_owned(),
        created_at: Some(timestamp_to_api(token.created_at)),
        expires_at: Some(timestamp_to_api(token.expires_at)),
        uses_left: token.uses_left,
        state: match token.state(now) {
            TokenState::Valid => "active",
            TokenState::Revoked => "revoked",
            TokenState::Expired => "expired",
            TokenState::UsedUp => "used up",
        }
        .to_owned(),
    };
    v1::ListJoinTokensResponse {
        tokens: state.tokens().map(|t| view(t)).collect(),
    }
}

/// MT-05.
pub(super) async fn revoke(control: &Control, caller: &Caller, id: &str) -> ApiResult<()> {
    let id: TokenId = id.parse().map_err(|e| {
        ApiError::field(
            "id",
            format!("{e}"),
            "`warren cluster token list` shows the ids",
        )
    })?;
    control.change_now(caller, Op::TokenRevoke { id }).await?;
    Ok(())
}

/// Checks the token, uses it once, lists the node, and signs. Use and node are one command, and written before the
/// certificate leaves: a certificate without a node gives no rights.
pub(super) async fn request_certificate(
    control: &Control,
    request: CertificateRequest,
) -> ApiResult<IssuedCertificate> {
    control.joins.enter()?;
    let now = edge::now();
    let state = control.state();
    let (token, role) = match presented(&state, &request.token, now) {
        Ok(found) => found,
        Err(error) => {
            control.joins.refused();
            return Err(error);
        }
    };
    let node = joiner(&state, &request, role, now)?;
    let authority = authority::of(&control.secrets, info::settings(&state)?)
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let identity = Identity {
        cluster: authority.cluster(),
        role: certificate_role(node.role),
        node: Some(node.id),
        name: node.name.clone(),
    };
    // Signing comes first: a request that cannot be signed must not use up the token.
    let names = subject_names(&node);
    let (certificate_pem, key_pem) = sign(
        &authority,
        request.csr_pem.as_deref(),
        &identity,
        &names,
        now,
    )?;
    let mut node = node;
    node.certificate_root = info::fingerprint(authority.cert_pem());
    let mut ops = vec![Op::TokenUse { id: token.id }];
    if state.node(node.id).is_none() {
        ops.push(Op::NodeAdd(Box::new(node.clone())));
    }
    let command = Command::new(Actor::System, now, ops);
    control
        .raft
        .propose(&command)
        .await
        .map_err(failure::proposal)?;
    let state = control.state();
    let settings = info::settings(&state)?;
    tracing::info!(node = %node.name, role = node.role.name(), "a node joins");
    Ok(IssuedCertificate {
        certificate_pem,
        key_pem,
        ca_pem: settings.ca.roots_pem.concat(),
        node: Some(node.id),
        cluster: settings.id,
        cluster_name: settings.name.clone(),
        role: Some(node.role),
        managers: members::servers(control, &state),
    })
}

fn presented(
    state: &ClusterState,
    text: &str,
    now: Timestamp,
) -> ApiResult<(PresentedToken, Role)> {
    let refused =
        |what: String| ApiError::denied(what, "make a new token with `warren cluster join-token`");
    let presented: PresentedToken = text
        .parse()
        .map_err(|e: warren_security::TokenError| refused(e.to_string()))?;
    let record = state.token(presented.id).map(AsRef::as_ref);
    let role = verify_token(record, &presented, now).map_err(|e| refused(e.to_string()))?;
    Ok((presented, role))
}

/// The record of the node that joins.
fn joiner(
    state: &ClusterState,
    request: &CertificateRequest,
    role: Role,
    now: Timestamp,
) -> ApiResult<Node> {
    let role = node_role(role, request.role)?;
    let name = if request.node_name.is_empty() {
        &request.node_id
    } else {
        &request.node_name
    };
    // The joiner makes its id itself, so that it can ask again when the answer was lost.
    let id = request
        .node_id
        .parse()
        .unwrap_or_else(|_| NodeId(edge::new_id()));
    if state.is_removed(id).is_some() {
        return Err(ApiError::precondition(
            format!("node {id} was removed from the cluster"),
            "run `warren node reset` there, then join as a new node",
        ));
    }
    if let Some(known) = state.node(id) {
        let never_seen = known.liveness == Liveness::Unknown && known.hostname.is_empty();
        if never_seen && known.name == *name && known.role == role {
            return Ok(known.as_ref().clone());
        }
        return Err(ApiError::AlreadyExists {
            kind: "node",
            name: id.to_string(),
            remedy: "the id belongs to a node that has joined; join with a fresh data directory"
                .to_owned(),
        });
    }
    if let Some(taken) = state.node_by_name(name) {
        return Err(ApiError::AlreadyExists {
            kind: "node",
            name: taken.name.clone(),
            remedy:
                "choose another with --node-id, or remove the old one with `warren node remove`"
                    .to_owned(),
        });
    }
    let node = Node {
        id,
        name: name.clone(),
        role,
        address: request.address.clone(),
        hostname: String::new(),
        labels: BTreeMap::new(),
        platform: Platform::default(),
        resources: NodeResources::default(),
        availability: Availability::Active,
        liveness: Liveness::Unknown,
        reason: String::new(),
        subnet: String::new(),
        version_text: String::new(),
        certificate_root: String::new(),
        created_at: now,
        updated_at: now,
        version: Revision(0),
    };
    if role.is_manager() && node.address.is_empty() {
        return Err(ApiError::field(
            "address",
            "is missing",
            "a manager must be reachable: join with --advertise-addr HOST:PORT",
        ));
    }
    node.validate()?;
    Ok(node)
}

/// A token for workers makes no manager, and the other way round (SEC-03).
fn node_role(token: Role, wanted: Option<NodeRole>) -> ApiResult<NodeRole> {
    let (default, fits): (NodeRole, fn(NodeRole) -> bool) = match token {
        Role::Manager => (NodeRole::Hybrid, |role| role.is_manager()),
        _ => (NodeRole::Worker, |role| role == NodeRole::Worker),
    };
    let role = wanted.unwrap_or(default);
    if fits(role) {
        return Ok(role);
    }
    Err(ApiError::denied(
        format!(
            "this is a token for {}s, not for {}s",
            token.name(),
            role.name()
        ),
        format!(
            "make one with `warren cluster join-token {}`",
            certificate_role(role).name()
        ),
    ))
}

const fn certificate_role(role: NodeRole) -> Role {
    if role.is_manager() {
        Role::Manager
    } else {
        Role::Worker
    }
}

/// What the node's own API may be called by, besides the fixed name that nodes and clients check.
pub(crate) fn subject_names(node: &Node) -> Vec<SubjectName> {
    let host = node.address.rsplit_once(':').map(|(host, _)| host);
    let host = host.map(|h| h.trim_start_matches('[').trim_end_matches(']'));
    ["localhost", "127.0.0.1", node.name.as_str()]
        .into_iter()
        .chain(host.filter(|h| !h.is_empty()))
        .map(SubjectName::from)
        .collect()
}

fn sign(
    authority: &CertificateAuthority,
    csr: Option<&str>,
    identity: &Identity,
    names: &[SubjectName],
    now: Timestamp,
) -> ApiResult<(String, Option<String>)> {
    match csr {
        Some(csr) => {
            let certificate = authority.issue(csr, identity, names, now, CERTIFICATE_VALIDITY);
            Ok((certificate.map_err(unfit)?, None))
        }
        None => {
            let made = authority.issue_with_key(identity, names, now, CERTIFICATE_VALIDITY);
            let (certificate, key) = made.map_err(unfit)?;
            Ok((certificate, Some(key.to_string())))
        }
    }
}

/// Signs a request of somebody who is no node.
pub(super) fn sign_request(
    authority: &CertificateAuthority,
    csr: &str,
    identity: &Identity,
    now: Timestamp,
    life: Duration,
) -> ApiResult<String> {
    authority
        .issue(csr, identity, &[], now, life)
        .map_err(unfit)
}

fn unfit(error: CaError) -> ApiError {
    ApiError::field(
        "csr",
        error.to_string(),
        "send a PEM request with an ECDSA P-256 key",
    )
}

/// A new certificate for a listed node that has the old key, also when the old certificate has expired. The role is
/// that of the node's record now.
pub(super) async fn renew(
    control: &Control,
    request: v1::RenewCertificateRequest,
) -> ApiResult<v1::RenewCertificateResponse> {
    let text = |bytes: Vec<u8>, field: &'static str| {
        String::from_utf8(bytes)
            .map_err(|_| ApiError::field(field, "is no PEM text", "send it in PEM"))
    };
    let old = text(request.certificate, "certificate")?;
    let csr = text(request.csr, "csr")?;
    let roots = &info::settings(&control.state())?.ca.roots_pem.clone();
    let proven = verify_renewal(roots, &old, &csr, &request.proof)
        .map_err(|e| ApiError::denied(e.to_string(), "join again with a new token"))?;
    let state = records_for(control, &proven).await?;
    let settings = info::settings(&state)?;
    let node = listed(&state, settings, &proven)?;
    let authority =
        authority::of(&control.secrets, settings).map_err(|e| ApiError::internal(e.to_string()))?;
    let identity = Identity {
        role: certificate_role(node.role),
        name: node.name.clone(),
        ..proven
    };
    let names = subject_names(node);
    let (certificate, _) = sign(&authority, Some(&csr), &identity, &names, edge::now())?;
    note_root(control, node, info::fingerprint(authority.cert_pem())).await?;
    Ok(v1::RenewCertificateResponse {
        certificate: certificate.into_bytes(),
        ca_cert: settings.ca.roots_pem.concat().into_bytes(),
        role: node.role.name().to_owned(),
        managers: members::servers(control, &state),
    })
}

/// The records that a renewal goes by. Only who has the newest takes an office away or gives one: an older record may be that
/// of an office before. A certificate of the same role is renewed without a quorum too, or a long partition would end
/// with certificates that are all over.
async fn records_for(control: &Control, proven: &Identity) -> ApiResult<Arc<ClusterState>> {
    let state = control.state();
    let node = listed(&state, info::settings(&state)?, proven);
    if node.is_ok_and(|node| certificate_role(node.role) == proven.role) {
        return Ok(state);
    }
    let newest = control.raft.read_barrier().await;
    newest.map_err(|error| ApiError::NotTaken {
        what: format!("the role of {} may have changed: {error}", proven.name),
        remedy: "ask the leader; `warren cluster info` shows who leads".to_owned(),
        leader: None,
    })?;
    Ok(control.state())
}

/// Notes which root a node's certificate hangs on, for the rotation of the CA.
async fn note_root(control: &Control, node: &Node, root: String) -> ApiResult<()> {
    if node.certificate_root == root {
        return Ok(());
    }
    let patch = NodePatch {
        certificate_root: Some(root),
        ..NodePatch::default()
    };
    let op = Op::NodeUpdate {
        id: node.id,
        expect: None,
        patch: Box::new(patch),
    };
    let command = Command::new(Actor::System, edge::now(), vec![op]);
    let noted = control.raft.propose(&command).await;
    noted.map(drop).map_err(failure::proposal)
}

fn listed<'a>(
    state: &'a ClusterState,
    settings: &ClusterSettings,
    proven: &Identity,
) -> ApiResult<&'a Node> {
    let unknown = || {
        ApiError::denied(
            format!(
                "{} is no node of this cluster (it was removed, or belongs to another one)",
                proven.name
            ),
            "run `warren node reset` there, then join with a new token",
        )
    };
    if proven.cluster != settings.id {
        return Err(unknown());
    }
    let id = proven.node.ok_or_else(unknown)?;
    state.node(id).map(AsRef::as_ref).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OTHER, demoted};
    use warren_security::{generate_key_and_csr, identity_from_pem, make_renewal};

    /// The role that this node is given when it shows a manager's certificate.
    async fn given(control: &Control, node: NodeId) -> ApiResult<Role> {
        let state = control.state();
        let authority = authority::of(&control.secrets, state.settings().unwrap()).unwrap();
        let who = Identity {
            cluster: authority.cluster(),
            role: Role::Manager,
            node: Some(node),
            name: state.node(node).unwrap().name.clone(),
        };
        let old = generate_key_and_csr().unwrap();
        let old_pem = authority
            .issue(&old.csr_pem, &who, &[], edge::now(), CERTIFICATE_VALIDITY)
            .unwrap();
        let renewal = make_renewal(&old_pem, &old.key_pem).unwrap();
        let request = v1::RenewCertificateRequest {
            certificate: old_pem.into_bytes(),
            csr: renewal.csr_pem.clone().into_bytes(),
            proof: renewal.proof.clone(),
        };
        let answer = renew(control, request).await?;
        let pem = String::from_utf8(answer.certificate).unwrap();
        Ok(identity_from_pem(&pem).unwrap().role)
    }

    /// Who cannot say that its records are the newest takes no office away; but a manager renews its own certificate
    /// without a quorum.
    #[tokio::test]
    async fn only_the_newest_records_take_an_office_away() {
        let control = demoted().await;
        let own = control.local.node;
        assert_eq!(given(&control, OTHER).await.unwrap(), Role::Manager);
        assert_eq!(given(&control, own).await.unwrap(), Role::Worker);
        control.raft.shutdown().await;
        assert_eq!(given(&control, OTHER).await.unwrap(), Role::Manager);
        let refused = given(&control, own).await.unwrap_err();
        assert!(matches!(refused, ApiError::NotTaken { .. }), "{refused}");
    }

    /// The token of a worker does not make a manager, nor the other way round (MT-03, SEC-03).
    #[test]
    fn a_token_is_for_one_role() {
        let made = |token, wanted| node_role(token, wanted).map_err(|e| e.to_string());
        assert_eq!(made(Role::Worker, None), Ok(NodeRole::Worker));
        assert_eq!(made(Role::Manager, None), Ok(NodeRole::Hybrid));
        let (manager, worker) = (Some(NodeRole::Manager), Some(NodeRole::Worker));
        assert_eq!(made(Role::Manager, manager), Ok(NodeRole::Manager));
        for (token, wanted, right) in [
            (Role::Worker, manager, "manager"),
            (Role::Worker, Some(NodeRole::Hybrid), "manager"),
            (Role::Manager, worker, "worker"),
        ] {
            let text = made(token, wanted).unwrap_err();
            let remedy = format!("`warren cluster join-token {right}`");
            assert!(text.ends_with(&remedy), "{text}");
        }
    }
}
