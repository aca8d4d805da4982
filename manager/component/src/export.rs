//! The library's side of the C interface: any [`Factory`] as a [`ClassTable`].
//!
//! Every function here is a boundary. Inside it, Rust: the instance behind the pointer is a
//! `Box<dyn Instance>`. Outside, a host of unknown make. So each function first turns raw arguments
//! into Rust values, in one place ([`Boundary`]), and nothing that unwinds gets out.

use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use crate::abi::{Bytes, CallContext, ClassTable, FAILED, LibraryTable, Sink, Source, VERSION};
use crate::linked::panic_text;
use crate::{Code, Context, Factory, Instance, Status};

/// Exports classes from a shared library (`crate-type = ["cdylib"]`): the types of their factories,
/// each with `Default`.
///
/// A program may hold only one `export!`, so it belongs into a crate that is only ever a library,
/// or an application's only component.
///
/// ```text
/// quintet_component::export!(BankFactory, AuditFactory);
/// ```
#[macro_export]
macro_rules! export {
    ($($factory:ty),+ $(,)?) => {
        const _: () = {
            static EXPORTED: $crate::Exported = $crate::Exported::new(|| {
                ::std::vec![$(::std::boxed::Box::new(<$factory as ::std::default::Default>::default()) as _),+]
            });

            /// The entry of the C interface: `quintet_component::abi::ENTRY`.
            #[unsafe(no_mangle)]
            pub extern "C" fn quintet_component_library() -> *const $crate::abi::LibraryTable {
                EXPORTED.table()
            }
        };
    };
}

/// What [`export!`](crate::export) exports: tables that are made when they are first asked for.
pub struct Exported {
    make: fn() -> Vec<Box<dyn Factory>>,
    table: OnceLock<&'static Tables>,
}

/// A library's table; it lives as long as the process, and nothing writes to it.
struct Tables(LibraryTable);

// SAFETY: a `Tables` is written once, before it is shared, and only read afterwards. What its
// pointers lead to is leaked by `Exported::build`, so it stays valid; the factories are `Sync`
// themselves.
unsafe impl Sync for Tables {}
// SAFETY: as above; nothing in it belongs to a thread.
unsafe impl Send for Tables {}

impl Exported {
    /// With a function that makes the factories.
    pub const fn new(make: fn() -> Vec<Box<dyn Factory>>) -> Exported {
        Exported { make, table: OnceLock::new() }
    }

    /// The table, or null if making the factories panicked.
    pub fn table(&self) -> *const LibraryTable {
        catch_unwind(AssertUnwindSafe(|| &raw const self.table.get_or_init(|| self.build()).0))
            .unwrap_or(std::ptr::null())
    }

    fn build(&self) -> &'static Tables {
        let classes: Vec<*const ClassTable> = (self.make)()
            .into_iter()
            .map(|factory| {
                // Leaked: the host may call at any time until the process ends.
                let factory: &'static Exporting = Box::leak(Box::new(Exporting(factory)));
                let table: &'static ClassTable = Box::leak(Box::new(class_table(factory)));
                table as *const ClassTable
            })
            .collect();
        let classes: &'static [*const ClassTable] = Box::leak(classes.into_boxed_slice());
        Box::leak(Box::new(Tables(LibraryTable {
            size: size_of::<LibraryTable>() as u32,
            abi_version: VERSION,
            class_count: classes.len() as u32,
            reserved: 0,
            classes: classes.as_ptr(),
        })))
    }
}

fn class_table(exporting: &'static Exporting) -> ClassTable {
    let factory = &exporting.0;
    ClassTable {
        size: size_of::<ClassTable>() as u32,
        abi_version: VERSION,
        name: lend(factory.class().as_bytes()),
        descriptor: lend(factory.descriptor()),
        factory: (&raw const *exporting).cast_mut().cast(),
        create: Some(create),
        destroy: Some(destroy),
        update: Some(update),
        read: Some(read),
        save: Some(save),
        load: Some(load),
    }
}

fn lend(bytes: &[u8]) -> Bytes {
    Bytes { data: bytes.as_ptr(), len: bytes.len() }
}

/// A factory as the host holds it: a thin pointer.
struct Exporting(Box<dyn Factory>);

/// An instance as the host holds it: a thin pointer.
type Handle = Box<dyn Instance>;

/// Runs the Rust side of a boundary function; an error, and a panic, become a number and a
/// sentence.
fn guarded(error: *const Sink, body: impl FnOnce() -> Result<(), (i32, String)>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err((FAILED, format!("the component panicked: {}", panic_text(&*panic))))
    });
    match result {
        Ok(()) => 0,
        Err((code, text)) => {
            // SAFETY: the host lends a valid sink, or null, for this call (header).
            let written = unsafe { SinkWriter::borrow(error) }
                .and_then(|mut sink| sink.write_all(text.as_bytes()));
            // A host that does not want the sentence gets the number alone.
            let _ = written;
            code
        }
    }
}

unsafe extern "C" fn create(
    factory: *mut c_void,
    instance: *mut *mut c_void,
    error: *const Sink,
) -> i32 {
    guarded(error, || {
        // SAFETY: `factory` is the pointer of our own table, which points to a leaked box
        // (`class_table`).
        let factory = unsafe { &*factory.cast::<Exporting>() };
        let made = factory
            .0
            .create()
            .map_err(|error| (Code::Internal.number() as i32, error.to_string()))?;
        let handle: *mut Handle = Box::into_raw(Box::new(made));
        // SAFETY: the host lends a valid place for one pointer (header).
        unsafe { instance.write(handle.cast()) };
        Ok(())
    })
}

unsafe extern "C" fn destroy(instance: *mut c_void) {
    guarded(std::ptr::null(), || {
        // SAFETY: `instance` came from `create`, is destroyed once, and nobody is in a call on it
        // (header).
        drop(unsafe { Box::from_raw(instance.cast::<Handle>()) });
        Ok(())
    });
}

unsafe extern "C" fn update(
    instance: *mut c_void,
    method: u32,
    context: *const CallContext,
    request: Bytes,
    reply: *const Sink,
    error: *const Sink,
) -> i32 {
    guarded(error, || {
        // SAFETY: `instance` came from `create` and this call is alone on it (header).
        let instance = unsafe { &mut *instance.cast::<Handle>() };
        // SAFETY: the host lends context, request and reply for this call (header).
        let (context, request, mut reply) = unsafe { arguments(context, request, reply) }?;
        match instance.update(method, &context, request) {
            Ok(bytes) => reply.write_all(&bytes).map_err(refused),
            Err(status) => Err(match instance.failure() {
                Some(failure) => (FAILED, failure),
                None => plain(&status),
            }),
        }
    })
}

unsafe extern "C" fn read(
    instance: *mut c_void,
    method: u32,
    context: *const CallContext,
    request: Bytes,
    reply: *const Sink,
    error: *const Sink,
) -> i32 {
    let code = guarded(error, || {
        // SAFETY: `instance` came from `create` and only reads and saves run beside this call
        // (header).
        let instance = unsafe { &*instance.cast::<Handle>() };
        // SAFETY: the host lends context, request and reply for this call (header).
        let (context, request, mut reply) = unsafe { arguments(context, request, reply) }?;
        let bytes = instance.read(method, &context, request).map_err(|status| plain(&status))?;
        reply.write_all(&bytes).map_err(refused)
    });
    // A read changes nothing, so it cannot leave a failed instance behind.
    if code == FAILED { Code::Internal.number() as i32 } else { code }
}

unsafe extern "C" fn save(instance: *mut c_void, out: *const Sink, error: *const Sink) -> i32 {
    let code = guarded(error, || {
        // SAFETY: `instance` came from `create` and only reads and saves run beside this call
        // (header).
        let instance = unsafe { &*instance.cast::<Handle>() };
        // SAFETY: the host lends a valid sink for this call (header).
        let mut out = unsafe { SinkWriter::borrow(out) }.map_err(refused)?;
        instance.save(&mut out).map_err(refused)
    });
    if code == FAILED { Code::Internal.number() as i32 } else { code }
}

unsafe extern "C" fn load(instance: *mut c_void, from: *const Source, error: *const Sink) -> i32 {
    guarded(error, || {
        // SAFETY: `instance` came from `create` and this call is alone on it (header).
        let instance = unsafe { &mut *instance.cast::<Handle>() };
        // SAFETY: the host lends a valid source for this call (header).
        let mut from = unsafe { SourceReader::borrow(from) }.map_err(refused)?;
        instance.load(&mut from).map_err(|error| (FAILED, error.to_string()))
    })
}

/// The arguments of a call as Rust values.
///
/// # Safety
/// All three are valid for the lifetime `'a` that the caller chooses: the duration of the call.
unsafe fn arguments<'a>(
    context: *const CallContext,
    request: Bytes,
    reply: *const Sink,
) -> Result<(Context, &'a [u8], SinkWriter), (i32, String)> {
    if context.is_null() {
        return Err(refused(io::Error::other("the host gave no context")));
    }
    // SAFETY: not null, and valid as the caller says. Every host of this version gives all fields.
    let context = unsafe { *context };
    let client = u128::from(context.client_high) << 64 | u128::from(context.client_low);
    let context = Context::with_seed(context.position, context.time_ns, client, context.seed);
    let request = if request.len == 0 {
        &[]
    } else {
        // SAFETY: the caller says that `request` is valid, so it points to `len` bytes that nobody
        // changes.
        unsafe { std::slice::from_raw_parts(request.data, request.len) }
    };
    // SAFETY: as the caller says.
    let reply = unsafe { SinkWriter::borrow(reply) }.map_err(refused)?;
    Ok((context, request, reply))
}

fn plain(status: &Status) -> (i32, String) {
    // A status that says OK beside an error would be taken for a reply.
    let code = if status.code() == Code::Ok { Code::Unknown } else { status.code() };
    (code.number() as i32, status.message().to_owned())
}

fn refused(error: io::Error) -> (i32, String) {
    (Code::Internal.number() as i32, error.to_string())
}

/// A host's sink as a `Write`.
struct SinkWriter {
    opaque: *mut c_void,
    write: unsafe extern "C" fn(*mut c_void, *const u8, usize) -> i32,
}

impl SinkWriter {
    /// # Safety
    /// `sink` is null or points to a sink that is valid as long as the result is used.
    unsafe fn borrow(sink: *const Sink) -> io::Result<SinkWriter> {
        // SAFETY: null or valid, as the caller says.
        let sink =
            unsafe { sink.as_ref() }.ok_or_else(|| io::Error::other("the host gave no sink"))?;
        let write = sink
            .write
            .ok_or_else(|| io::Error::other("the host gave a sink without a function"))?;
        Ok(SinkWriter { opaque: sink.opaque, write })
    }
}

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: the sink is valid (`borrow`), and `bytes` are as many as said.
        match unsafe { (self.write)(self.opaque, bytes.as_ptr(), bytes.len()) } {
            0 => Ok(bytes.len()),
            _ => Err(io::Error::other("the host takes no more bytes")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A host's source as a `Read`.
struct SourceReader {
    opaque: *mut c_void,
    read: unsafe extern "C" fn(*mut c_void, *mut u8, usize) -> i64,
}

impl SourceReader {
    /// # Safety
    /// `source` is null or points to a source that is valid as long as the result is used.
    unsafe fn borrow(source: *const Source) -> io::Result<SourceReader> {
        // SAFETY: null or valid, as the caller says.
        let source = unsafe { source.as_ref() }
            .ok_or_else(|| io::Error::other("the host gave no source"))?;
        let read = source
            .read
            .ok_or_else(|| io::Error::other("the host gave a source without a function"))?;
        Ok(SourceReader { opaque: source.opaque, read })
    }
}

impl Read for SourceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the source is valid (`borrow`), and `into` has room for as many as said.
        let given = unsafe { (self.read)(self.opaque, into.as_mut_ptr(), into.len()) };
        match usize::try_from(given) {
            Ok(given) if given <= into.len() => Ok(given),
            _ => Err(io::Error::other("the host could not give the bytes")),
        }
    }
}
