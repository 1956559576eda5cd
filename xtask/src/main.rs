//! The project's task runner: `cargo xtask help` lists what it can do.
//!
//! Each sub-command is one file and one row of [`COMMANDS`]. It uses the standard library only, so that it builds in
//! about a second, also when nothing else does.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task runner talks to a terminal")]

mod bench;
mod compat;
mod fuzz;
mod process;
mod programs;
mod setup;
mod summary;
mod test;
mod tidy;
mod torture;

use std::process::ExitCode;

/// What a command that went wrong has to say, in full sentences, to the person at the terminal.
type Result<T> = std::result::Result<T, String>;

struct Command {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "test",
        arguments: "[--fast] [-p CRATE]... [-- ARGS OF THE TESTS]",
        about: "install what the tests need, then format, lints, tests, tidy and docs (--fast: no format, lints, docs)",
        run: test::run,
    },
    Command {
        name: "setup",
        arguments: "[--check]",
        about: "install what the tests need (--check: only say what is missing)",
        run: setup::run,
    },
    Command { name: "tidy", arguments: "", about: "check the project's own rules of order", run: tidy::run },
    Command {
        name: "torture",
        arguments: "[--list] [--minutes N] [--kills N] [--KNOB N]... [-- ARGS OF THE TESTS]",
        about: "run the long forms of the tests, in release",
        run: torture::run,
    },
    Command {
        name: "bench",
        arguments: "[--check] [ARGS OF THE BENCHMARK]",
        about: "run the benchmarks in bench/ (--check: only compile them)",
        run: bench::run,
    },
    Command {
        name: "fuzz",
        arguments: "[php|php_binary|php_serialize]... [--minutes N]",
        about: "run the fuzz targets, a minute each; nightly is not needed",
        run: fuzz::run,
    },
    Command {
        name: "compat",
        arguments: "[--check]",
        about: "write the generated part of COMPAT.md (--check: only compare it)",
        run: compat::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match arguments.split_first() {
        None => ("help", &[][..]),
        Some((name, rest)) => (name.as_str(), rest),
    };
    if matches!(name, "help" | "--help" | "-h") {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprintln!("error: there is no `cargo xtask {name}`\n\n{}", help());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help() -> String {
    let rows = COMMANDS.iter().map(|Command { name, arguments, about, .. }| {
        let usage = format!("  {name} {arguments}");
        format!("\n{}\n      {about}\n", usage.trim_end())
    });
    format!("usage: cargo xtask COMMAND\n{}", rows.collect::<String>())
}

/// The answer to an argument that a command does not know.
fn unknown<T>(command: &str, argument: &str) -> Result<T> {
    Err(format!("`cargo xtask {command}` does not know `{argument}`; `cargo xtask help` lists what it takes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command() {
        let help = help();
        for command in COMMANDS {
            assert!(help.contains(&format!("\n  {}", command.name)), "{}", command.name);
        }
    }
}
