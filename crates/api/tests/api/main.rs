//! The server over a real unix socket and real TLS, with a control plane in memory behind it.

mod calls;
mod matrix;
mod memory;
mod raw;
mod setup;
mod streams;
mod transport;
