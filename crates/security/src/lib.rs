//! Keys, certificates, sealing and join tokens of a cluster.
//!
//! Pure: the time and every random value that stands in the replicated state are handed in. The one
//! accepted exception are signatures and key pairs (`ca`), whose libraries draw their nonces and keys
//! from the operating system: a nonce that a caller could choose would be a way to lose the key.
//! Likewise a TLS handshake reads the clock itself to judge validity.

#![forbid(unsafe_code)]

pub mod backup;
pub mod ca;
pub mod identity;
pub mod renewal;
pub mod sealing;
pub mod sensitive;
pub mod tls;
pub mod token;
pub mod unlock;

pub use ca::{
    CaDigest, CaError, CertificateAuthority, KeyAndCsr, SubjectName, generate_key_and_csr,
};
pub use identity::{Identity, IdentityError, identity_from_der, identity_from_pem};
pub use renewal::{Renewal, RenewalError, make_renewal, verify_renewal};
pub use sealing::{DataKey, Keyring, SealContext, SealError, SealKind, WrapKey, WrappedKey};
pub use sensitive::Sensitive;
pub use tls::{
    ClientAuth, PinError, TlsError, client_config, join_client_config, pin_error, server_config,
    server_name,
};
pub use token::{NewToken, PresentedToken, TokenError, issue_token, verify_token};
pub use unlock::{UnlockError, UnlockKey};
