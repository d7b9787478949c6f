//! The figures of SPECIFICATION.md, each beside a reference measured in the same run.
//!
//! `warren-bench [starts] [writes] [idle] [quorum] [scale] [size]`; without arguments all of them. The program is the
//! one that `WARREN_BIN` names. Needs root; whatever it makes it removes by name.

#![allow(
    clippy::print_stdout,
    reason = "the table is the output of this program"
)]

mod containerd;
mod etcd;
mod etcd_tls;
mod idle;
mod quorum;
mod report;
mod scale;
mod starts;
mod writes;

use containerd::Containerd;
use report::{Row, machine, print_table};
use std::process::ExitCode;
use warren_client::{Client, Target};
use warren_testkit::{Node, images, is_root};

/// The program's own allocator, for the clients of all that is measured: a slow client on the same two processors would say
/// the same of every server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The parts, in the order they run.
const PARTS: [&str; 6] = ["starts", "writes", "idle", "quorum", "scale", "size"];
/// Budget for the program file in design.md, in bytes.
const SIZE_BUDGET_BYTES: u64 = 30_000_000;

/// What all parts work with.
struct Bench {
    node: Node,
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// `None` when Debian's containerd is not installed.
    reference: Option<Containerd>,
}

impl Bench {
    fn start(with_reference: bool) -> Result<Self, String> {
        let node = Node::running();
        let archive = images::busybox(node.directory());
        let _ = node.cli(&["image", "import", &archive]).ok();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| format!("runtime: {e}"))?;
        let client = runtime.block_on(Client::connect(Target::Unix(node.socket())));
        let client = client.map_err(|e| format!("connect: {e}"))?;
        let reference = if with_reference {
            Containerd::start(&archive)?
        } else {
            None
        };
        Ok(Self {
            node,
            client,
            runtime,
            reference,
        })
    }
}

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|a| !PARTS.contains(&a.as_str())) {
        eprintln!("warren-bench: {unknown:?} is none of {}", PARTS.join(", "));
        return ExitCode::from(2);
    }
    if !is_root() {
        println!("SKIPPED (needs root): warren-bench");
        return ExitCode::FAILURE;
    }
    match run(&|part| asked.is_empty() || asked.iter().any(|a| a == part)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("warren-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &dyn Fn(&str) -> bool) -> Result<(), String> {
    println!("program: {}", warren_testkit::node::program().display());
    println!("at the beginning: {}", machine());
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    if PARTS[..3].iter().any(|part| wanted(part)) {
        let mut bench = Bench::start(wanted("starts") || wanted("idle"))?;
        let parts: [(&str, Part); 3] = [
            ("starts", starts::measure),
            ("writes", writes::measure),
            ("idle", idle::measure),
        ];
        for (name, part) in parts.into_iter().filter(|(name, _)| wanted(name)) {
            // One part that fails does not take the figures of the others away.
            match part(&mut bench) {
                Ok(more) => rows.extend(more),
                Err(e) => failed.push(format!("{name}: {e}")),
            }
        }
        drop(bench.reference.take());
        bench.node.reset();
    }
    if wanted("quorum") {
        match quorum::measure() {
            Ok(more) => rows.extend(more),
            Err(e) => failed.push(format!("quorum: {e}")),
        }
    }
    if wanted("scale") {
        match scale::measure() {
            Ok(more) => rows.extend(more),
            Err(e) => failed.push(format!("scale: {e}")),
        }
    }
    if wanted("size") {
        rows.push(size()?);
    }
    print_table(&rows);
    println!("at the end: {}", machine());
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("; "))
    }
}

type Part = fn(&mut Bench) -> Result<Vec<Row>, String>;

/// The program file as it is shipped.
fn size() -> Result<Row, String> {
    let path = warren_testkit::node::program();
    let bytes = std::fs::metadata(&path)
        .map_err(|e| format!("{}: {e}", path.display()))?
        .len();
    let megabytes = format!("{:.1} MB", bytes as f64 / 1e6);
    let mut row = Row::new("size of the program file", megabytes).budget("<= 30 MB");
    row.ratio = format!("{:.2} x budget", bytes as f64 / SIZE_BUDGET_BYTES as f64);
    Ok(row)
}
