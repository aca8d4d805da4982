//! The smallest component: one number. `quintetd` is built with it, as `linked:counter`.
//!
//! The crate exports nothing by itself, so that several such crates can be linked into one program.
//! The library is `examples/counter_library.rs`: one line.

use std::io::{self, Read, Write};

use quintet_component::{Context, State, Status};

/// Messages and service of `counter.proto`.
pub mod proto {
    quintet_component::include_proto!("counter");
}

use proto::{Nothing, Step, Value};

/// The factory of [`Counter`].
pub type CounterFactory = proto::CounterFactory<Counter>;

/// One number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    value: i64,
}

impl proto::Counter for Counter {
    fn add(&mut self, _: &mut Context, step: Step) -> Result<Value, Status> {
        self.value = self.value.checked_add(step.amount).ok_or_else(|| {
            Status::out_of_range(format!(
                "{} and {} are more than 64 bits hold",
                self.value, step.amount
            ))
        })?;
        Ok(Value { value: self.value })
    }

    fn get(&self, _: &Context, _: Nothing) -> Result<Value, Status> {
        Ok(Value { value: self.value })
    }
}

impl State for Counter {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.value.to_le_bytes())
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes)?;
        self.value = i64::from_le_bytes(bytes);
        Ok(())
    }
}
