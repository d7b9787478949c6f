//! The server over a real unix socket and real TLS, with a control plane in memory behind it.

mod calls;
mod failover;
mod forwarding;
mod joining;
mod managers;
mod matrix;
mod memory;
mod metrics;
mod peers;
mod raw;
mod records;
mod setup;
mod standing;
mod streams;
mod transport;
