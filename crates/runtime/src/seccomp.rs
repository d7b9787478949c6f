//! The system calls a container may make.
//!
//! Two filters are installed: an allow list (anything else: EPERM), and one that says ENOSYS for `clone3`
//! and for calls newer than the list, so that C libraries fall back instead of failing. Programs of a foreign
//! word size (32-bit on 64-bit) are killed by the first.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, sock_filter,
};
use std::collections::BTreeMap;

/// Flags of `clone` and `unshare` that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Bit of a file mode that block and character devices have, and pipes, sockets and files have not.
const DEVICE_MODE_BIT: u64 = 0o020_000;
/// The last system call this list knows (`futex_requeue`).
const NEWEST_KNOWN: u32 = 456;
/// Values of `personality` that do no harm: Linux, 32-bit, and both with UNAME26, and the query.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Both filters, in the order of their installation.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The allow list.
    pub allow: BpfProgram,
    /// ENOSYS for what is newer.
    pub newer: BpfProgram,
}

/// Builds the profile for a capability set. `device_cgroup` says that devices are guarded by a control
/// group too; without one, no device nodes can be made at all.
pub fn profile(capabilities: &[&str], device_cgroup: bool) -> Result<Profile, String> {
    let arch = std::env::consts::ARCH
        .try_into()
        .map_err(|e| format!("seccomp on this processor: {e}"))?;
    let rules = rules(capabilities, device_cgroup).map_err(|e| format!("seccomp rules: {e}"))?;
    let eperm = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let allow = SeccompFilter::new(rules, eperm, SeccompAction::Allow, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|e| format!("seccomp filter: {e}"))?;
    Ok(Profile {
        allow,
        newer: newer_filter(),
    })
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(capabilities: &[&str], device_cgroup: bool) -> Result<Rules, seccompiler::BackendError> {
    let has = |name: &str| capabilities.contains(&name);
    let mut rules: Rules = COMMON
        .iter()
        .chain(PROCESSOR)
        .chain(&[IO_PGETEVENTS])
        .map(|call| (*call, Vec::new()))
        .collect();
    let all = |rules: &mut Rules, calls: &[i64]| {
        rules.extend(calls.iter().map(|call| (*call, Vec::new())))
    };

    rules.insert(
        libc::SYS_personality,
        PERSONALITIES
            .iter()
            .map(|v| rule(&[(0, Op::Eq, *v)]))
            .collect::<Result<_, _>>()?,
    );
    let socket = rule(&[
        (0, Op::Ne, libc::AF_VSOCK.unsigned_abs().into()),
        (0, Op::Ne, libc::AF_ALG.unsigned_abs().into()),
    ])?;
    rules.insert(libc::SYS_socket, vec![socket]);
    let mut mknod = vec![(libc::SYS_mknodat, 2)];
    #[cfg(target_arch = "x86_64")]
    mknod.push((libc::SYS_mknod, 1));
    for (call, argument) in mknod {
        let plain = rule(&[(argument, Op::MaskedEq(DEVICE_MODE_BIT), 0)])?;
        rules.insert(
            call,
            if device_cgroup {
                Vec::new()
            } else {
                vec![plain]
            },
        );
    }
    if has("CAP_SYS_ADMIN") {
        all(&mut rules, ADMIN);
    } else {
        rules.insert(
            libc::SYS_clone,
            vec![rule(&[(0, Op::MaskedEq(NAMESPACE_FLAGS), 0)])?],
        );
    }
    for (capability, calls) in BY_CAPABILITY {
        if has(capability) {
            all(&mut rules, calls);
        }
    }
    Ok(rules)
}

fn rule(conditions: &[(u8, Op, u64)]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions: Result<Vec<_>, _> = conditions
        .iter()
        .map(|(argument, op, value)| {
            SeccompCondition::new(*argument, Len::Dword, op.clone(), *value)
        })
        .collect();
    SeccompRule::new(conditions?)
}

/// `load nr; clone3 or newer than known → ENOSYS; else allow`. The architecture is checked by the other filter.
fn newer_filter() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let line = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    vec![
        line(LOAD_WORD, 0, 0, 0),
        line(JUMP_IF_EQUAL, 2, 0, clone3),
        line(JUMP_IF_GREATER, 1, 0, NEWEST_KNOWN),
        line(RETURN, 0, 0, ALLOW),
        line(RETURN, 0, 0, ERRNO | libc::ENOSYS.unsigned_abs()),
    ]
}

/// A call that the `libc` crate does not name on every processor.
#[cfg(target_arch = "x86_64")]
const IO_PGETEVENTS: i64 = 333;
#[cfg(not(target_arch = "x86_64"))]
const IO_PGETEVENTS: i64 = 292;

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Allowed on every processor.
const COMMON: &[i64] = calls! {
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_adjtime
    SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect
    SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_eventfd2 SYS_execve SYS_execveat SYS_exit SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64
    SYS_fallocate SYS_fanotify_mark SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchmodat2 SYS_fchown SYS_fchownat
    SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat
    SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_mempolicy SYS_get_robust_list
    SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer
    SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid
    SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch
    SYS_io_cancel SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioctl
    SYS_ioprio_get SYS_ioprio_set SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr
    SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_memfd_secret
    SYS_mincore SYS_mkdirat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr
    SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl
    SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at
    SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2
    SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2
    SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6 SYS_ptrace
    SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom
    SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr SYS_renameat SYS_renameat2
    SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask SYS_rt_sigqueueinfo
    SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max
    SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam
    SYS_sched_getscheduler SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr
    SYS_sched_setparam SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop
    SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list SYS_set_tid_address
    SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer SYS_setpgid SYS_setpriority
    SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid
    SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown SYS_sigaltstack SYS_signalfd4
    SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync SYS_sync_file_range SYS_syncfs
    SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun SYS_timer_gettime
    SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times SYS_tkill
    SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write
    SYS_writev
};

/// Calls that newer processors do without.
#[cfg(target_arch = "x86_64")]
const PROCESSOR: &[i64] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait
    SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat
    SYS_mkdir SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select
    SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};
#[cfg(not(target_arch = "x86_64"))]
const PROCESSOR: &[i64] = &[];

/// Allowed with `CAP_SYS_ADMIN` only.
const ADMIN: &[i64] = calls! {
    SYS_bpf SYS_clone SYS_clone3 SYS_fanotify_init SYS_fsconfig SYS_fsmount SYS_fsopen SYS_fspick
    SYS_lookup_dcookie SYS_mount SYS_mount_setattr SYS_move_mount SYS_open_tree SYS_perf_event_open
    SYS_pivot_root SYS_quotactl SYS_quotactl_fd SYS_setdomainname SYS_sethostname SYS_setns SYS_syslog
    SYS_umount2 SYS_unshare
};

/// Allowed with one other capability.
const BY_CAPABILITY: &[(&str, &[i64])] = &[
    ("CAP_DAC_READ_SEARCH", calls! { SYS_open_by_handle_at }),
    ("CAP_SYS_BOOT", calls! { SYS_reboot }),
    ("CAP_SYS_CHROOT", calls! { SYS_chroot }),
    (
        "CAP_SYS_MODULE",
        calls! { SYS_delete_module SYS_init_module SYS_finit_module },
    ),
    ("CAP_SYS_PACCT", calls! { SYS_acct }),
    (
        "CAP_SYS_PTRACE",
        calls! { SYS_kcmp SYS_pidfd_getfd SYS_process_madvise },
    ),
    (
        "CAP_SYS_TIME",
        calls! { SYS_settimeofday SYS_clock_settime },
    ),
    ("CAP_SYS_TTY_CONFIG", calls! { SYS_vhangup }),
    ("CAP_SYS_NICE", calls! { SYS_mbind SYS_set_mempolicy }),
    ("CAP_SYSLOG", calls! { SYS_syslog }),
    ("CAP_BPF", calls! { SYS_bpf }),
    ("CAP_PERFMON", calls! { SYS_perf_event_open }),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's limit on instructions of one filter.
    const BPF_MAXINSNS: usize = 4096;

    #[test]
    fn filters_fit_the_kernel() {
        for capabilities in [&[][..], &crate::capability::ALL_CAPABILITIES[..]] {
            let profile = profile(capabilities, false).unwrap();
            assert!(
                profile.allow.len() < BPF_MAXINSNS,
                "{}",
                profile.allow.len()
            );
        }
    }

    #[test]
    fn dangerous_calls_need_a_capability() {
        let plain = rules(&crate::capability::DEFAULT_CAPABILITIES, true).unwrap();
        for call in [
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_init_module,
            libc::SYS_reboot,
            libc::SYS_kexec_load,
            libc::SYS_open_by_handle_at,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_swapon,
            libc::SYS_perf_event_open,
            libc::SYS_move_mount,
            libc::SYS_pivot_root,
        ] {
            assert!(!plain.contains_key(&call), "{call}");
        }
        assert!(
            rules(&["CAP_SYS_ADMIN"], true)
                .unwrap()
                .contains_key(&libc::SYS_mount)
        );
        assert_eq!(plain[&libc::SYS_clone].len(), 1);
    }
}
