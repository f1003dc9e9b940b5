//! Compiles the `linux.seccomp` object of a JSON file: prints sizes and times, writes the raw program if asked.
//!
//! `cargo run --release -p locule-runtime --example seccomp_compile -- PROFILE [PROGRAM]`

use std::io::Write;
use std::time::Instant;

use locule_runtime::{seccomp, spec};

type Failure = Box<dyn std::error::Error>;

const ROUNDS: usize = 2000;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: seccomp_compile PROFILE [PROGRAM]")?;
    let text = std::fs::read(&path)?;
    let profile: spec::Seccomp = serde_json::from_slice(&text)?;

    let cold = Instant::now();
    let compiled = seccomp::compile(&profile)?;
    let cold = cold.elapsed();
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        std::hint::black_box(seccomp::compile(std::hint::black_box(&profile))?);
        times.push(start.elapsed());
    }
    times.sort();
    let names: usize = profile.syscalls.iter().map(|rule| rule.names.len()).sum();
    println!("{names} names, {} instructions, flags {:#x}", compiled.program.len(), compiled.flags);
    println!("first {cold:?}, best {:?}, median {:?}", times[0], times[ROUNDS / 2]);
    for warning in &compiled.warnings {
        println!("warning: {warning}");
    }
    if let Some(path) = args.next() {
        let mut file = std::fs::File::create(path)?;
        for one in &compiled.program {
            file.write_all(&one.code.to_ne_bytes())?;
            file.write_all(&[one.jt, one.jf])?;
            file.write_all(&one.k.to_ne_bytes())?;
        }
    }
    Ok(())
}
