# 32-bit boards (Pi 2 and newer), one static file.
# Used by `cross build --target armv7-unknown-linux-musleabihf`. The base is the image that the cross tool itself brings for this
# target, pinned by the tool's own version (0.2.5 was read for this file): Debian packages no
# musl compiler for other processors.
ARG CROSS_BASE_IMAGE
FROM $CROSS_BASE_IMAGE
# As cross/build says it.
ENV CARGO_TARGET_ARMV7_UNKNOWN_LINUX_MUSLEABIHF_RUSTFLAGS="-C target-feature=+thumb-mode -C force-unwind-tables=no"
