//! Link options of the released program, for its size. Tests and development builds are linked as usual.
//!
//! * Unwind tables are left out: 0.5 MB of 5 on x86_64, 0.8 on arm64. The released program aborts on a panic, so nothing ever
//!   unwinds with them; what is lost is the call stack in a core dump, which a debugger must then guess from the code.
//! * Relocations are packed (RELR, read by glibc 2.36 and newer): 0.15 MB on x86_64, 0.4 on arm64. GNU ld of Debian 12 does
//!   so for x86_64 alone and ignores the wish elsewhere; `cross/build` links with lld.
//! * Functions of the same code are one function, where lld links (`cross/build`). Nothing here compares the addresses
//!   of functions.
//! * A build id names the file with the debugging information that was split off.
//!
//! Only with glibc, where GNU ld and lld were tried; zig's linker knows none of it.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/build.rs");
    println!("cargo:rerun-if-changed=src/release.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let tried = ["x86_64", "aarch64", "arm"].iter().any(|arch| is("CARGO_CFG_TARGET_ARCH", arch))
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && !env::var("RUSTC_LINKER").is_ok_and(|linker| linker.contains("zig"));
    if tried && is("PROFILE", "release") {
        let Ok(root) = env::var("CARGO_MANIFEST_DIR") else { return };
        if env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("-fuse-ld=lld")) {
            println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        }
        println!("cargo:rustc-link-arg-bins=-Wl,--build-id");
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{root}/src/release.ld");
    }
}
