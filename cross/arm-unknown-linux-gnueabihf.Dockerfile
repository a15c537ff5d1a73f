# ARMv6 boards (Pi 1, Pi Zero), with the board's C library.
# Used by `cross build --target arm-unknown-linux-gnueabihf`. The base is the image that the cross tool itself brings for this
# target, pinned by the tool's own version (0.2.5 was read for this file): Debian's own ARM library
# needs ARMv7, so a compiler and library built for ARMv6 are wanted.
ARG CROSS_BASE_IMAGE
FROM $CROSS_BASE_IMAGE
# As cross/build says it.
ENV CARGO_TARGET_ARM_UNKNOWN_LINUX_GNUEABIHF_RUSTFLAGS="-C force-unwind-tables=no"
