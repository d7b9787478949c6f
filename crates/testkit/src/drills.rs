//! Faults that the tests inject a few times and `warren-drill` many times.

use crate::host::run_in;
use crate::managers::Managers;
use crate::processes::resident_bytes;
use crate::traffic::{Load, Traffic, Verdict};
use std::time::Duration;
use warren_client::{Client, Target, TlsIdentity, v1};

/// Longest time without an accepted write that a drill waits for; the bound that is checked is lower.
const OUTAGE_LIMIT: Duration = Duration::from_secs(20);
/// Writes that are accepted between two faults.
const WRITES_BETWEEN: usize = 100;
/// Bad joins that are under way at once.
const BAD_JOINS_AT_ONCE: usize = 32;

/// Times from a fault to the next accepted write.
#[derive(Debug, Clone, Default)]
pub struct Outages(pub Vec<Duration>);

impl Outages {
    /// The value below which `percent` of the values lie (nearest rank); zero of no values.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(rank).copied().unwrap_or_default()
    }

    /// In one line.
    #[must_use]
    pub fn text(&self) -> String {
        let ms = |percent| self.percentile(percent).as_millis();
        format!(
            "{} times: p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
            self.0.len(),
            ms(50),
            ms(90),
            ms(99),
            ms(100)
        )
    }
}

/// Kills the leader again and again while clients of all managers write, and starts it again each time.
///
/// # Panics
/// When an accepted write is lost, when what clients saw is not what a correct store shows, or when no write is accepted
/// within 20 s of a kill.
#[must_use]
pub fn kill_leader(
    managers: &mut Managers,
    times: usize,
    seed: u64,
    mut told: impl FnMut(usize, Duration),
) -> (Outages, Verdict) {
    let traffic = Traffic::start(managers, Load::standard(seed));
    let mut outages = Outages::default();
    for round in 0..times {
        let leader = managers.leader();
        let since = traffic.now();
        managers.kill(leader);
        let outage = traffic.outage(since, OUTAGE_LIMIT);
        told(round, outage);
        outages.0.push(outage);
        managers.restart(leader);
        managers.wait_quorum();
        traffic.wait_writes(traffic.now(), WRITES_BETWEEN, OUTAGE_LIMIT);
    }
    (outages, traffic.finish("kill-leader"))
}

/// What many bad joins cost.
#[derive(Debug, Clone, Copy)]
pub struct BadJoins {
    /// How many were refused for their token.
    pub refused: usize,
    /// How many were turned away before that, by a limit.
    pub limited: usize,
    /// Memory of the leader's process before and after, in bytes.
    pub memory: (u64, u64),
    /// Bytes that the leader's log has grown by.
    pub log_bytes: u64,
    /// Term before and after: equal when the leader has kept its lease.
    pub terms: (u64, u64),
    /// How long it all took.
    pub took: Duration,
}

/// Asks the leader for certificates with tokens that are none.
///
/// # Panics
/// When one of them is granted, or the leader cannot be asked.
#[must_use]
pub fn bad_joins(managers: &Managers, count: usize) -> BadJoins {
    let leader = managers.leader();
    let node = managers.node(leader);
    let pid = node.pid().unwrap_or_else(|| panic!("the leader runs"));
    let log = || std::fs::metadata(node.log_file()).map_or(0, |m| m.len());
    let term = || managers.info(leader).map_or(0, |info| info.term);
    // What a stranger has: the cluster's root, which every handshake shows, and no certificate.
    let target = Target::Tcp {
        addresses: vec![managers.address(leader)],
        identity: TlsIdentity {
            own: None,
            ..managers.identity()
        },
    };
    let token = managers.token("manager", 0);
    let (memory, before, first) = (resident_bytes(pid), log(), term());
    let clients = managers.lab().clients();
    let ((refused, limited), took) =
        crate::managers::timed(|| run_in(&clients, move || flood(&target, &token, count)));
    BadJoins {
        refused,
        limited,
        memory: (memory, resident_bytes(pid)),
        log_bytes: log().saturating_sub(before),
        terms: (first, term()),
        took,
    }
}

fn flood(target: &Target, token: &str, count: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|e| panic!("runtime: {e}"));
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for lane in 0..BAD_JOINS_AT_ONCE {
            let client = Client::connect_lazy(target.clone());
            let client = client.unwrap_or_else(|e| panic!("client: {e}"));
            let token = token.to_owned();
            let share = count / BAD_JOINS_AT_ONCE + usize::from(lane < count % BAD_JOINS_AT_ONCE);
            tasks.push(tokio::spawn(async move {
                let (mut refused, mut limited) = (0, 0);
                for number in 0..share {
                    let request = v1::RequestCertificateRequest {
                        token: spoiled(&token, lane * 1_000_000 + number),
                        csr: b"-----BEGIN CERTIFICATE REQUEST-----\n".to_vec(),
                        node_name: format!("bad-{lane}-{number}"),
                        ..Default::default()
                    };
                    match client.request_certificate(request).await {
                        Ok(_) => panic!("a join with a wrong token was granted"),
                        Err(e) if e.kind == warren_client::ErrorKind::ResourceExhausted => {
                            limited += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
                (refused, limited)
            }));
        }
        let mut sum = (0, 0);
        for task in tasks {
            let (refused, limited) = task.await.unwrap_or_else(|e| panic!("{e}"));
            sum = (sum.0 + refused, sum.1 + limited);
        }
        sum
    })
}

/// The token with another secret, each time another one.
#[must_use]
pub fn spoiled(token: &str, number: usize) -> String {
    let (front, secret) = token.rsplit_once('-').unwrap_or(("", token));
    let number = number.to_string();
    let kept = secret.len().saturating_sub(number.len());
    format!("{front}-{}{number}", &secret[..kept])
}
