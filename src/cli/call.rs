//! `latticed call`: one invocation of an actor on the running host, from the command line.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Output,
    admin::{HostArgs, seconds},
    joining, payload,
};
use crate::{
    claims::{PublicKey, Role},
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::ask,
    task,
};

/// Most bytes read as a payload. Far above what a host takes; it keeps a mistaken `--body /dev/zero` from filling the
/// memory of the board.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  latticed call echo Echo.Say '{\"n\":1}'
  latticed call counter HttpServer.HandleRequest \\
    '{\"method\":\"GET\",\"path\":\"/\",\"queryString\":\"\",\"header\":{},\"body\":{\"$bin\":\"\"}}'
  latticed call resize Images.Resize --body photo.jpg --raw --timeout 30 > small.jpg
  latticed call --lattice demo/echo Echo.Say '{\"n\":1}'

By default the host on this machine is asked through its socket. With --lattice the call goes over NATS to whichever host
runs the actor, signed with the cluster seed of the settings; its name is looked up in the claims of the lattice.

The JSON is sent as MessagePack. Bytes, which JSON lacks, are written {\"$bin\":\"BASE64\"}. In the answer bytes show as
text where they are UTF-8, else in the same form. Without JSON the payload is empty; an empty answer shows as null.";

/// Call an actor on the running host, or anywhere in the lattice, and print its answer.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The actor: its name, call alias, public key (M…) or the beginning of that key.
    actor: String,

    /// Operation, as the contract names it: `HttpServer.HandleRequest`.
    operation: String,

    /// Payload as JSON, `-` to read it from standard input.
    #[arg(conflicts_with = "body", allow_hyphen_values = true)]
    json_payload: Option<String>,

    /// Send the bytes of this file as they are instead of JSON, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,

    /// Print the bytes of the answer as they are.
    #[arg(long)]
    raw: bool,

    /// Longest time the call may take.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    timeout: Duration,

    /// Call over NATS, wherever in the lattice the actor runs.
    #[arg(long, conflicts_with = "socket")]
    lattice: bool,

    /// With --lattice: read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE", requires = "lattice")]
    host_config: Option<PathBuf>,

    #[command(flatten)]
    host: HostArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let payload = match (args.body, args.json_payload) {
        (Some(file), _) => read(&file)?,
        (None, Some(json)) if json == "-" => {
            let text = String::from_utf8(read(Path::new("-"))?)
                .map_err(|_| Error::usage("the payload on standard input is no UTF-8, so it is no JSON"))?;
            payload::encode(&text)?
        }
        (None, Some(json)) => payload::encode(&json)?,
        (None, None) => Vec::new(),
    };
    let answer = if args.lattice {
        let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
        let (settings, signer) = (joining::endpoints(&config)?, joining::signer(&config)?);
        let key = PublicKey::parse_lenient(&args.actor).ok().filter(|key| key.role() == Role::Module);
        let call = async {
            let actor = match key {
                Some(key) => key.to_string(),
                None => ask::resolve(&settings, &args.actor, args.timeout).await?,
            };
            ask::call(&settings, &signer, &actor, &args.operation, payload, args.timeout).await
        };
        task::run(0, call).context(Kind::Internal, "cannot start the main loop")??
    } else {
        let client = args.host.client()?;
        task::block_on(client.call(&args.actor, &args.operation, payload, args.timeout))?
    };
    match args.raw {
        true => output.bytes(&answer),
        false => output.document(&payload::decode(&answer)?),
    }
}

/// Reads a whole file or standard input, within [`MAX_PAYLOAD_BYTES`].
fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (name, result) = if file == Path::new("-") {
        ("standard input".to_owned(), io::stdin().lock().take(MAX_PAYLOAD_BYTES + 1).read_to_end(&mut bytes))
    } else {
        let name = file.display().to_string();
        (name, File::open(file).and_then(|file| file.take(MAX_PAYLOAD_BYTES + 1).read_to_end(&mut bytes)))
    };
    result.context(Kind::Usage, format!("cannot read the payload from {name}"))?;
    if bytes.len() as u64 > MAX_PAYLOAD_BYTES {
        return Err(Error::limit(format!("the payload from {name} is larger than {MAX_PAYLOAD_BYTES} bytes")));
    }
    Ok(bytes)
}
