//! Words to a terminal, a pipe or a file. Where they cannot be written (`println!` would panic), a command that was to
//! print something has failed, while a program with other duties goes on.
//!
//! A reader that has seen enough (`quintet events | head`) ends a command quietly, as other tools end. They leave that to
//! SIGPIPE; but this signal also comes of a socket whose other side has gone, and would end a command without the word
//! that the daemon broke off. So it stays ignored, as Rust sets it, and its status is given by hand.

/// As `println!`; ends the program if the line cannot be written: quietly with status 141 if its reader is gone, else with
/// status 1 and a message.
macro_rules! say {
    () => { $crate::print::line("") };
    ($($words:tt)*) => { $crate::print::line(&format!($($words)*)) };
}

/// As `println!`; says nothing if the line cannot be written.
macro_rules! mention {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// As `eprintln!`; says nothing if the line cannot be written.
macro_rules! complain {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub(crate) use {complain, mention, say};

use clap::Parser;
use std::io::{self, Write as _};
use std::process::exit;

/// What a shell tells of a tool that SIGPIPE has ended.
const READER_GONE: i32 = 128 + libc::SIGPIPE;

/// The arguments of this process. Help and version are printed, and wrong arguments named, as [`Parser::parse`] does
/// it; but a text that was asked for and cannot be written ends the program as a failure.
pub fn arguments<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|told| {
        let printed = told.print().and_then(|()| io::stdout().flush());
        match printed {
            Err(error) if !told.use_stderr() => cannot_print(&error),
            _ => exit(told.exit_code()),
        }
    })
}

pub(crate) fn line(text: &str) {
    text_as_it_is(&format!("{text}\n"));
}

/// As `print!`; ends the program as [`say`] does.
pub(crate) fn text_as_it_is(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        cannot_print(&error);
    }
}

fn cannot_print(error: &io::Error) -> ! {
    if error.kind() == io::ErrorKind::BrokenPipe {
        exit(READER_GONE);
    }
    complain!("error: cannot print: {error}");
    exit(1);
}
