//! `warren cluster join-token`, `warren cluster token …`.

use super::all_failures;
use crate::api::{Api, ClusterView, NewToken, NewTokenView, Time, TokenView};
use crate::args::{Format, JoinTokenArgs, OutputArgs, TokenCommand, TokenRoleArg};
use crate::error::Result;
use crate::io::Io;
use crate::output::{self, Table, age, fields, span};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use warren_types::Timestamp;

/// A made token and the command to use it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    #[serde(flatten)]
    token: NewTokenView,
    /// What to run on the new machine.
    command: String,
}

pub(crate) async fn join_token(args: JoinTokenArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let cluster = api.cluster().await?;
    let managers = addresses(&cluster);
    let wanted = NewToken {
        role: args.role.name().to_owned(),
        ttl_seconds: args.ttl.as_millis().div_ceil(1000),
        max_uses: args.max_uses.unwrap_or(0),
        rotate: args.rotate,
    };
    let token = api.create_token(wanted).await?;
    warn_unreachable(&managers, io)?;
    if args.quiet {
        return io.print(&format!("{}\n", token.token));
    }
    let verb = match args.role {
        TokenRoleArg::Worker => "worker start",
        TokenRoleArg::Manager => "manager join",
    };
    let command = format!(
        "warren {verb} --token {} --manager {}",
        token.token,
        managers.join(",")
    );
    let made = Made { token, command };
    if matches!(args.output.output, Format::Json | Format::Yaml) {
        return output::value(io, args.output.output, &made);
    }
    let now = (io.now)();
    let uses = args
        .max_uses
        .map_or_else(|| "any number".to_owned(), |n| n.to_string());
    io.print(&fields(&[
        ("Token", made.token.token),
        ("ID", made.token.id),
        ("Role", made.token.role),
        ("Expires", expires(made.token.expires_at, now)),
        ("Uses", uses),
    ]))?;
    io.print(&format!("\nOn the new machine:\n\n  {}\n", made.command))
}

/// Where the managers answer, the leader first.
fn addresses(cluster: &ClusterView) -> Vec<String> {
    let mut members: Vec<_> = cluster
        .members
        .iter()
        .filter(|m| !m.address.is_empty())
        .collect();
    members.sort_by_key(|m| (!m.leader, !m.reachable));
    let mut addresses: Vec<String> = members.iter().map(|m| m.address.clone()).collect();
    if addresses.is_empty() && !cluster.leader_address.is_empty() {
        addresses.push(cluster.leader_address.clone());
    }
    addresses.dedup();
    addresses
}

fn warn_unreachable(managers: &[String], io: &mut Io) -> Result<()> {
    if managers.iter().any(|m| !only_here(m)) {
        return Ok(());
    }
    io.say(&format!(
        "warning: the manager answers at {}, which other machines cannot reach; let it be reached:\n  \
         warren node stop; warren node run --api-addr 0.0.0.0:8080",
        managers.join(", ")
    ))
}

/// Is it an address of this machine alone?
fn only_here(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost"
        || address
            .parse::<SocketAddr>()
            .map(|a| a.ip())
            .or_else(|_| host.parse::<IpAddr>())
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// `2026-01-31T12:00:00.000Z (in 60m)`.
fn expires(at: Time, now: Timestamp) -> String {
    match at.0 {
        Some(time) if time > now => format!("{time} (in {})", span(time.since(now))),
        Some(time) => format!("{time} ({} ago)", span(now.since(time))),
        None => String::new(),
    }
}

pub(crate) async fn run(command: TokenCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        TokenCommand::List(args) => list(args, api, io).await,
        TokenCommand::Revoke { ids } => {
            let mut failures = Vec::new();
            for id in &ids {
                match api.revoke_token(id).await {
                    Ok(()) => io.say(&format!("token {id}: revoked"))?,
                    Err(error) => failures.push(error),
                }
            }
            all_failures(failures)
        }
    }
}

async fn list(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut tokens = api.tokens().await?;
    tokens.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let now = (io.now)();
    output::list(io, args.output, "join tokens", &tokens, |items, _| {
        table(items, now)
    })
}

fn table(items: &[TokenView], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("ID", 0),
        ("ROLE", 0),
        ("STATE", 0),
        ("USES LEFT", 0),
        ("EXPIRES", 0),
        ("AGE", 0),
    ]);
    for token in items {
        let uses = token
            .uses_left
            .map_or_else(|| "any".to_owned(), |n| n.to_string());
        table.row([
            token.id.clone(),
            token.role.clone(),
            token.state.clone(),
            uses,
            expires(token.expires_at, now),
            age(token.created_at, now),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_alone() {
        for here in ["127.0.0.1:8080", "[::1]:8080", "localhost:1", "0.0.0.0:80"] {
            assert!(only_here(here), "{here}");
        }
        for far in ["10.0.0.1:8080", "edge-1:8080", "[fd00::1]:80"] {
            assert!(!only_here(far), "{far}");
        }
    }
}
