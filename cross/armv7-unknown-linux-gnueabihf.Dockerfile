# 32-bit boards (Pi 2 and newer), with the board's C library (glibc 2.36 or newer).
# Used by `cross build --target armv7-unknown-linux-gnueabihf`; cross mounts the toolchain and the sources, so no Rust is here.
# Pinned to a dated image; the compiler is the one of that Debian release.
# Linked with lld, as in cross/build: that release's GNU ld does not pack relocations for ARM.
FROM debian:bookworm-20240211-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev gcc-arm-linux-gnueabihf libc6-dev-armhf-cross lld-19 qemu-user-static \
 && rm -rf /var/lib/apt/lists/*
ENV CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc \
    CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER="qemu-arm-static -L /usr/arm-linux-gnueabihf" \
    CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUSTFLAGS="-C target-feature=+thumb-mode -C force-unwind-tables=no -C link-arg=-B/usr/lib/llvm-19/bin -C link-arg=-fuse-ld=lld" \
    CC_armv7_unknown_linux_gnueabihf=arm-linux-gnueabihf-gcc
