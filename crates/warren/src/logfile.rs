//! The log file of a daemon in the background: kept below a limit.
//!
//! The daemon writes to its standard error, which `warren up` has opened on the file. When that grows too
//! large the file is renamed and standard error and output are opened anew.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest log file, in bytes, give or take what is written between two looks.
const BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Files that are kept beside the present one.
const KEPT: u32 = 2;
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Watches the file as long as the process lives, when standard error goes there.
pub(crate) fn watch(path: PathBuf) {
    if !is_stderr(&path) {
        return;
    }
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let large = std::fs::metadata(&path).is_ok_and(|m| m.len() > BYTES_MAX);
            if large && let Err(error) = rotate(&path).and_then(|file| redirect(&file)) {
                tracing::warn!(%error, "the log file cannot be rotated");
            }
        }
    });
}

fn is_stderr(path: &Path) -> bool {
    let Ok(there) = std::fs::metadata(path) else {
        return false;
    };
    let here = nix::sys::stat::fstat(std::io::stderr());
    here.is_ok_and(|here| (here.st_dev, here.st_ino) == (there.dev(), there.ino()))
}

/// Moves the files on by one, and makes a fresh one.
fn rotate(path: &Path) -> std::io::Result<File> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..KEPT).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    std::fs::rename(path, numbered(1))?;
    OpenOptions::new().create(true).append(true).open(path)
}

fn redirect(file: &File) -> std::io::Result<()> {
    nix::unistd::dup2_stderr(file)?;
    nix::unistd::dup2_stdout(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_files_are_kept_and_no_more() {
        let dir = std::env::temp_dir().join(format!("warren-logfile-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("warren.log");
        for round in 0..5 {
            std::fs::write(&path, format!("{round}")).unwrap();
            rotate(&path).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read("warren.log"), "");
        assert_eq!(read("warren.log.1"), "4");
        assert_eq!(read("warren.log.2"), "3");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
        assert!(!is_stderr(&path));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
