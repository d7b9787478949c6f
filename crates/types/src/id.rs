//! Typed 128-bit ids.
//!
//! An id sorts by the time it was made: 48 bits of Unix milliseconds, then 80 random bits. Its text
//! form is 26 lower-case characters of Crockford's base 32, so that it can be a directory name, a
//! label or part of a host name. The layout and alphabet are those of the ULID specification; the
//! letters are lower case because host names are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Length of the text form of every id, in characters.
pub const ID_TEXT_LEN: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: expected 26 characters of 0-9 and a-z without i, l, o, u")]
pub struct IdError {
    /// The offending text, cut to 40 characters.
    pub text: String,
}

/// A 128-bit id without a kind; the typed ids wrap it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id128(pub u128);

impl Id128 {
    /// Puts an id together from a time and 80 bits of randomness (the lower 80 bits count).
    #[must_use]
    pub const fn from_parts(unix_millis: u64, random: u128) -> Self {
        let time = (unix_millis & 0xffff_ffff_ffff) as u128;
        Self((time << 80) | (random & ((1 << 80) - 1)))
    }

    /// The 26-character text form.
    #[must_use]
    pub fn text(self) -> String {
        let mut out = [0_u8; ID_TEXT_LEN];
        let mut rest = self.0;
        for slot in out.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

impl fmt::Display for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for Id128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl FromStr for Id128 {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fail = || IdError {
            text: text.chars().take(40).collect(),
        };
        if text.len() != ID_TEXT_LEN {
            return Err(fail());
        }
        let mut value: u128 = 0;
        for (at, byte) in text.bytes().enumerate() {
            let digit = ALPHABET
                .iter()
                .position(|b| *b == byte.to_ascii_lowercase())
                .ok_or_else(fail)?;
            // 26 characters hold 130 bits: the first may only carry three.
            if at == 0 && digit > 7 {
                return Err(fail());
            }
            value = (value << 5) | digit as u128;
        }
        Ok(Self(value))
    }
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub Id128);

        impl $name {
            /// Puts an id together from a time and 80 bits of randomness.
            #[must_use]
            pub const fn from_parts(unix_millis: u64, random: u128) -> Self {
                Self(Id128::from_parts(unix_millis, random))
            }
            /// The id as a number.
            #[must_use]
            pub const fn as_u128(self) -> u128 {
                self.0.0
            }
            /// The id from a number.
            #[must_use]
            pub const fn from_u128(value: u128) -> Self {
                Self(Id128(value))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0.text())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

typed_ids! {
    /// Id of a cluster.
    ClusterId,
    /// Id of a node.
    NodeId,
    /// Id of a service.
    ServiceId,
    /// Id of one container record.
    ContainerId,
    /// Id of a secret.
    SecretId,
    /// Id of a config.
    ConfigId,
    /// Id of a volume.
    VolumeId,
    /// Id of a network.
    NetworkId,
    /// Id of an ingress.
    IngressId,
    /// Id of a TLS certificate for ingress.
    CertificateId,
    /// Id of a join token (its public part).
    TokenId,
    /// Id of an event.
    EventId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(value in any::<u128>()) {
            let id = Id128(value);
            prop_assert_eq!(id.text().parse::<Id128>().unwrap(), id);
        }

        #[test]
        fn text_sorts_like_the_number(a in any::<u128>(), b in any::<u128>()) {
            prop_assert_eq!(Id128(a).text().cmp(&Id128(b).text()), a.cmp(&b));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}") {
            if let Ok(id) = text.parse::<Id128>() {
                prop_assert_eq!(id.text(), text.to_ascii_lowercase());
            }
        }
    }

    #[test]
    fn overflowing_first_character_is_refused() {
        assert!("8zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<Id128>().is_err());
        assert!("7zzzzzzzzzzzzzzzzzzzzzzzzz".parse::<Id128>().is_ok());
    }
}
