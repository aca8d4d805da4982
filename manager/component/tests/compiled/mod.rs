//! Components that tests compile for themselves, with the system's C compiler.
#![allow(dead_code, reason = "not every test that includes this uses all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use quintet_component::build;

/// Compiles a C source to a shared library in `directory`; a warning is an error.
pub(crate) fn cc(directory: &Path, source: &Path) -> PathBuf {
    let name = source.file_stem().unwrap().to_str().unwrap();
    let library = directory.join(format!("lib{name}.so"));
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-shared", "-fPIC"])
        .arg("-I")
        .arg(directory)
        .arg("-I")
        .arg(include)
        .arg("-o")
        .arg(&library)
        .arg(source)
        .output()
        .expect("cc runs: it is what rustc links with");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The descriptor of a `.proto` file.
pub(crate) fn descriptor_of(proto: &Path) -> Vec<u8> {
    let files = build::generate(&[proto], &[proto.parent().unwrap()]).expect("the .proto compiles");
    files
        .into_iter()
        .find(|file| file.name.ends_with(".descriptor"))
        .expect("it has a package")
        .content
}
