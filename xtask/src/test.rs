//! `cargo xtask test`: everything that has to be green, in one command, on a fresh machine too.
//!
//! All steps are run, also after one has failed, and what they print is not held back. Integration is this same
//! command (`.ci/run`).

use std::io::{Read, Write};
use std::process::Stdio;

use crate::process::{cargo, line, run as start};
use crate::summary::Summary;
use crate::tidy::Tree;
use crate::{Result, setup, tidy, unknown};

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// No format, lints and docs.
    fast: bool,
    /// Only these packages; all of them if empty.
    packages: Vec<String>,
    /// For `cargo test`, after its own arguments.
    rest: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--fast" => options.fast = true,
                "-p" | "--package" => match arguments.next() {
                    Some(package) => options.packages.push(package.clone()),
                    None => return Err("after -p comes the name of a package".to_owned()),
                },
                "--" => options.rest = arguments.by_ref().cloned().collect(),
                other => return unknown("test", other),
            }
        }
        Ok(options)
    }

    /// `--workspace`, or `-p` for each package.
    fn selection(&self) -> Vec<&str> {
        if self.packages.is_empty() {
            return vec!["--workspace"];
        }
        self.packages.iter().flat_map(|package| ["-p", package]).collect()
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let selection = options.selection();
    let mut summary = Summary::default();

    let left_out = setup::left_out()?;
    let with = |name: &str| !options.fast && left_out.iter().all(|need| need.name != name);

    summary.step("setup", || setup::install_for_tests(!options.fast).map(|()| String::new()));
    if with("rustfmt") {
        summary.step("format", || plain(cargo()?.args(["fmt", "--all", "--check"])));
    }
    if with("clippy") {
        let lint = |features: &[&str]| -> Result<String> {
            let clippy = ["clippy", "--all-targets"];
            plain(cargo()?.args(clippy).args(&selection).args(features).args(["--", "-D", "warnings"]))
        };
        summary.step("lints", || lint(&[]));
        if Tree::of_repository()?.has_features() {
            summary.step("lints, all features", || lint(&["--all-features"]));
        }
    }
    let mut count = None;
    summary.step("tests", || {
        let tally = tests(&selection, &options.rest);
        count = tally.as_ref().map_or_else(|failed| failed.0, |tally| Some(*tally));
        tally.map(Tally::words).map_err(|failed| failed.1)
    });
    summary.step("tidy", tidy::check);
    if !options.fast {
        summary.step("docs", || {
            let doc = ["doc", "--no-deps", "--all-features"];
            plain(cargo()?.args(doc).args(&selection).env("RUSTDOCFLAGS", "-D warnings"))
        });
    }

    for need in left_out {
        summary.note(format!("CLOAKROOM_SKIP: without {}, so that this was not tried: {}", need.name, need.needed_for));
    }
    if let Some(Tally { passed, failed, .. }) = count {
        summary.note(format!("tests: {passed} passed, {failed} failed"));
    }
    summary.finish()
}

fn plain(command: &mut std::process::Command) -> Result<String> {
    start(command).map(|()| String::new())
}

/// How many tests ended how, over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
}

impl Tally {
    /// Adds what one line of the tests' output says, if it is a result.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.trim().strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<usize>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn words(self) -> String {
        let Tally { passed, failed, ignored } = self;
        format!("{passed} passed, {failed} failed, {ignored} ignored")
    }
}

/// How many tests of a program run at once.
const THREADS: &str = "RUST_TEST_THREADS";

/// Unit, integration and documentation tests. On failure the count, as far as there is one, and the reason.
fn tests(selection: &[&str], rest: &[String]) -> std::result::Result<Tally, (Option<Tally>, String)> {
    let without = |message| (None, message);
    let mut command = cargo().map_err(without)?;
    command.args(["test", "--no-fail-fast", "--all-features"]).args(selection).arg("--").args(rest);
    if std::env::var_os(THREADS).is_none() {
        // Most tests wait, for the end of a lease or for a server, and hardly use a processor meanwhile.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, (2 * processors).to_string());
    }
    let line = line(&command);
    println!("$ {line}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|e| without(format!("`{line}` cannot be started: {e}")))?;
    let read = match child.stdout.take() {
        Some(output) => pass_on(output, std::io::stdout()),
        None => Ok(Tally::default()),
    };
    let status = child.wait().map_err(|e| without(format!("`{line}` has no end: {e}")))?;
    let tally = read.map_err(|e| without(format!("the output of `{line}` cannot be passed on: {e}")))?;
    if !status.success() {
        Err((Some(tally), format!("{} (`{line}`: {status})", tally.words())))
    } else if tally.passed == 0 {
        Err((Some(tally), "no test was run".to_owned()))
    } else {
        Ok(tally)
    }
}

/// Copies the output as it comes and counts the results in it.
fn pass_on(mut from: impl Read, mut to: impl Write) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            tally.add(&String::from_utf8_lossy(&line));
            return Ok(tally);
        }
        to.write_all(&buffer[..length])?;
        to.flush()?;
        for &byte in &buffer[..length] {
            if byte == b'\n' {
                tally.add(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(options("").unwrap().selection(), ["--workspace"]);
        let given = options("--fast -p a -p b -- --exact -p").unwrap();
        assert!(given.fast);
        assert_eq!(given.selection(), ["-p", "a", "-p", "b"]);
        assert_eq!(given.rest, ["--exact", "-p"]);
        assert!(options("--fats").unwrap_err().contains("--fats"));
        assert!(options("-p").is_err());
    }

    #[test]
    fn output_is_passed_on_and_counted() {
        let said = "running 2 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; \
                    7 filtered out; finished in 0.00s\ntest result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured";
        let mut passed_on = Vec::new();
        let tally = pass_on(said.as_bytes(), &mut passed_on).unwrap();
        assert_eq!(passed_on, said.as_bytes());
        assert_eq!(tally, Tally { passed: 5, failed: 4, ignored: 1 });
    }
}
