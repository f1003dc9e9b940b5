//! locule: dispatch, and the one place that prints.

fn main() {
    println!("locule {}", env!("CARGO_PKG_VERSION"));
}
