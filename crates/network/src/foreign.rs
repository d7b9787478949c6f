//! What other programs set up that stands in the way.
//!
//! A packet must pass every table of the kernel's firewall: another program's "drop" cannot be
//! overruled from ours, and changing that program's table would be undone or break it. So it is said.

use crate::config::NetworkConfig;
use crate::error::{NetworkError, Tried};
use crate::host::Kernel;
use nlink::netlink::nftables::{ChainInfo, Family};

/// Number of the forward hook (`NF_INET_FORWARD`).
const HOOK_FORWARD: u32 = 2;
/// Number of the verdict drop (`NF_DROP`).
const POLICY_DROP: u32 = 0;

/// Forwarding chains of others that drop by default and never mention our bridge, in words.
pub(crate) async fn warnings(
    kernel: &Kernel,
    config: &NetworkConfig,
) -> Result<Vec<String>, NetworkError> {
    let about = || "reading other programs' firewall chains".to_owned();
    let chains = kernel.nft.list_chains().await.tried(about)?;
    let mut warnings = Vec::new();
    for chain in chains.iter().filter(|c| drops_by_default(c, config)) {
        let rules = kernel
            .nft
            .list_rules(&chain.table, chain.family)
            .await
            .tried(about)?;
        let name = config.bridge.as_bytes();
        let mentioned = rules
            .iter()
            .any(|r| r.expression_bytes.windows(name.len()).any(|w| w == name));
        if !mentioned {
            warnings.push(in_words(chain, &config.bridge));
        }
    }
    Ok(warnings)
}

fn drops_by_default(chain: &ChainInfo, config: &NetworkConfig) -> bool {
    let ours = chain.family == Family::Ip && chain.table == config.table;
    !ours
        && matches!(chain.family, Family::Ip | Family::Inet)
        && chain.hook == Some(HOOK_FORWARD)
        && chain.policy == Some(POLICY_DROP)
}

fn in_words(chain: &ChainInfo, bridge: &str) -> String {
    let ChainInfo {
        table,
        name,
        family,
        ..
    } = chain;
    format!(
        "firewall table {family} {table}, chain {name} of another program drops forwarded packets by default: containers \
         reach nothing outside and published ports do not answer other hosts until it lets {bridge} through, for \
         example: iptables -I {name} -i {bridge} -j ACCEPT; iptables -I {name} -o {bridge} -j ACCEPT"
    )
}
