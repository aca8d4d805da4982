//! Generated code compiles without a warning, whatever its crate forbids, and serves.
#![deny(warnings, missing_docs)]
#![allow(unreachable_pub, reason = "a test reaches everything")]

use std::io::{self, Read, Write};

use quintet_component::prost::Message;
use quintet_component::{Class, Code, Context, Factory, State, Status};

/// Messages and services of `golden/greeter.proto`.
mod greeter {
    include!("golden/greeter.rs");
}

/// A component of the service without updates.
#[derive(Default)]
struct Oak;

impl greeter::Door for Oak {
    fn r#type(&self, _: &Context, _: greeter::CountRequest) -> Result<greeter::Name, Status> {
        Ok(greeter::Name { name: "oak".to_owned() })
    }
}

impl State for Oak {
    fn save(&self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn load(&mut self, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

/// A component of the other service in the same file; it creates itself with difficulty.
struct Shy;

impl Default for Shy {
    fn default() -> Shy {
        panic!("not today")
    }
}

impl greeter::Greeter for Shy {
    fn greet(&mut self, _: &mut Context, _: greeter::Name) -> Result<greeter::Greeting, Status> {
        Err(Status::unavailable("hiding"))
    }

    fn count(&self, _: &Context, _: greeter::CountRequest) -> Result<greeter::Greeted, Status> {
        Ok(greeter::Greeted { people: 0 })
    }
}

impl State for Shy {
    fn save(&self, _: &mut dyn Write) -> io::Result<()> {
        panic!("not this either")
    }

    fn load(&mut self, _: &mut dyn Read) -> io::Result<()> {
        panic!("nor this")
    }
}

#[test]
fn a_service_of_reads_alone_is_served() {
    let factory = greeter::DoorFactory::<Oak>::new();
    let class = Class::of(&factory).unwrap();
    let method = class.method_named("/greeter.Door/Type").unwrap();
    let mut door = factory.create().unwrap();
    let reply = door.read(method.id(), &Context::new(1, 0, 0), &[]).unwrap();
    assert_eq!(greeter::Name::decode(&*reply).unwrap().name, "oak");
    let refused = door.update(method.id(), &Context::new(1, 0, 0), &[]).unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[test]
fn a_panic_while_creating_is_an_error() {
    let error = greeter::GreeterFactory::<Shy>::new().create().err().unwrap().to_string();
    assert!(error.contains("greeter.Greeter") && error.contains("not today"), "{error}");
}

#[test]
fn a_panic_while_saving_or_loading_is_an_error_and_loading_fails_the_instance() {
    let mut shy = quintet_component::instance::<greeter::GreeterService, Shy>(Shy);
    let error = shy.save(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("save panicked (not this either)"), "{error}");
    assert_eq!(shy.failure(), None);
    let status = shy.update(0, &Context::new(1, 0, 0), &[]).unwrap_err();
    assert_eq!(status, Status::unavailable("hiding"));
    let error = shy.load(&mut io::empty()).unwrap_err().to_string();
    assert!(error.contains("load panicked (nor this)"), "{error}");
    assert_eq!(shy.failure(), Some(error));
}
