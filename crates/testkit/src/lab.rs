//! A network of hosts: namespaces on one switch, and a machine for clients beside them.
//!
//! The switch is a bridge in a namespace of its own, so nothing of it is seen by the machine's network.

use crate::host::{Host, enter, ip, run_name};
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// The network, of the documentation range TEST-NET-2.
const NETWORK: [u8; 3] = [198, 51, 100];
/// Last byte of the switch's address.
const SWITCH: u8 = 1;
/// Last byte of the clients' address.
const CLIENTS: u8 = 2;
/// Last byte of the first host's address.
const FIRST_HOST: u8 = 10;
/// Name of the nftables table that cuts a host off. The product's own tables are not touched.
const CUT_TABLE: &str = "warren_test_cut";

/// Which packets of a host are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ways.
    Both,
    /// The host hears nothing; what it says arrives.
    In,
    /// The host hears everything; what it says is lost.
    Out,
}

/// The network.
#[derive(Debug)]
pub struct Lab {
    base: String,
    hosts: u8,
}

impl Lab {
    /// Makes the switch and the clients' machine.
    ///
    /// # Panics
    /// When the `ip` program refuses; the message holds its words.
    #[must_use]
    pub fn new() -> Self {
        let lab = Self {
            base: run_name(),
            hosts: 0,
        };
        let switch = lab.switch();
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "set", "lo", "up"]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        let own = format!("{}/24", address(SWITCH));
        ip(&["-n", &switch, "addr", "add", &own, "dev", "br0"]);
        lab.plug(&lab.clients(), CLIENTS);
        lab
    }

    /// Puts another host on the switch.
    ///
    /// # Panics
    /// When the `ip` program refuses.
    pub fn host(&mut self) -> Host {
        let number = FIRST_HOST + self.hosts;
        self.hosts += 1;
        let name = format!("{}h{number}", self.base);
        self.plug(&name, number);
        Host::on_switch(name, address(number), self.clients())
    }

    /// Name of the clients' namespace.
    #[must_use]
    pub fn clients(&self) -> String {
        format!("{}c", self.base)
    }

    /// Runs `work` on a thread of its own on the clients' machine.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread on the clients' machine.
    ///
    /// # Panics
    /// When no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let clients = self.clients();
        std::thread::spawn(move || {
            enter(&clients);
            work()
        })
    }

    fn switch(&self) -> String {
        format!("{}s", self.base)
    }

    fn plug(&self, name: &str, number: u8) {
        let (switch, port) = (self.switch(), format!("p{number}"));
        ip(&["netns", "add", name]);
        ip(&[
            "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns",
            &switch,
        ]);
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        let own = format!("{}/24", address(number));
        ip(&["-n", name, "addr", "add", &own, "dev", "eth0"]);
        let gateway = address(SWITCH).to_string();
        ip(&["-n", name, "route", "add", "default", "via", &gateway]);
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [self.clients(), self.switch()] {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// Drops the packets between a host and these addresses until [`heal`]. An earlier cut of the host is replaced.
///
/// # Panics
/// When nftables refuses.
pub fn cut(host: &Host, from: &[Ipv4Addr], which: Cut) {
    let set = from.iter().map(ToString::to_string);
    let set: Vec<String> = set.collect();
    let set = set.join(", ");
    let rule = |hook: &str, side: &str| {
        format!(
            "  chain {hook} {{ type filter hook {hook} priority -300; ip {side} {{ {set} }} drop; }}\n"
        )
    };
    let mut rules = String::new();
    if which != Cut::Out {
        rules += &rule("input", "saddr");
    }
    if which != Cut::In {
        rules += &rule("output", "daddr");
    }
    // Made first, so that the deletion never fails; all of it is one transaction.
    nft(
        host,
        &format!(
            "table inet {CUT_TABLE} {{ }}\ndelete table inet {CUT_TABLE}\ntable inet {CUT_TABLE} {{\n{rules}}}\n"
        ),
    );
}

/// Ends a cut; harmless without one.
///
/// # Panics
/// When nftables refuses.
pub fn heal(host: &Host) {
    nft(
        host,
        &format!("table inet {CUT_TABLE} {{ }}\ndelete table inet {CUT_TABLE}\n"),
    );
}

fn nft(host: &Host, script: &str) {
    let mut command = host.command("nft");
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("nft: {e} (Debian package nftables)"));
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(script.as_bytes())
            .unwrap_or_else(|e| panic!("nft: {e}"));
    }
    let out = child
        .wait_with_output()
        .unwrap_or_else(|e| panic!("nft: {e}"));
    assert!(
        out.status.success(),
        "nft: {}\n{script}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
}

fn address(last: u8) -> Ipv4Addr {
    let [a, b, c] = NETWORK;
    Ipv4Addr::new(a, b, c, last)
}
