//! The program: see [`antiphon::commands`].

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    antiphon::commands::main()
}
