//! The shared library: `libspecimen_library.so`, with two classes.

quintet_component::export!(specimen::SpecimenFactory, specimen::GaugeFactory);
