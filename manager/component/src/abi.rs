//! The C interface between a component library and its host, version 1.
//! `include/quintet_component.h` says the same in C; a test compiles a component against that
//! header and loads it.
//!
//! Nothing of Rust crosses: no `String`, no `Box`, no trait object, no panic. The library and its
//! host may be built by different compilers, in different years. What crosses is
//! - tables: each begins with its size and the version of this interface, so that either side can
//!   tell an older or newer neighbour from a broken one. Later versions of version 1 may append to
//!   a table; nothing is moved.
//! - bytes going in ([`Bytes`]): borrowed for the call, never freed by the receiver.
//! - bytes coming out ([`Sink`]): the *receiver* hands in a function that takes them. So each
//!   side's memory is allocated and freed by that side's allocator alone, and no length is guessed
//!   in advance.
//!
//! A library exports one function, [`ENTRY`], of type [`Entry`]. It is called once, and the tables
//! it returns must stay as they are for ever: a host never unloads a library, because nobody can
//! tell when the last thread has left its code or the last thread-local destructor of it has run.

use std::ffi::{CStr, c_void};

/// The version of this interface.
pub const VERSION: u32 = 1;

/// The name of the function that a library exports.
pub const ENTRY: &CStr = c"quintet_component_library";

/// The type of [`ENTRY`]. Null means that the library could not describe itself.
pub type Entry = unsafe extern "C" fn() -> *const LibraryTable;

/// Returned by [`ClassTable::update`] and [`ClassTable::load`] when the instance has failed: its
/// state may be half changed. The reason was written to `error`; the host asks this instance for
/// nothing more.
pub const FAILED: i32 = 1000;

/// Bytes lent for the duration of a call. `data` may be null if `len` is 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

/// Takes bytes, in order, as often as it is called; to be used only during the call it was handed
/// to, and only on that call's thread.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Sink {
    /// For `write`.
    pub opaque: *mut c_void,
    /// Takes `len` bytes; anything but 0 means that it takes no more, and the call should return an
    /// error.
    pub write:
        Option<unsafe extern "C" fn(opaque: *mut c_void, data: *const u8, len: usize) -> i32>,
}

/// Gives bytes, in order; to be used like a [`Sink`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Source {
    /// For `read`.
    pub opaque: *mut c_void,
    /// Writes up to `len` bytes to `into` and returns how many; 0 at the end, negative after an
    /// error.
    pub read: Option<unsafe extern "C" fn(opaque: *mut c_void, into: *mut u8, len: usize) -> i64>,
}

/// What a call knows of itself: see [`crate::Context`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CallContext {
    /// The size of this structure at the host.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Position in the total order.
    pub position: u64,
    /// Ordered time in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The client's id, low half.
    pub client_low: u64,
    /// The client's id, high half.
    pub client_high: u64,
    /// Where this call's random numbers begin (SplitMix64).
    pub seed: u64,
}

/// What a library holds.
#[derive(Debug)]
#[repr(C)]
pub struct LibraryTable {
    /// The size of this structure at the library.
    pub size: u32,
    /// [`VERSION`] of the library.
    pub abi_version: u32,
    /// How many classes.
    pub class_count: u32,
    /// Zero.
    pub reserved: u32,
    /// An array of `class_count` pointers to tables.
    pub classes: *const *const ClassTable,
}

/// A class and the functions of its instances.
///
/// Every function may be called on any thread. For one instance, `update`, `load` and `destroy` are
/// called alone; `read` and `save` run concurrently with each other.
///
/// The functions that return `i32` return 0, or a gRPC status code (1 to 16) after they wrote a
/// sentence to `error`.
#[derive(Debug)]
#[repr(C)]
pub struct ClassTable {
    /// The size of this structure at the library.
    pub size: u32,
    /// [`VERSION`] of the library.
    pub abi_version: u32,
    /// The full name of the class, UTF-8.
    pub name: Bytes,
    /// The serialized `FileDescriptorSet`.
    pub descriptor: Bytes,
    /// For `create`.
    pub factory: *mut c_void,
    /// Makes an instance and stores a pointer to it, not null, in `instance`.
    pub create: Option<
        unsafe extern "C" fn(
            factory: *mut c_void,
            instance: *mut *mut c_void,
            error: *const Sink,
        ) -> i32,
    >,
    /// Frees an instance.
    pub destroy: Option<unsafe extern "C" fn(instance: *mut c_void)>,
    /// Applies an update and writes the reply; or returns [`FAILED`].
    pub update: Option<CallFunction>,
    /// Answers a read.
    pub read: Option<CallFunction>,
    /// Writes the whole state.
    pub save: Option<
        unsafe extern "C" fn(instance: *mut c_void, out: *const Sink, error: *const Sink) -> i32,
    >,
    /// Replaces the whole state by what `from` gives; or returns [`FAILED`].
    pub load: Option<
        unsafe extern "C" fn(instance: *mut c_void, from: *const Source, error: *const Sink) -> i32,
    >,
}

/// The type of [`ClassTable::update`] and [`ClassTable::read`].
pub type CallFunction = unsafe extern "C" fn(
    instance: *mut c_void,
    method: u32,
    context: *const CallContext,
    request: Bytes,
    reply: *const Sink,
    error: *const Sink,
) -> i32;

// The header states the same numbers for its own structures.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Bytes>() == 16);
    assert!(size_of::<Sink>() == 16);
    assert!(size_of::<Source>() == 16);
    assert!(size_of::<CallContext>() == 48);
    assert!(size_of::<LibraryTable>() == 24);
    assert!(size_of::<ClassTable>() == 96);
};
