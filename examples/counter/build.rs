//! Generates messages, trait and dispatcher.

fn main() -> Result<(), quintet_component::Error> {
    quintet_component::build::compile(&["counter.proto"])
}
