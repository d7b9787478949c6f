//! What differed, what was done about it, and what stands in the way.

use crate::error::NetworkError;
use std::fmt;
use std::net::Ipv4Addr;
use warren_types::ContainerId;

/// One way in which the kernel did not match the desired network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The bridge did not exist.
    BridgeMissing,
    /// A property of the bridge was wrong: which, in words.
    Bridge(String),
    /// A kernel setting had another value.
    Setting {
        /// Its name below `/proc/sys`, with dots.
        name: String,
        /// The value it must have.
        wanted: &'static str,
    },
    /// A container has no network namespace; only attaching can make one, before it starts.
    NotAttached(ContainerId),
    /// A container's interface pair was missing or broken.
    LinkMissing(ContainerId),
    /// A property of a container's interfaces was wrong: which, in words.
    Link(ContainerId, String),
    /// A container's interface had not exactly its address.
    Address(ContainerId, Ipv4Addr),
    /// A container had no route to the outside.
    Route(ContainerId),
    /// A part of the nftables table was wrong: what has to be done, in words.
    Rules(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BridgeMissing => f.write_str("bridge was missing"),
            Self::Bridge(what) => write!(f, "bridge: {what}"),
            Self::Setting { name, wanted } => write!(f, "setting {name} was not {wanted}"),
            Self::NotAttached(id) => write!(f, "container {id} has no network namespace"),
            Self::LinkMissing(id) => write!(f, "container {id}: interface pair was missing"),
            Self::Link(id, what) => write!(f, "container {id}: {what}"),
            Self::Address(id, address) => write!(
                f,
                "container {id}: address {address} was missing or not the only one"
            ),
            Self::Route(id) => write!(f, "container {id}: default route was missing"),
            Self::Rules(what) => write!(f, "firewall: {what}"),
        }
    }
}

/// Result of making the kernel match.
#[derive(Debug, Default)]
pub struct Report {
    /// What differed and is right now.
    pub repaired: Vec<Difference>,
    /// What differed and could not be repaired here: containers without a namespace.
    pub missing: Vec<Difference>,
    /// Failures limited to one container or port; everything else was done.
    pub failed: Vec<NetworkError>,
    /// What others set up on this host that will hinder traffic, in words, with a remedy.
    pub warnings: Vec<String>,
}

impl Report {
    /// Nothing was written, nothing is wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.repaired.is_empty() && self.missing.is_empty() && self.failed.is_empty()
    }
}
