//! What an executable needs to be a capability provider: the other end of what hosts say to providers
//! (`protocol/providers.md`).
//!
//! A person implements [`Provider`] and hands it to [`run`]; `tests/providers/reverse.rs` is one of thirty lines, `kvredis`
//! a real one. Any host of the 0.6x line starts it. This room knows the protocol and nothing of any contract.
//!
//! It never shows the seeds it is told, never acknowledges a call it did not answer, and never gives up on its lattice:
//! only the host that started it, or a signal, ends it.

mod answer;
mod call;
mod check;
mod input;
mod lattice;
mod links;
mod serve;
#[cfg(test)]
mod tests;

use std::{future::Future, process::ExitCode};

pub use call::{Call, encode};
pub use lattice::Lattice;

use crate::{
    error::{Context, Error, Kind, Result},
    log, task,
    wire::{LinkDefinition, host_data::HostData},
};

/// What makes an executable a provider. All of it may run at once and beside itself; calls of one actor too.
pub trait Provider: Send + Sync + 'static {
    /// Answers a call of a linked actor. Dropped when the caller has stopped waiting.
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>>> + Send;

    /// An actor is linked, with values to serve it by. Failing refuses the link: the reason is logged, its calls are
    /// refused. It should not wait for servers: until it ends, no other link is looked at.
    fn link(&self, _link: &LinkDefinition) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// An actor is no longer linked; `link` is what it was linked by.
    fn unlink(&self, _link: &LinkDefinition) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Whether it can do its work now; if not, why. The answer is cut off after a second and a half.
    fn health(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }

    /// The host ends it. Calls may still be under way and are waited for afterwards.
    fn shutdown(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// The `main` of a provider: reads what the host says on stdin, makes the provider, and serves until it is told to end.
/// `name` is for the log.
pub fn run<P: Provider>(name: &str, make: impl FnOnce(&Lattice) -> Result<P>) -> ExitCode {
    let outcome = input::read(&std::io::stdin()).and_then(|host_data| {
        set_up(name, &host_data);
        let serving = async {
            let lattice = Lattice::open(host_data).await?;
            let provider = make(&lattice)?;
            serve::serve(lattice, provider).await
        };
        task::run(0, serving).context(Kind::Internal, "cannot start the main loop")?
    });
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{name} cannot go on: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    };
    log::settle();
    code
}

fn set_up(name: &str, host_data: &HostData) {
    let level = host_data.log_level.as_deref().and_then(log::Level::parse).unwrap_or(log::Level::Info);
    log::setup(log::Settings { level, structured: host_data.structured_logging });
    log::name(&host_data.provider_key, name);
    // Fails only when one is installed already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The error for an operation a provider does not know, in the words of the SDKs.
fn not_handled(operation: &str) -> Error {
    Error::not_found(format!("method not handled {operation}"))
}
