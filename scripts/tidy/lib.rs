//! The rules that no compiler checks, as tests: who may depend on whom, what a protocol core may not touch,
//! which licences may come in, that every dependency has its reason written down, and that nothing is put off.
//!
//! Each rule is a function from the sources to the list of what breaks it, so that a rule can be tried on a
//! text that must fail it.

mod purity;

use std::fs;
use std::path::{Path, PathBuf};

pub use purity::{CORES, impure_cores, unasked_cores};

/// One source file of the workspace.
pub struct Source {
    /// Path from the top of the checkout, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The top of the checkout.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("two folders below the top")
        .to_owned()
}

/// All Rust sources of the workspace, build output left out.
pub fn sources() -> Vec<Source> {
    let mut found = texts();
    found.retain(|source| source.path.ends_with(".rs"));
    assert!(found.len() > 10, "only {} sources found: looking in the wrong place", found.len());
    found
}

/// All texts that people write for the workspace: sources, scripts, manifests and pages.
pub fn texts() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&top(), &top(), &mut found);
    found
}

fn collect(top: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            // A build directory says so itself, whatever its name.
            if !name.starts_with('.') && !path.join("CACHEDIR.TAG").exists() && name != "target" {
                collect(top, &path, found);
            }
        } else if !name.starts_with("LICENSE")
            && name != "Cargo.lock"
            && let Ok(text) = fs::read_to_string(&path)
        {
            let relative = path.strip_prefix(top).expect("below the top").to_string_lossy();
            found.push(Source { path: relative.replace('\\', "/"), text });
        } else {
            assert!(!name.ends_with(".rs"), "{} is not UTF-8", path.display());
        }
    }
}

/// Files, tests among them, that hold more lines than one story needs.
pub fn long_files(sources: &[Source], limit: usize) -> Vec<String> {
    sources
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > limit)
        .map(|(lines, path)| {
            format!("{path}: {lines} lines, more than {limit}: look for the second story in it")
        })
        .collect()
}

/// Files whose first line does not say what they are for, `tests.rs` beside what they test excepted; empty files.
pub fn headless_files(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.text.trim().is_empty() || !source.path.ends_with("tests.rs"))
        .filter(|source| {
            let mut lines = source
                .text
                .lines()
                .skip_while(|line| line.starts_with("#![") || line.trim().is_empty());
            !lines.next().is_some_and(|line| line.starts_with("//"))
        })
        .map(|source| format!("{}: no header comment", source.path))
        .collect()
}

/// Lines with an `#[ignore]` that gives no reason.
pub fn silent_ignores(sources: &[Source]) -> Vec<String> {
    let bare = concat!("#[ign", "ore]");
    let mut broken = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if line.trim() == bare {
                broken.push(format!("{}:{}: ignored without a reason", source.path, number + 1));
            }
        }
    }
    broken
}

/// What stands for work that was not done. Written in two parts, so that this list passes its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("for ", "now"),
    concat!("For ", "now"),
    concat!("place", "holder"),
    concat!("not implemented ", "yet"),
];

/// Lines that put off what should be done or said.
pub fn unfinished(texts: &[Source]) -> Vec<String> {
    lines_with(texts, UNFINISHED, "finish it, or say in plain words what does not work")
}

/// Lines of tests that call themselves skipped without failing where everything must run.
pub fn private_skips(sources: &[Source]) -> Vec<String> {
    let words = [concat!("\"skip", "ped"), concat!("\"SKIP", "PED")];
    let mut broken = lines_with(sources, &words, "skip with scripts/tidy/skip.rs");
    broken.retain(|line| !line.starts_with("scripts/tidy/"));
    broken
}

fn lines_with(texts: &[Source], words: &[&str], advice: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for source in texts {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                broken.push(format!("{}:{}: `{word}`: {advice}", source.path, number + 1));
            }
        }
    }
    broken
}

/// Which texts of the two licences that the manifests name are not in `folder`.
pub fn missing_licence_texts(folder: &Path) -> Vec<String> {
    [("LICENSE-MIT", "MIT License"), ("LICENSE-APACHE", "Apache License")]
        .iter()
        .filter(|(file, title)| {
            !fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(title))
        })
        .map(|(file, title)| format!("{file} does not hold the {title}"))
        .collect()
}

/// Which crates of the workspace each may depend on; development dependencies are free, but for cycles.
pub const MAY_DEPEND: &[(&str, &[&str])] = &[
    ("quintet-transport", &[]),
    ("quintet-vsync", &["quintet-transport"]),
    ("quintet-sim", &["quintet-transport", "quintet-vsync"]),
    ("quintet-component", &[]),
    ("quintet-client", &["quintet-transport"]),
    (
        "quintet-manager",
        &["quintet-client", "quintet-component", "quintet-transport", "quintet-vsync", "counter"],
    ),
    (
        "quintet-bench",
        &["quintet-transport", "quintet-vsync", "quintet-component", "quintet-client"],
    ),
    ("quintet-fuzz", &["quintet-transport", "quintet-vsync", "quintet-manager", "quintet-client"]),
    ("quintet-tidy", &[]),
    ("bank", &["quintet-component"]),
    ("counter", &["quintet-component"]),
    ("specimen", &["quintet-component"]),
];

/// Licences that may come in; an expression passes when one of its alternatives has only these.
pub const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages whose manifest names no licence, with the one that their licence file is.
pub const LICENCE_FILES: &[(&str, &str)] = &[("rdma-sys", "MIT")];

/// Whether a licence expression (SPDX, or the old form with `/`) can be met with [`LICENCES`] alone.
pub fn licence_passes(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    split_top(&expression, " OR ").iter().any(|alternative| {
        split_top(alternative, " AND ").iter().all(|part| {
            let part = part.trim();
            match part.strip_prefix('(').and_then(|part| part.strip_suffix(')')) {
                Some(inner) => licence_passes(inner),
                None => LICENCES.contains(&part),
            }
        })
    })
}

/// Packages that come from elsewhere than this checkout and the one registry (`None`: this checkout).
pub fn foreign_sources(packages: &[(String, Option<String>)]) -> Vec<String> {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let foreign =
        packages.iter().filter(|(_, source)| source.as_deref().is_some_and(|s| s != REGISTRY));
    foreign
        .map(|(name, source)| format!("{name} from {}", source.as_deref().unwrap_or("")))
        .collect()
}

/// Splits at `separator` where no parenthesis is open.
fn split_top<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && text[at..].starts_with(separator) => {
                parts.push(&text[start..at]);
                start = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}
