//! Which container has which address of a node's subnet.

use crate::subnet::Subnet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use warren_types::ContainerId;

/// An address that cannot be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address is taken.
    #[error(
        "subnet {subnet} has no free address: all {capacity} are in use; remove containers or give the node a larger subnet"
    )]
    Exhausted {
        /// The subnet.
        subnet: Subnet,
        /// How many containers it holds.
        capacity: u32,
    },
    /// The address belongs to another container.
    #[error("address {address} belongs to container {holder}; release it first")]
    Taken {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: ContainerId,
    },
    /// The address is not one a container of this subnet can have.
    #[error("address {address} is not one that containers in {subnet} can have")]
    Outside {
        /// The address.
        address: Ipv4Addr,
        /// The subnet.
        subnet: Subnet,
    },
}

/// The addresses of one node's subnet. Network, gateway and broadcast address are never given. The
/// search goes on after the last address given and round, so that an address rests as long as
/// possible before somebody else gets it: peers with old connections or cached names reach nobody
/// rather than the wrong one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    subnet: Subnet,
    /// Offset within the subnet where the next search begins.
    cursor: u32,
    by_container: BTreeMap<ContainerId, Ipv4Addr>,
    by_address: BTreeMap<Ipv4Addr, ContainerId>,
}

/// Offset of the first address a container can have: after network and gateway.
const FIRST_OFFSET: u32 = 2;

impl Ipam {
    /// An allocator with nothing given.
    #[must_use]
    pub const fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            cursor: FIRST_OFFSET,
            by_container: BTreeMap::new(),
            by_address: BTreeMap::new(),
        }
    }

    /// The subnet.
    #[must_use]
    pub const fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The address of a container, if it has one.
    #[must_use]
    pub fn address_of(&self, container: ContainerId) -> Option<Ipv4Addr> {
        self.by_container.get(&container).copied()
    }

    /// Who has the address.
    #[must_use]
    pub fn holder_of(&self, address: Ipv4Addr) -> Option<ContainerId> {
        self.by_address.get(&address).copied()
    }

    /// All containers with their addresses, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (ContainerId, Ipv4Addr)> + '_ {
        self.by_container
            .iter()
            .map(|(id, address)| (*id, *address))
    }

    /// How many addresses are given.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_container.len()
    }

    /// Nothing is given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_container.is_empty()
    }

    /// Notes that a container has an address already: what was found running after a restart.
    ///
    /// # Errors
    /// The address is outside the subnet or another container's.
    pub fn adopt(&mut self, container: ContainerId, address: Ipv4Addr) -> Result<(), IpamError> {
        if !self.subnet.assignable(address) {
            return Err(IpamError::Outside {
                address,
                subnet: self.subnet,
            });
        }
        match self.by_address.get(&address) {
            Some(holder) if *holder != container => {
                return Err(IpamError::Taken {
                    address,
                    holder: *holder,
                });
            }
            _ => {}
        }
        self.release(container);
        self.by_container.insert(container, address);
        self.by_address.insert(address, container);
        // An adopted address was given before; go on after the highest.
        let offset = address.to_bits() - self.subnet.network().to_bits();
        self.cursor = self.cursor.max(self.after(offset));
        Ok(())
    }

    /// The container's address; a new one if it has none.
    ///
    /// # Errors
    /// No address is free.
    pub fn allocate(&mut self, container: ContainerId) -> Result<Ipv4Addr, IpamError> {
        if let Some(address) = self.address_of(container) {
            return Ok(address);
        }
        let capacity = self.subnet.capacity();
        let mut offset = self.cursor.clamp(FIRST_OFFSET, FIRST_OFFSET + capacity - 1);
        for _ in 0..capacity {
            let free = self
                .subnet
                .nth(offset)
                .filter(|a| !self.by_address.contains_key(a));
            offset = self.after(offset);
            if let Some(address) = free {
                self.cursor = offset;
                self.by_container.insert(container, address);
                self.by_address.insert(address, container);
                return Ok(address);
            }
        }
        Err(IpamError::Exhausted {
            subnet: self.subnet,
            capacity,
        })
    }

    /// Takes the container's address back; the address, if it had one.
    pub fn release(&mut self, container: ContainerId) -> Option<Ipv4Addr> {
        let address = self.by_container.remove(&container)?;
        self.by_address.remove(&address);
        Some(address)
    }

    /// The offset after `offset`, round to the first after the last.
    const fn after(&self, offset: u32) -> u32 {
        if offset + 1 >= FIRST_OFFSET + self.subnet.capacity() {
            FIRST_OFFSET
        } else {
            offset + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> ContainerId {
        ContainerId::from_u128(u128::from(n))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u8),
        Release(u8),
        Adopt(u8, u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u8..24).prop_map(Step::Allocate),
            2 => (0_u8..24).prop_map(Step::Release),
            1 => ((0_u8..24), (0_u32..20)).prop_map(|(c, o)| Step::Adopt(c, o)),
        ];
        proptest::collection::vec(step, 0..120)
    }

    fn run(subnet: Subnet, steps: &[Step]) -> (Ipam, Vec<Result<Ipv4Addr, IpamError>>) {
        let mut ipam = Ipam::new(subnet);
        let mut answers = Vec::new();
        for step in steps {
            match step {
                Step::Allocate(c) => answers.push(ipam.allocate(id(*c))),
                Step::Release(c) => {
                    ipam.release(id(*c));
                }
                Step::Adopt(c, offset) => {
                    let address = Ipv4Addr::from_bits(subnet.network().to_bits() + offset);
                    answers.push(ipam.adopt(id(*c), address).map(|()| address));
                }
            }
        }
        (ipam, answers)
    }

    proptest! {
        #[test]
        fn addresses_are_unique_inside_and_the_same_each_time(steps in steps(), prefix in 28_u8..=30) {
            let subnet = Subnet::new(Ipv4Addr::new(10, 89, 3, 0), prefix).unwrap();
            let (ipam, answers) = run(subnet, &steps);
            prop_assert_eq!(&run(subnet, &steps), &(ipam.clone(), answers));
            let mut seen = std::collections::BTreeSet::new();
            for (container, address) in ipam.iter() {
                prop_assert!(seen.insert(address), "{} twice", address);
                prop_assert!(subnet.assignable(address), "{} outside", address);
                prop_assert_ne!(address, subnet.gateway());
                prop_assert_eq!(ipam.holder_of(address), Some(container));
            }
            prop_assert_eq!(ipam.by_address.len(), ipam.by_container.len());
            let text = serde_json::to_string(&ipam).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ipam>(&text).unwrap(), ipam);
        }

        #[test]
        fn all_addresses_can_be_had(prefix in 26_u8..=30, skip in 0_u8..40) {
            let subnet = Subnet::new(Ipv4Addr::new(10, 89, 3, 0), prefix).unwrap();
            let mut ipam = Ipam::new(subnet);
            for _ in 0..skip {
                ipam.allocate(id(255)).unwrap();
                ipam.release(id(255));
            }
            for n in 0..subnet.capacity() {
                ipam.allocate(ContainerId::from_u128(1000 + u128::from(n))).unwrap();
            }
            let full = matches!(ipam.allocate(id(1)), Err(IpamError::Exhausted { .. }));
            prop_assert!(full);
            ipam.release(ContainerId::from_u128(1000)).unwrap();
            prop_assert!(ipam.allocate(id(1)).is_ok());
        }
    }

    #[test]
    fn a_released_address_rests() {
        let subnet: Subnet = "10.89.0.0/29".parse().unwrap();
        let mut ipam = Ipam::new(subnet);
        let first = ipam.allocate(id(1)).unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 89, 0, 2));
        ipam.release(id(1));
        let later: Vec<_> = (2..6).map(|n| ipam.allocate(id(n)).unwrap()).collect();
        assert!(!later.contains(&first), "{later:?}");
        assert_eq!(ipam.allocate(id(7)).unwrap(), first);
    }

    #[test]
    fn adoption_guards_holders_and_borders() {
        let mut ipam = Ipam::new("10.89.0.0/24".parse().unwrap());
        let address = Ipv4Addr::new(10, 89, 0, 9);
        ipam.adopt(id(1), address).unwrap();
        ipam.adopt(id(1), address).unwrap();
        assert!(matches!(
            ipam.adopt(id(2), address),
            Err(IpamError::Taken { .. })
        ));
        for bad in [
            [10, 89, 0, 0],
            [10, 89, 0, 1],
            [10, 89, 0, 255],
            [10, 90, 0, 4],
        ] {
            assert!(matches!(
                ipam.adopt(id(3), bad.into()),
                Err(IpamError::Outside { .. })
            ));
        }
        assert_eq!(ipam.allocate(id(2)).unwrap(), Ipv4Addr::new(10, 89, 0, 10));
    }
}
