//! Operating system and processor an image is made for, in the words of the OCI specification.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Operating system, architecture and variant, such as `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system in Go's words: `linux`.
    #[serde(default)]
    pub os: String,
    /// Architecture in Go's words: `amd64`, `arm64`, `arm`, `riscv64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the architecture: `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// How well an image made for `candidate` runs on a machine of this platform: `None` not at
    /// all, else the higher the better. An image that names no platform counts as fitting.
    pub(crate) fn fit(&self, candidate: &Self) -> Option<u32> {
        let same = |mine: &str, theirs: &str| theirs.is_empty() || theirs == mine;
        if !same(&self.os, &candidate.os) || !same(&self.architecture, &candidate.architecture) {
            return None;
        }
        match (self.level(), candidate.level()) {
            // Newer ARM cores run code for older ones, never the other way.
            (Some(mine), Some(theirs)) if theirs > mine => None,
            (_, theirs) => Some(theirs.unwrap_or(0)),
        }
    }

    fn level(&self) -> Option<u32> {
        let variant = self.variant.as_deref().filter(|v| !v.is_empty());
        match (self.architecture.as_str(), variant) {
            // arm64 without a variant means v8, arm without one v7 (containerd's rule).
            ("arm64", None) => Some(8),
            ("arm", None) => Some(7),
            ("amd64", None) => Some(1),
            (_, variant) => variant?.strip_prefix('v')?.split('.').next()?.parse().ok(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref().filter(|v| !v.is_empty()) {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
        }
    }

    #[test]
    fn fitting_platforms() {
        for (host, image, fits) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/amd64/v1", true),
            ("linux/amd64", "linux/amd64/v3", false),
            ("linux/amd64", "linux/arm64", false),
            ("linux/amd64", "windows/amd64", false),
            ("linux/amd64", "unknown/unknown", false),
            ("linux/amd64", "/", true),
            ("linux/arm/v7", "linux/arm/v6", true),
            ("linux/arm/v6", "linux/arm/v7", false),
            ("linux/arm64", "linux/arm64/v8", true),
        ] {
            assert_eq!(
                of(host).fit(&of(image)).is_some(),
                fits,
                "{image} on {host}"
            );
        }
        let host = of("linux/arm/v7");
        assert!(host.fit(&of("linux/arm/v7")) > host.fit(&of("linux/arm/v6")));
    }
}
