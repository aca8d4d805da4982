//! What a protocol core may name: everything that cannot reach a clock, a socket, a thread, a file or randomness.
//!
//! A list of forbidden words is never complete, and `use std::{fs, net::{UdpSocket}}` contains none of them. So a file is
//! taken apart into tokens, each path is put together from its nested braces, and what leaves the crate must be on a list
//! of what is allowed. Clippy holds the cores to its own list of types and methods (`clippy.toml`), which sees
//! through re-exports and says nothing of whole modules; a core must ask for it in its first lines.

use std::str::FromStr;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

use crate::Source;

/// Protocol cores: driven by `handle_*`, drained by `poll_*`, everything else handed in. Their folder, and the file that
/// declares it.
pub const CORES: &[(&str, &str)] = &[
    ("transport/src/reliable/", "transport/src/reliable.rs"),
    ("vsync/src/core/", "vsync/src/core/mod.rs"),
    ("client-proxy/src/session/", "client-proxy/src/session/mod.rs"),
];

/// The simulator's world is as pure as what runs in it; its front end reads clocks and spreads seeds over threads.
const SIMULATOR: &str = "vsync/sim/src/";
const FRONT_END: &[&str] = &["main.rs", "run.rs", "panics.rs"];

/// What each core's first lines must ask of the compiler.
const ASKED: &[&str] =
    &["#![forbid(unsafe_code)]", "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]"];

/// Modules of the standard library that cannot reach outside, and items of others.
const ALLOWED: &[&[&str]] = &[
    &["any"],
    &["array"],
    &["borrow"],
    &["cell"],
    &["cmp"],
    &["collections"],
    &["convert"],
    &["error"],
    &["fmt"],
    &["hash"],
    &["iter"],
    &["marker"],
    &["mem"],
    &["num"],
    &["ops"],
    &["panic", "AssertUnwindSafe"],
    &["panic", "catch_unwind"],
    &["rc"],
    &["result"],
    &["slice"],
    &["str"],
    &["string"],
    &["sync", "Arc"],
    &["time", "Duration"],
    &["vec"],
];

/// Names that are not to be met in a core wherever they come from.
const NOWHERE: &[(&str, &str)] = &[
    ("unsafe", "unsafe code lives in small files that do nothing else"),
    ("Instant", "time is handed in"),
    ("SystemTime", "time is handed in"),
    ("RandomState", "entropy is handed in"),
];

/// Names that a core itself may not use, though its simulator may.
const ORDERED: &[(&str, &str)] = &[
    ("HashMap", "its order is drawn at random: use BTreeMap"),
    ("HashSet", "its order is drawn at random: use BTreeSet"),
];

/// Other crates that a core may use; `proptest` in its tests.
const CRATES: &[&str] =
    &["crc32fast", "proptest", "quintet_transport", "quintet_vsync", "serde", "thiserror"];

/// Lines in protocol cores that name what is outside, tests excepted. `crates` are those that the workspace depends on.
pub fn impure_cores(sources: &[Source], crates: &[String]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources {
        let path = source.path.as_str();
        let simulates = path.strip_prefix(SIMULATOR).is_some_and(|file| !FRONT_END.contains(&file));
        let core = CORES.iter().any(|(folder, root)| path.starts_with(folder) || path == *root);
        let tests = path.ends_with("tests.rs") || path.contains("reliable/simulation");
        if !(core || simulates) || tests || path.contains("/tests/") {
            continue;
        }
        let mut say = |line: usize, name: &str, why: &str| {
            broken.push(format!("{path}:{line}: `{name}`: {why}"));
        };
        let Ok(tokens) = TokenStream::from_str(&source.text) else {
            say(1, path, "cannot be read as Rust");
            continue;
        };
        for Path { line, parts } in paths(tokens) {
            let last = parts.last().map_or("", String::as_str);
            let named = |list: &[(&str, &'static str)]| {
                parts.iter().find_map(|p| list.iter().find(|(n, _)| n == p).map(|(_, why)| *why))
            };
            if let Some(why) = named(NOWHERE) {
                say(line, &parts.join("::"), why);
            } else if let Some(why) = named(ORDERED).filter(|_| core) {
                say(line, last, why);
            } else {
                // A name before `::std` is a keyword. What `core` and `alloc` hold reaches nothing.
                let std = parts.iter().position(|part| part == "std").map(|at| &parts[at + 1..]);
                let begins =
                    |may: &&[&str]| std.is_some_and(|path| path.iter().take(may.len()).eq(*may));
                if std.is_some() && !ALLOWED.iter().any(begins) {
                    say(
                        line,
                        &parts.join("::"),
                        "a core reaches nothing outside: have it handed in",
                    );
                }
                let other = parts.len() > 1 && crates.contains(&parts[0]);
                if other && !CRATES.contains(&parts[0].as_str()) {
                    say(line, &parts.join("::"), "not a crate for a core");
                }
            }
        }
    }
    broken
}

/// Cores that do not ask the compiler to hold them to it.
pub fn unasked_cores(sources: &[Source]) -> Vec<String> {
    let asks = |path: &str, what: &str| {
        sources.iter().any(|s| s.path == path && s.text.lines().any(|line| line == what))
    };
    let pairs = CORES.iter().flat_map(|(_, root)| ASKED.iter().map(move |what| (root, what)));
    pairs
        .filter(|(root, what)| !asks(root, what))
        .map(|(root, what)| format!("{root}: `{what}` is missing"))
        .collect()
}

/// A path as it is written, put together from nested braces: `a::{b, c::d}` is `a::b` and `a::c::d`.
struct Path {
    line: usize,
    parts: Vec<String>,
}

fn paths(tokens: TokenStream) -> Vec<Path> {
    let mut found = Vec::new();
    collect(tokens, &[], &mut found);
    found
}

fn collect(tokens: TokenStream, prefix: &[String], found: &mut Vec<Path>) {
    let mut tokens = tokens.into_iter().peekable();
    let mut path = Path { line: 1, parts: prefix.to_vec() };
    // Whether the next name belongs to the path that is being read.
    let mut open = !prefix.is_empty();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(name) if name == "as" && !prefix.is_empty() => {
                // What it is called from here on is no matter.
                tokens.next();
            }
            TokenTree::Ident(name) => {
                if !open {
                    path.end(prefix, found);
                }
                path.line = name.span().start().line;
                path.parts.push(name.to_string().trim_start_matches("r#").to_owned());
                open = false;
            }
            TokenTree::Punct(first)
                if first.as_char() == ':' && first.spacing() == Spacing::Joint =>
            {
                tokens.next();
                open = path.parts.len() > prefix.len();
            }
            TokenTree::Punct(star) if star.as_char() == '*' && open => path.parts.push("*".into()),
            TokenTree::Group(list) if list.delimiter() == Delimiter::Brace && open => {
                collect(list.stream(), &path.parts, found);
                path.parts = prefix.to_vec();
                open = !prefix.is_empty();
            }
            other => {
                path.end(prefix, found);
                open = !prefix.is_empty();
                if let TokenTree::Group(group) = other {
                    collect(group.stream(), &[], found);
                }
            }
        }
    }
    path.end(prefix, found);
}

impl Path {
    /// Notes the path that was read; the next begins at `prefix`.
    fn end(&mut self, prefix: &[String], found: &mut Vec<Path>) {
        let parts = std::mem::replace(&mut self.parts, prefix.to_vec());
        if parts.len() > prefix.len() {
            found.push(Path { line: self.line, parts });
        }
    }
}
