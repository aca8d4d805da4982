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

#[test]
fn cores_touch_no_clock_socket_thread_or_unsafe() {
    assert_eq!(
        impure_cores(&planted("vsync/src/core/order.rs", "let t = Instant::now();")).len(),
        1
    );
    assert_eq!(impure_cores(&planted("transport/src/reliable/rtt.rs", "unsafe { x() }")).len(), 1);
    assert_none(impure_cores(&planted("vsync/src/core/order.rs", "// never Instant::now()")));
    assert_none(impure_cores(&sources()));
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
        .filter(|package| !licence_passes(package.license.as_deref().unwrap_or_default()))
        .map(|package| format!("{} {}: {:?}", package.name, package.version, package.license))
        .collect();
    assert_none(broken);
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
