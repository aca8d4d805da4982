//! `quintet/options.proto` is stock protobuf: google's own compiler takes it.
//!
//! The compiler is not on every machine. The test uses `protoc`, or grpcio-tools of the Python that
//! `QUINTET_TEST_PYTHON` names (the demo's virtual environment); without either it is skipped,
//! and the other tests still read the same file with protox.

#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use std::path::Path;
use std::process::Command;

use quintet_component::{Class, Kind};

/// A command line that begins with a protobuf compiler.
fn protoc() -> Option<Command> {
    if let Some(python) = std::env::var_os("QUINTET_TEST_PYTHON") {
        let mut command = Command::new(python);
        command.args(["-m", "grpc_tools.protoc"]);
        return Some(command);
    }
    let found = Command::new("protoc")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    found.then(|| Command::new("protoc"))
}

#[test]
fn googles_compiler_understands_the_options() {
    let Some(mut command) = protoc() else {
        return skip::skip(
            "no protoc; install it, or set QUINTET_TEST_PYTHON to a Python with grpcio-tools",
        );
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let set = directory.path().join("greeter.descriptor");
    let output = command
        .arg("--include_imports")
        .arg(format!("-I{}", here.join("tests/golden").display()))
        .arg(format!("-I{}", here.join("proto").display()))
        .arg(format!("--descriptor_set_out={}", set.display()))
        .arg("greeter.proto")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Both compilers mean the same by the same file.
    let theirs = Class::named(&std::fs::read(set).unwrap(), "greeter.Greeter").unwrap();
    let ours = std::fs::read(here.join("tests/golden/greeter.descriptor")).unwrap();
    let ours = Class::named(&ours, "greeter.Greeter").unwrap();
    let kinds: Vec<Kind> = theirs.methods().iter().map(|method| method.kind()).collect();
    assert_eq!(kinds, [Kind::Update, Kind::Read]);
    for (one, other) in theirs.methods().iter().zip(ours.methods()) {
        assert_eq!((one.path(), one.options()), (other.path(), other.options()));
    }
}
