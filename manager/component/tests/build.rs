//! Code generation: what comes out, and what is refused with which words.

use std::fs;
use std::path::Path;

use quintet_component::build::{self, Generated};
use quintet_component::{Call, Class, Kind, Order, Read};

/// Generates from the text of one `.proto`.
fn generate(proto: &str) -> Result<Vec<Generated>, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.proto");
    fs::write(&path, proto).unwrap();
    build::generate(&[path], &[directory.path()]).map_err(|error| error.to_string())
}

/// A service with these methods.
fn shop(methods: &str) -> String {
    format!(
        r#"syntax = "proto3";
package shop;
import "quintet/options.proto";
service Shop {{
{methods}
}}
message Item {{ uint64 number = 1; }}
"#
    )
}

/// A service with one method, `Buy`, with these options.
fn method(options: &str) -> Result<Vec<Generated>, String> {
    generate(&shop(&format!(
        "  rpc Buy(Item) returns (Item) {{ option (quintet.method) = {{ {options} }}; }}"
    )))
}

/// The class of that service.
fn class(options: &str) -> Class {
    let files = method(options).unwrap_or_else(|error| panic!("{options}: {error}"));
    let descriptor = files.iter().find(|file| file.name == "shop.descriptor").unwrap();
    Class::from_descriptor(&descriptor.content).unwrap()
}

#[test]
fn the_generated_code_is_the_golden_one() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = build::generate(&[golden.join("greeter.proto")], &[&golden]).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["greeter.descriptor", "greeter.rs"]);
    if std::env::var_os("QUINTET_BLESS").is_some() {
        build::write_to(&golden, &files).unwrap();
    }
    for file in files {
        let expected = fs::read(golden.join(&file.name)).unwrap();
        assert!(
            file.content == expected,
            "{} is not what is generated: look at the difference after QUINTET_BLESS=1 cargo test",
            file.name
        );
    }
}

#[test]
fn options_that_are_not_said_have_their_defaults() {
    let update = class("kind: UPDATE").method(0).unwrap().options().clone();
    assert_eq!(update, quintet_component::MethodOptions::new(Kind::Update));
    assert_eq!((update.order, update.stable, update.call), (Order::Total, true, Call::ExactlyOnce));
    let read = class("kind: READ").method(0).unwrap().options().clone();
    assert_eq!((read.kind, read.read), (Kind::Read, Read::Session));
}

#[test]
fn options_that_are_said_arrive() {
    let class = class(
        r#"kind: UPDATE order: FIFO stable: false call: AT_MOST_ONCE collate: MAJORITY
           orphan: IGNORE deadline: "1.5s""#,
    );
    let options = class.method(0).unwrap().options();
    assert_eq!(
        (options.order, options.stable, options.call),
        (Order::Fifo, false, Call::AtMostOnce)
    );
    assert_eq!(options.collate, quintet_component::Collate::Majority);
    assert_eq!(options.deadline, Some(std::time::Duration::from_millis(1500)));
}

/// Every contradiction and everything that is not served, with words of the reason.
const REFUSED: &[(&str, &[&str])] = &[
    ("", &["kind: UPDATE", "kind: READ"]),
    ("order: TOTAL", &["it is not said whether the method changes state"]),
    ("kind: READ call: EXACTLY_ONCE", &["kind: READ with call: EXACTLY_ONCE", "leave call out"]),
    ("kind: READ call: AT_MOST_ONCE", &["kind: READ with call: AT_MOST_ONCE"]),
    ("kind: READ order: TOTAL", &["kind: READ with order: TOTAL", "not ordered"]),
    ("kind: READ stable: true", &["kind: READ with stable: true"]),
    ("kind: READ stable: false", &["kind: READ with stable: false"]),
    ("kind: READ collate: MAJORITY", &["kind: READ with collate: MAJORITY", "one replica"]),
    ("kind: READ collate: ALL", &["kind: READ with collate: ALL"]),
    ("kind: READ orphan: TERMINATE", &["kind: READ with orphan: TERMINATE"]),
    ("kind: READ read: LINEARIZABLE", &["LINEARIZABLE is not served"]),
    ("kind: UPDATE read: LOCAL", &["kind: UPDATE with read: LOCAL"]),
    ("kind: UPDATE call: EXACTLY_ONCE order: FIFO", &["EXACTLY_ONCE with order: FIFO", "TOTAL"]),
    ("kind: UPDATE call: EXACTLY_ONCE order: NONE", &["EXACTLY_ONCE with order: NONE"]),
    ("kind: UPDATE order: CAUSAL", &["EXACTLY_ONCE (the default; say call: AT_LEAST_ONCE"]),
    ("kind: UPDATE call: EXACTLY_ONCE stable: false", &["stable: false", "say stable: true"]),
    ("kind: UPDATE collate: ALL", &["collate: ALL is not served"]),
    ("kind: UPDATE orphan: TERMINATE", &["orphan: TERMINATE is not served"]),
    ("kind: UPDATE orphan: DETECT", &["orphan: DETECT is not served"]),
    (r#"kind: UPDATE deadline: "soon""#, &["\"soon\" is no duration", "2s"]),
    (r#"kind: UPDATE deadline: "0s""#, &["no duration"]),
];

#[test]
fn contradictions_name_file_method_and_reason() {
    for (options, words) in REFUSED {
        let error = method(options).expect_err(options);
        assert!(error.starts_with("shop.proto: shop.Shop.Buy: "), "{error}");
        for word in *words {
            assert!(error.contains(word), "{options}: {word:?} is not in: {error}");
        }
    }
}

#[test]
fn a_value_that_does_not_exist_is_refused_with_its_file() {
    for options in [
        "kind: READ collate: SOMETIMES",
        "kind: WRITE",
        "kind: READ freshness: 3",
        "kind: READ read: 9",
    ] {
        let error = method(options).expect_err(options);
        assert!(error.contains("shop.proto"), "{options}: {error}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let error = generate(&shop(
        r#"  rpc Buy(Item) returns (Item);
  rpc Look(Item) returns (Item) { option (quintet.method) = { kind: READ order: TOTAL collate: ALL }; }
  rpc Fine(Item) returns (Item) { option (quintet.method) = { kind: READ }; }"#,
    ))
    .unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
    assert_eq!(error.matches("shop.Shop.Look").count(), 2, "{error}");
    assert!(!error.contains("shop.Shop.Fine"), "{error}");
}

#[test]
fn streaming_is_not_served() {
    for (takes, gives) in
        [("stream Item", "Item"), ("Item", "stream Item"), ("stream Item", "stream Item")]
    {
        let rpc = format!(
            "  rpc Watch({takes}) returns ({gives}) {{ option (quintet.method) = {{ kind: READ }}; }}"
        );
        let error = generate(&shop(&rpc)).unwrap_err();
        assert!(error.contains("shop.Shop.Watch: streaming methods are not served"), "{error}");
    }
}

#[test]
fn inherited_services_are_not_served() {
    let error = generate(&shop(r#"  option (quintet.service) = { inherits: "quintet.Managed" };"#))
        .unwrap_err();
    assert!(error.contains("service shop.Shop: inherits is not served"), "{error}");
}

#[test]
fn methods_whose_rust_names_collide_are_refused() {
    let error = generate(&shop(
        r#"  rpc GetIt(Item) returns (Item) { option (quintet.method) = { kind: READ }; }
  rpc Get_it(Item) returns (Item) { option (quintet.method) = { kind: READ }; }"#,
    ))
    .unwrap_err();
    assert!(error.contains("shop.Shop.Get_it: another method has the same name"), "{error}");
}

#[test]
fn a_file_that_is_not_a_proto_is_named() {
    let error = generate("syntax = \"proto3\"; package shop; message {").unwrap_err();
    assert!(error.contains("shop.proto"), "{error}");
    let error = generate("syntax = \"proto3\"; message Nameless {}").unwrap_err();
    assert!(error.contains("has no package"), "{error}");
    let error = build::generate(&["/nowhere/shop.proto"], &["/nowhere"]).unwrap_err().to_string();
    assert!(error.contains("/nowhere/shop.proto"), "{error}");
    let error = generate("syntax = \"proto3\"; package shop; import \"lost.proto\";").unwrap_err();
    assert!(error.contains("lost.proto"), "{error}");
}

#[test]
fn a_method_without_the_import_is_told_to_say_its_kind() {
    let error = generate(
        "syntax = \"proto3\"; package shop; message Item {} service Shop { rpc Buy(Item) returns (Item); }",
    )
    .unwrap_err();
    assert!(error.contains("shop.proto: shop.Shop.Buy: it is not said"), "{error}");
}

#[test]
fn several_services_are_several_classes() {
    let files = generate(
        r#"syntax = "proto3"; package shop; import "quintet/options.proto"; message Item {}
service Shop { rpc Buy(Item) returns (Item) { option (quintet.method) = { kind: UPDATE }; } }
service Stock { rpc Count(Item) returns (Item) { option (quintet.method) = { kind: READ }; } }"#,
    )
    .unwrap();
    let descriptor = &files.iter().find(|file| file.name == "shop.descriptor").unwrap().content;
    let classes = Class::all_from_descriptor(descriptor).unwrap();
    assert_eq!(classes.iter().map(Class::name).collect::<Vec<_>>(), ["shop.Shop", "shop.Stock"]);
    assert_eq!(Class::named(descriptor, "shop.Stock").unwrap().methods()[0].kind(), Kind::Read);
    let error = Class::from_descriptor(descriptor).unwrap_err().to_string();
    assert!(error.contains("shop.Shop, shop.Stock"), "{error}");
    let error = Class::named(descriptor, "shop.Till").unwrap_err().to_string();
    assert!(error.contains("shop.Till"), "{error}");
}

#[test]
fn bytes_that_are_no_descriptor_are_an_error() {
    assert!(Class::from_descriptor(b"").is_err());
    assert!(Class::from_descriptor(b"\xff\xff\xff\xff").is_err());
}
