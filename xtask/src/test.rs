//! `cargo xtask test`: everything that has to be green, in one command, on a fresh machine too.
//!
//! All steps are run, also after one has failed, and what they print is not held back. Integration is this same
//! command (`.ci/run`).

use crate::process::{cargo, run as start};
use crate::programs::{self, Program, Tally};
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

/// Unit, integration and documentation tests. On failure the count, as far as there is one, and the reason.
fn tests(selection: &[&str], rest: &[String]) -> std::result::Result<Tally, (Option<Tally>, String)> {
    let programs = programs::compile(selection).map_err(|message| (None, message))?;
    let (mut tally, mut failed) = programs::run(&programs, rest);
    if programs.iter().any(Program::is_of_library) {
        let (documented, message) = programs::run_documentation(selection, rest);
        tally.add(documented);
        failed.extend(message);
    }
    if !failed.is_empty() {
        Err((Some(tally), format!("{}: {}", tally.words(), failed.join(", "))))
    } else if tally.passed == 0 {
        Err((Some(tally), "no test was run".to_owned()))
    } else {
        Ok(tally)
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
}
