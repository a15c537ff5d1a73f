//! The process among others: signals that end it, its memory, and the board's clock.

pub mod clock;
pub mod heap;
pub mod signals;
