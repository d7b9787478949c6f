//! Names and hardware addresses that follow from a container's id and address.
//!
//! They are worked out, not stored, so that every part of the program, and the program after a
//! crash, finds the same ones.

use std::net::Ipv4Addr;
use warren_types::ContainerId;

/// Longest name of a network interface in Linux, in bytes.
pub const INTERFACE_NAME_BYTES_MAX: usize = 15;
/// Name of the interface inside every container.
pub const CONTAINER_INTERFACE: &str = "eth0";
/// What the name of every host-side interface begins with.
pub const HOST_INTERFACE_PREFIX: &str = "wrn";

/// Name of the host end of a container's interface pair: the prefix and 12 characters that carry 60
/// bits of a hash of the id. A hash, because ids made in the same millisecond share their first half
/// and test ids differ in a few bits only.
#[must_use]
pub fn host_interface(container: ContainerId) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut hash = mix(container.as_u128());
    let mut name = String::from(HOST_INTERFACE_PREFIX);
    for _ in 0..INTERFACE_NAME_BYTES_MAX - HOST_INTERFACE_PREFIX.len() {
        name.push(char::from(ALPHABET[(hash & 31) as usize]));
        hash >>= 5;
    }
    name
}

/// The hardware address that belongs to an IPv4 address: locally administered, unicast. Because it
/// follows from the address, a neighbour's cache stays right when an address changes hands.
#[must_use]
pub const fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x57, a, b, c, d]
}

/// May a bridge have this name? Lower-case letters, digits and dashes, a letter first, 1 to 15
/// bytes: it becomes part of a path below `/proc/sys` and of texts in firewall rules.
#[must_use]
pub fn is_bridge_name(name: &str) -> bool {
    name.len() <= INTERFACE_NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// 64-bit finaliser of Stafford (variant 13) over both halves.
const fn mix(id: u128) -> u64 {
    let mut x = (id as u64) ^ ((id >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_fit_and_differ() {
        let mut seen = BTreeSet::new();
        for n in 0..20_000_u128 {
            // Close ids and ids that differ in their time only.
            for id in [
                ContainerId::from_u128(n),
                ContainerId::from_u128(n << 80 | 1 << 127),
            ] {
                let name = host_interface(id);
                assert_eq!(name.len(), INTERFACE_NAME_BYTES_MAX);
                assert!(seen.insert(name), "{n}");
            }
        }
    }

    #[test]
    fn bridge_names() {
        for good in ["warren0", "w", "a-b-c", "abcdefghijklmno"] {
            assert!(is_bridge_name(good), "{good}");
        }
        for bad in [
            "",
            "0a",
            "W",
            "a b",
            "a/b",
            "a.b",
            "..",
            "abcdefghijklmnop",
            "é",
        ] {
            assert!(!is_bridge_name(bad), "{bad}");
        }
    }

    #[test]
    fn hardware_addresses_are_local_unicast() {
        let mac = hardware_address(Ipv4Addr::new(10, 89, 0, 5));
        assert_eq!(mac, [2, 0x57, 10, 89, 0, 5]);
        assert_eq!(mac[0] & 3, 2);
    }
}
