//! The rules of `quintet_tidy`, each against the workspace and against a text that must fail it.

use std::collections::HashMap;
use std::fs;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use quintet_tidy::*;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(top().join("Cargo.toml"))
        .other_options(vec!["--locked".into()])
        .exec()
        .expect("cargo metadata of the workspace")
}

fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} broken:\n  {}", broken.len(), broken.join("\n  "));
}

/// Past this there is a second story in a file.
const LINES: usize = 600;

fn planted(path: &str, text: &str) -> Vec<Source> {
    vec![Source { path: path.into(), text: text.into() }]
}

/// What the workspace depends on, as a path names it.
fn crates(metadata: &Metadata) -> Vec<String> {
    let packages = metadata.workspace_packages().into_iter();
    packages.flat_map(|p| &p.dependencies).map(|d| d.name.replace('-', "_")).collect()
}

#[test]
fn cores_name_nothing_that_reaches_outside() {
    let crates = crates(&metadata());
    let found = |path: &str, text: &str| impure_cores(&planted(path, text), &crates);
    for text in [
        "let t = std::time::Instant::now();",
        "use std::time::{Duration, Instant as Clock};",
        "use super::{Duration, SystemTime};",
        "use std::{fs, thread};",
        "use std::{collections::{BTreeMap}, fs::{self, File}};",
        "use std::net::{UdpSocket};",
        "use ::std::net;",
        "use std::net as elsewhere;",
        "use std as everything;",
        "use std::*;",
        "use std::{self as everything};",
        "use std::sync::{Arc, Mutex};",
        "use std::sync::*;",
        "fn f(file: ::std::fs::File) {}",
        "assert!(x, \"{}\", std::process::id());",
        "let n = std::env::var(\"SEED\");",
        "fn f() { if x { <std::net::TcpStream as Read>::read(y) } }",
        "std::thread_local! {}",
        "use std::\n    os::fd::OwnedFd;",
        "use getrandom::fill;",
        "libc::close(0);",
        "unsafe { x() }",
        "let m: HashMap<u8, u8> = y;",
        "not Rust (",
    ] {
        for (folder, root) in CORES {
            assert_ne!(found(&format!("{folder}a.rs"), text).len(), 0, "{folder}: {text}");
            assert_ne!(found(root, text).len(), 0, "{root}: {text}");
        }
    }
    assert_eq!(found("vsync/sim/src/env.rs", "\nuse std::{fmt, fs};").len(), 1);
    for text in [
        "// never Instant::now()",
        "/// See [`std::fs`].\nconst TEXT: &str = \"std::fs\";",
        "use std::{fmt, sync::{Arc}, time::Duration};\nuse std::collections::*;",
        "use std::fmt::{self as text, Display as Shown};",
        "let a = b::<u8>::c as std::ops::Range<u64>; core::Event::Left; fs::d(x);",
        "use quintet_transport::{Member, NodeId};",
    ] {
        let allowed = found("vsync/src/core/order.rs", text);
        assert_none(allowed);
    }
    let lines = found("vsync/src/core/order.rs", "use std::{\n    fmt,\n    fs,\n};\n");
    assert!(lines[0].starts_with("vsync/src/core/order.rs:3: `std::fs`"), "{lines:?}");
    assert_none(found("vsync/sim/src/main.rs", "use std::time::Instant;"));
    assert_none(found("vsync/src/core/tests/net.rs", "use std::fs;"));
    assert_none(impure_cores(&sources(), &crates));
}

#[test]
fn cores_ask_the_compiler_to_hold_them_to_it() {
    let (_, root) = CORES[0];
    let one = planted(root, "//! A core.\n\n#![forbid(unsafe_code)]\n");
    assert_eq!(unasked_cores(&one).len(), 2 * CORES.len() - 1);
    assert_none(unasked_cores(&sources()));
}

#[test]
fn files_tell_one_story_and_say_which() {
    for path in ["a.rs", "a/tests.rs", "a/tests/b.rs"] {
        assert_eq!(long_files(&planted(path, &"x\n".repeat(LINES + 1)), LINES).len(), 1);
    }
    assert_eq!(headless_files(&planted("a.rs", "use std::fs;\n")).len(), 1);
    assert_eq!(headless_files(&planted("tests.rs", "\n")).len(), 1);
    assert_none(long_files(&sources(), LINES));
    assert_none(headless_files(&sources()));
}

#[test]
fn no_test_is_ignored_without_a_reason() {
    assert_eq!(silent_ignores(&planted("a.rs", concat!("    #[ign", "ore]"))).len(), 1);
    assert_none(silent_ignores(&sources()));
}

#[test]
fn nothing_is_put_off() {
    for line in [
        concat!("    to", "do!()"),
        concat!("// FIX", "ME: later"),
        concat!("# X", "XX"),
        concat!("It is enough for ", "now."),
        concat!("a place", "holder"),
        concat!("unimple", "mented!(\"this\")"),
    ] {
        assert_eq!(unfinished(&planted("a.py", line)).len(), 1, "{line}");
    }
    assert_none(unfinished(&texts()));
}

#[test]
fn the_rules_see_scripts_pages_and_manifests() {
    let texts = texts();
    for path in ["scripts/test", "scripts/demo.d/load.py", "README.md", "Cargo.toml"] {
        assert!(texts.iter().any(|text| text.path == path), "{path}");
    }
}

#[test]
fn no_test_skips_itself_as_if_it_had_passed() {
    let silent = concat!("eprintln!(\"skip", "ped: no compiler\");");
    assert_eq!(private_skips(&planted("a/tests/b.rs", silent)).len(), 1);
    assert_none(private_skips(&sources()));
}

#[test]
fn the_licences_are_there() {
    assert_eq!(missing_licence_texts(&top().join("scripts")).len(), 2);
    assert_none(missing_licence_texts(&top()));
}

#[test]
fn crates_depend_in_one_direction() {
    let metadata = metadata();
    let allowed: HashMap<&str, &[&str]> = MAY_DEPEND.iter().copied().collect();
    let mut broken = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(may) = allowed.get(name) else {
            broken.push(format!("{name}: say in MAY_DEPEND what it may depend on"));
            continue;
        };
        for dependency in &package.dependencies {
            let ours = allowed.contains_key(dependency.name.as_str());
            if ours
                && dependency.kind == DependencyKind::Normal
                && !may.contains(&dependency.name.as_str())
            {
                broken.push(format!("{name} depends on {}", dependency.name));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn licences_are_free_to_use() {
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(licence_passes(good), "{good}");
    }
    for bad in ["GPL-2.0-only", "MIT AND AGPL-3.0", "", "(GPL-2.0 OR LGPL-3.0) AND MIT"] {
        assert!(!licence_passes(bad), "{bad}");
    }
    let broken = metadata()
        .packages
        .iter()
        .filter(|package| {
            let by_file = LICENCE_FILES.iter().find(|(name, _)| package.name.as_str() == *name);
            let named = package.license.as_deref().or(by_file.map(|(_, licence)| *licence));
            !licence_passes(named.unwrap_or_default())
        })
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert_none(broken);
}

/// Whoever has cargo-deny gets the same answer from it.
#[test]
fn deny_toml_says_the_same() {
    let deny = fs::read_to_string(top().join("deny.toml")).expect("deny.toml");
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list: Vec<&str> = list.expect("licences").split('"').skip(1).step_by(2).collect();
    assert_eq!(list, LICENCES);
}

#[test]
fn everything_comes_from_one_registry_and_no_version_is_left_open() {
    let named = |source: &str| vec![("it".to_owned(), Some(source.to_owned()))];
    for source in ["git+https://github.com/a/it#1", "registry+https://example.com/index"] {
        assert_eq!(foreign_sources(&named(source)).len(), 1, "{source}");
    }
    let metadata = metadata();
    let source = |p: &cargo_metadata::Package| p.source.as_ref().map(|s| s.repr.clone());
    let packages: Vec<_> =
        metadata.packages.iter().map(|p| (p.name.to_string(), source(p))).collect();
    assert!(packages.iter().any(|(_, source)| source.is_some()));
    assert_none(foreign_sources(&packages));
    let ours = metadata.workspace_packages().into_iter().flat_map(|p| &p.dependencies);
    let open = ours.filter(|d| d.path.is_none() && d.req.comparators.is_empty());
    assert_none(open.map(|d| d.name.clone()).collect());
}

#[test]
fn every_dependency_has_its_reason_in_the_architecture() {
    let architecture = fs::read_to_string(top().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut broken = Vec::new();
    for package in metadata().workspace_packages() {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_none())
        {
            if !architecture.contains(&format!("`{}`", dependency.name)) {
                broken.push(format!(
                    "{} (used by {}) has no line in ARCHITECTURE.md",
                    dependency.name, package.name
                ));
            }
        }
    }
    assert_none(broken);
}
