//! `warren secret …`.

use super::{all_failures, pairs};
use crate::api::{Api, NewSecret, SecretView};
use crate::args::{Format, SecretCommand, SecretCreateArgs};
use crate::error::{CliError, Result};
use crate::io::{Io, read_limited};
use crate::output::{self, Table, age, ago, fields};
use std::path::Path;
use warren_types::Timestamp;
use warren_types::limits::SECRET_BYTES_MAX;

pub(crate) async fn run(command: SecretCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        SecretCommand::Create(args) => create(args, api, io).await,
        SecretCommand::List(args) => {
            let mut secrets = api.secrets().await?;
            secrets.sort_by(|a, b| a.name.cmp(&b.name));
            let now = (io.now)();
            output::list(io, args.output, "secrets", &secrets, |items, _| {
                table(items, now)
            })
        }
        SecretCommand::Inspect { names, output } => {
            let all = api.secrets().await?;
            let mut found = Vec::new();
            for name in &names {
                found.push(pick(&all, name)?.clone());
            }
            let now = (io.now)();
            output::inspect(io, output.output, &found, |secret| block(secret, now))
        }
        SecretCommand::Delete { names } => {
            let mut failures = Vec::new();
            for name in &names {
                match api.delete_secret(name).await {
                    Ok(()) => io.say(&format!("secret {name}: deleted"))?,
                    Err(error) => failures.push(error),
                }
            }
            all_failures(failures)
        }
    }
}

fn pick<'a>(all: &'a [SecretView], name: &str) -> Result<&'a SecretView> {
    all.iter()
        .find(|s| s.name == name || s.id == name)
        .ok_or_else(|| {
            CliError::not_found(format!("secret {name} does not exist"))
                .remedy("warren secret list")
        })
}

async fn create(args: SecretCreateArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let data = value(&args, io)?;
    if data.is_empty() {
        return Err(CliError::usage(format!(
            "secret {}: the value is empty",
            args.name
        )));
    }
    let secret = NewSecret {
        name: args.name,
        data,
        labels: args.label.into_iter().collect(),
    };
    let made = api.create_secret(secret).await?;
    match args.output.output {
        Format::Table | Format::Wide => io.print(&fields(&[("Name", made.name), ("ID", made.id)])),
        form => output::value(io, form, &made),
    }
}

fn value(args: &SecretCreateArgs, io: &mut Io) -> Result<Vec<u8>> {
    if let Some(text) = &args.from_literal {
        return Ok(text.clone().into_bytes());
    }
    match args.from_file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let name = path.display().to_string();
            let mut file = std::fs::File::open(path)
                .map_err(|e| CliError::usage(format!("cannot open {name}: {e}")))?;
            read_limited(&mut file, SECRET_BYTES_MAX, &name, "a secret")
        }
        _ => io.read_input(SECRET_BYTES_MAX, "a secret"),
    }
}

fn table(items: &[SecretView], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        ("NAME", 40),
        ("SIZE", 0),
        ("USED BY", 40),
        ("AGE", 0),
        ("ID", 0),
    ]);
    for secret in items {
        table.row([
            secret.name.clone(),
            format!("{} B", secret.size),
            secret.used_by.join(", "),
            age(secret.created_at, now),
            secret.id.clone(),
        ]);
    }
    table
}

fn block(secret: &SecretView, now: Timestamp) -> String {
    fields(&[
        ("Name", secret.name.clone()),
        ("ID", secret.id.clone()),
        (
            "Size",
            format!("{} B (the value is never shown)", secret.size),
        ),
        ("Used by", secret.used_by.join(", ")),
        ("Labels", pairs(&secret.labels)),
        ("Created", ago(secret.created_at, now)),
        ("Updated", ago(secret.updated_at, now)),
    ])
}
