//! Every limit of the data model, with its unit in the name. `SPECIFICATION.md` lists them.

/// Longest name of a service, node, secret and so on: a DNS label (RFC 1035).
pub const NAME_CHARS_MAX: usize = 63;
/// Longest image reference.
pub const IMAGE_REF_CHARS_MAX: usize = 512;
/// Labels on one object.
pub const LABELS_MAX: usize = 64;
/// Longest label key.
pub const LABEL_KEY_CHARS_MAX: usize = 128;
/// Longest label value.
pub const LABEL_VALUE_BYTES_MAX: usize = 1024;
/// Environment variables of one container.
pub const ENV_VARS_MAX: usize = 512;
/// Longest environment variable, name and value together.
pub const ENV_VAR_BYTES_MAX: usize = 32 * 1024;
/// All environment variables of one container together.
pub const ENV_TOTAL_BYTES_MAX: usize = 256 * 1024;
/// Words of a command or its arguments.
pub const ARGS_MAX: usize = 512;
/// Longest word of a command.
pub const ARG_BYTES_MAX: usize = 32 * 1024;
/// Mounts of one container.
pub const MOUNTS_MAX: usize = 64;
/// Longest path.
pub const PATH_BYTES_MAX: usize = 4095;
/// Secrets or configs of one container, each kind.
pub const FILE_REFS_MAX: usize = 64;
/// Published ports of one service.
pub const PORTS_MAX: usize = 128;
/// Networks of one service.
pub const NETWORKS_PER_SERVICE_MAX: usize = 16;
/// Placement constraints of one service.
pub const CONSTRAINTS_MAX: usize = 32;
/// Replicas of one service.
pub const REPLICAS_MAX: u32 = 10_000;
/// A secret's value (the guides' limit of the yardstick).
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;
/// A config's value.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Longest stop grace, in milliseconds: one hour.
pub const STOP_GRACE_MS_MAX: u64 = 3_600_000;
/// Longest interval, timeout or delay anywhere in a spec, in milliseconds: one day.
pub const SPAN_MS_MAX: u64 = 86_400_000;
/// Smallest memory limit that a container can start with, in bytes.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Largest memory limit, in bytes: 16 TiB.
pub const MEMORY_LIMIT_BYTES_MAX: u64 = 16 << 40;
/// Largest CPU amount, in thousandths of a core.
pub const CPU_MILLI_MAX: u32 = 1_024_000;
/// Default number of processes and threads in a container.
pub const PIDS_LIMIT_DEFAULT: u32 = 4096;
/// Largest number of processes and threads in a container.
pub const PIDS_LIMIT_MAX: u32 = 1 << 22;
/// Longest reason or message kept on an object.
pub const REASON_BYTES_MAX: usize = 1024;
/// Operations in one command.
pub const OPS_PER_COMMAND_MAX: usize = 10_000;
/// Services in one cluster.
pub const SERVICES_MAX: usize = 100_000;
/// Nodes in one cluster.
pub const NODES_MAX: usize = 10_000;
/// Containers in one cluster, ended ones included.
pub const CONTAINERS_MAX: usize = 1_000_000;
/// Secrets, configs, volumes, networks, ingresses or certificates in one cluster, each kind.
pub const OBJECTS_PER_KIND_MAX: usize = 100_000;
/// Join tokens alive at once.
pub const TOKENS_MAX: usize = 1000;
/// Numbered revisions kept of one service.
pub const SERVICE_REVISIONS_KEPT: usize = 10;
/// Ended containers kept per slot, for `service ps` and logs.
pub const HISTORY_PER_SLOT_DEFAULT: u32 = 3;
/// Managers in one cluster (AR-01).
pub const MANAGERS_MAX: usize = 7;
/// Ingress rules of one ingress.
pub const INGRESS_RULES_MAX: usize = 256;
/// Paths of one ingress rule.
pub const INGRESS_PATHS_MAX: usize = 256;
/// A certificate chain or key in PEM.
pub const PEM_BYTES_MAX: usize = 256 * 1024;
/// Idempotency keys remembered.
pub const IDEMPOTENCY_KEYS_KEPT: usize = 4096;
/// Longest idempotency key.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Words of a command and its arguments together.
pub const ARGS_TOTAL_BYTES_MAX: usize = 1024 * 1024;
/// Extra headers of one HTTP health check.
pub const HEALTH_HEADERS_MAX: usize = 32;
/// Longest name or value of such a header.
pub const HEALTH_HEADER_BYTES_MAX: usize = 4096;
/// Failures in a row after which a health check may at most give up.
pub const HEALTH_RETRIES_MAX: u32 = 1000;
/// Steps of a canary rollout.
pub const CANARY_STEPS_MAX: usize = 32;
/// Longest host name (RFC 1035).
pub const HOST_CHARS_MAX: usize = 253;
/// Longest address of a node, `host:port`.
pub const ADDRESS_CHARS_MAX: usize = HOST_CHARS_MAX + 8;
/// Longest user, `user:group`.
pub const USER_CHARS_MAX: usize = 128;
/// Longest short text that the program itself makes: versions, platforms, issuers.
pub const SHORT_TEXT_BYTES_MAX: usize = 256;
/// Longest placement constraint.
pub const CONSTRAINT_BYTES_MAX: usize = LABEL_KEY_CHARS_MAX + LABEL_VALUE_BYTES_MAX + 32;
/// Hosts of one certificate or one ingress' TLS.
pub const CERTIFICATE_HOSTS_MAX: usize = 100;
/// Longest life of a join token, in milliseconds: one year.
pub const TOKEN_LIFE_MS_MAX: u64 = 365 * 86_400_000;
/// Authentication tag that sealing adds, in bytes.
pub const SEAL_TAG_BYTES: usize = 16;
/// Revisions of one service that may exist because containers still use them.
pub const SERVICE_REVISIONS_MAX: usize = 64;
/// Trusted roots of the cluster at once.
pub const CA_ROOTS_MAX: usize = 4;
/// Data keys remembered.
pub const KEY_EPOCHS_MAX: usize = 1000;
/// Ended containers that may be kept per slot.
pub const HISTORY_PER_SLOT_MAX: u32 = 100;
/// How long a removed node is remembered, in milliseconds: 92 days, the life of a certificate and the
/// clock skew allowed, so that no certificate of a forgotten node is valid.
pub const REMOVED_NODE_MS_KEPT: u64 = 92 * 86_400_000;
/// Removed nodes remembered; the oldest are forgotten first.
pub const REMOVED_NODES_MAX: usize = 10_000;
/// SHA-256 in hex.
pub const SHA256_HEX_CHARS: usize = 64;
/// Shortest heartbeat, in milliseconds.
pub const HEARTBEAT_MS_MIN: u64 = 100;
/// Longest heartbeat, in milliseconds: one hour.
pub const HEARTBEAT_MS_MAX: u64 = 3_600_000;
/// Fewest log entries between two snapshots.
pub const SNAPSHOT_ENTRIES_MIN: u64 = 10;
/// Most log entries between two snapshots.
pub const SNAPSHOT_ENTRIES_MAX: u64 = 10_000_000;
/// Smallest log between two snapshots, in bytes: 1 MiB.
pub const SNAPSHOT_BYTES_MIN: u64 = 1 << 20;
/// Largest log between two snapshots, in bytes: 16 GiB.
pub const SNAPSHOT_BYTES_MAX: u64 = 16 << 30;
/// Largest log on disk, in bytes: 1 TiB. The smallest is what lies between two snapshots.
pub const LOG_BYTES_MAX: u64 = 1 << 40;
