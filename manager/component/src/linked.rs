//! Components compiled into the program that hosts them, and the author's side of every host.
//!
//! Generated code gives each service a [`Service`]: the dispatcher from method numbers and bytes to
//! the author's typed methods. [`Linked`] makes a [`Factory`] of it; the same factory is handed to
//! a manager directly (the *linked* host) or exported from a shared library with [`crate::export!`]
//! (the *library* host).
//!
//! A panic stops here, beside the author's code, whoever the host is. What happens next depends on
//! what it may have broken. In an *update* or a *load* the state may be half changed, so the
//! instance has failed: every later call is refused with the reason. All replicas apply the same
//! update to the same state, so all fail alike. A *read* and a *save* have only `&self`: the call
//! fails and the instance goes on, for if a read could fail the one replica that happened to answer
//! it, a caller could pick the replicas off one by one.

use std::any::Any;
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Context, Error, Factory, Instance, REPLY_MAX, State, Status};

/// The dispatcher of a service for a component of type `T`. Implemented by generated code.
pub trait Service<T>: Send + Sync + 'static {
    /// The full name of the class.
    const CLASS: &'static str;
    /// The serialized `FileDescriptorSet`.
    const DESCRIPTOR: &'static [u8];

    /// Decodes the request, calls the update with this number, encodes the reply.
    fn update(
        component: &mut T,
        method: u32,
        context: &mut Context,
        request: &[u8],
    ) -> Result<Vec<u8>, Status>;

    /// Decodes the request, calls the read with this number, encodes the reply.
    fn read(
        component: &T,
        method: u32,
        context: &Context,
        request: &[u8],
    ) -> Result<Vec<u8>, Status>;
}

/// A factory whose instances begin as `T::default()`; generated code names it for each service
/// (`pub type BankFactory<T> = Linked<BankService, T>`).
pub struct Linked<S, T>(PhantomData<fn() -> (S, T)>);

impl<S, T> Linked<S, T> {
    /// The factory.
    pub const fn new() -> Self {
        Linked(PhantomData)
    }
}

impl<S, T> Default for Linked<S, T> {
    fn default() -> Self {
        Linked::new()
    }
}

impl<S, T> Factory for Linked<S, T>
where
    S: Service<T>,
    T: State + Default + Send + Sync + 'static,
{
    fn class(&self) -> &str {
        S::CLASS
    }

    fn descriptor(&self) -> &[u8] {
        S::DESCRIPTOR
    }

    fn create(&self) -> Result<Box<dyn Instance>, Error> {
        let component = catch_unwind(T::default).map_err(|panic| {
            Error::new(format!(
                "{}: creating an instance panicked: {}",
                S::CLASS,
                panic_text(&*panic)
            ))
        })?;
        Ok(instance::<S, T>(component))
    }
}

/// Wraps a component that was made in another way than by `Default`, for a [`Factory`] of your own.
pub fn instance<S, T>(component: T) -> Box<dyn Instance>
where
    S: Service<T>,
    T: State + Send + Sync + 'static,
{
    Box::new(Hosted::<S, T> { component, failure: None, service: PhantomData })
}

struct Hosted<S, T> {
    component: T,
    failure: Option<String>,
    service: PhantomData<fn() -> S>,
}

impl<S: Service<T>, T> Hosted<S, T> {
    fn check(&self) -> Result<(), Status> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(Status::internal(failure)))
    }

    fn fail(&mut self, what: &str, why: &str) -> String {
        let failure = format!(
            "{} has failed: {what} ({why}). Its state may be half changed, so it answers nothing more; remove the \
             instance, or deploy a corrected component",
            S::CLASS
        );
        self.failure.insert(failure).clone()
    }

    fn method_name(method: u32) -> String {
        crate::Class::named(S::DESCRIPTOR, S::CLASS)
            .ok()
            .and_then(|class| class.method(method).map(|method| method.name().to_owned()))
            .unwrap_or_else(|| format!("method {method}"))
    }
}

impl<S, T> Instance for Hosted<S, T>
where
    S: Service<T>,
    T: State + Send + Sync + 'static,
{
    fn update(
        &mut self,
        method: u32,
        context: &Context,
        request: &[u8],
    ) -> Result<Vec<u8>, Status> {
        self.check()?;
        let mut context = context.clone();
        let component = &mut self.component;
        match catch_unwind(AssertUnwindSafe(|| S::update(component, method, &mut context, request)))
        {
            Ok(result) => result.and_then(not_too_long),
            Err(panic) => {
                let what = format!("{} panicked", Self::method_name(method));
                Err(Status::internal(self.fail(&what, &panic_text(&*panic))))
            }
        }
    }

    fn read(&self, method: u32, context: &Context, request: &[u8]) -> Result<Vec<u8>, Status> {
        self.check()?;
        match catch_unwind(AssertUnwindSafe(|| S::read(&self.component, method, context, request)))
        {
            Ok(result) => result.and_then(not_too_long),
            Err(panic) => {
                let name = Self::method_name(method);
                Err(Status::internal(format!("{name} panicked ({})", panic_text(&*panic))))
            }
        }
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        catch_unwind(AssertUnwindSafe(|| self.component.save(out))).unwrap_or_else(|panic| {
            Err(io::Error::other(format!("{}: save panicked ({})", S::CLASS, panic_text(&*panic))))
        })
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let component = &mut self.component;
        let (what, why, kind) = match catch_unwind(AssertUnwindSafe(|| component.load(from))) {
            Ok(Ok(())) => {
                self.failure = None;
                return Ok(());
            }
            Ok(Err(error)) => ("its state could not be loaded", error.to_string(), error.kind()),
            Err(panic) => ("load panicked", panic_text(&*panic), io::ErrorKind::Other),
        };
        Err(io::Error::new(kind, self.fail(what, &why)))
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}

fn not_too_long(reply: Vec<u8>) -> Result<Vec<u8>, Status> {
    if reply.len() <= REPLY_MAX {
        return Ok(reply);
    }
    Err(Status::resource_exhausted(format!("the reply has more than {REPLY_MAX} bytes")))
}

/// The sentence that a panic was given.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// What generated dispatchers share.
#[doc(hidden)]
pub mod dispatch {
    use crate::Status;
    use prost::Message;

    /// The request, or a status that names what was expected.
    pub fn decode<M: Message + Default>(name: &str, request: &[u8]) -> Result<M, Status> {
        M::decode(request).map_err(|error| {
            Status::invalid_argument(format!(
                "the {} bytes of the request are not a {name}: {error}",
                request.len()
            ))
        })
    }

    /// A number that is no method of this kind.
    pub fn no_method(class: &str, kind: &str, method: u32) -> Status {
        Status::unimplemented(format!(
            "{class} has no {kind} with number {method}; the caller knows another release"
        ))
    }
}

/// Includes the code that `build::compile` generated for a package.
///
/// ```text
/// /// Messages and service of bank.proto.
/// pub mod proto {
///     quintet_component::include_proto!("bank");
/// }
/// ```
#[macro_export]
macro_rules! include_proto {
    ($package:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
    };
}
