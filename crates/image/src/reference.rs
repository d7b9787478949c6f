//! Image references: `nginx`, `nginx:1.27`, `registry.example:5000/team/app@sha256:…`.
//!
//! The grammar and the short forms are Docker's: a name without a host is on `docker.io`, and there
//! without a path in `library/`; without tag and digest the tag is `latest`.

use crate::digest::Digest;
use crate::error::ImageError;
use crate::limits::{MAX_REFERENCE_BYTES, MAX_REPOSITORY_BYTES};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

const DEFAULT_HOST: &str = "docker.io";
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
const MAX_TAG_BYTES: usize = 128;

/// A normalised image reference. Its text form is the full one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// Registry host, with its port if one was written.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
    /// Repository path on the host, such as `library/nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The tag; `latest` when neither tag nor digest was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
    /// Host and path without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }
    /// The shortest form that means the same: `nginx:1.27` for `docker.io/library/nginx:1.27`.
    #[must_use]
    pub fn short(&self) -> String {
        let name = if self.host == DEFAULT_HOST {
            match self.path.strip_prefix(DEFAULT_NAMESPACE) {
                // "library/a/b" or a last part that reads as a host would come back as something else.
                Some(rest) if !rest.contains('/') => rest.to_owned(),
                _ if self
                    .path
                    .split_once('/')
                    .is_some_and(|(first, _)| !reads_as_host(first)) =>
                {
                    self.path.clone()
                }
                _ => self.repository(),
            }
        } else {
            self.repository()
        };
        let mut out = name;
        self.push_suffix(&mut out);
        out
    }

    fn push_suffix(&self, out: &mut String) {
        if let Some(tag) = &self.tag {
            out.push(':');
            out.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
    }
}

/// Whether the part before the first slash is a host rather than a name on the default host.
fn reads_as_host(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':', '['])
        || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn host_is_valid(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, tail)) = rest.split_once(']') else {
                return false;
            };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            return tail.is_empty() || tail.strip_prefix(':').is_some_and(port_is_valid);
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.split('.').all(label) && port.is_none_or(port_is_valid)
}

fn port_is_valid(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn path_part_is_valid(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !alnum(*first) || !alnum(*last) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|joint| {
            joint.is_empty()
                || joint == "."
                || joint == "_"
                || joint == "__"
                || joint.bytes().all(|b| b == b'-')
        })
}

fn tag_is_valid(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= MAX_TAG_BYTES
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || *b == b'.' || *b == b'-')
}

/// Splits a name and fills in the default host and namespace.
fn host_and_path(name: &str) -> (&str, String) {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if reads_as_host(host) => (host, path),
        _ => (DEFAULT_HOST, name),
    };
    let host = if host == LEGACY_DEFAULT_HOST {
        DEFAULT_HOST
    } else {
        host
    };
    if host == DEFAULT_HOST && !path.contains('/') {
        return (host, format!("{DEFAULT_NAMESPACE}{path}"));
    }
    (host, path.to_owned())
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let fail = |why| ImageError::InvalidReference {
            text: text.chars().take(80).collect(),
            why,
        };
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(fail("it is too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| fail("after @ there must be sha256: and 64 hex digits"))?,
                ),
            ),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the host's port.
        let name_start = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[name_start..].split_once(':') {
            Some((last, tag)) => (&rest[..name_start + last.len()], Some(tag)),
            None => (rest, None),
        };
        if tag.is_some_and(|t| !tag_is_valid(t)) {
            return Err(fail(
                "the tag may hold letters, digits, _ . - and at most 128 of them",
            ));
        }
        let (host, path) = host_and_path(name);
        if !host_is_valid(host) {
            return Err(fail("the host before the first / is not valid"));
        }
        if !path.split('/').all(path_part_is_valid) {
            return Err(fail(
                "names are lower-case letters and digits with single . _ or - between them",
            ));
        }
        if name == rest && digest.is_none() && tag.is_none() && Digest::from_hex(name).is_some() {
            return Err(fail(
                "64 hex digits are a digest: write sha256: before them",
            ));
        }
        if host.len() + 1 + path.len() > MAX_REPOSITORY_BYTES {
            return Err(fail("host and name are over 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self {
            host: host.to_owned(),
            path,
            tag,
            digest,
        })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = self.repository();
        self.push_suffix(&mut out);
        f.write_str(&out)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
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
    fn short_and_full_forms() {
        for (text, full, short) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
            (
                "library/nginx",
                "docker.io/library/nginx:latest",
                "nginx:latest",
            ),
            (
                "docker.io/nginx",
                "docker.io/library/nginx:latest",
                "nginx:latest",
            ),
            (
                "index.docker.io/library/nginx",
                "docker.io/library/nginx:latest",
                "nginx:latest",
            ),
            ("team/app:v1", "docker.io/team/app:v1", "team/app:v1"),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            ("reg:5000/a/b/c:t", "reg:5000/a/b/c:t", "reg:5000/a/b/c:t"),
            (
                "[::1]:5000/app",
                "[::1]:5000/app:latest",
                "[::1]:5000/app:latest",
            ),
            (
                "ghcr.io/a__b/c-d.e",
                "ghcr.io/a__b/c-d.e:latest",
                "ghcr.io/a__b/c-d.e:latest",
            ),
        ] {
            let parsed: ImageRef = text.parse().unwrap();
            assert_eq!(parsed.to_string(), full);
            assert_eq!(parsed.short(), short);
        }
        let digest = Digest::of(b"x");
        let pinned: ImageRef = format!("nginx@{digest}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(digest)));
    }

    #[test]
    fn wrong_texts_are_refused() {
        let hex = Digest::of(b"").hex();
        for text in [
            "",
            "Nginx",
            "nginx:",
            ":tag",
            "nginx:a b",
            "a//b",
            "/a",
            "a/",
            "a@sha256:00",
            "a..b",
            "-a",
            "a_",
            "a___b",
            "ho_st.x:1/a",
            "h.x:99999/a",
            "h.x:/a",
            "[::1/a",
            "../a",
            "nginx@",
            "nginx:-x",
            hex.as_str(),
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?}");
        }
        assert!("a".repeat(300).parse::<ImageRef>().is_err());
        assert!(
            format!("a:{}", "t".repeat(129))
                .parse::<ImageRef>()
                .is_err()
        );
    }

    fn reference_text() -> impl Strategy<Value = String> {
        let host = prop_oneof![
            Just(String::new()),
            Just("localhost/".to_owned()),
            "[a-z]{1,5}\\.[a-z]{2,3}(:[1-9][0-9]{1,3})?/"
        ];
        // No dot in the first part: it would read as a host.
        let rest =
            proptest::collection::vec("/[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", 0..3);
        let path = ("[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,4}){0,2}", rest)
            .prop_map(|(first, rest)| first + &rest.concat());
        let tag = prop_oneof![Just(String::new()), ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}"];
        let digest = prop_oneof![
            Just(String::new()),
            any::<u64>().prop_map(|n| format!("@{}", Digest::of(&n.to_le_bytes())))
        ];
        (host, path, tag, digest).prop_map(|(h, p, t, d)| format!("{h}{p}{t}{d}"))
    }

    proptest! {
        #[test]
        fn full_and_short_form_mean_the_same(text in reference_text()) {
            let parsed: ImageRef = text.parse().unwrap();
            prop_assert_eq!(&parsed.to_string().parse::<ImageRef>().unwrap(), &parsed, "{}", text);
            prop_assert_eq!(&parsed.short().parse::<ImageRef>().unwrap(), &parsed, "{}", text);
            prop_assert!(parsed.tag().is_some() || parsed.digest().is_some());
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "[a-zA-Z0-9./:@_\\-\\[\\] ]{0,40}|.{0,40}") {
            if let Ok(parsed) = text.parse::<ImageRef>() {
                prop_assert_eq!(&parsed.to_string().parse::<ImageRef>().unwrap(), &parsed);
                prop_assert_eq!(&parsed.short().parse::<ImageRef>().unwrap(), &parsed);
            }
        }
    }
}
