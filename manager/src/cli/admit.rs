//! `quintet cluster init|join|token`: identities, made with files alone.

use super::Error;
use crate::config::is_cluster_name;
use crate::identity;
use crate::print::{complain, say};
use clap::Subcommand;
use quintet_transport::limits::NODE_ID_MAX;
use quintet_transport::{NodeId, PublicKey};
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// Makes the authority of a new cluster: a key that admits nodes. Keep its directory where no node runs.
    Init {
        /// Where to keep it.
        directory: PathBuf,
        /// The cluster's name, as in every node's configuration.
        #[arg(long)]
        name: String,
    },
    /// Admits a node: makes the token for its key.
    Token {
        /// The node's id.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODE_ID_MAX)))]
        node: u16,
        /// What `quintet cluster join` printed on that node.
        #[arg(long, value_name = "quintet-node-1.…")]
        key: String,
        /// Where the authority is.
        #[arg(long, value_name = "DIRECTORY", default_value = ".")]
        authority: PathBuf,
    },
    /// Makes this node's key and prints its public half; with a token, keeps the identity.
    Join {
        /// What `quintet cluster token` printed.
        token: Option<String>,
        /// Where to keep it: `identity.dir` of the configuration, or `identity` in the data directory.
        #[arg(long, value_name = "DIRECTORY", default_value = "identity")]
        dir: PathBuf,
    },
}

pub(super) fn run(command: ClusterCommand) -> Result<(), Error> {
    match command {
        ClusterCommand::Init { directory, name } => init(&directory, &name),
        ClusterCommand::Token { node, key, authority } => token(node, &key, &authority),
        ClusterCommand::Join { token: None, dir } => ask(&dir),
        ClusterCommand::Join { token: Some(token), dir } => {
            let identity = identity::join(&dir, &token).map_err(plain)?;
            let name = identity.cluster().name();
            say!("node {} of cluster {name}: identity in {}", identity.node().0, dir.display());
            say!("its authority (as `quintet cluster init` printed it): {}", identity.cluster());
            Ok(())
        }
    }
}

fn init(directory: &Path, name: &str) -> Result<(), Error> {
    is_cluster_name(name).map_err(|error| Error::new(error.to_string()))?;
    let authority = identity::init(directory, name, random()?).map_err(plain)?;
    say!("the authority of cluster {name} is in {}", directory.display());
    say!("its public half (`quintet cluster join` prints it too): {}", authority.cluster());
    say!("next, on each node: quintet cluster join --dir DATA_DIR/identity");
    Ok(())
}

fn token(node: u16, key: &str, authority: &Path) -> Result<(), Error> {
    let authority = identity::authority(authority).map_err(plain)?;
    let key: PublicKey = key.parse().map_err(|error| {
        Error::new(format!("{error}")).hint("`quintet cluster join` on the node prints it")
    })?;
    say!("{}", identity::token(&authority.cluster(), &authority.certify(NodeId(node), key)));
    Ok(())
}

fn ask(dir: &Path) -> Result<(), Error> {
    let key = identity::node_key(dir, random()?).map_err(plain)?.public();
    say!("{key}");
    complain!("next, at the authority: quintet cluster token --node N --key {key}");
    complain!("then, here: quintet cluster join --dir {} TOKEN", dir.display());
    Ok(())
}

fn random() -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(format!("the kernel gives no entropy: {error}")))?;
    Ok(bytes)
}

fn plain(error: identity::Error) -> Error {
    Error::new(error.to_string())
}
