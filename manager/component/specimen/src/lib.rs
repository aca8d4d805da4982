//! A component for tests alone: it can be rolled, it can crash, and it can take its time. No program that is
//! shipped links it; tests link it, or load its library.
//!
//! The library with its two classes is `examples/specimen_library.rs`: one line.

use std::io::{self, Read, Write};
use std::time::Duration;

use quintet_component::{Context, State, Status};

/// Messages and service of `specimen.proto`.
pub mod proto {
    quintet_component::include_proto!("specimen");
}

/// Messages and service of `gauge.proto`.
pub mod gauge {
    quintet_component::include_proto!("gauge");
}

use proto::{Dice, Nothing, Pause, Rolled, Step, Value};

/// The factory of [`Specimen`].
pub type SpecimenFactory = proto::SpecimenFactory<Specimen>;
/// The factory of [`Gauge`].
pub type GaugeFactory = gauge::GaugeFactory<Gauge>;

/// One number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specimen {
    value: i64,
}

impl proto::Specimen for Specimen {
    fn add(&mut self, _: &mut Context, step: Step) -> Result<Value, Status> {
        self.value = self.value.wrapping_add(step.amount);
        Ok(Value { value: self.value })
    }

    fn get(&self, _: &Context, _: Nothing) -> Result<Value, Status> {
        Ok(Value { value: self.value })
    }

    fn roll(&mut self, context: &mut Context, dice: Dice) -> Result<Rolled, Status> {
        self.value = 1 + context.random_below(u64::from(dice.sides)) as i64;
        Ok(Rolled {
            value: self.value,
            position: context.position(),
            time_ns: context.time_ns(),
            client: context.client().to_be_bytes().to_vec(),
        })
    }

    fn crash(&mut self, _: &mut Context, _: Nothing) -> Result<Nothing, Status> {
        self.value = -1;
        panic!("the specimen was asked to crash");
    }

    fn crash_in_read(&self, _: &Context, _: Nothing) -> Result<Nothing, Status> {
        panic!("the specimen was asked to crash in a read");
    }

    fn dawdle(&mut self, context: &mut Context, pause: Pause) -> Result<Value, Status> {
        std::thread::sleep(Duration::from_millis(pause.ms.into()));
        self.add(context, Step { amount: 1 })
    }

    fn ponder(&self, context: &Context, pause: Pause) -> Result<Value, Status> {
        std::thread::sleep(Duration::from_millis(pause.ms.into()));
        self.get(context, Nothing {})
    }
}

impl State for Specimen {
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

/// A level between 0 and 100 %.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    percent: u32,
}

impl gauge::Gauge for Gauge {
    fn set(&mut self, _: &mut Context, level: gauge::Level) -> Result<gauge::Level, Status> {
        if level.percent > 100 {
            return Err(Status::out_of_range(format!("{} % is more than full", level.percent)));
        }
        self.percent = level.percent;
        Ok(level)
    }

    fn get(&self, _: &Context, _: gauge::GetRequest) -> Result<gauge::Level, Status> {
        Ok(gauge::Level { percent: self.percent })
    }
}

impl State for Gauge {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.percent.to_le_bytes())
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        self.percent = u32::from_le_bytes(bytes);
        Ok(())
    }
}
