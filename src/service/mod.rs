//! The process among others: its main thread, signals, memory.
