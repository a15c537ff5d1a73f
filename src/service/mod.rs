//! The process among others: signals that end it, and the board's clock.

pub mod clock;
pub mod signals;
