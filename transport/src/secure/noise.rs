//! One Noise XX handshake, by `snow`, with aws-lc's primitives and no entropy but what is handed in.
//!
//! Both sides mix in a *prologue*: everything that was said in the clear. Who changed any of it has broken the
//! handshake. Message 1 is an ephemeral key; 2 and 3 carry static key, certificate and a
//! [`Greeting`](crate::reliable::Greeting), encrypted; 3 proves to the responder, 2 to the initiator, who the other is.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::{aead, digest};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::identity::{CERTIFICATE_LEN, Certificate, Identity, public_of};
use super::keys::PacketKeys;
use crate::id::NodeId;
use crate::reliable::{GREETING_MAX, NOISE_1_LEN};
use crate::time::Time;

const PATTERN: &str = "Noise_XX_25519_AESGCM_SHA256";
/// The most that Noise adds to a payload: an ephemeral key, a sealed static key, a tag.
pub(crate) const NOISE_OVERHEAD: usize = 32 + 48 + 16;
/// Longest payload of messages 2 and 3.
const PAYLOAD_MAX: usize = CERTIFICATE_LEN + GREETING_MAX;

/// The message is not of this handshake, or not from a node of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) &'static str);

const BROKEN: Refusal = Refusal(
    "the handshake cannot be read: forged, or from a node with another cluster's authority",
);

/// A handshake under way.
pub(crate) struct Noise(Box<HandshakeState>);

impl Noise {
    /// Begins. `entropy` makes the ephemeral key; never use it for another handshake.
    pub(crate) fn initiator(
        identity: &Identity,
        prologue: &[u8],
        entropy: [u8; 32],
    ) -> (Noise, [u8; NOISE_1_LEN]) {
        let mut state = builder(identity, prologue, entropy)
            .and_then(|b| b.build_initiator())
            .expect("a complete handshake");
        // snow wants room for a tag, though there is no key yet.
        let mut buffer = [0; NOISE_1_LEN + 16];
        let len = state.write_message(&[], &mut buffer).expect("an ephemeral key fits");
        assert_eq!(len, NOISE_1_LEN);
        let mut message = [0; NOISE_1_LEN];
        message.copy_from_slice(&buffer[..len]);
        (Noise(Box::new(state)), message)
    }

    /// The other side, from message 1.
    pub(crate) fn responder(
        identity: &Identity,
        prologue: &[u8],
        entropy: [u8; 32],
        message: &[u8; NOISE_1_LEN],
    ) -> Result<Noise, Refusal> {
        let mut state = builder(identity, prologue, entropy)
            .and_then(|b| b.build_responder())
            .expect("a complete handshake");
        state.read_message(message, &mut []).map_err(|_| BROKEN)?;
        Ok(Noise(Box::new(state)))
    }

    /// Message 2 or 3, with who we are and `greeting`. Returns its length.
    pub(crate) fn write(
        &mut self,
        identity: &Identity,
        greeting: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Refusal> {
        let mut payload = [0; PAYLOAD_MAX];
        let len = CERTIFICATE_LEN + greeting.len();
        payload[..CERTIFICATE_LEN].copy_from_slice(&identity.certificate().to_bytes());
        payload[CERTIFICATE_LEN..len].copy_from_slice(greeting);
        // Fails where the peer's ephemeral key was a bad one.
        self.0.write_message(&payload[..len], out).map_err(|_| BROKEN)
    }

    /// Reads message 2 or 3, and checks that it is from `from`. Returns the greeting's length.
    pub(crate) fn read(
        &mut self,
        identity: &Identity,
        from: NodeId,
        message: &[u8],
        greeting: &mut [u8; GREETING_MAX],
    ) -> Result<usize, Refusal> {
        let mut payload = [0; PAYLOAD_MAX];
        if message.len() > PAYLOAD_MAX + NOISE_OVERHEAD {
            return Err(BROKEN);
        }
        let len = self.0.read_message(message, &mut payload).map_err(|_| BROKEN)?;
        let (certificate, rest) = payload[..len].split_first_chunk().ok_or(BROKEN)?;
        let unsigned = Refusal("the certificate is not one of this cluster");
        let certificate = Certificate::from_bytes(certificate).map_err(|_| unsigned)?;
        identity.cluster().verify(&certificate).map_err(|_| unsigned)?;
        if self.0.get_remote_static() != Some(&certificate.key().0[..]) {
            return Err(Refusal("the certificate belongs to another key"));
        }
        if certificate.node() != from {
            return Err(Refusal("the certificate is for another node than it claims to be"));
        }
        greeting[..rest.len()].copy_from_slice(rest);
        Ok(rest.len())
    }

    /// Whether nothing can be read any more: the other side was read to the end, or a forged end took the place of the
    /// right one (with the key in front that it needs, its payload broken), which `snow` does not undo.
    pub(crate) fn is_over(&self) -> bool {
        let spoiled = !self.0.is_initiator() && self.0.get_remote_static().is_some();
        self.0.is_my_turn() || self.0.is_handshake_finished() || spoiled
    }

    /// The keys of the link, after message 3.
    pub(crate) fn keys(mut self, now: Time) -> PacketKeys {
        assert!(self.0.is_handshake_finished(), "keys come last");
        let (from_initiator, from_responder) = self.0.dangerously_get_raw_split();
        let (from_initiator, from_responder) =
            (Zeroizing::new(from_initiator), Zeroizing::new(from_responder));
        if self.0.is_initiator() {
            PacketKeys::new(&from_initiator, &from_responder, now)
        } else {
            PacketKeys::new(&from_responder, &from_initiator, now)
        }
    }
}

fn builder<'a>(
    identity: &'a Identity,
    prologue: &'a [u8],
    entropy: [u8; 32],
) -> Result<Builder<'a>, snow::Error> {
    let params = PATTERN.parse().expect("a pattern that exists");
    Builder::with_resolver(params, Box::new(Primitives(Zeroizing::new(entropy))))
        .local_private_key(identity.key().secret())?
        .prologue(prologue)
}

/// Where `snow` finds its primitives.
struct Primitives(Zeroizing<[u8; 32]>);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<Agreement>::default() as _)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::default()) as _)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(AesGcm(None)) as _)
    }
}

/// Gives out what it was given, once: a handshake makes one ephemeral key.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let bytes =
            self.0.take().filter(|bytes| bytes.len() == out.len()).ok_or(snow::Error::Rng)?;
        out.copy_from_slice(&bytes[..]);
        Ok(())
    }
}

#[derive(Default)]
struct Agreement {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }
    fn pub_len(&self) -> usize {
        32
    }
    fn priv_len(&self) -> usize {
        32
    }
    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = public_of(&self.secret);
    }
    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        random.try_fill_bytes(&mut self.secret[..])?;
        self.public = public_of(&self.secret);
        Ok(())
    }
    fn pubkey(&self) -> &[u8] {
        &self.public
    }
    fn privkey(&self) -> &[u8] {
        &self.secret[..]
    }
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let own =
            PrivateKey::from_private_key(&X25519, &self.secret[..]).map_err(|_| snow::Error::Dh)?;
        // snow keeps keys in buffers that fit the longest it knows.
        let peer = UnparsedPublicKey::new(&X25519, &public[..32]);
        agree(&own, peer, snow::Error::Dh, |shared| {
            out[..shared.len()].copy_from_slice(shared);
            Ok(())
        })
    }
}

struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Sha256(digest::Context::new(&digest::SHA256))
    }
}

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }
    fn block_len(&self) -> usize {
        64
    }
    fn hash_len(&self) -> usize {
        32
    }
    fn reset(&mut self) {
        *self = Sha256::default();
    }
    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }
    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(self.0.clone().finish().as_ref());
    }
}

/// AESGCM of Noise: the nonce is 32 zero bits, then the counter, big-endian.
struct AesGcm(Option<aead::LessSafeKey>);

impl AesGcm {
    fn key(&self) -> &aead::LessSafeKey {
        self.0.as_ref().expect("snow sets a key before it uses one")
    }
}

fn nonce(counter: u64) -> aead::Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    aead::Nonce::assume_unique_for_key(nonce)
}

impl Cipher for AesGcm {
    fn name(&self) -> &'static str {
        "AESGCM"
    }
    fn set(&mut self, key: &[u8; 32]) {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key).expect("a key of 32 bytes");
        self.0 = Some(aead::LessSafeKey::new(key));
    }
    fn encrypt(&self, counter: u64, header: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        let (body, rest) = out.split_at_mut(text.len());
        body.copy_from_slice(text);
        let tag = self
            .key()
            .seal_in_place_separate_tag(nonce(counter), aead::Aad::from(header), body)
            .expect("short enough for AES-GCM");
        rest[..16].copy_from_slice(tag.as_ref());
        text.len() + 16
    }
    fn decrypt(
        &self,
        counter: u64,
        header: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let len = sealed.len().checked_sub(16).ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..len).ok_or(snow::Error::Decrypt)?;
        self.key()
            .open_separate_gather(
                nonce(counter),
                aead::Aad::from(header),
                &sealed[..len],
                &sealed[len..],
                out,
            )
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(len)
    }
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
