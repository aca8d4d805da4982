//! libibverbs, found at run time.
//!
//! A binary that was linked against the library would not start on a host without it. So the types and the calls that
//! go through a context's table of functions (post, poll, arm) come from `rdma-sys`, and the functions that the library
//! exports are looked up here, once, by name. The library is never unloaded: drivers leave threads and handlers behind.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;

use rdma_sys::*;

macro_rules! functions {
    ($($field:ident = $symbol:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions used.
        pub(super) struct Library {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        fn resolve(library: &libloading::Library) -> Result<Library, String> {
            Ok(Library {
                $($field: {
                    // SAFETY: the signature is that of <infiniband/verbs.h>, whose ABI the library's version (.so.1)
                    // promises; the pointer stays valid, for the library is never unloaded.
                    let found = unsafe {
                        library.get::<unsafe extern "C" fn($($argument),*) $(-> $result)?>($symbol.as_bytes())
                    };
                    *found.map_err(|e| format!("{SONAME} lacks {}: {}", $symbol, said(&e)))?
                },)*
            })
        }
    };
}

const SONAME: &str = "libibverbs.so.1";

functions! {
    fork_init = "ibv_fork_init": fn() -> c_int;
    get_device_list = "ibv_get_device_list": fn(*mut c_int) -> *mut *mut ibv_device;
    free_device_list = "ibv_free_device_list": fn(*mut *mut ibv_device);
    get_device_name = "ibv_get_device_name": fn(*mut ibv_device) -> *const c_char;
    open_device = "ibv_open_device": fn(*mut ibv_device) -> *mut ibv_context;
    close_device = "ibv_close_device": fn(*mut ibv_context) -> c_int;
    query_port = "ibv_query_port": fn(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
    query_gid = "ibv_query_gid": fn(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
    query_pkey = "ibv_query_pkey": fn(*mut ibv_context, u8, c_int, *mut u16) -> c_int;
    get_async_event = "ibv_get_async_event": fn(*mut ibv_context, *mut c_void) -> c_int;
    ack_async_event = "ibv_ack_async_event": fn(*mut c_void);
    alloc_pd = "ibv_alloc_pd": fn(*mut ibv_context) -> *mut ibv_pd;
    dealloc_pd = "ibv_dealloc_pd": fn(*mut ibv_pd) -> c_int;
    reg_mr = "ibv_reg_mr": fn(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
    dereg_mr = "ibv_dereg_mr": fn(*mut ibv_mr) -> c_int;
    create_comp_channel = "ibv_create_comp_channel": fn(*mut ibv_context) -> *mut ibv_comp_channel;
    destroy_comp_channel = "ibv_destroy_comp_channel": fn(*mut ibv_comp_channel) -> c_int;
    create_cq = "ibv_create_cq": fn(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
    destroy_cq = "ibv_destroy_cq": fn(*mut ibv_cq) -> c_int;
    get_cq_event = "ibv_get_cq_event": fn(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
    ack_cq_events = "ibv_ack_cq_events": fn(*mut ibv_cq, c_uint);
    create_qp = "ibv_create_qp": fn(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
    modify_qp = "ibv_modify_qp": fn(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
    destroy_qp = "ibv_destroy_qp": fn(*mut ibv_qp) -> c_int;
}

impl Library {
    /// The library, or why it cannot be had.
    pub(super) fn get() -> Result<&'static Library, &'static str> {
        static LIBRARY: OnceLock<Result<Library, String>> = OnceLock::new();
        LIBRARY.get_or_init(load).as_ref().map_err(String::as_str)
    }
}

/// The loader's own words: the error beside them only says which call failed.
fn said(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| source.to_string())
}

fn load() -> Result<Library, String> {
    // SAFETY: the library's initialisers do nothing that concerns us; it is what the system's packages installed.
    let library = unsafe { libloading::Library::new(SONAME) }
        .map_err(|e| format!("no library {SONAME}: {}", said(&e)))?;
    let functions = resolve(&library)?;
    // Kernels before 5.12 give a child the pages that an adapter reads, and the parent copies. What the library allocates
    // for its queues is kept from children too if that is said before anything else; newer kernels need no word of it.
    // SAFETY: takes nothing, and nothing of the library was called before.
    let error = unsafe { (functions.fork_init)() };
    if error != 0 {
        tracing::warn!(
            error,
            "libibverbs is not safe against fork here: start no programs from this process"
        );
    }
    std::mem::forget(library);
    Ok(functions)
}
