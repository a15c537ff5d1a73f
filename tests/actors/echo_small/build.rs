//! Keeps the guest within one page of memory: its stack and its two buffers share 64 KiB.

fn main() {
    println!("cargo:rustc-link-arg-cdylib=-zstack-size=8192");
}
