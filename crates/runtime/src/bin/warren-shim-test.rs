//! Shim for the tests of this crate; a daemon that can be killed (`hold STATE LOG CGROUP ROOTFS ID`); and a
//! program to run inside a container (`probe calls`, `probe eat-memory`).

#![allow(
    unsafe_code,
    reason = "the probe makes system calls that have no other purpose than to be refused"
)]

use std::ffi::OsString;
use std::process::ExitCode;
use warren_runtime::{Driver, EmbeddedConfig, EmbeddedDriver, RuntimeSpec};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(status) = warren_runtime::shim_main(&args) {
        return ExitCode::from(u8::try_from(status).unwrap_or(1));
    }
    if args.get(1).is_some_and(|word| word == "probe") {
        return probe(&args);
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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
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

fn probe(args: &[OsString]) -> ExitCode {
    match args.get(2).and_then(|a| a.to_str()) {
        Some("calls") => calls(),
        Some("eat-memory") => loop {
            // Touching each page makes it real.
            let eaten = vec![1_u8; 1 << 20];
            std::mem::forget(std::hint::black_box(eaten));
        },
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

/// Makes calls that a confined program must not make; prints what came of each.
fn calls() {
    let (new_user, sigchld) = (i64::from(libc::CLONE_NEWUSER), i64::from(libc::SIGCHLD));
    let all: &[(&str, i64, [i64; 3])] = &[
        ("unshare", libc::SYS_unshare, [new_user, 0, 0]),
        (
            "clone with a new user namespace",
            libc::SYS_clone,
            [new_user | sigchld, 0, 0],
        ),
        ("setns", libc::SYS_setns, [-1, 0, 0]),
        ("mount", libc::SYS_mount, [0, 0, 0]),
        ("umount", libc::SYS_umount2, [0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [-1, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0]),
        ("add_key", libc::SYS_add_key, [0, 0, 0]),
        ("request_key", libc::SYS_request_key, [0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0]),
        ("swapon", libc::SYS_swapon, [0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0]),
        (
            "personality without address randomisation",
            libc::SYS_personality,
            [0x4_0000, 0, 0],
        ),
        (
            "socket to the hypervisor",
            libc::SYS_socket,
            [libc::AF_VSOCK.into(), 1, 0],
        ),
        (
            "socket to the kernel's ciphers",
            libc::SYS_socket,
            [libc::AF_ALG.into(), 5, 0],
        ),
        ("clone3", libc::SYS_clone3, [0, 0, 0]),
        ("unknown", 460, [0, 0, 0]),
    ];
    for (name, call, [a, b, c]) in all {
        // SAFETY: all pointers are null or the call does not use them; a call that succeeds against
        // expectation at most makes a child, which ends below.
        let result = unsafe { libc::syscall(*call, *a, *b, *c, 0_i64, 0_i64) };
        if result == 0 && *call == libc::SYS_clone {
            // SAFETY: `_exit` takes no pointers and does not return.
            unsafe { libc::_exit(0) };
        }
        let errno = std::io::Error::last_os_error().raw_os_error();
        let word = match (result, errno) {
            (-1, Some(libc::EPERM)) => "refused".to_owned(),
            (-1, Some(libc::ENOSYS)) => "absent".to_owned(),
            other => format!("{other:?}"),
        };
        println_plain(&format!("{name} {word}"));
    }
}

/// The probe's standard output is its result.
#[allow(
    clippy::print_stdout,
    reason = "this is a program whose output is data"
)]
fn println_plain(line: &str) {
    println!("{line}");
}
