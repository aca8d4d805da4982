//! The *library* host: classes from a shared library, behind the C interface of [`crate::abi`].
//!
//! Loading a library runs its code with all the rights of this process, so what is checked here is
//! not malice but mistakes, and each must read as what it is: a file that is no library, a library
//! that is no component, one that was built for another version of the interface, one whose tables
//! cannot be right. A library that was loaded is never unloaded.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::abi::{
    self, Bytes, CallContext, CallFunction, ClassTable, FAILED, LibraryTable, Sink, Source,
};
use crate::{Class, Code, Context, Error, Factory, Instance, REPLY_MAX, Status};

/// Most classes in a library.
pub const CLASSES_MAX: u32 = 256;
/// Most bytes in the name of a class.
const NAME_MAX: usize = 256;
/// Most bytes in a descriptor.
const DESCRIPTOR_MAX: usize = 16 << 20;
/// Most bytes of an error's sentence that are kept.
const TEXT_MAX: usize = 16 << 10;

/// Loads a shared library and gives the factories of its classes.
///
/// ```no_run
/// # fn main() -> Result<(), quintet_component::Error> {
/// for factory in quintet_component::library::open("libbank.so".as_ref())? {
///     println!("{}", factory.class());
/// }
/// # Ok(())
/// # }
/// ```
pub fn open(path: &Path) -> Result<Vec<Arc<dyn Factory>>, Error> {
    let shown = path.display();
    // dlopen looks for a name without a slash elsewhere; and "no such file" reads better from here.
    let path = path.canonicalize().map_err(|error| {
        Error::new(format!(
            "{shown}: cannot be opened ({error}); check the path of the component's library"
        ))
    })?;
    // SAFETY: the initialisers of the library run here. That they may is the operator's decision: a
    // component has the rights of the process that hosts it.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        Error::new(format!(
            "{shown}: not a shared library that this machine can load ({}). It must be built for {}-{} (a cdylib), \
             and every library it needs must be installed",
            cause(&error),
            std::env::consts::ARCH,
            std::env::consts::OS,
        ))
    })?;
    // SAFETY: the type is the one that the interface states for this name; what is called by it is
    // checked below.
    let entry =
        unsafe { library.get::<abi::Entry>(abi::ENTRY.to_bytes_with_nul()) }.map(|symbol| *symbol);
    let entry = entry.map_err(|_| {
        Error::new(format!(
            "{shown}: a shared library, but not a Quintet component: it does not export {}. Add \
             quintet_component::export!(...), or in C define that function (quintet_component.h)",
            abi::ENTRY.to_string_lossy()
        ))
    })?;
    // Never unloaded: factories and instances call into it until the process ends.
    std::mem::forget(library);

    // SAFETY: the function has the type of the interface, and its library stays loaded.
    let table = unsafe { entry() };
    // SAFETY: the interface asks for null or a table that stays as it is; `classes` looks at
    // nothing behind the version before the version is checked.
    let tables =
        unsafe { classes(table) }.map_err(|reason| Error::new(format!("{shown}: {reason}")))?;

    let mut names = BTreeSet::new();
    tables
        .into_iter()
        .map(|table| {
            let factory = LibraryFactory::new(table)
                .map_err(|reason| Error::new(format!("{shown}: {reason}")))?;
            if !names.insert(factory.class.clone()) {
                return Err(Error::new(format!("{shown}: exports class {} twice", factory.class)));
            }
            Ok(Arc::new(factory) as Arc<dyn Factory>)
        })
        .collect()
}

fn cause(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Checks a library's table and gives those of its classes.
///
/// # Safety `table` is null or points to a table of the interface (of any version) that stays as it
/// is for ever.
unsafe fn classes(table: *const LibraryTable) -> Result<Vec<&'static ClassTable>, String> {
    if table.is_null() {
        return Err("the component could not describe itself (its entry function returned null); its own message \
                    is on standard error"
            .to_owned());
    }
    // SAFETY: every version of the table begins with these two numbers; no reference to the rest is
    // made yet.
    let (size, version) = unsafe { (*table.cast::<u32>(), *table.cast::<u32>().add(1)) };
    check_table("library", size, version, size_of::<LibraryTable>())?;
    // SAFETY: not null, and as large as we know it.
    let table: &'static LibraryTable = unsafe { &*table };
    if table.class_count == 0 {
        return Err("exports no class: name at least one factory in export!(...)".to_owned());
    }
    if table.class_count > CLASSES_MAX || table.classes.is_null() {
        return Err(format!(
            "its table states {} classes, at most {CLASSES_MAX} are possible",
            table.class_count
        ));
    }
    // SAFETY: the table states an array of so many pointers.
    let pointers = unsafe { std::slice::from_raw_parts(table.classes, table.class_count as usize) };
    pointers
        .iter()
        .map(|&class| {
            if class.is_null() {
                return Err("its table of classes holds a null pointer".to_owned());
            }
            // SAFETY: as for the library's table.
            let (size, version) = unsafe { (*class.cast::<u32>(), *class.cast::<u32>().add(1)) };
            check_table("class", size, version, size_of::<ClassTable>())?;
            // SAFETY: not null, and as large as we know it.
            Ok(unsafe { &*class })
        })
        .collect()
}

/// The version before the size: a table of another version has another size by right.
fn check_table(what: &str, size: u32, version: u32, known: usize) -> Result<(), String> {
    if version != abi::VERSION {
        let cure = if version > abi::VERSION {
            "upgrade Quintet on this node, or build the component with this release's quintet-component"
        } else {
            "build the component again with this release's quintet-component"
        };
        return Err(format!(
            "built for version {version} of the component interface; this manager speaks version {}: {cure}",
            abi::VERSION
        ));
    }
    if (size as usize) < known {
        return Err(format!(
            "its {what} table has {size} bytes where version {version} of the component interface has {known}: set \
             size to sizeof, and build with the header of this release"
        ));
    }
    Ok(())
}

/// The functions of a class, known to be there.
#[derive(Clone, Copy)]
struct Functions {
    create: unsafe extern "C" fn(*mut c_void, *mut *mut c_void, *const Sink) -> i32,
    destroy: unsafe extern "C" fn(*mut c_void),
    update: CallFunction,
    read: CallFunction,
    save: unsafe extern "C" fn(*mut c_void, *const Sink, *const Sink) -> i32,
    load: unsafe extern "C" fn(*mut c_void, *const Source, *const Sink) -> i32,
}

struct LibraryFactory {
    class: String,
    descriptor: Vec<u8>,
    functions: Functions,
    factory: *mut c_void,
}

// SAFETY: `factory` is only handed to `create`, which the interface allows on any thread, also
// concurrently; the other fields are plain values.
unsafe impl Send for LibraryFactory {}
// SAFETY: as above.
unsafe impl Sync for LibraryFactory {}

impl LibraryFactory {
    fn new(table: &'static ClassTable) -> Result<LibraryFactory, String> {
        let name =
            copy(table.name, NAME_MAX).ok_or("a class without a name, or with an endless one")?;
        let class = String::from_utf8(name).map_err(|_| "a class whose name is not UTF-8")?;
        let lacks = |what: &str| {
            format!("class {class} lacks the function {what}: its table holds a null pointer")
        };
        let functions = Functions {
            create: table.create.ok_or_else(|| lacks("create"))?,
            destroy: table.destroy.ok_or_else(|| lacks("destroy"))?,
            update: table.update.ok_or_else(|| lacks("update"))?,
            read: table.read.ok_or_else(|| lacks("read"))?,
            save: table.save.ok_or_else(|| lacks("save"))?,
            load: table.load.ok_or_else(|| lacks("load"))?,
        };
        let descriptor = copy(table.descriptor, DESCRIPTOR_MAX).ok_or_else(|| {
            format!("class {class} has no descriptor, or one of more than {DESCRIPTOR_MAX} bytes")
        })?;
        Class::named(&descriptor, &class).map_err(|error| error.to_string())?;
        Ok(LibraryFactory { class, descriptor, functions, factory: table.factory })
    }
}

fn copy(bytes: Bytes, most: usize) -> Option<Vec<u8>> {
    if bytes.data.is_null() || bytes.len == 0 || bytes.len > most {
        return None;
    }
    // SAFETY: the table, which stays as it is for ever, states so many bytes at this place.
    Some(unsafe { std::slice::from_raw_parts(bytes.data, bytes.len) }.to_vec())
}

impl Factory for LibraryFactory {
    fn class(&self) -> &str {
        &self.class
    }

    fn descriptor(&self) -> &[u8] {
        &self.descriptor
    }

    fn create(&self) -> Result<Box<dyn Instance>, Error> {
        let mut instance = std::ptr::null_mut();
        let mut error = Collector::new(TEXT_MAX);
        // SAFETY: the function and its factory are of one table; both pointers are valid for the
        // call.
        let code =
            unsafe { (self.functions.create)(self.factory, &raw mut instance, &error.sink()) };
        if code != 0 {
            return Err(Error::new(format!(
                "{}: an instance could not be created: {}",
                self.class,
                error.text()
            )));
        }
        if instance.is_null() {
            return Err(Error::new(format!(
                "{}: create returned success and a null pointer: the component breaks the interface",
                self.class
            )));
        }
        let class = self.class.clone();
        Ok(Box::new(LibraryInstance { class, functions: self.functions, instance, failure: None }))
    }
}

struct LibraryInstance {
    class: String,
    functions: Functions,
    instance: *mut c_void,
    failure: Option<String>,
}

// SAFETY: the interface allows every function on any thread.
unsafe impl Send for LibraryInstance {}
// SAFETY: with a shared reference only `read` and `save` are called, which the interface allows
// concurrently.
unsafe impl Sync for LibraryInstance {}

impl LibraryInstance {
    fn check(&self) -> Result<(), Status> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(Status::internal(failure)))
    }

    fn call(
        &self,
        function: CallFunction,
        method: u32,
        context: &Context,
        request: &[u8],
    ) -> (i32, Collector, Collector) {
        let context = CallContext {
            size: size_of::<CallContext>() as u32,
            reserved: 0,
            position: context.position(),
            time_ns: context.time_ns(),
            client_low: context.client() as u64,
            client_high: (context.client() >> 64) as u64,
            seed: context.seed(),
        };
        let request = Bytes { data: request.as_ptr(), len: request.len() };
        let (mut reply, mut error) = (Collector::new(REPLY_MAX), Collector::new(TEXT_MAX));
        // SAFETY: the instance is live until `drop`, and all that is lent lives until the call
        // returns. That an update is alone is seen to by the callers: `update` has `&mut self`,
        // `read` has `&self`.
        let code = unsafe {
            function(self.instance, method, &context, request, &reply.sink(), &error.sink())
        };
        (code, reply, error)
    }

    fn result(&self, code: i32, reply: Collector, error: &Collector) -> Result<Vec<u8>, Status> {
        if reply.full {
            return Err(Status::resource_exhausted(format!(
                "the reply has more than {REPLY_MAX} bytes"
            )));
        }
        match u32::try_from(code) {
            Ok(0) => Ok(reply.bytes),
            Ok(code) => Err(Status::new(Code::from_number(code), error.text())),
            Err(_) => {
                Err(Status::unknown(format!("{} returned {code}: {}", self.class, error.text())))
            }
        }
    }
}

impl Instance for LibraryInstance {
    fn update(
        &mut self,
        method: u32,
        context: &Context,
        request: &[u8],
    ) -> Result<Vec<u8>, Status> {
        self.check()?;
        let (code, reply, error) = self.call(self.functions.update, method, context, request);
        if code == FAILED {
            let failure = self.failure.insert(error.text());
            return Err(Status::internal(failure.as_str()));
        }
        self.result(code, reply, &error)
    }

    fn read(&self, method: u32, context: &Context, request: &[u8]) -> Result<Vec<u8>, Status> {
        self.check()?;
        let (code, reply, error) = self.call(self.functions.read, method, context, request);
        self.result(code, reply, &error)
    }

    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.clone()));
        }
        let mut error = Collector::new(TEXT_MAX);
        let mut passage = Passage { to: out, error: None };
        let sink = Sink { opaque: (&raw mut passage).cast(), write: Some(pass_on) };
        // SAFETY: the instance is live, `&self` keeps updates away, and all that is lent lives
        // until the call returns.
        let code = unsafe { (self.functions.save)(self.instance, &sink, &error.sink()) };
        match (passage.error, code) {
            (Some(error), _) => Err(error),
            (None, 0) => Ok(()),
            (None, _) => Err(io::Error::other(format!("{}: save: {}", self.class, error.text()))),
        }
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut error = Collector::new(TEXT_MAX);
        let mut supply = Supply { from, error: None };
        let source = Source { opaque: (&raw mut supply).cast(), read: Some(give) };
        // SAFETY: the instance is live, `&mut self` makes the call alone, and all that is lent
        // lives until it returns.
        let code = unsafe { (self.functions.load)(self.instance, &source, &error.sink()) };
        if code == 0 && supply.error.is_none() {
            self.failure = None;
            return Ok(());
        }
        self.failure = Some(match (&supply.error, code) {
            // The component's own account begins with what has failed.
            (_, FAILED) => error.text(),
            (Some(error), _) => format!("{}: its state could not be loaded ({error})", self.class),
            (None, _) => {
                format!("{}: its state could not be loaded ({})", self.class, error.text())
            }
        });
        let kind = supply.error.map_or(io::ErrorKind::Other, |error| error.kind());
        Err(io::Error::new(kind, self.failure.clone().unwrap_or_default()))
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}

impl Drop for LibraryInstance {
    fn drop(&mut self) {
        // SAFETY: the instance came from `create` of the same table, nobody else holds it, and this
        // runs once.
        unsafe { (self.functions.destroy)(self.instance) };
    }
}

/// A sink that keeps what it is given, up to a limit.
struct Collector {
    bytes: Vec<u8>,
    most: usize,
    full: bool,
}

impl Collector {
    fn new(most: usize) -> Collector {
        Collector { bytes: Vec::new(), most, full: false }
    }

    /// The sink; it leads back here, so it must be used before this value moves.
    fn sink(&mut self) -> Sink {
        Sink { opaque: (&raw mut *self).cast(), write: Some(collect) }
    }

    fn text(&self) -> String {
        if self.bytes.is_empty() {
            return "the component gave no reason".to_owned();
        }
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

unsafe extern "C" fn collect(opaque: *mut c_void, data: *const u8, len: usize) -> i32 {
    // SAFETY: `opaque` is the collector of `Collector::sink`, which outlives the call and is used
    // by its thread alone.
    let collector = unsafe { &mut *opaque.cast::<Collector>() };
    if len == 0 {
        return 0;
    }
    if data.is_null() || len > collector.most - collector.bytes.len() {
        collector.full = true;
        return 1;
    }
    // SAFETY: the component lends so many bytes.
    collector.bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(data, len) });
    0
}

/// A sink that writes on, and the error that stopped it.
struct Passage<'a> {
    to: &'a mut dyn Write,
    error: Option<io::Error>,
}

unsafe extern "C" fn pass_on(opaque: *mut c_void, data: *const u8, len: usize) -> i32 {
    // SAFETY: `opaque` is the passage of `LibraryInstance::save`, which outlives the call and is
    // used by its thread alone.
    let passage = unsafe { &mut *opaque.cast::<Passage<'_>>() };
    if len == 0 {
        return 0;
    }
    // SAFETY: the component lends so many bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data, len) };
    let written = unwinding_stops(|| passage.to.write_all(bytes));
    written.map_err(|error| passage.error = Some(error)).is_err().into()
}

/// A source that reads on, and the error that stopped it.
struct Supply<'a> {
    from: &'a mut dyn Read,
    error: Option<io::Error>,
}

unsafe extern "C" fn give(opaque: *mut c_void, into: *mut u8, len: usize) -> i64 {
    // SAFETY: `opaque` is the supply of `LibraryInstance::load`, which outlives the call and is
    // used by its thread alone.
    let supply = unsafe { &mut *opaque.cast::<Supply<'_>>() };
    if len == 0 {
        return 0;
    }
    // SAFETY: the component lends so many bytes to write to; they are zeroed first, because it need
    // not have.
    let into = unsafe {
        into.write_bytes(0, len);
        std::slice::from_raw_parts_mut(into, len)
    };
    let given = unwinding_stops(|| {
        loop {
            match supply.from.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    });
    match given {
        Ok(given) => i64::try_from(given).unwrap_or(-1),
        Err(error) => {
            supply.error = Some(error);
            -1
        }
    }
}

/// The frames between here and the host's caller are the component's: no panic may pass them.
fn unwinding_stops<T>(body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(io::Error::other(format!("the host panicked: {}", crate::linked::panic_text(&*panic))))
    })
}
