//! The files of a node's identity, and those of a cluster's authority.
//!
//! ```text
//! authority.key   0600   signs for the cluster; in one place, and never on a node's disk unless that is the place
//! cluster.pub            the cluster: name and public key of its authority
//! node.key        0600   this node's secret; made on the node, never leaves it
//! node.cert              the authority's word that the key is this node's
//! ```
//!
//! A node is admitted without a network and without a secret on the way: it shows its public key (`quintet cluster
//! join`), the authority answers with a token (`quintet cluster token`), and the node keeps what is in it. A token holds
//! nothing that is secret: it is of use only to who has the node's key.

use quintet_transport::{
    Authority, Certificate, Cluster, Identity, IdentityError, NodeId, NodeKey,
};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const AUTHORITY: &str = "authority.key";
const CLUSTER: &str = "cluster.pub";
const NODE_KEY: &str = "node.key";
const CERTIFICATE: &str = "node.cert";
/// Bytes of a file that are read: more than any has.
const FILE_MAX: u64 = 4096;

/// Why there is no identity. Its `Display` says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("{} does not exist: {remedy}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}; it must belong to the user that runs this", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read a secret.
    #[error("{path} may be read by others (mode {mode:04o}): `chmod 600 {path}`, and make it anew if somebody has", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file that would be overwritten.
    #[error("{} is there already: it would be lost, and with it the cluster; choose another directory", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The node is of a cluster already.
    #[error("{} says that this node is of another cluster, or of another authority of cluster {name:?}: remove that file first if it shall change", path.display())]
    Member {
        /// The file.
        path: PathBuf,
        /// The cluster it is of.
        name: String,
    },
    /// The content is wrong.
    #[error("{}: {source}{remedy}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
        /// What to do.
        remedy: &'static str,
    },
    /// The token is wrong.
    #[error("this token is of no use: {0}")]
    Token(IdentityError),
}

/// Reads a node's identity, and checks that it is that of `node` in the cluster of that name.
pub fn load(dir: &Path, cluster: &str, node: u16) -> Result<Identity, Error> {
    let join = "make this node's key with `quintet cluster join`, and have it admitted with `quintet cluster token`";
    let key: NodeKey = read(dir, NODE_KEY, true, join)?;
    let known: Cluster = read(dir, CLUSTER, false, join)?;
    let certificate: Certificate = read(dir, CERTIFICATE, false, join)?;
    let again = "; `quintet cluster token` of the right authority, for the right node, makes a token that fits";
    let wrong = |source| Error::Content { path: dir.join(CERTIFICATE), source, remedy: again };
    let identity = Identity::new(known, key, certificate).map_err(wrong)?;
    identity.check(cluster, NodeId(node)).map_err(wrong)?;
    Ok(identity)
}

/// Makes the authority of a new cluster.
pub fn init(dir: &Path, name: &str, seed: [u8; 32]) -> Result<Authority, Error> {
    let path = dir.join(AUTHORITY);
    let authority = Authority::new(name, seed).map_err(|source| Error::Content {
        path: path.clone(),
        source,
        remedy: "",
    })?;
    // The directory of a node is none for an authority: its `cluster.pub` would be lost.
    for path in [path, dir.join(CLUSTER)] {
        if path.exists() {
            return Err(Error::Exists { path });
        }
    }
    write_once(dir, AUTHORITY, &authority.to_text())?;
    write(dir, CLUSTER, &authority.cluster().to_string(), 0o644)?;
    Ok(authority)
}

/// The authority that `dir` holds.
pub fn authority(dir: &Path) -> Result<Authority, Error> {
    read(
        dir,
        AUTHORITY,
        true,
        "make an authority with `quintet cluster init`, or name its directory",
    )
}

/// This node's key; made from `secret` if there is none.
pub fn node_key(dir: &Path, secret: [u8; 32]) -> Result<NodeKey, Error> {
    match write_once(dir, NODE_KEY, &NodeKey::new(secret).to_text()) {
        Ok(()) | Err(Error::Exists { .. }) => read(dir, NODE_KEY, true, ""),
        Err(error) => Err(error),
    }
}

/// What the authority answers to a node's public key. Not secret.
pub fn token(cluster: &Cluster, certificate: &Certificate) -> String {
    format!("{certificate}/{cluster}")
}

/// Keeps what is in a token, if it is for this node's key.
pub fn join(dir: &Path, token: &str) -> Result<Identity, Error> {
    let not_one = || Error::Token(IdentityError::Format("token"));
    let (certificate, cluster) = token.trim().split_once('/').ok_or_else(not_one)?;
    let first = "a token is made for a key: run `quintet cluster join` without a token first";
    let key: NodeKey = read(dir, NODE_KEY, true, first)?;
    let certificate: Certificate = certificate.parse().map_err(Error::Token)?;
    let cluster: Cluster = cluster.parse().map_err(Error::Token)?;
    let identity = Identity::new(cluster, key, certificate).map_err(Error::Token)?;
    match read::<Cluster>(dir, CLUSTER, false, "") {
        Ok(known) if known == *identity.cluster() => {}
        Err(Error::Missing { .. }) => {}
        Ok(known) => {
            let name = known.name().to_owned();
            return Err(Error::Member { path: dir.join(CLUSTER), name });
        }
        Err(error) => return Err(error),
    }
    write_public(dir, &identity)?;
    Ok(identity)
}

/// Writes a whole identity: for clusters whose authority is in the same place, and only for a moment.
pub fn store(dir: &Path, identity: &Identity) -> Result<(), Error> {
    write(dir, NODE_KEY, &identity.key().to_text(), 0o600)?;
    write_public(dir, identity)
}

fn write_public(dir: &Path, identity: &Identity) -> Result<(), Error> {
    write(dir, CLUSTER, &identity.cluster().to_string(), 0o644)?;
    write(dir, CERTIFICATE, &identity.certificate().to_string(), 0o644)
}

fn read<T>(dir: &Path, name: &str, secret: bool, remedy: &'static str) -> Result<T, Error>
where
    T: std::str::FromStr<Err = IdentityError>,
{
    let path = dir.join(name);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.clone(), remedy },
        _ => Error::File { what: "read", path: path.clone(), source },
    };
    let file = File::open(&path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if secret && mode & 0o077 != 0 {
        return Err(Error::Open { path, mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(FILE_MAX as usize));
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    text.parse().map_err(|source| Error::Content { path, source, remedy: "" })
}

/// Whole or not at all, and on the disk; takes the place of what is there.
fn write(dir: &Path, name: &str, text: &str, mode: u32) -> Result<(), Error> {
    put(dir, name, text, mode, |new, path| fs::rename(new, path))
}

/// A secret that is made once: never takes the place of another, not even of one that is made at the same moment.
fn write_once(dir: &Path, name: &str, text: &str) -> Result<(), Error> {
    let link = |new: &Path, path: &Path| {
        let linked = fs::hard_link(new, path);
        fs::remove_file(new)?;
        linked
    };
    match put(dir, name, text, 0o600, link) {
        Err(Error::File { path, source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists { path })
        }
        other => other,
    }
}

fn put(
    dir: &Path,
    name: &str,
    text: &str,
    mode: u32,
    publish: impl Fn(&Path, &Path) -> io::Result<()>,
) -> Result<(), Error> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.{}.new", std::process::id())));
    let done = || {
        fs::create_dir_all(dir)?;
        if new.exists() {
            fs::remove_file(&new)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        publish(&new, &path)?;
        File::open(dir)?.sync_all()
    };
    done().map_err(|source| Error::File { what: "write", path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that was admitted, step by step; its directory and that of the authority.
    fn admitted(dir: &Path) -> (PathBuf, PathBuf) {
        let (one, two) = (dir.join("authority"), dir.join("node"));
        init(&one, "demo", [1; 32]).unwrap();
        let key = node_key(&two, [2; 32]).unwrap().public();
        assert_eq!(node_key(&two, [3; 32]).unwrap().public(), key, "made once");
        let authority = authority(&one).unwrap();
        let token = token(&authority.cluster(), &authority.certify(NodeId(4), key));
        assert_eq!(join(&two, &token).unwrap().node(), NodeId(4));
        (one, two)
    }

    #[test]
    fn a_node_is_admitted_and_secrets_are_for_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = admitted(dir.path());
        assert_eq!(load(&two, "demo", 4).unwrap().node(), NodeId(4));
        for (dir, name) in [(&one, AUTHORITY), (&two, NODE_KEY)] {
            let path = dir.join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let error = load(&two, "demo", 4).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
        assert!(matches!(authority(&one), Err(Error::Open { .. })));
    }

    #[test]
    fn each_thing_that_does_not_fit_is_named_with_its_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = admitted(dir.path());
        let message = |cluster, node| load(&two, cluster, node).unwrap_err().to_string();
        assert!(message("other", 4).contains("another cluster than \"other\""));
        let wrong_node = message("demo", 5);
        assert!(wrong_node.contains("for node n4, and this is node n5"), "{wrong_node}");
        assert!(wrong_node.contains("quintet cluster token"), "{wrong_node}");
        // A token for another node's key, a cut one, and one before there is a key.
        let authority = authority(&one).unwrap();
        let stranger = NodeKey::new([9; 32]).public();
        let stolen = token(&authority.cluster(), &authority.certify(NodeId(4), stranger));
        let error = join(&two, &stolen).unwrap_err().to_string();
        assert!(error.contains("another key"), "{error}");
        assert!(join(&two, &stolen[..30]).unwrap_err().to_string().contains("no token"));
        let early = join(&dir.path().join("new"), &stolen).unwrap_err().to_string();
        assert!(
            early.contains("node.key does not exist") && early.contains("cluster join"),
            "{early}"
        );
        assert_eq!(load(&two, "demo", 4).unwrap().node(), NodeId(4), "nothing was changed");
        // An authority is never overwritten, nor a node's directory taken for one.
        for dir in [&one, &two] {
            assert!(matches!(init(dir, "demo", [5; 32]), Err(Error::Exists { .. })));
        }
        assert_eq!(load(&two, "demo", 4).unwrap().node(), NodeId(4), "nothing was changed");
        fs::write(two.join(NODE_KEY), "rubbish").unwrap();
        assert!(message("demo", 4).contains("no node's key"));
        fs::remove_file(two.join(NODE_KEY)).unwrap();
        assert!(message("demo", 4).contains("quintet cluster join"));
    }
    #[test]
    fn a_node_does_not_change_its_cluster_by_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = admitted(dir.path());
        let key = node_key(&two, [3; 32]).unwrap().public();
        let other = init(&dir.path().join("other"), "demo", [7; 32]).unwrap();
        let foreign = token(&other.cluster(), &other.certify(NodeId(4), key));
        let error = join(&two, &foreign).unwrap_err().to_string();
        assert!(error.contains("cluster.pub") && error.contains("remove that file"), "{error}");
        let kept = load(&two, "demo", 4).unwrap();
        assert_eq!(kept.cluster(), &authority(&one).unwrap().cluster());
        // The same authority may say it again; another one when it is meant.
        let again = token(kept.cluster(), kept.certificate());
        join(&two, &again).unwrap();
        fs::remove_file(two.join(CLUSTER)).unwrap();
        assert_eq!(join(&two, &foreign).unwrap().cluster(), &other.cluster());
    }

    #[test]
    fn of_secrets_made_at_the_same_moment_one_stays_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        write_once(dir.path(), NODE_KEY, &NodeKey::new([1; 32]).to_text()).unwrap();
        // As if the file had appeared after somebody looked.
        let late = write_once(dir.path(), NODE_KEY, &NodeKey::new([2; 32]).to_text());
        assert!(matches!(late, Err(Error::Exists { .. })));
        let kept = node_key(dir.path(), [3; 32]).unwrap();
        assert_eq!(kept.public(), NodeKey::new([1; 32]).public());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), [NODE_KEY]);
    }
}
