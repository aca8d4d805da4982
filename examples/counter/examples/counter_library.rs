//! The shared library: `libcounter_library.so`.

quintet_component::export!(counter::CounterFactory);
