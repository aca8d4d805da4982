//! A class as its `.proto` describes it: methods with their kinds and options, and the messages
//! they take and give.
//!
//! The description travels as a serialized `FileDescriptorSet` inside every component, so a manager
//! that has never seen the `.proto` can route a gRPC path to a method, know whether it is an update
//! or a read, and translate between JSON and protobuf for a person at a terminal. The same reading
//! is done at build time by [`crate::build`], so an option that cannot be honoured is a compile
//! error long before a manager meets it.

mod policy;

use std::collections::BTreeSet;

use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

use crate::{Error, Factory, MethodOptions};

/// Most methods that a class may have.
pub const METHODS_MAX: usize = 1024;

/// A component's type: a service, its methods, and the messages it uses.
#[derive(Clone, Debug)]
pub struct Class {
    service: ServiceDescriptor,
    methods: Vec<Method>,
}

/// One method of a class.
#[derive(Clone, Debug)]
pub struct Method {
    id: u32,
    path: String,
    options: MethodOptions,
    descriptor: MethodDescriptor,
}

impl Class {
    /// The class in a serialized `FileDescriptorSet` that holds exactly one service.
    pub fn from_descriptor(descriptor: &[u8]) -> Result<Class, Error> {
        let mut classes = Class::all_from_descriptor(descriptor)?;
        match classes.len() {
            1 => Ok(classes.remove(0)),
            0 => Err(Error::new(
                "the descriptor holds no service: a component class is a service of its .proto",
            )),
            _ => {
                let names: Vec<&str> = classes.iter().map(Class::name).collect();
                Err(Error::new(format!(
                    "the descriptor holds several services ({}): name one",
                    names.join(", ")
                )))
            }
        }
    }

    /// Every class in a serialized `FileDescriptorSet`.
    pub fn all_from_descriptor(descriptor: &[u8]) -> Result<Vec<Class>, Error> {
        let pool = pool(descriptor)?;
        Class::all_in(&pool)
    }

    /// The class with this full name in a serialized `FileDescriptorSet`.
    pub fn named(descriptor: &[u8], name: &str) -> Result<Class, Error> {
        let pool = pool(descriptor)?;
        let service = pool.get_service_by_name(name).ok_or_else(|| {
            let held: Vec<String> = pool.services().map(|service| service.full_name().to_owned()).collect();
            Error::new(format!(
                "class {name}: its descriptor holds no service of that name (it holds: {}); rebuild the component \
                 from its .proto",
                if held.is_empty() { "none".to_owned() } else { held.join(", ") }
            ))
        })?;
        Class::read(service).map_err(together)
    }

    /// The class that a factory makes instances of.
    pub fn of(factory: &dyn Factory) -> Result<Class, Error> {
        Class::named(factory.descriptor(), factory.class())
    }

    /// Every class in a pool; all that is wrong with any of them is in the error.
    pub(crate) fn all_in(pool: &DescriptorPool) -> Result<Vec<Class>, Error> {
        let (mut classes, mut problems) = (Vec::new(), Vec::new());
        for service in pool.services().filter(|service| !service.full_name().starts_with("google."))
        {
            match Class::read(service) {
                Ok(class) => classes.push(class),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(classes) } else { Err(together(problems)) }
    }

    fn read(service: ServiceDescriptor) -> Result<Class, Vec<String>> {
        let file = service.parent_file().name().to_owned();
        let mut problems = Vec::new();
        if let Err(reason) = policy::check_service(&service) {
            problems.push(format!("{file}: service {}: {reason}", service.full_name()));
        }
        let mut methods = Vec::new();
        let mut rust_names = BTreeSet::new();
        for (id, descriptor) in (0u32..).zip(service.methods()) {
            let mut blame = |reason: String| {
                problems.push(format!("{file}: {}: {reason}", descriptor.full_name()))
            };
            if !rust_names.insert(descriptor.name().replace('_', "").to_ascii_lowercase()) {
                blame(
                    "another method has the same name but for capitals and underscores: rename one"
                        .to_owned(),
                );
            }
            match policy::read(&descriptor) {
                Ok(options) => {
                    let path = format!("/{}/{}", service.full_name(), descriptor.name());
                    methods.push(Method { id, path, options, descriptor });
                }
                Err(reasons) => reasons.into_iter().for_each(blame),
            }
        }
        if methods.len() > METHODS_MAX {
            problems.push(format!(
                "{file}: service {}: more than {METHODS_MAX} methods",
                service.full_name()
            ));
        }
        if problems.is_empty() { Ok(Class { service, methods }) } else { Err(problems) }
    }

    /// The full name: `bank.Bank`.
    pub fn name(&self) -> &str {
        self.service.full_name()
    }

    /// The name without its package: `Bank`.
    pub fn short_name(&self) -> &str {
        self.service.name()
    }

    /// The methods; a method's id is its index here, which is its place in the `.proto`.
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The method with this id.
    pub fn method(&self, id: u32) -> Option<&Method> {
        self.methods.get(id as usize)
    }

    /// The method with this name, `Transfer`, or this gRPC path, `/bank.Bank/Transfer`.
    pub fn method_named(&self, name: &str) -> Option<&Method> {
        self.methods.iter().find(|method| {
            if name.starts_with('/') { method.path == name } else { method.name() == name }
        })
    }

    /// The descriptors of the class and of all that it imports.
    pub fn descriptor_pool(&self) -> &DescriptorPool {
        self.service.parent_pool()
    }
}

impl Method {
    /// The number by which an instance is asked for this method: its place in the service, from 0.
    /// Add methods at the end of a service that is in use: records of earlier updates hold these
    /// numbers.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name: `Transfer`.
    pub fn name(&self) -> &str {
        self.descriptor.name()
    }

    /// The path of gRPC: `/bank.Bank/Transfer`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it changes state.
    pub fn kind(&self) -> crate::Kind {
        self.options.kind
    }

    /// All its options, defaults filled in.
    pub fn options(&self) -> &MethodOptions {
        &self.options
    }

    /// The descriptor, with the messages it takes (`input()`) and gives (`output()`).
    pub fn descriptor(&self) -> &MethodDescriptor {
        &self.descriptor
    }
}

fn pool(descriptor: &[u8]) -> Result<DescriptorPool, Error> {
    DescriptorPool::decode(descriptor).map_err(|error| {
        Error::new(format!(
            "the descriptor is not a complete FileDescriptorSet ({error}); make it with imports included, as \
             quintet_component::build does"
        ))
    })
}

fn together(problems: Vec<String>) -> Error {
    Error::new(problems.join("\n"))
}
