//! `warren service logs`, `warren container logs`.

use super::container::find;
use crate::api::{Api, LogLine, LogQuery};
use crate::args::{LogFlags, ServiceLogsArgs};
use crate::error::Result;
use crate::io::Io;
use futures::StreamExt;
use std::collections::BTreeMap;
use warren_types::Timestamp;

fn query(flags: &LogFlags, now: Timestamp) -> LogQuery {
    LogQuery {
        follow: flags.follow,
        tail: flags.tail,
        since: flags
            .since
            .map(|span| Timestamp(now.0.saturating_sub(span.as_millis()))),
        stdout: flags.stdout,
        stderr: flags.stderr,
        ..LogQuery::default()
    }
}

pub(crate) async fn service(args: ServiceLogsArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let service = api.service(&args.name).await?;
    let query = LogQuery {
        service: Some(service.id),
        ..query(&args.logs, (io.now)())
    };
    show(query, &args.logs, !args.no_prefix, api, io).await
}

pub(crate) async fn container(
    name: &str,
    flags: &LogFlags,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let container = find(api, name).await?;
    let query = LogQuery {
        container: Some(container.id),
        ..query(flags, (io.now)())
    };
    show(query, flags, false, api, io).await
}

/// Container output goes to the stream it came from; what a container wrote is not changed.
async fn show(
    query: LogQuery,
    flags: &LogFlags,
    prefix: bool,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut stream = api.logs(query).await?;
    // A long line comes in parts: only its first one carries the prefix.
    let mut open: BTreeMap<(String, bool), bool> = BTreeMap::new();
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(line) = next else {
            return Ok(());
        };
        let line = line?;
        let key = (line.container_id.clone(), line.stderr);
        let continued = open
            .insert(key, !line.data.ends_with(b"\n"))
            .unwrap_or(false);
        let head = if continued {
            String::new()
        } else {
            head(&line, flags.timestamps, prefix)
        };
        let bytes = [head.as_bytes(), &line.data].concat();
        if line.stderr {
            io.err_bytes(&bytes)?;
        } else {
            io.print_bytes(&bytes)?;
        }
    }
}

fn head(line: &LogLine, timestamps: bool, prefix: bool) -> String {
    let mut head = String::new();
    if timestamps && let Some(time) = line.time.0 {
        head.push_str(&format!("{time} "));
    }
    if prefix {
        head.push_str(&format!("{} | ", line.container));
    }
    head
}
