//! Makes the shipped program small: without the tables for unwinding, as it ends where it panics, and with its
//! relocations packed (glibc 2.36, binutils 2.38). Together they are a tenth of it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=no-unwinding.ld");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let optimised = var("PROFILE") == "release" && var("OPT_LEVEL") != "3";
    if optimised && var("CARGO_CFG_TARGET_ENV") == "gnu" && var("CARGO_CFG_TARGET_OS") == "linux" {
        let script = std::path::Path::new(&var("CARGO_MANIFEST_DIR")).join("no-unwinding.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}
