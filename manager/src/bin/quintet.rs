//! `quintet`: the command line.

fn main() -> std::process::ExitCode {
    quintet_manager::cli::main()
}
