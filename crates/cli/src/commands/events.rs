//! `warren events`.

use crate::api::{Api, EventQuery};
use crate::args::{EventsArgs, Format};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{clean, to_yaml};
use futures::StreamExt;
use warren_types::EventKind;

pub(crate) async fn run(args: EventsArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    if let Some(unknown) = args
        .types
        .iter()
        .find(|t| EventKind::from_name(t).is_none())
    {
        let known: Vec<&str> = EventKind::ALL.iter().map(|k| k.name()).collect();
        return Err(
            CliError::usage(format!("{unknown:?} is not a kind of event"))
                .remedy(format!("one of {}", known.join(", "))),
        );
    }
    let query = EventQuery {
        types: args.types,
        since: args.since.or(args.no_follow.then_some(0)),
        follow: !args.no_follow,
    };
    let mut stream = api.events(query).await?;
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(event) = next else {
            return Ok(());
        };
        let event = event?;
        let text = match args.output.output {
            Format::Table | Format::Wide => {
                let time = event.time.0.map(|t| t.to_string()).unwrap_or_default();
                let mut line = format!(
                    "{time}  {:<16}  {}",
                    clean(&event.kind),
                    clean(&event.message)
                );
                if args.output.output == Format::Wide {
                    let pairs: Vec<String> = event
                        .metadata
                        .iter()
                        .map(|(k, v)| format!("{k}={v}"))
                        .collect();
                    line.push_str(&format!("  ({})", clean(&pairs.join(" "))));
                }
                format!("{line}\n")
            }
            form => {
                let value = serde_json::to_value(&event).map_err(|e| {
                    CliError::general(format!("cannot put the event into JSON: {e}"))
                })?;
                if form == Format::Yaml {
                    format!("---\n{}", to_yaml(&value))
                } else {
                    format!("{value}\n")
                }
            }
        };
        io.print(&text)?;
    }
}
