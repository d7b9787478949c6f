//! Which node has which subnet of the cluster's pool.

use crate::subnet::Subnet;
use std::collections::BTreeSet;

/// The pool containers' addresses come from when the operator names none.
pub const CONTAINER_POOL_DEFAULT: &str = "10.89.0.0/16";
/// Prefix length of one node's subnet when the operator names none, in bits.
pub const NODE_PREFIX_DEFAULT: u8 = 24;

/// A subnet that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Every subnet is taken.
    #[error(
        "pool {pool} has no free /{prefix} for another node: all {size} are in use; remove nodes or make a cluster with a larger pool"
    )]
    Exhausted {
        /// The pool.
        pool: Subnet,
        /// Prefix length of a node's subnet in bits.
        prefix: u8,
        /// How many the pool holds.
        size: u32,
    },
    /// A node's subnet would be larger than the pool, or too small to use.
    #[error("a node's subnet of /{prefix} does not fit into pool {pool}: choose a prefix from /{} to /{}", pool.prefix(), crate::subnet::SUBNET_PREFIX_MAX)]
    Prefix {
        /// The pool.
        pool: Subnet,
        /// Prefix length asked for, in bits.
        prefix: u8,
    },
}

/// A subnet of length `prefix` for one more node, given what other nodes have. The search begins
/// after the highest one in use and goes round, so that a removed node's subnet rests.
///
/// # Errors
/// The pool is used up, or the prefix does not fit.
pub fn next_node_subnet(
    pool: Subnet,
    prefix: u8,
    taken: impl IntoIterator<Item = Subnet>,
) -> Result<Subnet, PoolError> {
    let size = pool.children(prefix);
    if size == 0 {
        return Err(PoolError::Prefix { pool, prefix });
    }
    let shift = 32 - u32::from(prefix);
    let mut used = BTreeSet::new();
    for subnet in taken.into_iter().filter(|s| s.overlaps(pool)) {
        // A subnet of another length (the setting was changed once) blocks each one it touches.
        let first = subnet
            .network()
            .to_bits()
            .saturating_sub(pool.network().to_bits())
            >> shift;
        let last = subnet
            .broadcast()
            .to_bits()
            .saturating_sub(pool.network().to_bits())
            >> shift;
        used.extend(first..=last.min(size - 1));
    }
    let start = used.last().map_or(0, |highest| highest + 1);
    (0..size)
        .map(|n| (start + n) % size)
        .find(|index| !used.contains(index))
        .and_then(|index| pool.child(prefix, index))
        .ok_or(PoolError::Exhausted { pool, prefix, size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nodes_get_one_after_the_other_and_gaps_last() {
        let pool: Subnet = CONTAINER_POOL_DEFAULT.parse().unwrap();
        let first = next_node_subnet(pool, NODE_PREFIX_DEFAULT, []).unwrap();
        assert_eq!(first.to_string(), "10.89.0.0/24");
        let third: Subnet = "10.89.2.0/24".parse().unwrap();
        let next = next_node_subnet(pool, 24, [first, third]).unwrap();
        assert_eq!(next.to_string(), "10.89.3.0/24");
        let last: Subnet = "10.89.255.0/24".parse().unwrap();
        assert_eq!(
            next_node_subnet(pool, 24, [first, last])
                .unwrap()
                .to_string(),
            "10.89.1.0/24"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let pool: Subnet = "10.89.0.0/24".parse().unwrap();
        assert!(matches!(
            next_node_subnet(pool, 16, []),
            Err(PoolError::Prefix { .. })
        ));
        assert!(matches!(
            next_node_subnet(pool, 31, []),
            Err(PoolError::Prefix { .. })
        ));
        assert!(matches!(
            next_node_subnet(pool, 24, [pool]),
            Err(PoolError::Exhausted { .. })
        ));
    }

    proptest! {
        #[test]
        fn never_overlaps_and_fills_the_pool(lengths in proptest::collection::vec(26_u8..=30, 0..80)) {
            let pool: Subnet = "10.89.0.0/24".parse().unwrap();
            let mut taken: Vec<Subnet> = Vec::new();
            for length in lengths {
                let answer = next_node_subnet(pool, length, taken.iter().copied());
                prop_assert_eq!(&next_node_subnet(pool, length, taken.iter().rev().copied()), &answer);
                let free = (0..pool.children(length)).filter_map(|n| pool.child(length, n)).any(|c| !taken.iter().any(|t| t.overlaps(c)));
                match answer {
                    Ok(subnet) => {
                        prop_assert!(pool.contains(subnet.network()) && pool.contains(subnet.broadcast()));
                        prop_assert!(!taken.iter().any(|t| t.overlaps(subnet)));
                        taken.push(subnet);
                    }
                    Err(_) => prop_assert!(!free),
                }
            }
        }
    }
}
