//! Compiles the `.proto` files in process (protox), so that no `protoc` has to be installed.
//! Messages only: the service code, which needs an async runtime, is generated in `api` and `client`.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script reads and writes files"
)]

use prost::Message as _;
use std::error::Error;
use std::path::PathBuf;

const FILES: [&str; 4] = [
    "warren/store/v1/store.proto",
    "warren/v1/api.proto",
    "warren/session/v1/session.proto",
    "warren/peer/v1/peer.proto",
];

/// Messages whose `Debug` must not show what they carry; written by hand in `src/redact.rs`.
const SECRET_CARRIERS: [&str; 16] = [
    ".warren.v1.Secret",
    ".warren.v1.CreateSecretRequest",
    ".warren.v1.UpdateSecretRequest",
    ".warren.v1.TLSCertificate",
    ".warren.v1.CreateTLSCertificateRequest",
    ".warren.v1.RequestCertificateRequest",
    ".warren.v1.RequestCertificateResponse",
    ".warren.v1.GenerateJoinTokenResponse",
    ".warren.session.v1.SecretPayload",
    ".warren.v1.DataKey",
    ".warren.v1.BackupClusterRequest",
    ".warren.v1.SetAutoLockResponse",
    ".warren.v1.UnlockClusterRequest",
    ".warren.peer.v1.DataKeyMaterial",
    ".warren.peer.v1.CallRequest",
    ".warren.peer.v1.CallResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        // Ordered maps: the same value always gives the same bytes, which the log and hashes rely on.
        .btree_map(["."])
        .skip_debug(SECRET_CARRIERS)
        .compile_fds(descriptors)?;
    Ok(())
}
