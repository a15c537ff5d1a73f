//! Downloads of a host while somebody waits for them at a terminal.

use std::{convert::Infallible, time::Duration};

use smol::Timer;

use super::progress::Progress;
use crate::artifact::Artifacts;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Tells on a terminal how far the first download of `artifacts` is, for as long as this is polled.
pub async fn watch(artifacts: &Artifacts) -> Infallible {
    let mut shown: Option<(String, Progress)> = None;
    loop {
        Timer::after(INTERVAL).await;
        let Some(transfer) = artifacts.transfers().into_iter().find(|transfer| transfer.total.is_some()) else {
            shown = None;
            continue;
        };
        if shown.as_ref().is_none_or(|(reference, _)| *reference != transfer.reference) {
            let progress = Progress::new(transfer.reference.as_str(), false);
            shown = Some((transfer.reference.clone(), progress));
        }
        if let Some((_, progress)) = &mut shown {
            progress.tell(transfer.received, transfer.total.unwrap_or(transfer.received));
        }
    }
}
