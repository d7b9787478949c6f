//! Generates the server half of the services; the messages are those of `warren-proto`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto/proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors = protox::compile(
        [
            "warren/v1/api.proto",
            "warren/session/v1/session.proto",
            "warren/peer/v1/peer.proto",
        ],
        ["../proto/proto"],
    )?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .extern_path(".warren.v1", "::warren_proto::v1")
        .extern_path(".warren.store.v1", "::warren_proto::store::v1")
        .extern_path(".warren.session.v1", "::warren_proto::session::v1")
        .extern_path(".warren.peer.v1", "::warren_proto::peer::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
