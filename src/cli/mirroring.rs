//! How `latticed run` takes part in the mirroring of its site: serves a mirror, asks mirrors, follows names.

use std::sync::Arc;

use smol::Task;

use crate::{
    artifact::{Mirrors, Remote},
    config::Config,
    error::Result,
    host::Host,
    task,
    web::mirror::{self, Mirror},
};

/// A host's part in the mirroring of its site, for as long as this lives.
pub struct Mirroring {
    mirror: Option<Mirror>,
    mirrors: Option<Arc<Mirrors>>,
    following: Option<Task<()>>,
}

impl Mirroring {
    /// Opens the mirror's socket and names the mirrors to `host`, as far as the settings want it.
    ///
    /// # Errors
    /// A setting cannot be used, or the socket cannot be had.
    pub async fn start(config: &Config, host: &Arc<Host>) -> Result<Self> {
        let token = config.mirror.token.as_ref().map(|token| token.expose());
        let mirror = match config.mirror.listen {
            Some(listen) => {
                let settings =
                    mirror::Settings { listen, tls: config.mirror.tls.clone(), token: token.map(mirror::Token::new) };
                Some(Mirror::start(settings, host.artifacts().clone()).await?)
            }
            None => None,
        };
        if config.mirror.sources.is_empty() {
            return Ok(Self { mirror, mirrors: None, following: None });
        }
        let mirrors = Arc::new(Mirrors::new(host.artifacts().settings().clone(), &config.mirror.sources, token)?);
        host.artifacts().register(Remote::Mirror, mirrors.clone());
        host.artifacts().set_front(mirrors.clone());
        let interval = config.mirror.poll;
        let following = (!interval.is_zero()).then(|| task::spawn(host.clone().follow_names(interval)));
        Ok(Self { mirror, mirrors: Some(mirrors), following })
    }

    /// Reads what of `config` can follow without a new start, the certificate above all; changes nothing yet.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub async fn read_again(&self, config: &Config) -> Result<Option<mirror::Renewal>> {
        if self.mirror.is_none() {
            return Ok(None);
        }
        let token = config.mirror.token.as_ref().map(|token| mirror::Token::new(token.expose()));
        mirror::Renewal::read(config.mirror.tls.clone(), token).await.map(Some)
    }

    /// Puts in force what was read again: the token on both sides, and the certificate.
    pub fn renew(&self, config: &Config, renewal: Option<mirror::Renewal>) {
        if let (Some(mirror), Some(renewal)) = (&self.mirror, renewal) {
            mirror.renew(renewal);
        }
        if let Some(mirrors) = &self.mirrors {
            mirrors.show(config.mirror.token.as_ref().map(|token| token.expose()));
        }
    }

    /// Ends it.
    pub async fn stop(self) {
        if let Some(following) = self.following {
            following.cancel().await;
        }
        if let Some(mirror) = self.mirror {
            mirror.stop().await;
        }
    }
}
