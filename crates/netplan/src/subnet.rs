//! An IPv4 network in CIDR form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Longest prefix a container subnet may have, in bits: a /30 still holds a gateway and one container.
pub const SUBNET_PREFIX_MAX: u8 = 30;
/// Shortest prefix, in bits.
pub const SUBNET_PREFIX_MIN: u8 = 8;

/// Text or numbers that are no usable network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Not of the form `a.b.c.d/n`.
    #[error(
        "{text:?} is not a network: write an IPv4 address and a prefix length, such as 10.89.0.0/16"
    )]
    Syntax {
        /// The offending text, cut to 40 characters.
        text: String,
    },
    /// A prefix outside the limits.
    #[error(
        "prefix length /{prefix} is not usable: choose one from /{SUBNET_PREFIX_MIN} to /{SUBNET_PREFIX_MAX}"
    )]
    Prefix {
        /// The prefix length in bits.
        prefix: u8,
    },
    /// The address has bits set behind the prefix.
    #[error(
        "{address}/{prefix} is an address in a network, not a network: did you mean {network}/{prefix}?"
    )]
    HostBits {
        /// What was written.
        address: Ipv4Addr,
        /// The prefix length in bits.
        prefix: u8,
        /// The network it lies in.
        network: Ipv4Addr,
    },
}

/// An IPv4 network; always one whose host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// The network `address`/`prefix`; `prefix` in bits.
    ///
    /// # Errors
    /// A prefix outside the limits, or host bits that are not zero.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, SubnetError> {
        if !(SUBNET_PREFIX_MIN..=SUBNET_PREFIX_MAX).contains(&prefix) {
            return Err(SubnetError::Prefix { prefix });
        }
        let base = address.to_bits();
        let masked = base & Self::mask_of(prefix);
        if masked != base {
            return Err(SubnetError::HostBits {
                address,
                prefix,
                network: Ipv4Addr::from_bits(masked),
            });
        }
        Ok(Self { base, prefix })
    }

    const fn mask_of(prefix: u8) -> u32 {
        u32::MAX << (32 - prefix as u32)
    }

    /// Prefix length in bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address; never given to anybody.
    #[must_use]
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The last address; never given to anybody.
    #[must_use]
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base | !Self::mask_of(self.prefix))
    }

    /// The second address: the bridge's own, the containers' gateway and name server.
    #[must_use]
    pub const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// Number of addresses, first and last included.
    #[must_use]
    pub const fn size(self) -> u32 {
        // At most 2^24: the prefix is at least 8.
        1 << (32 - self.prefix as u32)
    }

    /// Number of addresses that containers can have: all but network, gateway and broadcast.
    #[must_use]
    pub const fn capacity(self) -> u32 {
        self.size() - 3
    }

    /// Does the address lie in it?
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & Self::mask_of(self.prefix) == self.base
    }

    /// Do the two share an address?
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// May a container have this address?
    #[must_use]
    pub const fn assignable(self, address: Ipv4Addr) -> bool {
        let value = address.to_bits();
        self.contains(address) && value > self.base + 1 && value != self.broadcast().to_bits()
    }

    /// The address `offset` places after the network address, if it lies inside.
    #[must_use]
    pub const fn nth(self, offset: u32) -> Option<Ipv4Addr> {
        if offset < self.size() {
            Some(Ipv4Addr::from_bits(self.base + offset))
        } else {
            None
        }
    }

    /// The `index`-th subnet of length `prefix` within this one, if there is one.
    #[must_use]
    pub fn child(self, prefix: u8, index: u32) -> Option<Self> {
        if prefix < self.prefix || prefix > SUBNET_PREFIX_MAX || index >= self.children(prefix) {
            return None;
        }
        Some(Self {
            base: self.base + (index << (32 - u32::from(prefix))),
            prefix,
        })
    }

    /// How many subnets of length `prefix` this one holds; zero when they are larger than it.
    #[must_use]
    pub const fn children(self, prefix: u8) -> u32 {
        if prefix < self.prefix || prefix > SUBNET_PREFIX_MAX {
            0
        } else {
            1 << (prefix - self.prefix) as u32
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let fail = || SubnetError::Syntax {
            text: text.chars().take(40).collect(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(fail)?;
        let address: Ipv4Addr = address.parse().map_err(|_| fail())?;
        // `u8::from_str` takes a leading plus sign, which nobody writes in a network.
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(fail());
        }
        Self::new(address, prefix.parse().map_err(|_| fail())?)
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_pool() {
        let pool: Subnet = "10.89.0.0/16".parse().unwrap();
        let node = pool.child(24, 7).unwrap();
        assert_eq!(node.to_string(), "10.89.7.0/24");
        assert_eq!(node.gateway(), Ipv4Addr::new(10, 89, 7, 1));
        assert_eq!(node.broadcast(), Ipv4Addr::new(10, 89, 7, 255));
        assert_eq!(node.capacity(), 253);
        assert_eq!(pool.children(24), 256);
        assert_eq!(pool.child(24, 256), None);
        assert_eq!(pool.child(8, 0), None);
    }

    #[test]
    fn bad_texts_are_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "10.0.0.1/24",
            "10.0.0.0/999",
        ] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        let error = "10.0.0.1/24".parse::<Subnet>().unwrap_err().to_string();
        assert!(error.contains("did you mean 10.0.0.0/24"), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_round_trips(text in "[0-9./]{0,20}") {
            if let Ok(subnet) = text.parse::<Subnet>() {
                prop_assert_eq!(subnet.to_string().parse::<Subnet>().unwrap(), subnet);
            }
        }

        #[test]
        fn children_are_disjoint_and_inside(base in any::<u32>(), prefix in 8_u8..=28, step in 0_u8..=4, a in 0_u32..16, b in 0_u32..16) {
            let parent = Subnet::new(Ipv4Addr::from_bits(base & Subnet::mask_of(prefix)), prefix).unwrap();
            let length = (prefix + step).min(SUBNET_PREFIX_MAX);
            if let (Some(x), Some(y)) = (parent.child(length, a), parent.child(length, b)) {
                prop_assert!(parent.contains(x.network()) && parent.contains(x.broadcast()));
                prop_assert_eq!(a == b, x.overlaps(y));
            }
        }
    }
}
