//! Words to a terminal, a pipe or a file. Where they cannot be written (`println!` would panic), a command that was to
//! print something has failed, while a program with other duties goes on.

/// As `println!`; ends the program with exit status 1 and a message if the line cannot be written.
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

pub(crate) fn line(text: &str) {
    text_as_it_is(&format!("{text}\n"));
}

/// As `print!`; ends the program as [`say`] does.
pub(crate) fn text_as_it_is(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        complain!("error: cannot print: {error}");
        std::process::exit(1);
    }
}
