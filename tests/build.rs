//! Compiles a C object whose constructor the linker puts behind all of Rust's.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=c/late.c");
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rustc-check-cfg=cfg(late_c)");
    let object = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("late.o");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler).args(["-c", "-O1", "-fPIC", "c/late.c", "-o"]).arg(&object).status();
    if !compiled.is_ok_and(|status| status.success()) {
        println!("cargo:warning=no C compiler: the test of later constructors is skipped");
        return;
    }
    // As an argument, not as a library: these come last, behind the library that holds multiproc's own entry.
    println!("cargo:rustc-link-arg-bin=late_constructor={}", object.display());
    println!("cargo:rustc-cfg=late_c");
}
