//! `cargo xtask fuzz`: the fuzz targets in fuzz/, also where there is no nightly compiler.
//!
//! libFuzzer needs nothing of nightly but the sanitizers, which find little where `unsafe` is forbidden. What it is led by
//! are counters that LLVM puts into the code, and those are ordinary options of the stable compiler.

use std::fs;
use std::process::Command;

use crate::process::{capture, cargo, root, run as start};
use crate::{Result, unknown};

const FORMATS: [&str; 3] = ["php", "php_binary", "php_serialize"];

const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

#[derive(Debug)]
struct Options<'a> {
    formats: Vec<&'a str>,
    minutes: u64,
}

impl<'a> Options<'a> {
    fn parse(arguments: &'a [String]) -> Result<Options<'a>> {
        let mut options = Options { formats: Vec::new(), minutes: 1 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--minutes" {
                let number = arguments.next().and_then(|text| text.parse().ok());
                options.minutes = number.ok_or_else(|| "after --minutes comes a number".to_owned())?;
            } else if FORMATS.contains(&argument.as_str()) {
                options.formats.push(argument);
            } else {
                return unknown("fuzz", argument);
            }
        }
        if options.formats.is_empty() {
            options.formats = FORMATS.to_vec();
        }
        Ok(options)
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let root = root()?;
    // Naming the target keeps the flags from build scripts.
    let version = capture(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc -vV names no host")?;
    let target = root.join("fuzz/target");
    let mut build = cargo()?;
    build.args(["build", "--release", "--bins", "--manifest-path", "fuzz/Cargo.toml", "--target", host]);
    build.arg("--target-dir").arg(&target).env("RUSTFLAGS", FLAGS.join(" "));
    start(&mut build)?;
    for format in options.formats {
        let found = target.join("corpus").join(format);
        fs::create_dir_all(&found).map_err(|e| format!("{} cannot be made: {e}", found.display()))?;
        let mut fuzzer = Command::new(target.join(host).join("release").join(format));
        fuzzer.current_dir(root.join("fuzz")).arg(&found).arg(format!("corpus/{format}"));
        fuzzer.arg(format!("-max_total_time={}", 60 * options.minutes)).arg("-max_len=4096");
        fuzzer.arg(format!("-artifact_prefix={}/{format}-", target.display()));
        start(&mut fuzzer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (all, one) = (words(""), words("php --minutes 30"));
        assert_eq!(Options::parse(&all).unwrap().formats, FORMATS);
        let one = Options::parse(&one).unwrap();
        assert_eq!((one.formats, one.minutes), (vec!["php"], 30));
        assert!(Options::parse(&words("igbinary")).unwrap_err().contains("igbinary"));
        assert!(Options::parse(&words("--minutes")).is_err());
    }
}
