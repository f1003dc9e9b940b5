//! Names the program's entry point where there is one before the C library's (src/entry.rs).
//!
//! That code may call nothing, not even the standard library's debug checks, so only optimised builds have it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(early_seal)");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let optimised = var("PROFILE") == "release" && var("OPT_LEVEL") == "3";
    if optimised && var("CARGO_CFG_TARGET_ARCH") == "x86_64" && var("CARGO_CFG_TARGET_OS") == "linux" {
        println!("cargo:rustc-cfg=early_seal");
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=locule_entry");
    }
}
