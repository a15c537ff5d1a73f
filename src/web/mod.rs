//! The local admin API.
