//! Where the artifacts of this board are reached: in the host that runs, else in its store.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::Digest as _;

use crate::{
    artifact::{
        Artifacts, Download, Images, Mirrors, Remote,
        inventory::{Offered, Stocked},
        maintenance::{Done, Maintenance},
    },
    cli::{admin::HostArgs, logins},
    config::Config,
    error::{Context, Error, Kind, Result},
    host,
    store::{BlobReader, Digest, MAX_BLOB_BYTES, RealDisk, Store},
    task, users,
    web::Client,
};

/// Read at once, bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Which board.
#[derive(Debug, clap::Args)]
pub struct PlaceArgs {
    #[command(flatten)]
    host: HostArgs,

    /// Read settings from this file instead of ./host_config.json; they say where the store of a host is that does not run.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,

    /// Read settings from this file of NAME=value lines, too, as `latticed run` does: /etc/latticed/latticed.env for the
    /// service.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// The way to a board's artifacts.
pub enum Place {
    /// Its host runs, and has the store.
    Host(Client),
    /// It does not, and the store is ours meanwhile.
    Store(Box<Artifacts>),
}

impl PlaceArgs {
    /// Where settings are to be read from.
    pub fn host_config(&self) -> Option<&Path> {
        self.host_config.as_deref()
    }

    /// The place that is meant. Without a host the store is opened; it is made only where `make` says so.
    ///
    /// # Errors
    /// `NotFound` without a host and a store; those of both.
    pub fn find(self, make: bool) -> Result<Place> {
        if let Some(client) = self.host.live_client()? {
            return Ok(Place::Host(client));
        }
        let config = Config::load_with(self.host_config.as_deref(), self.env_file.as_deref())?;
        let folder = &config.state_directory;
        check_owner(folder)?;
        if !make && !folder.exists() {
            return Err(Error::not_found(format!(
                "no host runs here, and there is no store in {}: WASMCLOUD_STATE_DIR says where it is",
                folder.display()
            )));
        }
        let (store, _) = Store::open(config.store.clone(), Arc::new(RealDisk::new(folder.clone())))?;
        let artifacts = Artifacts::new(store, config.artifacts.clone());
        let download = Arc::new(Download::new(artifacts.settings().clone()));
        artifacts.register(Remote::Https, download.clone());
        artifacts.register(Remote::Http, download);
        let token = config.mirror.token.as_ref().map(|token| token.expose());
        artifacts.register(
            Remote::Mirror,
            Arc::new(Mirrors::new(artifacts.settings().clone(), &config.mirror.sources, token)?),
        );
        let credentials = artifacts.credentials();
        credentials.configure(logins::read(&config)?);
        let images = Images::new(artifacts.settings().clone(), credentials.clone());
        artifacts.register(Remote::Image, Arc::new(images));
        let needs = host::retained::of_stopped(&artifacts)?;
        artifacts.needed_by(move || Some(needs.clone()));
        Ok(Place::Store(Box::new(artifacts)))
    }
}

/// Refuses a store of somebody else, also to root: what root writes there its host could not read.
fn check_owner(folder: &Path) -> Result<()> {
    // One that is not there is made, or found missing, next.
    let Ok(metadata) = fs::metadata(folder) else { return Ok(()) };
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == own {
        return Ok(());
    }
    let name = users::with_id(owner).map_or_else(|| format!("#{owner}"), |user| user.name);
    Err(Error::denied(format!(
        "no host runs here, and its store in {} belongs to the user {name}: what another user writes there its host cannot \
         read; start the host, or use `runuser -u {name} -- latticed artifact …`",
        folder.display()
    )))
}

impl Place {
    /// Everything there.
    pub fn inventory(&self) -> Result<Vec<Stocked>> {
        match self {
            Place::Host(client) => task::block_on(client.inventory()),
            Place::Store(artifacts) => artifacts.inventory(),
        }
    }

    /// The content `digest`, piece by piece.
    pub fn content(&self, digest: Digest) -> Result<Box<dyn Read>> {
        match self {
            Place::Host(client) => Ok(Box::new(io::Cursor::new(task::block_on(client.content(digest))?))),
            Place::Store(artifacts) => {
                let blobs = artifacts.store().blobs();
                blobs.verify_blocking(digest)?;
                Ok(Box::new(Pieces { blob: blobs.reader(digest)?, at: 0 }))
            }
        }
    }

    /// Takes in `bytes` of `content`, whose digest must be `digest`. What is there already is not written again.
    pub fn take_in(&self, digest: Digest, bytes: u64, content: &mut dyn Read) -> Result<()> {
        let broken = |cause: io::Error| Error::invalid(format!("the content sha256:{digest} breaks off: {cause}"));
        match self {
            Place::Host(client) => {
                let room = usize::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_BLOB_BYTES);
                let room = room.ok_or_else(|| {
                    Error::limit(format!("it has {bytes} bytes, more than the {MAX_BLOB_BYTES} an artifact may have"))
                })?;
                let mut whole = Vec::with_capacity(room);
                content.take(bytes).read_to_end(&mut whole).map_err(broken)?;
                task::block_on(client.take_in(digest, whole))
            }
            Place::Store(artifacts) => {
                if artifacts.store().blobs().verify_blocking(digest).is_ok() {
                    return Ok(());
                }
                let mut into = task::block_on(artifacts.take_in(digest, bytes))?;
                let mut piece = vec![0; PIECE_BYTES];
                loop {
                    let count = content.read(&mut piece).map_err(broken)?;
                    if count == 0 {
                        break;
                    }
                    into.write(&piece[..count])?;
                }
                into.finish(Some(digest)).map(drop)
            }
        }
    }

    /// Remembers that `reference` stands for `digest`.
    pub fn refer(&self, reference: &str, digest: Digest, manifest: Option<Digest>) -> Result<()> {
        match self {
            Place::Host(client) => task::block_on(client.refer(reference, digest, manifest)),
            Place::Store(artifacts) => task::block_on(artifacts.refer(reference, digest, manifest)),
        }
    }

    /// Looks after it.
    pub fn maintain(&self, asked: Maintenance) -> Result<Done> {
        match self {
            Place::Host(client) => task::block_on(client.maintain(&asked)),
            Place::Store(artifacts) => task::block_on(artifacts.maintain(asked)),
        }
    }

    /// Offers `what` to other boards as `name`.
    pub fn publish(&self, name: &str, what: &Offered) -> Result<Digest> {
        match self {
            Place::Host(client) => task::block_on(client.publish(name, what)),
            Place::Store(artifacts) => task::block_on(artifacts.publish(name, what)),
        }
    }

    /// Takes `name` back.
    pub fn withdraw(&self, name: &str) -> Result<()> {
        match self {
            Place::Host(client) => task::block_on(client.withdraw(name)),
            Place::Store(artifacts) => match task::block_on(artifacts.names().withdraw(name))? {
                true => Ok(()),
                false => Err(Error::not_found(format!("this board publishes nothing as {name}"))),
            },
        }
    }
}

/// A blob as a stream.
struct Pieces {
    blob: BlobReader,
    at: u64,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read_at(self.at, buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Opens the regular file at `path`, and says how long it is.
pub fn open_file(path: &Path) -> Result<(File, u64)> {
    let shown = path.display();
    let file = File::open(path).map_err(|cause| {
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => Kind::NotFound,
            io::ErrorKind::PermissionDenied => Kind::Denied,
            _ => Kind::Storage,
        };
        Error::new(kind, format!("cannot read {shown}: {cause}"))
    })?;
    let metadata = file.metadata().context(Kind::Storage, format_args!("cannot look at {shown}"))?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{shown} is no regular file")));
    }
    Ok((file, metadata.len()))
}

/// Opens a file that is to become an artifact: its digest, its length, and itself at its beginning.
pub fn open(path: &Path) -> Result<(Digest, u64, File)> {
    let shown = path.display();
    let (mut file, _) = open_file(path)?;
    let failed = |cause: io::Error| Error::storage(format!("cannot read {shown}: {cause}"));
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut piece).map_err(failed)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        bytes += count as u64;
    }
    file.rewind().context(Kind::Storage, format_args!("cannot read {shown}"))?;
    Ok((Digest(hash.finalize().into()), bytes, file))
}
