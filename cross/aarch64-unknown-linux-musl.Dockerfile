# 64-bit boards, one static file.
# Used by `cross build --target aarch64-unknown-linux-musl`. The base is the image that the cross tool itself brings for this
# target, pinned by the tool's own version (0.2.5 was read for this file): Debian packages no
# musl compiler for other processors.
ARG CROSS_BASE_IMAGE
FROM $CROSS_BASE_IMAGE
# As cross/build says it.
ENV CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="-C force-unwind-tables=no"
