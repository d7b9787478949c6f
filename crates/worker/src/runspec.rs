//! From what the user wants and what the image says to what the runtime is told: every default is
//! filled in here.

use crate::sets::Wanted;
use crate::shared::NodeFacts;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use warren_image::{ImageConfig, resolve_user};
use warren_lifecycle::Assignment;
use warren_runtime::{
    CapabilityChange, RuntimeFile, RuntimeLimits, RuntimeMount, RuntimeSpec, UserIds,
};
use warren_types::validate::parse_signal;
use warren_types::{FileRef, Mount, Slot, Volume, limits};

/// Default size of a temporary file system, in bytes.
const TMPFS_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Permission bits of a temporary file system: everyone may write, only owners may delete.
const TMPFS_MODE: u32 = 0o1777;
/// Permission bits of a secret.
const SECRET_MODE: u32 = 0o400;
/// Permission bits of a config.
const CONFIG_MODE: u32 = 0o444;
/// Where secrets are inside.
const SECRETS_DIR: &str = "/run/secrets";
/// Where configs are inside unless they name a path.
const CONFIGS_DIR: &str = "/run/configs";
/// Search path of a program that the image gives none.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Something that no retry can cure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// Neither the service nor the image says what to run.
    #[error("image {image} names no program to run: give the service a command")]
    NoProgram {
        /// The image.
        image: String,
    },
    /// No such user in the image.
    #[error("{0}")]
    User(#[from] warren_image::ImageError),
    /// A volume of a driver that this node does not have.
    #[error(
        "volume {name:?} has driver {driver:?}, this node has \"local\": make it with --driver local"
    )]
    Driver {
        /// Name of the volume.
        name: String,
        /// Its driver.
        driver: String,
    },
    /// A volume whose options cannot be used.
    #[error(
        "volume {name:?}: option device={device:?} must be an absolute path that exists on the node"
    )]
    Device {
        /// Name of the volume.
        name: String,
        /// The path.
        device: String,
    },
}

/// What a container stands on.
pub(crate) struct Ground<'a> {
    pub(crate) facts: &'a NodeFacts,
    pub(crate) data_dir: &'a Path,
    pub(crate) wanted: &'a Wanted,
    pub(crate) image: &'a ImageConfig,
    pub(crate) rootfs: PathBuf,
    pub(crate) netns: PathBuf,
    pub(crate) address: Option<Ipv4Addr>,
}

/// Where the data of a volume are on this node: by id, so that a volume made anew is empty.
pub(crate) fn volume_path(data_dir: &Path, volume: &Volume) -> Result<PathBuf, Unfit> {
    if volume.driver != "local" {
        return Err(Unfit::Driver {
            name: volume.name.clone(),
            driver: volume.driver.clone(),
        });
    }
    match volume.driver_opts.get("device") {
        Some(device) if Path::new(device).is_absolute() && Path::new(device).is_dir() => {
            Ok(PathBuf::from(device))
        }
        Some(device) => Err(Unfit::Device {
            name: volume.name.clone(),
            device: device.clone(),
        }),
        None => Ok(data_dir.join("volumes").join(volume.id.to_string())),
    }
}

/// The whole spec for the runtime.
pub(crate) fn build(
    assignment: &Assignment,
    attempt: u32,
    ground: &Ground<'_>,
) -> Result<RuntimeSpec, Unfit> {
    let spec = &assignment.spec;
    let args = command(spec.command.as_slice(), spec.args.as_slice(), ground.image);
    if args.is_empty() {
        return Err(Unfit::NoProgram {
            image: spec.image.clone(),
        });
    }
    let name = name(assignment, ground.facts);
    let user = spec
        .user
        .clone()
        .unwrap_or_else(|| ground.image.user.clone());
    let ids = resolve_user(&ground.rootfs, &user)?;
    let hostname = spec
        .hostname
        .clone()
        .unwrap_or_else(|| name.replace('.', "-"));
    let mut run = RuntimeSpec::new(assignment.id, ground.rootfs.clone(), args);
    run.attempt = attempt;
    run.env = environment(assignment, &name, &ids.home, ground);
    run.name = name;
    run.cwd = PathBuf::from(working_dir(spec.working_dir.as_deref(), ground.image));
    run.user = UserIds {
        uid: ids.uid,
        gid: ids.gid,
        additional_gids: ids.groups,
    };
    run.hosts = Some(hosts(&hostname, ground.address));
    run.hostname = hostname.chars().take(64).collect();
    run.netns = Some(ground.netns.clone());
    run.mounts = mounts(&spec.mounts, ground)?;
    run.files = files(assignment, ground.wanted);
    run.limits = RuntimeLimits {
        cpu: spec.resources.cpu_limit,
        memory: spec.resources.memory_limit,
        pids: u64::from(
            spec.resources
                .pids_limit
                .unwrap_or(limits::PIDS_LIMIT_DEFAULT),
        ),
        nofile: None,
    };
    run.read_only_root = spec.read_only_root;
    run.capabilities = CapabilityChange {
        add: spec.cap_add.clone(),
        drop: spec.cap_drop.clone(),
    };
    run.stop_signal = stop_signal(spec.stop_signal.as_deref(), ground.image);
    run.resolv_conf = Some(resolv_conf());
    Ok(run)
}

/// A command of the service replaces entrypoint and command of the image; arguments of the service
/// replace its command alone.
fn command(command: &[String], args: &[String], image: &ImageConfig) -> Vec<String> {
    let (head, tail) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (image.entrypoint.as_slice(), args),
        (true, true) => (image.entrypoint.as_slice(), image.cmd.as_slice()),
    };
    head.iter().chain(tail).cloned().collect()
}

fn name(assignment: &Assignment, facts: &NodeFacts) -> String {
    match assignment.slot {
        Slot::Replica(number) => format!("{}.{number}", assignment.service_name),
        Slot::Node(_) => format!("{}.{}", assignment.service_name, facts.name),
    }
}

/// The image's environment, then ours, then the user's: the later of two equal names wins.
fn environment(
    assignment: &Assignment,
    name: &str,
    home: &str,
    ground: &Ground<'_>,
) -> Vec<String> {
    let slot = match assignment.slot {
        Slot::Replica(number) => number.to_string(),
        Slot::Node(_) => "0".to_owned(),
    };
    let ours = [
        ("PATH", PATH_DEFAULT.to_owned()),
        ("HOME", home.to_owned()),
        ("WARREN_SERVICE", assignment.service_name.clone()),
        ("WARREN_CONTAINER", assignment.id.to_string()),
        ("WARREN_CONTAINER_NAME", name.to_owned()),
        ("WARREN_NODE", ground.facts.name.clone()),
        ("WARREN_SLOT", slot),
    ];
    let mut all: BTreeMap<String, String> =
        ours.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    for entry in &ground.image.env {
        if let Some((key, value)) = entry.split_once('=') {
            all.insert(key.to_owned(), value.to_owned());
        }
    }
    for variable in &assignment.spec.env {
        all.insert(variable.name.clone(), variable.value.clone());
    }
    all.into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

fn working_dir(wanted: Option<&str>, image: &ImageConfig) -> String {
    let found = wanted
        .map(str::to_owned)
        .unwrap_or_else(|| image.working_dir.clone());
    if found.is_empty() {
        "/".to_owned()
    } else {
        found
    }
}

fn stop_signal(wanted: Option<&str>, image: &ImageConfig) -> i32 {
    let text = wanted.or(image.stop_signal.as_deref());
    text.and_then(parse_signal).unwrap_or(libc::SIGTERM)
}

fn mounts(wanted: &[Mount], ground: &Ground<'_>) -> Result<Vec<RuntimeMount>, Unfit> {
    let mut mounts = Vec::with_capacity(wanted.len());
    for mount in wanted {
        mounts.push(match mount {
            Mount::Volume {
                source,
                target,
                read_only,
            } => {
                let Some(volume) = ground.wanted.volumes.get(source) else {
                    continue;
                };
                RuntimeMount::Bind {
                    source: volume_path(ground.data_dir, volume)?,
                    target: PathBuf::from(target),
                    read_only: *read_only,
                }
            }
            Mount::Bind {
                source,
                target,
                read_only,
            } => RuntimeMount::Bind {
                source: PathBuf::from(source),
                target: PathBuf::from(target),
                read_only: *read_only,
            },
            Mount::Tmpfs { target, size } => RuntimeMount::Tmpfs {
                target: PathBuf::from(target),
                size: size.or(Some(warren_types::Bytes(TMPFS_BYTES_DEFAULT))),
                mode: TMPFS_MODE,
            },
        });
    }
    Ok(mounts)
}

fn files(assignment: &Assignment, wanted: &Wanted) -> Vec<RuntimeFile> {
    let file = |reference: &FileRef, directory: &str, mode: u32, data: &[u8]| RuntimeFile {
        target: target(reference, directory),
        content: data.to_vec(),
        mode: reference.mode.unwrap_or(mode),
        uid: reference.uid,
        gid: reference.gid,
    };
    let secrets = assignment.spec.secrets.iter().filter_map(|reference| {
        let payload = wanted.secrets.get(&reference.source)?;
        Some(file(reference, SECRETS_DIR, SECRET_MODE, &payload.data))
    });
    let configs = assignment.spec.configs.iter().filter_map(|reference| {
        let payload = wanted.configs.get(&reference.source)?;
        Some(file(reference, CONFIGS_DIR, CONFIG_MODE, &payload.data))
    });
    secrets.chain(configs).collect()
}

fn target(reference: &FileRef, directory: &str) -> PathBuf {
    // Joining an absolute target replaces the directory, which is what it means.
    Path::new(directory).join(reference.target.as_deref().unwrap_or(&reference.source))
}

fn hosts(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    if let Some(address) = address {
        text.push_str(&format!("{address}\t{hostname}\n"));
    }
    text
}

/// The host's resolvers, without those that only the host itself can reach.
fn resolv_conf() -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let reachable = |line: &&str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(address)) => !address.starts_with("127.") && address != "::1",
            (Some("search" | "options" | "domain"), _) => true,
            _ => false,
        }
    };
    text.lines()
        .filter(reachable)
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_service_and_image() {
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let image = ImageConfig {
            entrypoint: words("entry"),
            cmd: words("default"),
            ..ImageConfig::default()
        };
        assert_eq!(command(&[], &[], &image), words("entry default"));
        assert_eq!(command(&[], &words("mine"), &image), words("entry mine"));
        assert_eq!(command(&words("other"), &[], &image), words("other"));
        assert_eq!(
            command(&words("other"), &words("mine"), &image),
            words("other mine")
        );
    }
}
