//! Names of the HTTP/2 headers that stand beside the messages; server and client read them from here.

/// Request header with the wanted freshness of a read: `local` (also when it is absent), `linearizable` or `best`.
pub const READ: &str = "warren-read";
/// Response header of an answer from a manager outside the quorum: milliseconds since it last belonged to it, or `unknown`.
pub const STALE: &str = "warren-stale";
/// Response header: revision of the state that the answer was made from.
pub const REVISION: &str = "warren-revision";
/// Response header of a refusal: the call was certainly not carried out, so that it may be repeated elsewhere.
pub const NOT_APPLIED: &str = "warren-not-applied";
/// Response header: API address of the leader, when the answering manager knows it and is not it.
pub const LEADER: &str = "warren-leader";
/// Response header of a refusal: the cluster has removed the node that calls.
pub const REMOVED: &str = "warren-removed";
/// Request header of a forwarded call: role of the caller. Taken only from a manager's certificate, as all that follow.
pub const FORWARDED_ROLE: &str = "warren-forwarded-role";
/// Name of the caller, percent-encoded.
pub const FORWARDED_NAME: &str = "warren-forwarded-name";
/// Node of the caller; absent for people.
pub const FORWARDED_NODE: &str = "warren-forwarded-node";
/// How the caller is connected to the forwarding manager, percent-encoded; for the audit record.
pub const FORWARDED_VIA: &str = "warren-forwarded-via";
/// All headers that only a forwarding manager may send.
pub const FORWARDED: [&str; 4] = [
    FORWARDED_ROLE,
    FORWARDED_NAME,
    FORWARDED_NODE,
    FORWARDED_VIA,
];

/// Value of the flags [`NOT_APPLIED`] and [`REMOVED`].
pub const YES: &str = "true";
/// Value of [`READ`]: what the asked manager has.
pub const READ_LOCAL: &str = "local";
/// Value of [`READ`]: everything acknowledged before the call, or an error.
pub const READ_LINEARIZABLE: &str = "linearizable";
/// Value of [`READ`]: linearizable when a quorum is in reach, else what the manager has, marked stale.
pub const READ_BEST: &str = "best";
/// Value of [`STALE`] when the manager has not belonged to the quorum since its start.
pub const STALE_UNKNOWN: &str = "unknown";

/// Largest message of the consensus protocol, in bytes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest piece of a snapshot on its way between managers, in bytes.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 1024 * 1024;
/// What the envelope of a message may add to it, in bytes.
pub const ENVELOPE_BYTES: usize = 64 * 1024;
