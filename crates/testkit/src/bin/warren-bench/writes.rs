//! Latency of one write through the API, beside one fdatasync on the same file system.

use crate::Bench;
use crate::report::{Row, percentile};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// Writes altogether.
const WRITES: usize = 400;
/// So many of one kind before the other has its turn.
const TURN: usize = 20;
/// Writes that are not counted: connection, caches.
const WARM_UP: usize = 20;
/// Bytes of one secret.
const VALUE_BYTES: usize = 64;
/// Bytes written before each fdatasync of the reference.
const SYNC_BYTES: usize = 4096;

pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Row>, String> {
    println!(
        "write: one sequential `CreateSecret` of {VALUE_BYTES} bytes over the unix socket, committed and applied; the reference: append\n\
         {SYNC_BYTES} bytes to a file beside the data directory and fdatasync it"
    );
    let path = bench.node.directory().join("fdatasync");
    let mut file = std::fs::File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP {
        write(bench, &format!("warm-{number}"))?;
    }
    for turn in 0..WRITES / TURN {
        for number in 0..TURN {
            ours.push(write(bench, &format!("w-{turn}-{number}"))?);
        }
        for _ in 0..TURN {
            let begin = Instant::now();
            file.write_all(&[7; SYNC_BYTES])
                .and_then(|()| file.sync_data())
                .map_err(|e| format!("{}: {e}", path.display()))?;
            theirs.push(begin.elapsed());
        }
    }
    let row = |percent: usize| {
        let other = Some(("one fdatasync", percentile(&theirs, percent)));
        Row::times(
            format!("write through the API, one manager, p{percent} of {WRITES}"),
            percentile(&ours, percent),
            other,
        )
    };
    Ok(vec![row(50).budget("<= 1.5 ms (3 managers)"), row(99)])
}

fn write(bench: &Bench, name: &str) -> Result<Duration, String> {
    let begin = Instant::now();
    let made = bench.runtime.block_on(bench.client.create_secret(
        name,
        vec![b'x'; VALUE_BYTES],
        BTreeMap::new(),
    ));
    made.map_err(|e| format!("secret {name}: {e}"))?;
    Ok(begin.elapsed())
}
