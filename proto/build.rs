//! Compiles the contract without `protoc`: protox parses it, prost and tonic
//! generate the types and services, pbjson their ProtoJSON.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 6] = [
    "catrust/v1/types.proto",
    "catrust/v1/ca_certificate_service.proto",
    "catrust/v1/instance_service.proto",
    "catrust/v1/trust_service.proto",
    "catrust/v1/fleet_service.proto",
    "catrust/v1/audit_service.proto",
];

/// Stands before each client and server.
const SERVICES: &str = r#"#[cfg(feature = "services")]"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["."])?;
    let encoded = descriptors.encode_to_vec();
    std::fs::write(out.join("catrust_descriptor.bin"), &encoded)?;

    tonic_prost_build::configure()
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .extern_path(".google.protobuf", "::pbjson_types")
        .compile_well_known_types(true)
        .client_mod_attribute("catrust", SERVICES)
        .server_mod_attribute("catrust", SERVICES)
        .compile_fds(descriptors)?;

    // A message of a later version may have more fields. What of it is signed, the signature
    // tells: a form with more has another context.
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .ignore_unknown_fields()
        .build(&[".catrust"])?;
    Ok(())
}
