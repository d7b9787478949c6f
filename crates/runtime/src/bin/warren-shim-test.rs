//! Shim for the tests of this crate, and a daemon that can be killed: `warren-shim-test hold STATE LOG CGROUP ROOTFS ID`.

use std::ffi::OsString;
use std::process::ExitCode;
use warren_runtime::{Driver, EmbeddedConfig, EmbeddedDriver, RuntimeSpec};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(status) = warren_runtime::shim_main(&args) {
        return ExitCode::from(u8::try_from(status).unwrap_or(1));
    }
    match hold(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Opens the driver, runs one container, says so, and waits to be killed.
fn hold(args: &[OsString]) -> Result<(), Box<dyn std::error::Error>> {
    let [program, word, state, log, cgroup, rootfs, id] = args else {
        return Err("usage: warren-shim-test hold STATE LOG CGROUP ROOTFS ID".into());
    };
    if word != "hold" {
        return Err(format!("unknown word {word:?}, use hold").into());
    }
    let text = |s: &OsString| s.to_string_lossy().into_owned();
    let config = EmbeddedConfig {
        shim_exe: program.into(),
        state_dir: state.into(),
        log_dir: log.into(),
        cgroup_root: text(cgroup),
    };
    let script = "echo before; trap 'echo got it; exit 7' TERM; while :; do sleep 0.05; done";
    let spec = RuntimeSpec::new(text(id).parse()?, rootfs, ["/bin/sh", "-c", script]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let driver = EmbeddedDriver::open(config).await?;
        let id = spec.id;
        driver.create(spec).await?;
        let info = driver.start(id).await?;
        eprintln!("running {}", info.pid.unwrap_or_default());
        std::future::pending::<()>().await;
        Ok(())
    })
}
