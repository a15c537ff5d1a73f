//! Where a setting can come from and in which order it wins; application manifests.
