//! What cannot be loaded says what it is, what that means and what to do.

mod compiled;

use std::fs;
use std::path::{Path, PathBuf};

use compiled::{cc, descriptor_of};
use quintet_component::library;

/// A class and a library around it, with one thing to be wrong in each test: `$NAME` is replaced.
const COMPONENT: &str = r#"
#include "quintet_component.h"
static const uint8_t descriptor[] = {
#include "probe.descriptor.inc"
};
int probe_instance;
static int32_t create(void *f, void **i, const quintet_sink *e) {
    (void)f; (void)e; (void)i;
    $CREATE
}
static void destroy(void *i) { (void)i; }
static int32_t call(void *i, uint32_t m, const quintet_context *c, quintet_bytes q, const quintet_sink *r,
                    const quintet_sink *e) {
    (void)i; (void)m; (void)c; (void)q; (void)r; (void)e;
    $CALL
}
static int32_t save(void *i, const quintet_sink *o, const quintet_sink *e) { (void)i; (void)o; (void)e; return 0; }
static int32_t load(void *i, const quintet_source *f, const quintet_sink *e) { (void)i; (void)f; (void)e; return 0; }
const quintet_class probe = {
    $CLASS_SIZE, $CLASS_VERSION, {(const uint8_t *)"$CLASS", sizeof "$CLASS" - 1},
    {$DESCRIPTOR, $DESCRIPTOR_LEN}, NULL, create, destroy, $UPDATE, call, save, load};
static const quintet_class *const classes[] = {$CLASSES};
const quintet_library table = {$SIZE, $VERSION, $COUNT, 0, classes};
const quintet_library *quintet_component_library(void) { return $TABLE; }
"#;

const RIGHT: [(&str, &str); 13] = [
    ("$CREATE", "*i = (void *)&probe_instance; return 0;"),
    ("$CALL", "return 0;"),
    ("$CLASS_SIZE", "sizeof(quintet_class)"),
    ("$CLASS_VERSION", "QUINTET_ABI_VERSION"),
    ("$CLASSES", "&probe"),
    ("$CLASS", "probe.Probe"),
    ("$DESCRIPTOR_LEN", "sizeof descriptor"),
    ("$DESCRIPTOR", "descriptor"),
    ("$UPDATE", "call"),
    ("$SIZE", "sizeof(quintet_library)"),
    ("$VERSION", "QUINTET_ABI_VERSION"),
    ("$COUNT", "1"),
    ("$TABLE", "&table"),
];

const PROTO: &str = r#"
syntax = "proto3";
package probe;
import "quintet/options.proto";
service Probe {
  rpc Do(Empty) returns (Empty) { option (quintet.method) = { kind: UPDATE }; }
  rpc See(Empty) returns (Empty) { option (quintet.method) = { kind: READ }; }
}
message Empty {}
"#;

/// Compiles [`COMPONENT`] with some of its parts replaced.
fn probe(directory: &Path, wrong: &[(&str, &str)]) -> PathBuf {
    fs::write(directory.join("probe.proto"), PROTO).unwrap();
    let bytes = descriptor_of(&directory.join("probe.proto"));
    let initializer: String = bytes.iter().map(|byte| format!("{byte},")).collect();
    fs::write(directory.join("probe.descriptor.inc"), initializer).unwrap();
    let mut source = COMPONENT.to_owned();
    // Longer names first: $CLASS is the beginning of $CLASSES.
    let mut parts: Vec<_> = wrong.iter().chain(&RIGHT).collect();
    parts.sort_by_key(|(part, _)| std::cmp::Reverse(part.len()));
    for (part, text) in parts {
        source = source.replace(part, text);
    }
    let path = directory.join("probe.c");
    fs::write(&path, source).unwrap();
    cc(directory, &path)
}

/// The error of loading a probe with something wrong; every word of `words` is in it.
fn refused(wrong: &[(&str, &str)], words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let path = probe(directory.path(), wrong);
    let error = library::open(&path).err().expect("it is refused").to_string();
    for word in words.iter().chain(&["libprobe.so"]) {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn the_probe_itself_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = probe(directory.path(), &[]);
    let factories = library::open(&path).unwrap();
    let mut instance = factories[0].create().unwrap();
    let context = quintet_component::Context::new(1, 0, 0);
    assert_eq!(instance.update(0, &context, &[]), Ok(vec![]));
    assert_eq!(instance.read(1, &context, &[]), Ok(vec![]));
}

#[test]
fn another_version_of_the_interface() {
    refused(
        &[("$VERSION", "2u")],
        &["version 2 of the component interface", "speaks version 1", "upgrade Quintet"],
    );
    refused(&[("$VERSION", "0u")], &["version 0", "speaks version 1", "build the component again"]);
    refused(&[("$CLASS_VERSION", "7u")], &["version 7", "speaks version 1"]);
    // A table of another version has another size by right: the version is what is wrong.
    refused(&[("$VERSION", "2u"), ("$SIZE", "8")], &["version 2"]);
}

#[test]
fn a_table_of_another_size() {
    refused(&[("$SIZE", "16")], &["library table has 16 bytes", "has 24", "sizeof"]);
    refused(&[("$CLASS_SIZE", "8")], &["class table has 8 bytes", "has 96"]);
}

#[test]
fn a_larger_table_of_the_same_version_is_a_newer_neighbour() {
    let directory = tempfile::tempdir().unwrap();
    let path = probe(directory.path(), &[("$SIZE", "4096"), ("$CLASS_SIZE", "4096")]);
    assert!(library::open(&path).is_ok());
}

#[test]
fn tables_that_cannot_be_right() {
    refused(&[("$TABLE", "NULL")], &["could not describe itself"]);
    refused(&[("$COUNT", "0")], &["exports no class"]);
    refused(&[("$COUNT", "1000000")], &["1000000 classes", "at most 256"]);
    refused(&[("$CLASSES", "NULL")], &["null pointer"]);
    refused(
        &[("$CLASSES", "&probe, &probe"), ("$COUNT", "2")],
        &["exports class probe.Probe twice"],
    );
    refused(&[("$UPDATE", "NULL")], &["probe.Probe", "lacks the function update"]);
    refused(&[("$CLASS", "")], &["without a name"]);
    refused(&[("$CLASS", "\\xff\\xfe")], &["not UTF-8"]);
    refused(&[("$DESCRIPTOR_LEN", "0")], &["probe.Probe has no descriptor"]);
    refused(&[("$CLASS", "probe.Other")], &["no service of that name", "probe.Probe", "rebuild"]);
    refused(&[("$DESCRIPTOR_LEN", "sizeof descriptor - 1")], &["not a complete FileDescriptorSet"]);
}

#[test]
fn a_library_that_is_no_component() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("stranger.c");
    fs::write(&source, "int answer(void);\nint answer(void) { return 42; }\n").unwrap();
    let error = library::open(&cc(directory.path(), &source)).err().unwrap().to_string();
    assert!(error.contains("not a Quintet component"), "{error}");
    assert!(error.contains("quintet_component_library"), "{error}");
    assert!(error.contains("export!"), "{error}");
}

#[test]
fn a_file_that_is_no_library() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.so");
    fs::write(&path, "remember the milk").unwrap();
    let error = library::open(&path).err().unwrap().to_string();
    assert!(error.contains("notes.so"), "{error}");
    assert!(error.contains("not a shared library that this machine can load"), "{error}");
    assert!(error.contains(std::env::consts::ARCH), "{error}");

    let error = library::open(directory.path()).err().unwrap().to_string();
    assert!(error.contains("not a shared library"), "{error}");
}

#[test]
fn a_file_that_is_not_there() {
    let error = library::open("/nowhere/libbank.so".as_ref()).err().unwrap().to_string();
    assert!(error.contains("/nowhere/libbank.so"), "{error}");
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn an_instance_that_is_not_made() {
    for (create, word) in [
        ("e->write(e->opaque, (const uint8_t *)\"no luck\", 7); return 13;", "no luck"),
        ("return 13;", "gave no reason"),
        ("return 0;", "null pointer"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = probe(directory.path(), &[("$CREATE", create)]);
        let factory = library::open(&path).unwrap().remove(0);
        let error = factory.create().err().expect("it is not made").to_string();
        assert!(error.contains(word) && error.contains("probe.Probe"), "{error}");
    }
}

#[test]
fn what_a_component_returns_becomes_a_status() {
    use quintet_component::{Code, Context};
    let context = Context::new(1, 0, 0);
    for (code, expected) in [
        ("5", Code::NotFound),
        ("16", Code::Unauthenticated),
        ("99", Code::Unknown),
        ("-1", Code::Unknown),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let call = format!("e->write(e->opaque, (const uint8_t *)\"why\", 3); return {code};");
        let path = probe(directory.path(), &[("$CALL", &call)]);
        let mut instance = library::open(&path).unwrap()[0].create().unwrap();
        let status = instance.update(0, &context, &[]).unwrap_err();
        assert_eq!(status.code(), expected);
        assert!(status.message().contains("why"), "{status}");
        assert_eq!(instance.failure(), None, "a refusal is no failure");
    }
}

#[test]
fn an_instance_that_says_it_has_failed_is_asked_nothing_more() {
    use quintet_component::{Code, Context};
    let context = Context::new(1, 0, 0);
    let directory = tempfile::tempdir().unwrap();
    let call = "if (m == 1) return 0;\n e->write(e->opaque, (const uint8_t *)\"broken\", 6); return QUINTET_FAILED;";
    let path = probe(directory.path(), &[("$CALL", call)]);
    let mut instance = library::open(&path).unwrap()[0].create().unwrap();
    assert!(instance.read(1, &context, &[]).is_ok());
    let status = instance.update(0, &context, &[]).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "broken"));
    assert_eq!(instance.read(1, &context, &[]).unwrap_err(), status);
    assert_eq!(instance.failure().as_deref(), Some("broken"));
    assert!(instance.save(&mut Vec::new()).is_err());
}

#[test]
fn a_reply_without_end_is_cut_off() {
    use quintet_component::{Code, Context};
    let directory = tempfile::tempdir().unwrap();
    let call = "static uint8_t page[1 << 20]; while (r->write(r->opaque, page, sizeof page) == 0) {} return 0;";
    let path = probe(directory.path(), &[("$CALL", call)]);
    let mut instance = library::open(&path).unwrap()[0].create().unwrap();
    let status = instance.update(0, &Context::new(1, 0, 0), &[]).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
}
