//! Identities: what fits together, and what is told apart.

use proptest::prelude::*;

use super::*;

fn authority(name: &str) -> Authority {
    Authority::new(name, [7; 32]).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let authority = authority("demo");
    let again: Authority = authority.to_text().parse().unwrap();
    assert_eq!(again.cluster(), authority.cluster());
    let cluster: Cluster = format!(" {}\n", authority.cluster()).parse().unwrap();
    assert_eq!(cluster, authority.cluster());
    let public = NodeKey::new([9; 32]).public();
    assert_eq!(public.to_string().parse(), Ok(public));
    let key: NodeKey = NodeKey::new([9; 32]).to_text().parse().unwrap();
    let certificate: Certificate =
        authority.certify(NodeId(4), key.public()).to_string().parse().unwrap();
    let identity = Identity::new(cluster, key, certificate).unwrap();
    assert_eq!((identity.node(), identity.cluster().name()), (NodeId(4), "demo"));
}

#[test]
fn secrets_are_not_shown() {
    let key = NodeKey::new([0xab; 32]);
    let shown = format!("{:?} {:?}", Authority::new("demo", [0xab; 32]), key);
    assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
}

#[test]
fn what_does_not_fit_together_is_told_apart() {
    let demo = authority("demo");
    let key = NodeKey::new([9; 32]);
    let certificate = demo.certify(NodeId(4), key.public());
    let refused = |cluster: &Authority, key: &NodeKey, certificate: &Certificate| {
        Identity::new(cluster.cluster(), key.clone(), certificate.clone()).unwrap_err()
    };
    // Another name, and another key of the same name.
    let other = authority("other");
    let same_name = Authority::new("demo", [8; 32]).unwrap();
    assert_eq!(refused(&other, &key, &certificate), IdentityError::WrongCluster("other".into()));
    assert_eq!(refused(&same_name, &key, &certificate), IdentityError::WrongCluster("demo".into()));
    assert_eq!(refused(&demo, &NodeKey::new([8; 32]), &certificate), IdentityError::WrongKey);
    // One that another authority signed and that names ours.
    let mut forged = same_name.certify(NodeId(4), key.public());
    forged.cluster = demo.cluster().tag();
    assert_eq!(refused(&demo, &key, &forged), IdentityError::Signature("demo".into()));
}

#[test]
fn every_flipped_bit_of_a_certificate_is_noticed() {
    let authority = authority("demo");
    let good = authority.certify(NodeId(4), PublicKey([5; 32])).to_bytes();
    for bit in 0..good.len() * 8 {
        let mut bad = good;
        bad[bit / 8] ^= 1 << (bit % 8);
        let verified =
            Certificate::from_bytes(&bad).and_then(|bad| authority.cluster().verify(&bad));
        assert!(verified.is_err(), "bit {bit}");
    }
}

#[test]
fn names_and_texts_that_cannot_be_right_are_refused() {
    for name in ["", "a/b", "a\nb", " a", "a\0", &"x".repeat(65)] {
        assert_eq!(Authority::new(name, [0; 32]).unwrap_err(), IdentityError::Name(name.into()));
    }
    let certificate = authority("demo").certify(NodeId(1), PublicKey([1; 32])).to_string();
    assert!(certificate[..certificate.len() - 1].parse::<Certificate>().is_err());
    assert!(format!("{certificate}0").parse::<Certificate>().is_err());
    let text = authority("demo.eu").cluster().to_string();
    assert_eq!(text.parse::<Cluster>().unwrap().name(), "demo.eu");
    assert!(text[..80].parse::<Cluster>().is_err());
    let error = text.parse::<NodeKey>().unwrap_err();
    assert_eq!(error, IdentityError::Format("node's key"));
}

#[test]
fn a_certificate_looks_as_it_always_did() {
    let bytes = authority("demo").certify(NodeId(0x0102), PublicKey([5; 32])).to_bytes();
    assert_eq!(hex(&bytes[..12]), EXPECTED_HEAD);
    assert_eq!(hex(digest(&SHA256, &bytes).as_ref()), EXPECTED_DIGEST);
}

const EXPECTED_HEAD: &str = "010cc41db837e817b1020105";
const EXPECTED_DIGEST: &str = "827f49683053e8064dcdb22737bd6e2b63561c109af74c940caf3576ee50a51a";

proptest! {
    #[test]
    fn noise_never_panics(text in ".{0,300}", bytes in proptest::collection::vec(any::<u8>(), CERTIFICATE_LEN)) {
        for word in ["", AUTHORITY, CLUSTER, NODE_KEY, PUBLIC_KEY, CERTIFICATE] {
            let text = format!("{word}.{text}");
            let _ = (text.parse::<Authority>(), text.parse::<Cluster>());
            let _ = (text.parse::<NodeKey>(), text.parse::<Certificate>());
            let _ = text.parse::<PublicKey>();
        }
        let bytes: [u8; CERTIFICATE_LEN] = bytes.try_into().unwrap();
        if let Ok(certificate) = Certificate::from_bytes(&bytes) {
            prop_assert!(authority("demo").cluster().verify(&certificate).is_err());
        }
    }
}
