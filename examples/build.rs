//! Compiles the C of `fragile_parser`.

fn main() {
    println!("cargo::rerun-if-changed=src/fragile.c");
    // As it is written: a compiler may take what is undefined for what cannot happen.
    cc::Build::new().file("src/fragile.c").opt_level(0).compile("fragile");
}
