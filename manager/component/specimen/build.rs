//! Generates messages, traits and dispatchers; two packages, so two descriptors.

fn main() -> Result<(), quintet_component::Error> {
    quintet_component::build::compile(&["specimen.proto"])?;
    quintet_component::build::compile(&["gauge.proto"])
}
