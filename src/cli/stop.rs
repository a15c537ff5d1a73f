//! `latticed stop`: ask the running host to drain and end, and see that it does.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use serde_json::json;
use smol::{Timer, future};

use super::{
    Output,
    admin::{HostArgs, seconds},
};
use crate::{error::Result, task, web::client::Stopping};

/// How often the progress line on a terminal changes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  latticed stop                 wait until the host is gone
  latticed stop --no-wait       ask and return
  latticed stop --timeout 120   for a host with long calls to finish";

/// Drain and stop the running host.
///
/// Calls that run may finish, within the time the host is set to allow; new ones are refused. The command returns
/// when the host's process has ended.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Do not wait until the host is gone.
    #[arg(long)]
    no_wait: bool,

    /// How long to wait; the host goes on stopping after that.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds, conflicts_with = "no_wait")]
    timeout: Duration,

    #[command(flatten)]
    host: HostArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let client = args.host.client()?;
    let stopped = task::block_on(async {
        let stopping = client.stop().await?;
        if args.no_wait {
            return Ok(false);
        }
        wait(stopping, args.timeout).await.map(|()| true)
    })?;
    if output.json() {
        return output.document(&json!({ "socket": client.path(), "stopped": stopped }));
    }
    let what = if stopped { "has stopped" } else { "is stopping" };
    output.line(format_args!("the host at {} {what}", client.path().display()))
}

/// Waits, and tells a person at a terminal that it does.
async fn wait(stopping: Stopping, timeout: Duration) -> Result<()> {
    if !io::stderr().is_terminal() {
        return stopping.wait(timeout).await;
    }
    let start = Instant::now();
    let progress = async {
        loop {
            Timer::after(PROGRESS_INTERVAL).await;
            // A progress line that cannot be shown is not worth ending for.
            let _ = write!(io::stderr(), "\rwaiting for the host to finish its calls: {} s", start.elapsed().as_secs());
        }
    };
    let result = future::or(stopping.wait(timeout), progress).await;
    // Back to the start and clear the line: what follows is the result.
    let _ = write!(io::stderr(), "\r\x1b[K");
    result
}
