//! Leaving a manager's office, which ends with the removal of its log.
//!
//! A dismissal may be older than the next promotion: a manager that removed its log while a membership counts on its vote
//! would cost a small cluster its quorum. So the log goes only after a leader with a quorum has said that the node is no
//! member, and only when that was asked after the node's own consensus had ended: from then on nothing of it can join, and a
//! request of it that is still under way makes it a learner at most, which gets no vote as it does not answer. Whoever
//! cannot be sure stays a manager: that is harmless, for a manager that is none is told so again.

use super::renew::shown;
use std::time::Duration;
use warren_client::{Client, ClientError, ErrorKind, Freshness, IdentitySource, TlsIdentity};
use warren_manager::Renewed;
use warren_proto::v1;
use warren_types::NodeId;

/// How long the cluster is asked. Longer than an election takes; while this node is asking, the quorum may be
/// waiting for its vote.
const ASK_LIMIT: Duration = Duration::from_secs(3);

/// What the cluster says about the office of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Office {
    /// It is no manager, and the quorum does not count on it.
    Gone,
    /// It has the office (again), or nobody could say for sure; why.
    Kept(String),
    /// The cluster has removed the node.
    Removed,
}

/// Asks the leader, with the certificate that the cluster has given last: the one in force may be over.
pub(super) async fn ask(managers: &[String], given: &Renewed, node: NodeId) -> Office {
    match tokio::time::timeout(ASK_LIMIT, question(managers, shown(given))).await {
        Ok(answer) => decide(answer, node),
        Err(_) => Office::Kept(format!(
            "no leader with a quorum has answered within {} s",
            ASK_LIMIT.as_secs()
        )),
    }
}

async fn question(
    managers: &[String],
    identity: TlsIdentity,
) -> Result<v1::GetClusterInfoResponse, ClientError> {
    let identity = IdentitySource::new(identity)?;
    let client = Client::managers(managers, &identity).with_read(Freshness::Linearizable);
    client.cluster_info().await
}

fn decide(answer: Result<v1::GetClusterInfoResponse, ClientError>, node: NodeId) -> Office {
    let info = match answer {
        Ok(info) => info,
        Err(error) if error.kind == ErrorKind::Removed => return Office::Removed,
        Err(error) => return Office::Kept(error.to_string()),
    };
    // A follower's view of the membership may be older than the records that it reads.
    if !info.quorum || info.leader_name.is_empty() || info.leader_name != info.answered_by {
        return Office::Kept(format!(
            "manager {:?} has answered and does not lead",
            info.answered_by
        ));
    }
    let own = node.to_string();
    match info.servers.iter().find(|server| server.id == own) {
        Some(server) => Office::Kept(format!(
            "the quorum has it as {:?}, its record says {:?}",
            server.suffrage, server.role
        )),
        None => Office::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: NodeId = NodeId::from_u128(2);

    fn server(id: u128, suffrage: &str, role: &str) -> v1::ClusterServer {
        v1::ClusterServer {
            id: NodeId::from_u128(id).to_string(),
            suffrage: suffrage.to_owned(),
            role: role.to_owned(),
            ..v1::ClusterServer::default()
        }
    }

    /// The leader's answer, with another manager and this.
    fn told(own: Option<v1::ClusterServer>) -> v1::GetClusterInfoResponse {
        let other = server(1, "Voter", "hybrid");
        v1::GetClusterInfoResponse {
            leader_name: "m1".to_owned(),
            answered_by: "m1".to_owned(),
            quorum: true,
            servers: std::iter::once(other).chain(own).collect(),
            ..v1::GetClusterInfoResponse::default()
        }
    }

    fn is_kept(answer: v1::GetClusterInfoResponse) -> bool {
        matches!(decide(Ok(answer), OWN), Office::Kept(_))
    }

    #[test]
    fn who_is_no_member_and_no_manager_goes() {
        assert_eq!(decide(Ok(told(None)), OWN), Office::Gone);
    }

    #[test]
    fn who_is_a_member_or_a_manager_again_stays() {
        for suffrage in ["Voter", "Nonvoter", "Staging"] {
            for role in ["hybrid", "manager", "worker", ""] {
                let own = server(2, suffrage, role);
                assert!(is_kept(told(Some(own))), "{suffrage} {role}");
            }
        }
    }

    /// Only the leader of a quorum knows who is a member.
    #[test]
    fn nobody_goes_on_the_word_of_another_than_the_leader() {
        let mut follower = told(None);
        follower.answered_by = "m3".to_owned();
        assert!(is_kept(follower));
        let mut alone = told(None);
        alone.quorum = false;
        assert!(is_kept(alone));
        let mut election = told(None);
        election.leader_name.clear();
        election.answered_by.clear();
        assert!(is_kept(election));
    }

    #[test]
    fn who_gets_no_answer_stays_and_who_is_removed_is_told() {
        let failed = |kind| ClientError {
            kind,
            message: "no".to_owned(),
            remedy: String::new(),
        };
        let unavailable = decide(Err(failed(ErrorKind::Unavailable)), OWN);
        assert!(matches!(unavailable, Office::Kept(_)));
        let removed = decide(Err(failed(ErrorKind::Removed)), OWN);
        assert_eq!(removed, Office::Removed);
    }
}
