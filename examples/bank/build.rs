//! Generates the messages, the trait `Bank` and its dispatcher from `proto/bank.proto`.

fn main() -> Result<(), quintet_component::Error> {
    quintet_component::build::compile(&["proto/bank.proto"])
}
