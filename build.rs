//! Names the program's entry point where there is one before the C library's (src/entry.rs).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("ARCH") == "x86_64" && target("OS") == "linux" {
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=locule_entry");
    }
}
