//! JSON ↔ protobuf: what a person writes reaches the component, and comes back as they would read
//! it.

use std::sync::OnceLock;

use proptest::prelude::*;
use quintet_component::prost::Message;
use quintet_component::{Class, build};

const PROTO: &str = r#"syntax = "proto3";
package zoo;
import "quintet/options.proto";
service Zoo {
  rpc Echo(Animal) returns (Animal) { option (quintet.method) = { kind: READ }; }
}
enum Diet { UNKNOWN = 0; GRASS = 1; MEAT = 2; }
message Animal {
  string name = 1;
  uint64 number = 2;
  sint32 altitude = 3;
  double weight_kg = 4;
  bool awake = 5;
  bytes mark = 6;
  Diet diet = 7;
  repeated Animal young = 8;
  map<string, int64> seen = 9;
  optional uint32 cage = 10;
}
"#;

fn class() -> Class {
    static CLASS: OnceLock<Class> = OnceLock::new();
    CLASS.get_or_init(compile).clone()
}

fn compile() -> Class {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zoo.proto");
    std::fs::write(&path, PROTO).unwrap();
    let files = build::generate(&[path], &[directory.path()]).unwrap();
    let descriptor = files.iter().find(|file| file.name == "zoo.descriptor").unwrap();
    Class::from_descriptor(&descriptor.content).unwrap()
}

/// The same message in Rust, without generated code.
#[derive(Clone, PartialEq, Message)]
struct Animal {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    number: u64,
    #[prost(sint32, tag = "3")]
    altitude: i32,
    #[prost(double, tag = "4")]
    weight_kg: f64,
    #[prost(bool, tag = "5")]
    awake: bool,
    #[prost(bytes = "vec", tag = "6")]
    mark: Vec<u8>,
    #[prost(int32, tag = "7")]
    diet: i32,
    #[prost(message, repeated, tag = "8")]
    young: Vec<Animal>,
    #[prost(btree_map = "string, int64", tag = "9")]
    seen: std::collections::BTreeMap<String, i64>,
    #[prost(uint32, optional, tag = "10")]
    cage: Option<u32>,
}

fn animal() -> impl Strategy<Value = Animal> {
    let plain = (
        any::<String>(),
        any::<u64>(),
        any::<i32>(),
        any::<f64>().prop_filter("NaN is not equal to itself", |weight| !weight.is_nan()),
        any::<bool>(),
        any::<Vec<u8>>(),
        0..3i32,
        prop::collection::btree_map(any::<String>(), any::<i64>(), 0..3),
        any::<Option<u32>>(),
    )
        .prop_map(|(name, number, altitude, weight_kg, awake, mark, diet, seen, cage)| Animal {
            name,
            number,
            altitude,
            weight_kg,
            awake,
            mark,
            diet,
            young: Vec::new(),
            seen,
            cage,
        });
    plain.prop_recursive(3, 12, 3, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..3)).prop_map(|(mut parent, young)| {
            parent.young = young;
            parent
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_message_survives_the_way_through_json(animal in animal()) {
        let class = class();
        let echo = class.method_named("Echo").unwrap();
        let json = echo.reply_to_json(&animal.encode_to_vec()).unwrap();
        prop_assert!(!json.contains('\n'));
        let bytes = echo.json_to_request(&json).unwrap();
        prop_assert_eq!(Animal::decode(&*bytes).unwrap(), animal);
    }

    #[test]
    fn no_json_is_too_strange(text in ".*") {
        let class = class();
        let _ = class.methods()[0].json_to_request(&text);
    }

    #[test]
    fn no_reply_is_too_strange(bytes in any::<Vec<u8>>()) {
        let class = class();
        if let Ok(json) = class.methods()[0].reply_to_json(&bytes) {
            let request = class.methods()[0].json_to_request(&json);
            prop_assert!(request.is_ok(), "{json}: {request:?}");
        }
    }
}

#[test]
fn people_write_numbers_as_numbers_or_strings_and_names_in_both_styles() {
    let class = class();
    let echo = class.method_named("Echo").unwrap();
    let read = |json: &str| Animal::decode(&*echo.json_to_request(json).unwrap()).unwrap();
    assert_eq!(read(r#"{"number": 7}"#), read(r#"{"number": "7"}"#));
    assert_eq!(read(r#"{"weight_kg": 1.5}"#), read(r#"{"weightKg": 1.5}"#));
    assert_eq!(read(r#"{"diet": "MEAT"}"#).diet, 2);
    assert_eq!(read("{}"), Animal::default());
}

#[test]
fn a_reply_shows_its_defaults() {
    let class = class();
    let json = class.methods()[0].reply_to_json(&[]).unwrap();
    assert!(json.starts_with(r#"{"name":"","number":"0","altitude":0"#), "{json}");
    assert!(!json.contains("cage"), "what is optional and absent stays absent: {json}");
}

#[test]
fn what_is_wrong_with_a_request_is_said_with_what_would_be_right() {
    let class = class();
    let echo = class.method_named("Echo").unwrap();
    for (json, words) in [
        (r#"{"nmae": "Rex"}"#, ["nmae", "\"name\": string"]),
        (r#"{"number": -1}"#, ["out of range", "\"number\": uint64"]),
        (r#"{"young": 3}"#, ["invalid type", "\"young\": [Animal]"]),
        (r#"{"name": "Rex""#, ["EOF", "Echo takes"]),
        (r#"{"name": "Rex"} {}"#, ["trailing", "not a Animal"]),
        ("", ["EOF", "\"diet\": Diet"]),
        ("[]", ["invalid type", "\"seen\": {string: int64}"]),
    ] {
        let error = echo.json_to_request(json).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{json}: {word:?} is not in: {error}");
        }
    }
}

#[test]
fn a_reply_that_is_not_the_methods_message_is_an_error() {
    let class = class();
    let error = class.methods()[0].reply_to_json(b"\xff\xff").unwrap_err().to_string();
    assert!(error.contains("zoo.Animal"), "{error}");
}

#[test]
fn deep_json_is_refused_and_does_not_end_the_process() {
    let class = class();
    let deep = r#"{"young":["#.repeat(100_000);
    assert!(class.methods()[0].json_to_request(&deep).is_err());
}
