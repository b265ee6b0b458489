//! Build script that generates messages and stubs from the .proto files of the repository.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "latentserve/v1/generative_service.proto",
        "latentserve/v1/model_service.proto",
    ];
    tonic_prost_build::configure()
        .build_server(std::env::var_os("CARGO_FEATURE_SERVER").is_some())
        // `Bytes` is reference-counted, so retries do not copy the data.
        .bytes(".")
        .compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
