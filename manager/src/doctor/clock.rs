//! The time of day. What the transport measures with is judged under `processors`.

use super::system::{self, Clock};
use super::{Check, Judgement, fine, unknown, warning};

/// What was seen; what the kernel said if it refused.
pub(super) struct Facts {
    clock: Result<Clock, String>,
}

/// Beyond this, what several hosts log cannot be put into an order.
const ERROR_US_MAX: u64 = 100_000;

impl Facts {
    pub(super) fn look() -> Facts {
        Facts { clock: system::clock().map_err(|error| error.to_string()) }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why = "nothing is decided by it, but events and logs of several hosts are read side by side by their time";
        vec![Check::new("clock", "time of day", why, time_of_day(&self.clock))]
    }
}

fn time_of_day(clock: &Result<Clock, String>) -> Judgement {
    match clock {
        Err(said) => unknown(format!("the kernel does not tell ({said})")),
        Ok(Clock { synchronised: false, .. }) => warning(
            "nobody keeps it right",
            "apt install chrony (or systemctl enable --now systemd-timesyncd); a container has the clock of its host",
        ),
        Ok(Clock { error_us, .. }) if *error_us > ERROR_US_MAX => warning(
            format!("synchronised, but it may be wrong by {} ms", error_us / 1000),
            "see `chronyc tracking`: its servers are far away, or have not been heard for long",
        ),
        Ok(Clock { error_us, .. }) => {
            fine(format!("synchronised, to {} ms", error_us.div_ceil(1000)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::*;

    #[test]
    fn a_clock_that_nobody_keeps_is_named() {
        let judge =
            |synchronised, error_us| time_of_day(&Result::Ok(Clock { synchronised, error_us })).0;
        assert_eq!(
            (judge(true, 1500), judge(false, 1500), judge(true, 2_000_000)),
            (Ok, Warning, Warning)
        );
        assert_eq!(time_of_day(&Err("Operation not permitted".into())).0, Unknown);
    }
}
