//! The shared library: `libcounter_library.so`, with two classes.

quintet_component::export!(counter::CounterFactory, counter::GaugeFactory);
