//! Identities: a cluster has one authority, a node has a key, and a certificate says that the two belong together.
//!
//! | what | is | who has it |
//! |---|---|---|
//! | [`Authority`] | Ed25519 signing key, and the cluster's name | one place, best offline |
//! | [`Cluster`] | its public half | every node |
//! | [`NodeKey`] | X25519 key, made on the node | that node only |
//! | [`Certificate`] | "this public key is node N of this cluster", signed | that node; shown to its peers |
//!
//! Each has one line of text, its form in files and on the command line: a word that says what it is, then fields
//! separated by dots. Nothing secret is shown by `Debug`.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::id::NodeId;
use crate::limits::{CLUSTER_NAME_MAX, NODE_ID_MAX};

const AUTHORITY: &str = "quintet-authority-1";
const CLUSTER: &str = "quintet-cluster-1";
const NODE_KEY: &str = "quintet-node-key-1";
const PUBLIC_KEY: &str = "quintet-node-1";
const CERTIFICATE: &str = "quintet-certificate-1";

const VERSION: u8 = 1;
const SIGNATURE_LEN: usize = 64;
const SIGNED_LEN: usize = 1 + 8 + 2 + 32;
/// Bytes of a certificate on the wire.
pub(crate) const CERTIFICATE_LEN: usize = SIGNED_LEN + SIGNATURE_LEN;

/// Why something is no identity, or not the one that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is something else, or cut short.
    #[error("this is no {0} of Quintet, or it was cut short or damaged")]
    Format(&'static str),
    /// A name that no cluster can have.
    #[error(
        "{0:?} cannot name a cluster: use 1 to {CLUSTER_NAME_MAX} bytes without `/`, NUL and line breaks"
    )]
    Name(String),
    /// The certificate names another cluster.
    #[error("the certificate is for another cluster than {0:?}: ask its authority for one")]
    WrongCluster(String),
    /// The authority did not sign this.
    #[error(
        "the certificate was not signed by the authority of cluster {0:?}: it was damaged or forged"
    )]
    Signature(String),
    /// The certificate is for another node.
    #[error("the certificate is for node {certified}, and this is node {wanted}")]
    WrongNode {
        /// The node it is for.
        certified: NodeId,
        /// The node it was shown by.
        wanted: NodeId,
    },
    /// The certificate is for another key.
    #[error(
        "the certificate is for another key than this node's: the key was made anew after it was certified"
    )]
    WrongKey,
}

/// A cluster: its name and the public key of its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    name: String,
    key: [u8; 32],
}

impl Cluster {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells this cluster from all others: a hash of name and key.
    pub(crate) fn id(&self) -> [u8; 32] {
        let bytes = [CLUSTER.as_bytes(), &[0], self.name.as_bytes(), &[0], &self.key].concat();
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &bytes).as_ref());
        id
    }

    /// The beginning of it.
    pub(crate) fn tag(&self) -> u64 {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.id()[..8]);
        u64::from_le_bytes(tag)
    }

    /// Whether the authority says so.
    pub fn verify(&self, certificate: &Certificate) -> Result<(), IdentityError> {
        if certificate.cluster != self.tag() {
            return Err(IdentityError::WrongCluster(self.name.clone()));
        }
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(&certificate.message(&self.id()), &certificate.signature)
            .map_err(|_| IdentityError::Signature(self.name.clone()))
    }
}

/// The signing key of a cluster. Who has it can be every node.
pub struct Authority {
    name: String,
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl Authority {
    /// An authority for a cluster of that name, from 32 random bytes.
    pub fn new(name: &str, seed: [u8; 32]) -> Result<Authority, IdentityError> {
        check_name(name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| IdentityError::Format("authority's key"))?;
        Ok(Authority { name: name.to_owned(), seed: Zeroizing::new(seed), pair })
    }

    /// Its public half.
    pub fn cluster(&self) -> Cluster {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        Cluster { name: self.name.clone(), key }
    }

    /// Says that the holder of that key is that node.
    pub fn certify(&self, node: NodeId, key: PublicKey) -> Certificate {
        let cluster = self.cluster();
        let mut certificate =
            Certificate { cluster: cluster.tag(), node, key, signature: [0; SIGNATURE_LEN] };
        let signature = self.pair.sign(&certificate.message(&cluster.id()));
        certificate.signature.copy_from_slice(signature.as_ref());
        certificate
    }

    /// A whole identity at once, where authority and node are in one place. `key`: 32 random bytes.
    pub fn admit(&self, node: NodeId, key: [u8; 32]) -> Identity {
        let key = NodeKey::new(key);
        let certificate = self.certify(node, key.public());
        Identity { cluster: self.cluster(), key, certificate }
    }

    /// The line for its file. A secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{AUTHORITY}.{}.{}", hex(&*self.seed), self.name))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FromStr for Authority {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = IdentityError::Format("authority's key");
        let [seed, name] = fields(text, AUTHORITY).ok_or(wrong.clone())?;
        Authority::new(name, unhex(seed).ok_or(wrong)?)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CLUSTER}.{}.{}", hex(&self.key), self.name)
    }
}

impl FromStr for Cluster {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = IdentityError::Format("cluster's public key");
        let [key, name] = fields(text, CLUSTER).ok_or(wrong.clone())?;
        check_name(name)?;
        Ok(Cluster { name: name.to_owned(), key: unhex(key).ok_or(wrong)? })
    }
}

/// The secret key of a node.
#[derive(Clone)]
pub struct NodeKey(Zeroizing<[u8; 32]>);

impl NodeKey {
    /// A key of 32 random bytes.
    pub fn new(secret: [u8; 32]) -> NodeKey {
        NodeKey(Zeroizing::new(secret))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(public_of(&self.0))
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    /// The line for its file. A secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{NODE_KEY}.{}", hex(&*self.0)))
    }
}

/// The public half of a node's key: what the authority certifies. No secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub(crate) [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_KEY}.{}", hex(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = IdentityError::Format("node's public key");
        let [key] = fields(text, PUBLIC_KEY).ok_or(wrong.clone())?;
        unhex(key).map(PublicKey).ok_or(wrong)
    }
}

/// The public key to an X25519 secret.
pub(crate) fn public_of(secret: &[u8; 32]) -> [u8; 32] {
    let mut public = [0; 32];
    let key = PrivateKey::from_private_key(&X25519, secret)
        .and_then(|key| Ok(key.compute_public_key()?))
        .expect("any 32 bytes are an X25519 key");
    public.copy_from_slice(key.as_ref());
    public
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

impl FromStr for NodeKey {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = IdentityError::Format("node's key");
        let [secret] = fields(text, NODE_KEY).ok_or(wrong.clone())?;
        unhex(secret).map(NodeKey::new).ok_or(wrong)
    }
}

/// The authority's word that a key is a node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    cluster: u64,
    node: NodeId,
    key: PublicKey,
    signature: [u8; SIGNATURE_LEN],
}

impl Certificate {
    /// The node it is for.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The node's public key.
    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What is signed: the certificate, and the whole id of the cluster.
    fn message(&self, cluster: &[u8; 32]) -> Vec<u8> {
        [CERTIFICATE.as_bytes(), cluster, &self.to_bytes()[..SIGNED_LEN]].concat()
    }

    pub(crate) fn to_bytes(&self) -> [u8; CERTIFICATE_LEN] {
        let mut bytes = [0; CERTIFICATE_LEN];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[9..11].copy_from_slice(&self.node.0.to_le_bytes());
        bytes[11..43].copy_from_slice(&self.key.0);
        bytes[43..].copy_from_slice(&self.signature);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; CERTIFICATE_LEN]) -> Result<Self, IdentityError> {
        fn at<const N: usize>(bytes: &[u8; CERTIFICATE_LEN], from: usize) -> [u8; N] {
            let mut field = [0; N];
            field.copy_from_slice(&bytes[from..from + N]);
            field
        }
        let node = NodeId(u16::from_le_bytes(at(bytes, 9)));
        if bytes[0] != VERSION || !(1..=NODE_ID_MAX).contains(&node.0) {
            return Err(IdentityError::Format("certificate"));
        }
        let cluster = u64::from_le_bytes(at(bytes, 1));
        Ok(Certificate { cluster, node, key: PublicKey(at(bytes, 11)), signature: at(bytes, 43) })
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CERTIFICATE}.{}", hex(&self.to_bytes()))
    }
}

impl FromStr for Certificate {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let wrong = IdentityError::Format("certificate");
        let [bytes] = fields(text, CERTIFICATE).ok_or(wrong.clone())?;
        Certificate::from_bytes(&unhex(bytes).ok_or(wrong)?)
    }
}

/// What a node proves itself with, and what it judges others by. [`Identity::new`] has checked that it fits together.
#[derive(Clone, Debug)]
pub struct Identity {
    cluster: Cluster,
    key: NodeKey,
    certificate: Certificate,
}

impl Identity {
    /// Checks that the three belong together.
    pub fn new(
        cluster: Cluster,
        key: NodeKey,
        certificate: Certificate,
    ) -> Result<Identity, IdentityError> {
        cluster.verify(&certificate)?;
        if key.public() != certificate.key {
            return Err(IdentityError::WrongKey);
        }
        Ok(Identity { cluster, key, certificate })
    }

    /// Whether it is that of `node` in a cluster of that name.
    pub fn check(&self, cluster: &str, node: NodeId) -> Result<(), IdentityError> {
        if self.cluster.name != cluster {
            return Err(IdentityError::WrongCluster(cluster.to_owned()));
        }
        if self.certificate.node != node {
            let certified = self.certificate.node;
            return Err(IdentityError::WrongNode { certified, wanted: node });
        }
        Ok(())
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node it is for.
    pub fn node(&self) -> NodeId {
        self.certificate.node
    }

    /// Its secret.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// What it shows to its peers.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

fn check_name(name: &str) -> Result<(), IdentityError> {
    if name.is_empty()
        || name.len() > CLUSTER_NAME_MAX
        || name.contains(['/', '\0', '\n', '\r'])
        || name.trim() != name
    {
        return Err(IdentityError::Name(name.to_owned()));
    }
    Ok(())
}

/// The fields of a line after the word that says what it is; the last may hold anything.
fn fields<'a, const N: usize>(text: &'a str, word: &str) -> Option<[&'a str; N]> {
    let rest = text.trim().strip_prefix(word)?.strip_prefix('.')?;
    let mut fields = [""; N];
    let mut parts = rest.splitn(N, '.');
    for field in &mut fields {
        *field = parts.next()?;
    }
    Some(fields)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        text
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
