//! From `service create` to running, the image being there.

use crate::Bench;
use crate::report::{Row, percentile};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};
use warren_client::{ErrorKind, v1};
use warren_testkit::Node;

/// How many at once, and how often.
const ROUNDS: [(usize, usize); 3] = [(1, 20), (10, 3), (50, 2)];
/// Time between two looks through the API.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest time of one round.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Row>, String> {
    println!(
        "create -> running: from the start of the process `warren service create --detach --replicas N` until the API shows each\n\
         container running (looked at every {} ms), network, log and limits included; the reference: from the start of N processes\n\
         `ctr run -d` until each came back, without any network and log",
        LOOK_EVERY.as_millis()
    );
    let mut rows = Vec::new();
    for (count, rounds) in ROUNDS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        // By turns, so that both have the same load beside them.
        for round in 0..rounds {
            ours.extend(start(bench, count, round)?);
            if let Some(reference) = &bench.reference {
                theirs.extend(reference.starts(count, round)?);
            }
        }
        for (percent, budget) in [(50, budget(count, 50)), (99, budget(count, 99))] {
            let other =
                (!theirs.is_empty()).then(|| ("containerd + runc", percentile(&theirs, percent)));
            let what = format!(
                "create -> running, {count} at once, p{percent} of {}",
                ours.len()
            );
            rows.push(Row::times(what, percentile(&ours, percent), other).budget(budget));
        }
    }
    Ok(rows)
}

const fn budget(count: usize, percent: usize) -> &'static str {
    match (count, percent) {
        (1, 50) => "< 150 ms",
        (50, 99) => "< 2 s, all of them",
        _ => "",
    }
}

fn start(bench: &Bench, count: usize, round: usize) -> Result<Vec<Duration>, String> {
    let name = format!("b{count}-{round}");
    let replicas = count.to_string();
    let mut command = bench.node.command();
    command.args([
        "service",
        "create",
        &name,
        "--detach",
        "--image",
        "test/busybox",
        "--replicas",
        &replicas,
    ]);
    command.args([
        "--memory",
        "32m",
        "--stop-signal",
        "SIGKILL",
        "--",
        "sleep",
        "100000",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let call = command.spawn().map_err(|e| format!("warren: {e}"))?;
    let seen = watch(bench, &name, count, begin);
    let out = call
        .wait_with_output()
        .map_err(|e| format!("warren: {e}"))?;
    if !out.status.success() {
        return Err(format!(
            "service create: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        ));
    }
    let seen = seen.map_err(|e| format!("{e}\n{}", bench.node.log_tail()));
    delete(&bench.node, &name)?;
    Ok(seen?.into_values().collect())
}

/// When each container was first seen running.
fn watch(
    bench: &Bench,
    service: &str,
    count: usize,
    begin: Instant,
) -> Result<BTreeMap<String, Duration>, String> {
    let mut seen = BTreeMap::new();
    bench.runtime.block_on(async {
        loop {
            let request = v1::ListContainersRequest {
                service_name: service.to_owned(),
                ..Default::default()
            };
            let list = match bench.client.list_containers(request).await {
                Err(e) if e.kind == ErrorKind::NotFound => Vec::new(),
                other => other.map_err(|e| format!("list: {e}"))?,
            };
            let now = begin.elapsed();
            for container in list.iter().filter(|c| c.state == "running") {
                seen.entry(container.id.clone()).or_insert(now);
            }
            if seen.len() >= count {
                return Ok(seen);
            }
            if now > LIMIT {
                let reasons: Vec<&str> = list
                    .iter()
                    .map(|c| c.reason.as_str())
                    .filter(|r| !r.is_empty())
                    .take(3)
                    .collect();
                return Err(format!(
                    "{service}: {} of {count} run after {now:?}: {}",
                    seen.len(),
                    reasons.join("; ")
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

fn delete(node: &Node, name: &str) -> Result<(), String> {
    let out = node.cli(&["service", "delete", name]);
    if out.code == 0 {
        Ok(())
    } else {
        Err(format!("service delete: {}", out.stderr.trim()))
    }
}
