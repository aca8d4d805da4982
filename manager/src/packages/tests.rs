use super::*;
use crate::package::Manifest;

fn package(library: &[u8]) -> (Digest, Vec<u8>) {
    let manifest = Manifest {
        name: "x".into(),
        version: "1".into(),
        library: "libx.so".into(),
        linked: None,
        descriptor: None,
        class: None,
        proto: None,
        description: None,
    };
    let bytes = Package { manifest, library: library.to_vec() }.to_bytes();
    (Digest::of(&bytes), bytes)
}

#[test]
fn a_package_is_stored_only_under_its_own_digest() {
    let dir = tempfile::tempdir().unwrap();
    let packages = Packages::open(dir.path().join("packages"), Linked::default()).unwrap();
    let (digest, bytes) = package(b"elf");
    let other = Digest([1; 32]);
    assert!(matches!(packages.store(&other, &bytes), Err(Error::Digest { .. })));
    assert!(!packages.holds(&other));
    packages.store(&digest, &bytes).unwrap();
    assert!(packages.holds(&digest));
    assert_eq!(
        fs::read_dir(dir.path().join("packages")).unwrap().count(),
        1,
        "nothing is left beside"
    );
}

#[test]
fn a_library_that_is_none_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let packages = Packages::open(dir.path().to_owned(), Linked::default()).unwrap();
    let (digest, bytes) = package(b"this is not a library");
    packages.store(&digest, &bytes).unwrap();
    let error = packages.load(&digest).err().expect("refused").to_string();
    assert!(error.contains("libx.so"), "{error}");
}

#[test]
fn a_package_that_rotted_on_disk_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let packages = Packages::open(dir.path().to_owned(), Linked::default()).unwrap();
    let (digest, mut bytes) = package(b"elf");
    packages.store(&digest, &bytes).unwrap();
    bytes[600] ^= 1;
    fs::write(packages.path(&digest), &bytes).unwrap();
    assert!(matches!(packages.load(&digest), Err(Error::Digest { .. })));
}

#[test]
fn a_linked_component_is_found_again_and_refused_by_a_daemon_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = |linked| Packages::open(dir.path().to_owned(), linked).unwrap();
    let packages = open(Linked::shipped());
    let mut package = Package::linked("counter").unwrap();
    assert!(packages.seal(&mut package).unwrap());
    assert!(!packages.seal(&mut package).unwrap(), "once");
    let bytes = package.to_bytes();
    let digest = Digest::of(&bytes);
    packages.store(&digest, &bytes).unwrap();
    assert_eq!(packages.load(&digest).unwrap()[0].class.name(), "counter.Counter");
    open(Linked::shipped()).class(&digest, "counter.Counter").unwrap();
    let error = open(Linked::default()).load(&digest).err().expect("refused").to_string();
    assert!(error.contains("`counter`") && error.contains("linked are: none"), "{error}");
}

#[test]
fn a_linked_component_of_another_proto_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let packages = Packages::open(dir.path().to_owned(), Linked::shipped()).unwrap();
    let unsealed = Package::linked("counter").unwrap();
    let mut sealed = unsealed.clone();
    packages.seal(&mut sealed).unwrap();
    let gauge: Arc<dyn Factory> = Arc::new(specimen::GaugeFactory::new());
    let other = Linked([("counter", gauge)].into());
    let other = Packages::open(dir.path().to_owned(), other).unwrap();
    for package in [sealed, unsealed] {
        let bytes = package.to_bytes();
        let digest = Digest::of(&bytes);
        other.store(&digest, &bytes).unwrap();
        assert!(matches!(other.load(&digest), Err(Error::Descriptor { .. })));
    }
}

#[test]
fn what_is_shipped_does_nothing_but_count() {
    let shipped = Linked::shipped();
    let mut paths = Vec::new();
    for factory in shipped.0.values() {
        let class = Class::of(&**factory).unwrap();
        paths.extend(class.methods().iter().map(|method| method.path().to_owned()));
    }
    assert_eq!(paths, ["/counter.Counter/Add", "/counter.Counter/Get"]);
}

#[test]
fn what_an_earlier_process_left_and_nothing_names_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let earlier = Packages::open(dir.path().to_owned(), Linked::default()).unwrap();
    let [(kept, kept_bytes), (gone, gone_bytes), (newer, newer_bytes)] =
        [&b"kept"[..], b"gone", b"newer"].map(package);
    for (digest, bytes) in [(&kept, &kept_bytes), (&gone, &gone_bytes)] {
        earlier.store(digest, bytes).unwrap();
        let library = dir.path().join(digest.to_string());
        fs::create_dir(&library).unwrap();
        for name in ["libx.so", "libx.unfinished-17"] {
            fs::write(library.join(name), name).unwrap();
        }
    }
    fs::write(dir.path().join(format!("{kept}.unfinished-17")), "half").unwrap();
    fs::write(dir.path().join("notes.tar"), "somebody's").unwrap();
    let before = SystemTime::now() - Duration::from_secs(60);
    let age = |path: &Path| fs::File::open(path).unwrap().set_modified(before).unwrap();
    for path in entries(dir.path()) {
        entries(&path).iter().for_each(|inner| age(inner));
        age(&path);
    }

    let packages = Packages::open(dir.path().to_owned(), Linked::default()).unwrap();
    // An offer may be on its way while the node is starting.
    packages.store(&newer, &newer_bytes).unwrap();
    assert_eq!(packages.sweep([&kept]).len(), 4);
    let mut left: Vec<_> = entries(dir.path()).iter().map(|p| name(p).to_owned()).collect();
    left.sort();
    let mut expected =
        vec![kept.to_string(), format!("{kept}.tar"), format!("{newer}.tar"), "notes.tar".into()];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(name(&entries(&dir.path().join(kept.to_string()))[0]), "libx.so");
    assert_eq!(entries(&dir.path().join(kept.to_string())).len(), 1);
}
