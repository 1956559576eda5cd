//! `cargo xtask torture`: the same tests as ever, but long.
//!
//! A test that can be made longer reads how long from a variable and has a row in [`KNOBS`]. Which packages are run
//! follows from where the variable is read, so that a row that nothing reads any more is an error, not a comfort.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::process::{cargo, run as start};
use crate::tidy::Tree;
use crate::{Result, setup, unknown};

/// One test's length.
#[derive(Debug)]
struct Knob {
    /// As an option of this command: `--kills N`.
    option: &'static str,
    /// The variable that the test reads.
    variable: &'static str,
    /// What the test takes where the variable is not set.
    ordinary: u64,
    torture: u64,
    lengthens: &'static str,
}

const KNOBS: &[Knob] = &[
    Knob {
        option: "kills",
        variable: "CLOAKROOM_KILLS",
        ordinary: 100,
        torture: 10_000,
        lengthens: "how often a writer of session files is killed in the midst of a write",
    },
    Knob {
        option: "values",
        variable: "CLOAKROOM_DIFF_VALUES",
        ordinary: 100_000,
        torture: 10_000_000,
        lengthens: "how many random values are compared with what PHP makes of them",
    },
    Knob {
        option: "increments",
        variable: "CLOAKROOM_INCREMENTS",
        ordinary: 1000,
        torture: 10_000,
        lengthens: "how many changes are made while a master of Redis dies",
    },
    Knob {
        option: "sql-sessions",
        variable: "CLOAKROOM_SQL_SESSIONS",
        ordinary: 20_000,
        torture: 1_000_000,
        lengthens: "how many sessions a database holds while those that have expired are swept away",
    },
    Knob {
        option: "sqlite-kills",
        variable: "CLOAKROOM_SQLITE_KILLS",
        ordinary: 12,
        torture: 1_000,
        lengthens: "how often a process that writes to SQLite is killed in the midst of a commit",
    },
    Knob {
        option: "sqlite-sessions",
        variable: "CLOAKROOM_SQLITE_SESSIONS",
        ordinary: 20_000,
        torture: 1_000_000,
        lengthens: "how many sessions in SQLite are swept beside requests; at a million their times are compared",
    },
    Knob {
        option: "files",
        variable: "CLOAKROOM_FILES",
        ordinary: 3_000,
        torture: 1_000_000,
        lengthens: "how many session files lie in a directory that is swept",
    },
    Knob {
        option: "cuts",
        variable: "CLOAKROOM_CUTS",
        ordinary: 10,
        torture: 1_000,
        lengthens: "after how many bytes of a call its connection is cut; at a thousand it is every byte",
    },
];

#[derive(Debug, Default)]
struct Options {
    list: bool,
    minutes: Option<u64>,
    values: BTreeMap<&'static str, u64>,
    rest: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => options.list = true,
                "--" => options.rest = arguments.by_ref().cloned().collect(),
                "--minutes" => options.minutes = Some(number(argument, arguments.next())?),
                other => {
                    let named = other.strip_prefix("--");
                    let Some(knob) = KNOBS.iter().find(|knob| named == Some(knob.option)) else {
                        return unknown("torture", other);
                    };
                    options.values.insert(knob.variable, number(argument, arguments.next())?);
                }
            }
        }
        Ok(options)
    }

    fn value(&self, knob: &Knob) -> u64 {
        self.values.get(knob.variable).copied().unwrap_or(knob.torture)
    }
}

fn number(option: &str, value: Option<&String>) -> Result<u64> {
    value.and_then(|text| text.parse().ok()).ok_or_else(|| format!("after {option} comes a number"))
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    println!("{:<28} {:>9} {:>9}  lengthens", "variable", "ordinary", "now");
    for knob in KNOBS {
        println!("{:<28} {:>9} {:>9}  {}", knob.variable, knob.ordinary, options.value(knob), knob.lengthens);
    }
    if options.list {
        return Ok(());
    }
    setup::install_for_tests(false)?;
    let packages = packages(&Tree::of_repository()?, KNOBS)?;
    let end = options.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    for round in 1_u32.. {
        println!("\n=== round {round}");
        let mut command = cargo()?;
        command.args(["test", "--release", "--all-features", "--no-fail-fast"]);
        command.args(packages.iter().flat_map(|package| ["-p", package]));
        command.arg("--").args(&options.rest);
        command.envs(KNOBS.iter().map(|knob| (knob.variable, options.value(knob).to_string())));
        // Ordinary runs draw the same values each time; here each round draws others. It is printed with a failure.
        if std::env::var_os("CLOAKROOM_DIFF_SEED").is_none() {
            command.env("CLOAKROOM_DIFF_SEED", (std::process::id() ^ round.wrapping_mul(0x9e37_79b9)).to_string());
        }
        start(&mut command)?;
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
    Ok(())
}

/// The packages that read one of the variables. Fails if a variable is read by none.
fn packages(tree: &Tree, knobs: &[Knob]) -> Result<Vec<String>> {
    let mut packages = Vec::new();
    for knob in knobs {
        let read_by = tree.packages_that_mention(knob.variable);
        if read_by.is_empty() {
            return Err(format!(
                "no test reads {}: write it, or take the row out of xtask/src/torture.rs",
                knob.variable
            ));
        }
        packages.extend(read_by);
    }
    packages.sort();
    packages.dedup();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_knob_is_an_option() {
        for knob in KNOBS {
            assert_eq!(options("").unwrap().value(knob), knob.torture);
            assert_eq!(options(&format!("--{} 7", knob.option)).unwrap().value(knob), 7);
            assert!(knob.ordinary < knob.torture, "{}", knob.variable);
        }
        assert!(options("--kills many").is_err());
        assert!(options("--kill 1").unwrap_err().contains("--kill"));
        let given = options("--minutes 3 -- --exact").unwrap();
        assert_eq!((given.minutes, given.rest), (Some(3), vec!["--exact".to_owned()]));
    }

    #[test]
    fn packages_are_those_that_read_the_variable() {
        let manifest = |name: &str| format!("[package]\nname = \"{name}\"\n");
        let tree = Tree::of(&[
            ("stores/a/Cargo.toml", &manifest("store-a")),
            ("stores/a/tests/it/kill.rs", "let kills = env(\"CLOAKROOM_KILLS\");"),
            ("stores/b/Cargo.toml", &manifest("store-b")),
            ("xtask/Cargo.toml", &manifest("xtask")),
            ("xtask/src/torture.rs", "CLOAKROOM_KILLS"),
        ]);
        assert_eq!(packages(&tree, &KNOBS[..1]).unwrap(), ["store-a"]);
        let told = packages(&tree, &KNOBS[1..]).unwrap_err();
        assert!(told.contains("CLOAKROOM_DIFF_VALUES"), "{told}");
    }
}
