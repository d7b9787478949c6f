//! Real nodes on one machine: hosts made of network namespaces, the real program, real images, and
//! the faults that a test injects.
//!
//! Everything made here carries a name with the process id of the test, and goes when its owner is
//! dropped.

pub mod drills;
pub mod faults;
pub mod host;
pub mod images;
pub mod lab;
pub mod leaks;
pub mod managers;
pub mod node;
pub mod processes;
pub mod rng;
pub mod scale;
pub mod traffic;
pub mod wait;
pub mod writer;

pub use host::Host;
pub use lab::{Cut, Lab};
pub use managers::Managers;
pub use node::{CliOutput, Node};
pub use rng::Rng;
pub use traffic::{Load, Traffic};
pub use wait::{eventually, eventually_within};
pub use writer::Writer;

/// Says loudly that a test cannot run here, and why. A test that calls it counts as not passed.
#[allow(
    clippy::print_stdout,
    reason = "a skipped test must be seen in its output"
)]
pub fn skipped(test: &str, reason: &str) {
    println!("SKIPPED ({reason}): {test}");
}

/// May this process make namespaces, mounts and cgroups?
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
