//! Join tokens: `WRN-1-<digest of the CA>-<id>-<secret>`.
//!
//! The digest lets the joiner verify the cluster before it sends the secret; the cluster keeps only a
//! hash of the secret. Nothing here prints a secret: the text form is made by [`PresentedToken::reveal`].

use crate::ca::CaDigest;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use warren_types::{Duration, Id128, JoinToken, Revision, Role, Timestamp, TokenId, TokenState};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Default life of a token: one hour (SEC-02).
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest life of a token: 30 days.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Length of the text form, in characters.
pub const TOKEN_CHARS: usize = PREFIX.len() + 52 + 1 + 26 + 1 + 26;
const PREFIX: &str = "WRN-1-";
const SECRET_BYTES: usize = 16;

/// A token that is not accepted or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the text of a token.
    #[error(
        "this is not a join token: copy the whole text beginning with WRN-1- from `warren cluster join-token`"
    )]
    Malformed,
    /// A token of a newer format.
    #[error(
        "this join token has a newer format: install the version of warren that the cluster runs"
    )]
    NewerFormat,
    /// Unknown id or wrong secret; which of the two is not told.
    #[error(
        "the join token is not valid for this cluster: make a new one with `warren cluster join-token`"
    )]
    Invalid,
    /// Its time is over.
    #[error("the join token ended at {at}: make a new one with `warren cluster join-token`")]
    Expired {
        /// When it ended.
        at: Timestamp,
    },
    /// Taken back.
    #[error("the join token was revoked: make a new one with `warren cluster join-token`")]
    Revoked,
    /// No uses left.
    #[error("the join token has been used up: make a new one with `warren cluster join-token`")]
    UsedUp,
    /// Tokens are for nodes.
    #[error("a join token is for role worker or manager, not {}", role.name())]
    BadRole {
        /// The role asked for.
        role: Role,
    },
    /// Too long or no life.
    #[error("a join token lives between 1 s and 30 days, not {asked}")]
    BadLife {
        /// The life asked for.
        asked: Duration,
    },
}

/// What a joiner holds: the parts of the text. Its secret is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresentedToken {
    /// Digest of the CA to expect.
    #[zeroize(skip)]
    pub ca: CaDigest,
    /// Public part.
    #[zeroize(skip)]
    pub id: TokenId,
    secret: [u8; SECRET_BYTES],
}

impl PresentedToken {
    /// The text form: only for the one who asked for the token and for the join request.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = Id128(u128::from_be_bytes(self.secret));
        Zeroizing::new(format!("{PREFIX}{}-{}-{secret}", self.ca, self.id))
    }

    /// What the cluster keeps of the secret.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(b"warren-token-1\0");
        context.update(&self.id.as_u128().to_be_bytes());
        context.update(&self.secret);
        let mut hash = [0; 32];
        hash.copy_from_slice(context.finish().as_ref());
        hash
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedToken({})", self.id)
    }
}

impl FromStr for PresentedToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let newer = text
                .strip_prefix("WRN-")
                .and_then(|r| r.split_once('-'))
                .is_some_and(|(version, _)| {
                    version.len() < 4 && version.parse::<u16>().is_ok_and(|v| v > 1)
                });
            return Err(if newer {
                TokenError::NewerFormat
            } else {
                TokenError::Malformed
            });
        };
        let mut parts = rest.split('-');
        let (Some(ca), Some(id), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Malformed);
        };
        let malformed = |_| TokenError::Malformed;
        Ok(Self {
            ca: ca.parse().map_err(malformed)?,
            id: id.parse().map_err(malformed)?,
            secret: secret.parse::<Id128>().map_err(malformed)?.0.to_be_bytes(),
        })
    }
}

/// What to make a token from.
#[derive(Debug, Clone, Copy)]
pub struct NewToken {
    /// Fresh id.
    pub id: TokenId,
    /// What the joiner becomes: worker or manager.
    pub role: Role,
    /// Digest of the cluster's (newest) root.
    pub ca: CaDigest,
    /// Its life; usually [`TOKEN_TTL_DEFAULT`].
    pub ttl: Duration,
    /// Joins it allows; `None` means no limit.
    pub uses: Option<u32>,
}

/// Makes a token from 128 random bits: the record for the state, and the token itself for the one who
/// asked for it.
///
/// # Errors
/// [`TokenError::BadRole`] or [`TokenError::BadLife`].
pub fn issue_token(
    new: NewToken,
    now: Timestamp,
    random: [u8; SECRET_BYTES],
) -> Result<(JoinToken, PresentedToken), TokenError> {
    if !matches!(new.role, Role::Worker | Role::Manager) {
        return Err(TokenError::BadRole { role: new.role });
    }
    if new.ttl < Duration::from_secs(1) || new.ttl > TOKEN_TTL_MAX {
        return Err(TokenError::BadLife { asked: new.ttl });
    }
    let token = PresentedToken {
        ca: new.ca,
        id: new.id,
        secret: random,
    };
    let record = JoinToken {
        id: new.id,
        role: new.role,
        secret_hash: token.secret_hash(),
        created_at: now,
        expires_at: now.plus(new.ttl),
        uses_left: new.uses,
        revoked: false,
        version: Revision(0),
    };
    Ok((record, token))
}

/// Checks a token against the record with its id; returns what the joiner becomes. Whoever does not
/// know the secret learns nothing but "not valid"; the comparison takes the same time for every
/// secret, and a missing record costs as much as a wrong one.
///
/// # Errors
/// [`TokenError`] saying why it is not accepted.
pub fn verify_token(
    record: Option<&JoinToken>,
    presented: &PresentedToken,
    now: Timestamp,
) -> Result<Role, TokenError> {
    let hash = presented.secret_hash();
    let nobody = [0; 32];
    let kept = record.map_or(&nobody, |r| &r.secret_hash);
    let same = bool::from(kept.ct_eq(&hash));
    let record = record
        .filter(|r| same && r.id == presented.id)
        .ok_or(TokenError::Invalid)?;
    match record.state(now) {
        TokenState::Valid => Ok(record.role),
        TokenState::Revoked => Err(TokenError::Revoked),
        TokenState::Expired => Err(TokenError::Expired {
            at: record.expires_at,
        }),
        TokenState::UsedUp => Err(TokenError::UsedUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new(id: u128, ca: [u8; 32]) -> NewToken {
        NewToken {
            id: TokenId::from_u128(id),
            role: Role::Worker,
            ca: CaDigest(ca),
            ttl: TOKEN_TTL_DEFAULT,
            uses: Some(1),
        }
    }

    #[test]
    fn every_reason_to_refuse_is_told_to_the_holder_only() {
        let now = Timestamp(1_000_000);
        let (record, token) = issue_token(new(5, [3; 32]), now, [9; 16]).unwrap();
        assert_eq!(verify_token(Some(&record), &token, now), Ok(Role::Worker));
        let later = now.plus(TOKEN_TTL_DEFAULT);
        assert_eq!(
            verify_token(Some(&record), &token, later),
            Err(TokenError::Expired { at: later })
        );
        let mut changed = record.clone();
        changed.uses_left = Some(0);
        assert_eq!(
            verify_token(Some(&changed), &token, now),
            Err(TokenError::UsedUp)
        );
        changed.revoked = true;
        assert_eq!(
            verify_token(Some(&changed), &token, now),
            Err(TokenError::Revoked)
        );
        let (_, stranger) = issue_token(new(5, [3; 32]), now, [8; 16]).unwrap();
        assert_eq!(
            verify_token(Some(&changed), &stranger, later),
            Err(TokenError::Invalid)
        );
        assert_eq!(verify_token(None, &token, now), Err(TokenError::Invalid));
    }

    #[test]
    fn roles_and_lives_are_bounded() {
        let mut bad = new(1, [0; 32]);
        bad.role = Role::Admin;
        assert!(matches!(
            issue_token(bad, Timestamp(0), [0; 16]),
            Err(TokenError::BadRole { .. })
        ));
        let mut long = new(1, [0; 32]);
        long.ttl = Duration(TOKEN_TTL_MAX.0 + 1);
        assert!(matches!(
            issue_token(long, Timestamp(0), [0; 16]),
            Err(TokenError::BadLife { .. })
        ));
    }

    /// SEC-04: neither form that a log line could take shows the secret.
    #[test]
    fn debug_hides_the_secret() {
        let (record, token) = issue_token(new(1, [0; 32]), Timestamp(0), [0xab; 16]).unwrap();
        let secret = token.reveal().rsplit('-').next().unwrap().to_owned();
        assert!(!format!("{token:?} {record:?}").contains(&secret));
        assert_eq!(token.reveal().len(), TOKEN_CHARS);
        assert_eq!(
            "WRN-2-x-y".parse::<PresentedToken>(),
            Err(TokenError::NewerFormat)
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(id in any::<u128>(), ca in any::<[u8; 32]>(), secret in any::<[u8; 16]>()) {
            let (record, token) = issue_token(new(id, ca), Timestamp(7), secret).unwrap();
            let read: PresentedToken = format!(" {}\n", token.reveal().as_str()).parse().unwrap();
            prop_assert!(read == token);
            prop_assert_eq!(verify_token(Some(&record), &read, Timestamp(7)), Ok(Role::Worker));
            prop_assert_ne!(record.secret_hash.to_vec(), secret.to_vec());
        }

        #[test]
        fn any_change_of_the_text_is_refused(secret in any::<[u8; 16]>(), at in 0..TOKEN_CHARS, to in "[0-9a-zA-Z-]") {
            let (record, token) = issue_token(new(11, [5; 32]), Timestamp(7), secret).unwrap();
            let text = token.reveal();
            let mut altered = text.to_string();
            altered.replace_range(at..=at, &to);
            prop_assume!(!altered.eq_ignore_ascii_case(&text));
            if let Ok(read) = altered.parse::<PresentedToken>() {
                let ca_changed = read.ca != token.ca;
                let verdict = verify_token(Some(&record), &read, Timestamp(7));
                prop_assert!(ca_changed || verdict == Err(TokenError::Invalid));
            }
        }

        #[test]
        fn parser_never_panics(text in "(WRN-[12]-)?.{0,140}") {
            let _ = text.parse::<PresentedToken>();
        }
    }
}
