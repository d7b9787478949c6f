//! `warren volume …`.

use super::{all_failures, pairs};
use crate::api::{Api, NewVolume, VolumeView};
use crate::args::{Format, VolumeCommand};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{self, Table, age, ago, fields};
use warren_types::Timestamp;

pub(crate) async fn run(command: VolumeCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        VolumeCommand::Create(args) => {
            let volume = NewVolume {
                name: args.name,
                driver: args.driver,
                driver_opts: args.opt.into_iter().collect(),
                labels: args.label.into_iter().collect(),
            };
            let made = api.create_volume(volume).await?;
            match args.output.output {
                Format::Table | Format::Wide => io.print(&fields(&[
                    ("Name", made.name),
                    ("ID", made.id),
                    ("Driver", made.driver),
                ])),
                form => output::value(io, form, &made),
            }
        }
        VolumeCommand::List(args) => {
            let mut volumes = api.volumes().await?;
            volumes.sort_by(|a, b| a.name.cmp(&b.name));
            let now = (io.now)();
            output::list(io, args.output, "volumes", &volumes, |items, wide| {
                table(items, wide, now)
            })
        }
        VolumeCommand::Inspect { names, output } => {
            let all = api.volumes().await?;
            let mut found = Vec::new();
            for name in &names {
                let volume = all.iter().find(|v| v.name == *name || v.id == *name);
                found.push(volume.cloned().ok_or_else(|| {
                    CliError::not_found(format!("volume {name} does not exist"))
                        .remedy("warren volume list")
                })?);
            }
            let now = (io.now)();
            output::inspect(io, output.output, &found, |volume| block(volume, now))
        }
        VolumeCommand::Delete { names, force } => {
            let mut failures = Vec::new();
            for name in &names {
                match api.delete_volume(name, force).await {
                    Ok(()) => io.say(&format!("volume {name}: deleted"))?,
                    Err(error) => failures.push(error),
                }
            }
            all_failures(failures)
        }
    }
}

fn table(items: &[VolumeView], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        ("NAME", 40),
        ("DRIVER", 0),
        ("NODE", 20),
        ("USED BY", 40),
        ("AGE", 0),
        ("ID", 0),
    ];
    if wide {
        columns.push(("PATH", 0));
    }
    let mut table = Table::new(&columns);
    for volume in items {
        table.row([
            volume.name.clone(),
            volume.driver.clone(),
            volume.node.clone(),
            volume.used_by.join(", "),
            age(volume.created_at, now),
            volume.id.clone(),
            volume.mount_path.clone(),
        ]);
    }
    table
}

fn block(volume: &VolumeView, now: Timestamp) -> String {
    fields(&[
        ("Name", volume.name.clone()),
        ("ID", volume.id.clone()),
        ("Driver", volume.driver.clone()),
        ("Options", pairs(&volume.driver_opts)),
        ("Node", volume.node.clone()),
        ("Path", volume.mount_path.clone()),
        ("Used by", volume.used_by.join(", ")),
        ("Labels", pairs(&volume.labels)),
        ("Created", ago(volume.created_at, now)),
    ])
}
