# 64-bit boards (Pi 3 and newer), with the board's C library (glibc 2.36 or newer).
# Used by `cross build --target aarch64-unknown-linux-gnu`; cross mounts the toolchain and the sources, so no Rust is here.
# Pinned to a dated image; the compiler is the one of that Debian release.
# Linked with lld, as in cross/build: that release's GNU ld does not pack relocations for ARM, and the program outgrows 5 MiB.
FROM debian:bookworm-20240211-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross lld-19 qemu-user-static \
 && rm -rf /var/lib/apt/lists/*
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu" \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=-B/usr/lib/llvm-19/bin -C link-arg=-fuse-ld=lld" \
    CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
