//! Containers on one node.
//!
//! [`Driver`] is what the worker uses. [`EmbeddedDriver`] runs real containers: the daemon's own binary
//! re-executes itself as a small shim per container, so containers outlive the daemon and nothing but a
//! Linux kernel is needed. [`FakeDriver`] runs nothing and is for tests and simulation.
//!
//! A program that uses [`EmbeddedDriver`] with itself as shim must call [`shim_main`] first thing in `main`,
//! before it starts a thread or an async runtime.

#![deny(unsafe_op_in_unsafe_fn)]

pub mod capability;
pub mod cgroup;
pub mod driver;
pub mod embedded;
pub mod error;
pub mod fake;
pub mod logs;
pub mod oci;
pub mod seccomp;
pub mod shim;
pub mod spec;

mod entry;
mod ready;
mod record;
mod users;
mod wire;

pub use driver::{
    ContainerInfo, ContainerStats, Driver, ExecControl, ExecHandle, ExecSpec, ExitRecord, LogLine,
    LogQuery, LogSource, LogStream, RuntimeEvent, RuntimeState,
};
pub use embedded::{EmbeddedConfig, EmbeddedDriver};
pub use error::{Result, RuntimeError};
pub use fake::{FakeBehaviour, FakeDriver, FakeExec};
pub use shim::shim_main;
pub use spec::{
    CapabilityChange, LogLimits, RuntimeFile, RuntimeLimits, RuntimeMount, RuntimeSpec, UserIds,
};
pub use users::resolve_user;
