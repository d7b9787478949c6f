//! Validation of all objects but the service.

use super::words::{in_subnet, parse_cidr};
use super::{Checker, quote, service::http_path};
use crate::cluster::{ClusterSettings, JoinToken, Role};
use crate::error::ValidationError;
use crate::limits;
use crate::node::Node;
use crate::object::{
    Certificate, Config, Ingress, IngressRule, IngressTls, Network, SealedData, Secret, Volume,
};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// Smallest node subnet: 5 usable container addresses.
const NODE_PREFIX_MAX: u8 = 29;

impl Node {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if !self.hostname.is_empty() {
            check.host("hostname", &self.hostname, false);
        }
        if !self.address.is_empty() && !is_address(&self.address) {
            check.fail(
                "address",
                format!("{} is not host:port", quote(&self.address)),
                "write a host name or IP address, a colon and a port, such as 10.0.0.5:8080 or [fd00::5]:8080",
            );
        }
        if !self.subnet.is_empty() {
            subnet(&mut check, "subnet", &self.subnet);
        }
        let short = limits::SHORT_TEXT_BYTES_MAX;
        check.text("platform.os", &self.platform.os, short);
        check.text("platform.arch", &self.platform.arch, short);
        check.text("versionText", &self.version_text, short);
        check.text("reason", &self.reason, limits::REASON_BYTES_MAX);
        if !self.certificate_root.is_empty() && !is_sha256_hex(&self.certificate_root) {
            check.fail(
                "certificateRoot",
                format!("{} is not a SHA-256 in hex", quote(&self.certificate_root)),
                "write 64 of 0-9 and a-f, or leave it out",
            );
        }
        check.finish()
    }
}

/// Checks `host:port` of a node's API.
///
/// # Errors
/// Names the field.
pub fn validate_address(field: &str, text: &str) -> Result<(), ValidationError> {
    if is_address(text) {
        return Ok(());
    }
    Err(ValidationError::one(
        field,
        format!("{} is no address", quote(text)),
        "write a host name or IP address, a colon and a port, such as 10.0.0.5:8080 or [fd00::5]:8080",
    ))
}

fn is_sha256_hex(text: &str) -> bool {
    text.len() == limits::SHA256_HEX_CHARS
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_address(text: &str) -> bool {
    if text.len() > limits::ADDRESS_CHARS_MAX {
        return false;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host_good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => super::is_host_name(host),
    };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    host_good && digits && port.parse::<u16>().is_ok_and(|p| p != 0)
}

fn subnet(check: &mut Checker, field: &str, text: &str) -> Option<(Ipv4Addr, u8)> {
    let found = parse_cidr(text);
    if found.is_none() {
        check.fail(
            field,
            format!("{} is not an IPv4 subnet", quote(text)),
            "write the network address and prefix length, such as 10.89.0.0/16",
        );
    }
    found
}

fn sealed(check: &mut Checker, field: &str, data: &SealedData, max: usize) {
    if data.ciphertext.is_empty() {
        check.fail(field, "is missing", "give a value");
    } else if data.ciphertext.len() > max.saturating_add(limits::SEAL_TAG_BYTES) {
        let size = data.ciphertext.len().saturating_sub(limits::SEAL_TAG_BYTES);
        check.fail(
            field,
            format!("has {size} bytes"),
            format!("at most {max} are allowed"),
        );
    }
}

impl Secret {
    /// Checks every field; the value is looked at in its sealed form only.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        sealed(&mut check, "data", &self.data, limits::SECRET_BYTES_MAX);
        let max = limits::SECRET_BYTES_MAX as u64;
        check.range("size", self.size, 1, max);
        check.finish()
    }
}

impl Config {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if self.data.len() > limits::CONFIG_BYTES_MAX {
            check.fail(
                "data",
                format!("has {} bytes", self.data.len()),
                format!("at most {} are allowed", limits::CONFIG_BYTES_MAX),
            );
        }
        check.finish()
    }
}

impl Volume {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        if self.driver != "local" {
            check.fail(
                "driver",
                format!("{} is not a volume driver", quote(&self.driver)),
                "use local",
            );
        }
        check.labels("driverOpts", &self.driver_opts);
        check.labels("labels", &self.labels);
        if !self.mount_path.is_empty() {
            check.path("mountPath", &self.mount_path, false);
        }
        check.finish()
    }
}

impl Network {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if !matches!(self.driver.as_str(), "bridge" | "wireguard") {
            check.fail(
                "driver",
                format!("{} is not a network driver", quote(&self.driver)),
                "use bridge (one host) or wireguard (between hosts)",
            );
        }
        let found = if self.subnet.is_empty() {
            None
        } else {
            subnet(&mut check, "subnet", &self.subnet)
        };
        if let Some((_, len)) = found {
            check.range("subnet", u64::from(len), 8, 30);
        }
        if !self.gateway.is_empty() {
            let inside = match (self.gateway.parse::<Ipv4Addr>(), found) {
                (Ok(address), Some(subnet)) => in_subnet(address, subnet),
                _ => false,
            };
            if !inside {
                check.fail(
                    "gateway",
                    format!("{} is not an address of the subnet", quote(&self.gateway)),
                    "write an address of the subnet, or leave the gateway out",
                );
            }
        }
        check.finish()
    }
}

impl Ingress {
    /// Checks every field. Services behind it need not exist yet.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if self.rules.is_empty() {
            check.fail("rules", "is empty", "write at least one rule");
        }
        if check.count("rules", self.rules.len(), limits::INGRESS_RULES_MAX) {
            let mut seen = BTreeSet::new();
            for (at, rule) in self.rules.iter().enumerate() {
                ingress_rule(&mut check, &format!("rules[{at}]"), rule, &mut seen);
            }
        }
        if let Some(tls) = &self.tls {
            ingress_tls(&mut check, tls);
        }
        check.finish()
    }
}

fn ingress_rule<'a>(
    check: &mut Checker,
    field: &str,
    rule: &'a IngressRule,
    seen: &mut BTreeSet<(&'a str, &'a str, bool)>,
) {
    if !rule.host.is_empty() {
        check.host(&format!("{field}.host"), &rule.host, true);
    }
    if rule.paths.is_empty() {
        let remedy = "write at least one path, such as / for everything";
        check.fail(format!("{field}.paths"), "is empty", remedy);
    }
    let paths = format!("{field}.paths");
    if !check.count(&paths, rule.paths.len(), limits::INGRESS_PATHS_MAX) {
        return;
    }
    for (at, path) in rule.paths.iter().enumerate() {
        let field = format!("{paths}[{at}]");
        http_path(check, &format!("{field}.path"), &path.path);
        check.name(&format!("{field}.service"), &path.service);
        check.port(&format!("{field}.port"), path.port);
        let exact = path.path_type == crate::object::PathType::Exact;
        if !seen.insert((&rule.host, &path.path, exact)) {
            check.fail(
                format!("{field}.path"),
                format!("{} stands twice for this host", quote(&path.path)),
                "remove one",
            );
        }
    }
}

fn ingress_tls(check: &mut Checker, tls: &IngressTls) {
    if !tls.secret_name.is_empty() {
        check.name("tls.secretName", &tls.secret_name);
    } else if tls.enabled && !tls.auto_tls {
        check.fail(
            "tls.secretName",
            "is missing",
            "name a certificate, or turn on autoTls",
        );
    }
    if tls.auto_tls || !tls.email.is_empty() {
        let good = tls.email.len() <= limits::SHORT_TEXT_BYTES_MAX
            && !tls
                .email
                .contains(|c: char| c.is_whitespace() || c.is_control())
            && tls
                .email
                .split_once('@')
                .is_some_and(|(user, host)| !user.is_empty() && super::is_host_name(host));
        if !good {
            check.fail(
                "tls.email",
                format!("{} is not an e-mail address", quote(&tls.email)),
                "write the address that the certificate authority may write to",
            );
        }
    }
    if check.count("tls.hosts", tls.hosts.len(), limits::CERTIFICATE_HOSTS_MAX) {
        for (at, host) in tls.hosts.iter().enumerate() {
            check.host(&format!("tls.hosts[{at}]"), host, true);
        }
    }
}

impl Certificate {
    /// Checks every field; that chain and key belong together is checked where they are unsealed.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if self.hosts.is_empty() {
            let remedy = "name the hosts that the certificate is for";
            check.fail("hosts", "is empty", remedy);
        }
        if check.count("hosts", self.hosts.len(), limits::CERTIFICATE_HOSTS_MAX) {
            for (at, host) in self.hosts.iter().enumerate() {
                check.host(&format!("hosts[{at}]"), host, true);
            }
        }
        pem(&mut check, "certPem", &self.cert_pem);
        sealed(&mut check, "key", &self.key, limits::PEM_BYTES_MAX);
        check.text("issuer", &self.issuer, limits::SHORT_TEXT_BYTES_MAX);
        if self.not_before >= self.not_after {
            check.fail(
                "notAfter",
                format!("{} is not after {}", self.not_after, self.not_before),
                "give a certificate with a span of validity",
            );
        }
        check.finish()
    }
}

fn pem(check: &mut Checker, field: &str, text: &str) {
    if check.text(field, text, limits::PEM_BYTES_MAX)
        && !text.contains("-----BEGIN CERTIFICATE-----")
    {
        check.fail(
            field,
            "holds no certificate",
            "give the chain in PEM form (-----BEGIN CERTIFICATE-----)",
        );
    }
}

impl JoinToken {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        if !matches!(self.role, Role::Worker | Role::Manager) {
            check.fail(
                "role",
                format!("{} cannot join", self.role.name()),
                "use worker or manager",
            );
        }
        let life = self.expires_at.since(self.created_at);
        check.span("expiresAt", life, 1, limits::TOKEN_LIFE_MS_MAX);
        if self.uses_left == Some(0) {
            let remedy = "allow at least one use, or leave the number out";
            check.fail("usesLeft", "is 0", remedy);
        }
        check.finish()
    }
}

impl ClusterSettings {
    /// Checks every field.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        if let Some((_, len)) = subnet(&mut check, "containerPool", &self.container_pool) {
            let (min, max) = (u64::from(len), u64::from(NODE_PREFIX_MAX));
            check.range("nodePrefixLen", u64::from(self.node_prefix_len), min, max);
        }
        let beat = self.heartbeat;
        let (min, max) = (limits::HEARTBEAT_MS_MIN, limits::HEARTBEAT_MS_MAX);
        check.span("heartbeat", beat, min, max);
        // Two beats at least: a single lost one is no outage.
        let twice = beat.0.saturating_mul(2).min(limits::SPAN_MS_MAX);
        check.span(
            "nodeDownAfter",
            self.node_down_after,
            twice,
            limits::SPAN_MS_MAX,
        );
        let history = u64::from(limits::HISTORY_PER_SLOT_MAX);
        check.range(
            "historyPerSlot",
            u64::from(self.history_per_slot),
            0,
            history,
        );
        self.check_log(&mut check);
        self.check_ca(&mut check);
        let epochs = &self.key_epochs;
        if check.count("keyEpochs", epochs.len(), limits::KEY_EPOCHS_MAX)
            && !epochs.is_sorted_by(|a, b| a.number < b.number)
        {
            check.fail(
                "keyEpochs",
                "numbers do not rise",
                "add a new epoch at the end",
            );
        }
        check.finish()
    }

    /// When a snapshot is taken, and how long the log may get.
    fn check_log(&self, check: &mut Checker) {
        let (min, max) = (limits::SNAPSHOT_ENTRIES_MIN, limits::SNAPSHOT_ENTRIES_MAX);
        check.range("snapshotEntries", self.snapshot_entries, min, max);
        let (min, max) = (limits::SNAPSHOT_BYTES_MIN, limits::SNAPSHOT_BYTES_MAX);
        check.range("snapshotBytes", self.snapshot_bytes, min, max);
        // A log that is full before its snapshot is due could never be cut.
        let min = self.snapshot_bytes.clamp(min, max);
        let max = limits::LOG_BYTES_MAX;
        check.range("logBytesMax", self.log_bytes_max, min, max);
    }

    fn check_ca(&self, check: &mut Checker) {
        let roots = &self.ca.roots_pem;
        if check.count("ca.rootsPem", roots.len(), limits::CA_ROOTS_MAX) {
            for (at, root) in roots.iter().enumerate() {
                pem(check, &format!("ca.rootsPem[{at}]"), root);
            }
        }
        if !self.ca.cross_pem.is_empty() {
            pem(check, "ca.crossPem", &self.ca.cross_pem);
        }
        if self.ca.rotation_started.is_some() && roots.len() < 2 {
            check.fail(
                "ca.rotationStarted",
                format!("is set while there are {} roots", roots.len()),
                "add the new root with it, and clear it when the old root is removed",
            );
        }
    }
}
