//! Who is who, and what nobody else can read: identities, the Noise handshake, and the keys of packets.
//!
//! All of it is sans-IO: bytes and entropy are handed in, bytes come out. The primitives are aws-lc's; the handshake is
//! Noise XX (25519, AESGCM, SHA256), by `snow`.
//!
//! - [`Identity`] is what a node proves itself with: a static key, certified by the cluster's [`Authority`].
//! - `Noise` is one handshake under way; it ends in [`PacketKeys`].
//! - `Cookies` make sure that a handshake costs nothing before somebody reads at the address it claims.

mod cookie;
mod identity;
mod keys;
mod noise;

pub(crate) use cookie::Cookies;
pub(crate) use identity::CERTIFICATE_LEN;
pub use identity::{Authority, Certificate, Cluster, Identity, IdentityError, NodeKey, PublicKey};
pub use keys::{Forged, PacketKeys, Secret, UsedUp};
pub(crate) use noise::{NOISE_OVERHEAD, Noise, Refusal};
