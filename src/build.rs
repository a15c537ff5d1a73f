//! Link options of the released program, for its size. Tests and development builds are linked as usual.
//!
//! * Relocations are packed (RELR, glibc 2.36 and newer read it): 0.15 MB of 5.
//! * Unwind tables are left out: 0.5 MB of 5. The released program aborts on a panic, so nothing ever unwinds with them;
//!   what is lost is the call stack in a core dump, which a debugger must then guess from the code.
//!
//! Only on x86_64 with glibc, where both were tried with the linker that comes with Rust.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-changed=src/release.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let tried = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu");
    if tried && is("PROFILE", "release") {
        let Ok(root) = env::var("CARGO_MANIFEST_DIR") else { return };
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/src/release.ld");
    }
}
