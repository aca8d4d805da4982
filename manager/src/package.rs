//! Component packages: a tar archive of `component.toml` and the library it names, or of
//! `component.toml` alone for a component that the daemons were built with.
//!
//! An ordinary tar, so that `tar tf` shows what is inside; written with fixed times and owners, so
//! that the same files give the same digest everywhere. Read with every length checked: a package
//! comes from the network.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::path::{Path, PathBuf};

/// sha-256 of a package's bytes: its name in the cluster.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// `component.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The component's name, as shown by `quintet component list`.
    pub name: String,
    /// Its version; for people.
    #[serde(default = "unversioned")]
    pub version: String,
    /// File name of the library, `libbank.so`, or the name of its crate, `bank`. It is looked for in
    /// the directory and where cargo puts it. Empty with `linked`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub library: String,
    /// Instead of a library: the name of a component that was compiled into every daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked: Option<String>,
    /// sha-256 of the linked component's descriptor. The daemon that takes the deployment fills it
    /// in; every other must have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descriptor: Option<String>,
    /// The class it is about, where there is one. The library itself says what it brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The `.proto` the class comes from, for people and clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What is wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `component.toml` is missing or wrong.
    #[error("component.toml: {0}")]
    Manifest(String),
    /// The library was not found.
    #[error("library `{library}` not found; looked for {}: build it first (cargo build -p {name})", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Library {
        /// The manifest's entry.
        library: String,
        /// The component's name.
        name: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// The bytes are not a package.
    #[error("not a package: {0}")]
    Archive(&'static str),
}

/// A package taken apart.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its manifest; `library` names the file in the archive.
    pub manifest: Manifest,
    /// The library's bytes; none with `linked`.
    pub library: Vec<u8>,
}

fn unversioned() -> String {
    "0".into()
}

const MANIFEST: &str = "component.toml";
const BLOCK: usize = 512;

impl Package {
    /// A package for a component that every daemon was built with.
    pub fn linked(name: &str) -> Result<Package, Error> {
        let manifest = Manifest {
            name: name.into(),
            version: "linked".into(),
            library: String::new(),
            linked: Some(name.into()),
            descriptor: None,
            class: None,
            proto: None,
            description: None,
        };
        check_manifest(&manifest)?;
        Ok(Package { manifest, library: Vec::new() })
    }

    /// Makes a package of a directory with a `component.toml`. A library that is not in the
    /// directory is looked for in `search` (where cargo puts it).
    pub fn from_dir(dir: &Path, search: &[PathBuf]) -> Result<Package, Error> {
        let path = dir.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        let mut manifest = parse_manifest(&text)?;
        if manifest.linked.is_some() {
            return Ok(Package { manifest, library: Vec::new() });
        }
        // A bare name is a crate's: its library is called as cargo calls it.
        let bare = !manifest.library.contains(['/', '.']);
        let file = if bare {
            format!("lib{}.so", manifest.library.replace('-', "_"))
        } else {
            manifest.library.clone()
        };
        let mut looked = vec![dir.join(&file)];
        looked.extend(search.iter().map(|place| place.join(&file)));
        let Some(found) = looked.iter().find(|path| path.is_file()) else {
            return Err(Error::Library { library: manifest.library, name: manifest.name, looked });
        };
        let library =
            std::fs::read(found).map_err(|source| Error::Read { path: found.clone(), source })?;
        manifest.library = Path::new(&file)
            .file_name()
            .map_or_else(|| file.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Package { manifest, library })
    }

    /// The archive's bytes; the same package always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifest = toml::to_string(&self.manifest).expect("strings are TOML");
        let mut out = Vec::with_capacity(self.library.len() + manifest.len() + 5 * BLOCK);
        append(&mut out, MANIFEST, manifest.as_bytes());
        if self.manifest.linked.is_none() {
            append(&mut out, &self.manifest.library, &self.library);
        }
        out.resize(out.len() + 2 * BLOCK, 0);
        out
    }

    /// Takes an archive apart; never panics, whatever the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Package, Error> {
        let mut manifest = None;
        let mut files: Vec<(&str, &[u8])> = Vec::new();
        let mut rest = bytes;
        while let Some((header, body)) = rest.split_at_checked(BLOCK) {
            if header.iter().all(|byte| *byte == 0) {
                break;
            }
            let (name, size, ordinary) = parse_header(header)?;
            let content = body.get(..size).ok_or(Error::Archive("cut short"))?;
            let padded = size.div_ceil(BLOCK) * BLOCK;
            rest = body.get(padded..).ok_or(Error::Archive("cut short"))?;
            if !ordinary {
                continue;
            }
            let name = name.strip_prefix("./").unwrap_or(name);
            if name == MANIFEST {
                let text = str::from_utf8(content)
                    .map_err(|_| Error::Manifest("is not UTF-8 text".into()))?;
                manifest = Some(parse_manifest(text)?);
            } else {
                files.push((name, content));
            }
        }
        let manifest = manifest.ok_or(Error::Archive("there is no component.toml in it"))?;
        if manifest.linked.is_some() {
            return Ok(Package { manifest, library: Vec::new() });
        }
        if manifest.library.contains('/') {
            return Err(Error::Manifest("`library` must be a file name, not a path".into()));
        }
        let (_, library) = files
            .iter()
            .find(|(name, _)| *name == manifest.library)
            .ok_or(Error::Archive("the library its component.toml names is not in it"))?;
        let library = library.to_vec();
        Ok(Package { manifest, library })
    }
}

fn parse_manifest(text: &str) -> Result<Manifest, Error> {
    let manifest: Manifest =
        toml::from_str(text).map_err(|e| Error::Manifest(e.to_string().trim().to_owned()))?;
    check_manifest(&manifest)?;
    Ok(manifest)
}

fn check_manifest(manifest: &Manifest) -> Result<(), Error> {
    let plain = |s: &str| {
        !s.is_empty()
            && s.len() <= 64
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !plain(&manifest.name) {
        return Err(Error::Manifest(
            "`name` must be 1 to 64 letters, digits, '-', '_', '.'".into(),
        ));
    }
    match &manifest.linked {
        Some(_) if !manifest.library.is_empty() => Err(Error::Manifest(
            "`linked` and `library` exclude each other: a linked component has no library".into(),
        )),
        Some(linked) if !plain(linked) => {
            Err(Error::Manifest("`linked` must be 1 to 64 letters, digits, '-', '_', '.'".into()))
        }
        None if manifest.library.is_empty() || manifest.library.len() > 99 => Err(Error::Manifest(
            "`library` must name a file (at most 99 bytes), or `linked` a component of the daemon"
                .into(),
        )),
        _ => Ok(()),
    }
}

/// Appends one file as an ustar member.
fn append(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = [0u8; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    let sum = checksum(&header);
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header[155] = b' ';
    out.extend_from_slice(&header);
    out.extend_from_slice(content);
    out.resize(out.len().div_ceil(BLOCK) * BLOCK, 0);
}

/// (name, size, is an ordinary file).
fn parse_header(header: &[u8]) -> Result<(&str, usize, bool), Error> {
    let text = |field: &[u8]| field.split(|byte| *byte == 0).next().map(<[u8]>::len).unwrap_or(0);
    let octal = |field: &[u8]| {
        let digits = str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
        u64::from_str_radix(digits, 8).ok()
    };
    let sum = octal(&header[148..156]).ok_or(Error::Archive("no tar header"))?;
    if sum != checksum(header) {
        return Err(Error::Archive("tar header with a wrong checksum"));
    }
    let name = &header[..text(&header[..100])];
    let name = str::from_utf8(name).map_err(|_| Error::Archive("file name is not UTF-8"))?;
    let size = octal(&header[124..136]).ok_or(Error::Archive("tar header without a size"))?;
    let size = usize::try_from(size).ok().filter(|size| *size <= 1 << 32);
    let size = size.ok_or(Error::Archive("absurd file size"))?;
    Ok((name, size, matches!(header[156], b'0' | 0)))
}

/// Sum of the header's bytes, its checksum field taken as spaces.
fn checksum(header: &[u8]) -> u64 {
    let field = 148..156;
    header
        .iter()
        .enumerate()
        .map(|(i, byte)| if field.contains(&i) { 32 } else { u64::from(*byte) })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(library: Vec<u8>) -> Package {
        let manifest = Manifest {
            name: "bank".into(),
            version: "1".into(),
            library: "libbank.so".into(),
            linked: None,
            descriptor: None,
            class: None,
            proto: None,
            description: None,
        };
        Package { manifest, library }
    }

    proptest! {
        #[test]
        fn a_package_comes_back_as_it_was(library: Vec<u8>) {
            let package = sample(library);
            let bytes = package.to_bytes();
            let again = Package::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&again.manifest, &package.manifest);
            prop_assert_eq!(&again.library, &package.library);
            prop_assert_eq!(Digest::of(&again.to_bytes()), Digest::of(&bytes));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at in 0usize..2000, flip: u8) {
            let _ = Package::from_bytes(&bytes);
            let mut good = sample(vec![7; 700]).to_bytes();
            let at = at % good.len();
            good[at] ^= flip;
            let _ = Package::from_bytes(&good);
            let _ = Package::from_bytes(&good[..at]);
        }
    }

    #[test]
    fn a_linked_component_is_a_manifest_without_a_library() {
        let package = Package::linked("counter").unwrap();
        let again = Package::from_bytes(&package.to_bytes()).unwrap();
        assert_eq!(again.manifest, package.manifest);
        assert!(again.library.is_empty());
        assert!(Package::linked("../counter").is_err());
        for wrong in ["", "linked = \"a\"\nlibrary = \"b\"\n", "linked = \"a b\"\n"] {
            let error = parse_manifest(&format!("name = \"a\"\n{wrong}")).unwrap_err();
            assert!(error.to_string().contains("`linked`"), "{error}");
        }
    }

    #[test]
    fn the_system_tar_understands_it_and_its_archives_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let package = sample(vec![1, 2, 3]);
        std::fs::write(dir.path().join("a.tar"), package.to_bytes()).unwrap();
        let tar = |args: &[&str]| {
            std::process::Command::new("tar").args(args).current_dir(dir.path()).output().unwrap()
        };
        let listed = tar(&["tf", "a.tar"]);
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "component.toml\nlibbank.so\n");
        assert!(tar(&["xf", "a.tar"]).status.success());
        assert!(tar(&["cf", "b.tar", "./component.toml", "libbank.so"]).status.success());
        let bytes = std::fs::read(dir.path().join("b.tar")).unwrap();
        assert_eq!(Package::from_bytes(&bytes).unwrap().library, vec![1, 2, 3]);
    }

    #[test]
    fn a_directory_without_its_library_says_where_it_looked() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = "name = \"bank\"\nlibrary = \"bank\"\n";
        std::fs::write(dir.path().join("component.toml"), manifest).unwrap();
        let search = [dir.path().join("target")];
        let error = Package::from_dir(dir.path(), &search).unwrap_err().to_string();
        assert!(error.contains("target/libbank.so") && error.contains("cargo build"), "{error}");
        std::fs::create_dir(&search[0]).unwrap();
        std::fs::write(search[0].join("libbank.so"), b"elf").unwrap();
        let package = Package::from_dir(dir.path(), &search).unwrap();
        assert_eq!(package.manifest.library, "libbank.so");
    }
}
