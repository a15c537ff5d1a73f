//! Where bytes come from: references, and the sources behind them.
