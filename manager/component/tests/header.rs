//! `include/quintet_component.h`, written by hand, says what `abi` says: for a C compiler and for a C++ compiler.
//!
//! From the Rust tables follows a C source that asserts, field by field, offset and size of the header's tables and
//! the value of its constants. It compiles, or the two have drifted apart.

#[path = "../../../scripts/tidy/skip.rs"]
mod skip;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use quintet_component::{Code, abi};

/// Assertions about one table. The pattern names all fields: one that is missing here does not compile.
macro_rules! table {
    ($out:ident, $c:literal = $rust:ident { $($field:ident),* $(,)? }) => {{
        fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
            size_of::<F>()
        }
        let _ = |abi::$rust { $($field: _),* }: abi::$rust| ();
        assert_that(&mut $out, &format!("sizeof({})", $c), size_of::<abi::$rust>());
        $(
            let name = stringify!($field);
            let at = std::mem::offset_of!(abi::$rust, $field);
            assert_that(&mut $out, &format!("offsetof({}, {name})", $c), at);
            let size = size_of_field(|table: &abi::$rust| &table.$field);
            assert_that(&mut $out, &format!("sizeof((({} *)0)->{name})", $c), size);
        )*
    }};
}

fn assert_that(out: &mut String, what: &str, value: usize) {
    writeln!(out, "ASSERT({what} == {value}, \"{what} is {value}\");").unwrap();
}

fn assertions() -> String {
    let mut out = String::from(
        "#include \"quintet_component.h\"\n\
         #ifdef __cplusplus\n#define ASSERT static_assert\n#else\n#define ASSERT _Static_assert\n#endif\n",
    );
    table!(out, "quintet_bytes" = Bytes { data, len });
    table!(out, "quintet_sink" = Sink { opaque, write });
    table!(out, "quintet_source" = Source { opaque, read });
    table!(
        out,
        "quintet_context" =
            CallContext { size, reserved, position, time_ns, client_low, client_high, seed }
    );
    table!(
        out,
        "quintet_library" = LibraryTable { size, abi_version, class_count, reserved, classes }
    );
    table!(
        out,
        "quintet_class" = ClassTable {
            size,
            abi_version,
            name,
            descriptor,
            factory,
            create,
            destroy,
            update,
            read,
            save,
            load,
        }
    );
    assert_that(&mut out, "QUINTET_ABI_VERSION", abi::VERSION as usize);
    assert_that(&mut out, "QUINTET_FAILED", abi::FAILED as usize);
    for number in 0..=16 {
        let name = Code::from_number(number).name();
        assert_that(&mut out, &format!("QUINTET_{name}"), number as usize);
    }
    // What a component does with it: export the function, and draw numbers.
    out.push_str(
        "const quintet_library *quintet_component_library(void) { return NULL; }\n\
         uint64_t draw(uint64_t *state);\n\
         uint64_t draw(uint64_t *state) { return quintet_random(state); }\n",
    );
    out
}

/// What the compiler says of `source` as `language`: `Err` holds its complaints.
fn compile(compiler: &str, language: &str, source: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("header");
    std::fs::write(&file, source).unwrap();
    let output = Command::new(compiler)
        .args([&format!("-std={language}"), "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .args(["-fsyntax-only", "-x", if language.contains('+') { "c++" } else { "c" }])
        .arg("-I")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include"))
        .arg(&file)
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(complaints) }
}

/// The header passes, and a table that had drifted would not.
fn agrees(compiler: &str, language: &str) {
    let source = assertions();
    compile(compiler, language, &source).unwrap_or_else(|complaints| panic!("{complaints}"));
    let drifted = source
        .replace("offsetof(quintet_class, load) == ", "offsetof(quintet_class, load) == 8 + ");
    assert_ne!(drifted, source);
    let complaints = compile(compiler, language, &drifted).expect_err("another layout");
    assert!(complaints.contains("offsetof(quintet_class, load) is"), "{complaints}");
}

#[test]
fn as_c_it_says_what_rust_says() {
    agrees("cc", "c11");
    agrees("cc", "c17");
}

#[test]
fn as_cpp_it_says_what_rust_says() {
    if !Command::new("c++").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip::skip("no C++ compiler: install the package g++");
    }
    agrees("c++", "c++11");
    agrees("c++", "c++20");
}
