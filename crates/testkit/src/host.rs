//! A host of the test lab: a network namespace with its own loopback, reached by a veth pair from a
//! second namespace that plays the outside world.

#![allow(
    unsafe_code,
    reason = "entering a namespace between fork and exec is a raw system call"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Time limit of one connection attempt and of one read.
const IO_LIMIT: Duration = Duration::from_secs(5);

/// The machine that a node runs on (a namespace), and another machine on its network. Alone the two are
/// joined by a cable; in a [`crate::Lab`] many hosts share a switch and the other machine.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    outside: String,
    /// Namespaces that go with this value.
    owned: Vec<String>,
}

impl Host {
    /// Address of the host on the cable.
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    /// Address of the machine at the other end.
    pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    /// Makes the two namespaces.
    ///
    /// # Panics
    /// When the `ip` program refuses; the message holds its words.
    #[must_use]
    pub fn new() -> Self {
        let base = run_name();
        let (name, outside) = (format!("{base}h"), format!("{base}o"));
        let host = Self {
            owned: vec![name.clone(), outside.clone()],
            name,
            address: Self::ADDRESS,
            outside,
        };
        let (h, o) = (&host.name, &host.outside);
        ip(&["netns", "add", h]);
        ip(&["netns", "add", o]);
        ip(&[
            "-n", h, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", o,
        ]);
        for (ns, address) in [(h, Self::ADDRESS), (o, Self::OUTSIDE)] {
            ip(&["-n", ns, "link", "set", "lo", "up"]);
            ip(&["-n", ns, "link", "set", "eth0", "up"]);
            ip(&[
                "-n",
                ns,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                "eth0",
            ]);
        }
        ip(&[
            "-n",
            h,
            "route",
            "add",
            "default",
            "via",
            &Self::OUTSIDE.to_string(),
        ]);
        host
    }

    /// A host whose namespace stands already and goes with this value; the other machine stays.
    pub(crate) fn on_switch(name: String, address: Ipv4Addr, outside: String) -> Self {
        Self {
            owned: vec![name.clone()],
            name,
            address,
            outside,
        }
    }

    /// Address of this host.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Name of the host's namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs on the host.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        command_in(&self.name, program)
    }

    /// A command that runs on the other machine.
    #[must_use]
    pub fn outside_command(&self, program: &str) -> Command {
        command_in(&self.outside, program)
    }

    /// Runs `work` on a thread of its own inside the host's namespace.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        run_in(&self.name, work)
    }

    /// Runs `work` on a thread of its own on the other machine.
    pub fn run_outside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        run_in(&self.outside, work)
    }

    /// One HTTP GET from the host; the whole answer as text.
    ///
    /// # Errors
    /// In words, when nobody answers.
    pub fn http_get(&self, address: Ipv4Addr, port: u16, path: &str) -> Result<String, String> {
        let path = path.to_owned();
        self.run(move || http_get(address, port, &path))
    }

    /// One HTTP GET from the other machine.
    ///
    /// # Errors
    /// In words, when nobody answers.
    pub fn http_get_from_outside(&self, port: u16, path: &str) -> Result<String, String> {
        let path = path.to_owned();
        let address = self.address;
        self.run_outside(move || http_get(address, port, &path))
    }

    /// Sends one datagram from the host and returns the answer.
    ///
    /// # Errors
    /// In words, when nobody answers.
    pub fn udp_ask(&self, address: Ipv4Addr, port: u16, question: &str) -> Result<String, String> {
        let question = question.to_owned();
        self.run(move || udp_ask(address, port, &question))
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in &self.owned {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// One HTTP GET; status line, headers and body as text.
///
/// # Errors
/// In words, when nobody answers.
pub fn http_get(address: Ipv4Addr, port: u16, path: &str) -> Result<String, String> {
    let target = SocketAddrV4::new(address, port).into();
    let mut stream = TcpStream::connect_timeout(&target, IO_LIMIT)
        .map_err(|e| format!("connect {target}: {e}"))?;
    stream
        .set_read_timeout(Some(IO_LIMIT))
        .map_err(|e| e.to_string())?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .map_err(|e| format!("send to {target}: {e}"))?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .map_err(|e| format!("read from {target}: {e}"))?;
    if answer.is_empty() {
        return Err(format!("{target} closed without an answer"));
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn udp_ask(address: Ipv4Addr, port: u16, question: &str) -> Result<String, String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .map_err(|e| e.to_string())?;
    socket
        .send_to(question.as_bytes(), (address, port))
        .map_err(|e| e.to_string())?;
    let mut buffer = [0_u8; 2048];
    let (length, _) = socket
        .recv_from(&mut buffer)
        .map_err(|e| format!("no answer from {address}:{port}: {e}"))?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn namespace(name: &str) -> File {
    let path = format!("/run/netns/{name}");
    File::open(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A name that only this process gives out, and only once.
pub(crate) fn run_name() -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("wt{}-{number}", std::process::id())
}

/// Runs `work` on a thread of its own inside this namespace.
pub(crate) fn run_in<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        enter(&name);
        work()
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A program that will run inside this namespace.
pub(crate) fn command_in(name: &str, program: &str) -> Command {
    let file = namespace(name);
    let mut command = Command::new(program);
    // SAFETY: setns is async-signal-safe, and the descriptor lives in the closure.
    unsafe {
        command.pre_exec(move || {
            if libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    command
}

/// Moves the calling thread into a namespace; threads that it starts are born there.
pub(crate) fn enter(name: &str) {
    let file = namespace(name);
    nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|e| panic!("setns {name}: {e}"));
}

/// Runs the `ip` program.
pub(crate) fn ip(args: &[&str]) {
    let out = Command::new("ip")
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("ip: {e} (Debian package iproute2)"));
    assert!(
        out.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&out.stderr).trim()
    );
}
