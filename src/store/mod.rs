//! What survives a power cut: host identity, desired state, key-values.
