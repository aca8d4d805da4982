//! `--compare sockperf|ucx|perftest`: programs that others measure with, on the same cores, in the same run.
//!
//! They come from the distribution and are started as anybody would start them, so that the ratio can be checked by
//! hand: the report tells the command of the asking side. None of them encrypts, and none notices a death.

mod perftest;
mod sockperf;
mod trial;
mod ucx;

use crate::floor::Medium;
use crate::report::Run;
use crate::setup::Compare;
use std::error::Error;
use trial::{Measured, Trial};

pub(crate) use trial::{Kind, Question};

/// What the transport did, to be compared.
#[derive(Clone, Copy)]
pub(crate) enum Ours {
    /// Nanoseconds.
    RoundTrip {
        p50: f64,
        p99: f64,
    },
    MegabytesPerS(f64),
}

/// Before anything is measured, so that nobody waits in vain: whether that can be run here.
pub(crate) fn check(compare: Option<Compare>, question: &Question) -> Result<(), Box<dyn Error>> {
    let Some(compare) = compare else { return Ok(()) };
    let path = std::env::var_os("PATH").unwrap_or_default();
    for trial in trials(compare, question)? {
        if !std::env::split_paths(&path).any(|dir| dir.join(trial.program).is_file()) {
            return Err(trial.missing().into());
        }
    }
    Ok(())
}

fn trials(compare: Compare, question: &Question) -> Result<Vec<Trial>, Box<dyn Error>> {
    match compare {
        Compare::Raw => Ok(Medium::try_from(question.provider).map(|_| Vec::new())?),
        Compare::Sockperf => sockperf::trials(question),
        Compare::Ucx => ucx::trials(question),
        Compare::Perftest => perftest::trials(question),
    }
}

/// Runs what is compared with beside, and tells the ratios.
pub(crate) fn beside(
    compare: Compare,
    question: &Question,
    other_core: Option<usize>,
    ours: Ours,
    run: &mut Run,
) -> Result<(), Box<dyn Error>> {
    let mut commands = Vec::new();
    for trial in trials(compare, question)? {
        let (measured, command) = trial.run(other_core)?;
        commands.push(command);
        match (ours, measured) {
            (Ours::RoundTrip { p50, p99 }, Measured::RoundTrip { p50_us, p99_us }) => {
                run.figure(trial.names.p50_us, p50_us);
                run.figure(trial.names.ratio_p50, p50 / 1e3 / p50_us);
                if let Some(p99_us) = p99_us {
                    run.figure(trial.names.p99_us, p99_us);
                    run.figure(trial.names.ratio_p99, p99 / 1e3 / p99_us);
                }
            }
            (Ours::MegabytesPerS(ours), Measured::Stream(theirs)) => {
                run.figure(trial.names.megabytes_per_s, theirs);
                run.figure(trial.names.ratio, ours / theirs);
            }
            _ => return Err(format!("{} measured something else", trial.program).into()),
        }
    }
    run.fact("compared_with", commands);
    Ok(())
}
