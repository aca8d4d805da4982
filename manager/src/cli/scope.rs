//! The options that say which cluster a command means.

use clap::Args;
use std::path::PathBuf;

/// Which cluster a command means.
#[derive(Args, Clone, Debug)]
pub(crate) struct Scope {
    /// Directory of a development cluster (where `quintet dev --dir` put it).
    #[arg(long, global = true, env = "QUINTET_CLUSTER_DIR", value_name = "DIR")]
    pub(crate) cluster_dir: Option<PathBuf>,
    /// A daemon's admin socket, or http://127.0.0.1:PORT; may be given several times. Wins over --cluster-dir.
    #[arg(
        long,
        global = true,
        env = "QUINTET_ADMIN",
        value_delimiter = ',',
        value_name = "SOCKET|URL"
    )]
    pub(crate) admin: Vec<String>,
    /// File with the token for changes over http:// (admin.token in the daemon's data directory); one for all
    /// addresses, or one for each.
    #[arg(
        long,
        global = true,
        env = "QUINTET_TOKEN_FILE",
        value_delimiter = ',',
        value_name = "FILE"
    )]
    pub(crate) token_file: Vec<PathBuf>,
}
