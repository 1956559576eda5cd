//! Test programs: compiled by cargo, then run several at a time, since most tests wait for a server, for a lease to run
//! out, and hardly use a processor meanwhile.
//!
//! `cargo test` runs one program after the other. Each runs here as it would there: in the folder of its package, with
//! the same arguments. Its lines are passed on as they come, with its name in front.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::Result;
use crate::process::{cargo, line};

/// At least so many programs run at once.
const AT_ONCE: usize = 2;
/// Whose programs run one by one when all others have ended: they ask real servers within the limits of real requests,
/// which a crowded machine exceeds.
const ALONE: &[&str] = &["examples"];
/// How many tests of a program run at once.
const THREADS: &str = "RUST_TEST_THREADS";

/// A compiled program of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its package, and the target within it.
    name: String,
    executable: PathBuf,
    /// The folder of the package.
    folder: PathBuf,
    /// Of a library, which may have tests in its documentation, too.
    of_library: bool,
}

/// How many tests ended how, over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) ignored: usize,
}

impl Tally {
    /// Adds what one line of the tests' output says, if it is a result.
    fn add_line(&mut self, line: &str) {
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

    pub(crate) fn add(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    pub(crate) fn words(self) -> String {
        let Tally { passed, failed, ignored } = self;
        format!("{passed} passed, {failed} failed, {ignored} ignored")
    }
}

/// Compiles all tests of the packages.
pub(crate) fn compile(selection: &[&str]) -> Result<Vec<Program>> {
    let mut command = cargo()?;
    command.args(["test", "--no-run", "--all-features", "--message-format=json-render-diagnostics"]).args(selection);
    let line = line(&command);
    println!("$ {line}");
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("`{line}` cannot be started: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{line}` failed ({})", output.status));
    }
    let told = String::from_utf8_lossy(&output.stdout);
    let programs: Vec<_> = told.lines().filter_map(program).collect();
    if programs.is_empty() { Err(format!("`{line}` compiled no tests")) } else { Ok(programs) }
}

/// What one of cargo's messages says of a program of tests, if it does.
fn program(message: &str) -> Option<Program> {
    let profile = &message[message.find(r#""profile":{"#)?..];
    // Of the profile: a target that can be tested says so, too, when it is compiled for itself.
    if !message.contains(r#""reason":"compiler-artifact""#)
        || !profile[..profile.find('}')?].ends_with(r#""test":true"#)
    {
        return None;
    }
    let executable = PathBuf::from(text(message, "executable")?);
    let folder = Path::new(&text(message, "manifest_path")?).parent()?.to_path_buf();
    let target = &message[message.find(r#""target":{"#)?..];
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let of_library = target.starts_with(r#""target":{"kind":["lib"]"#);
    let name = if of_library { package } else { format!("{package} {}", text(target, "name")?) };
    Some(Program { name, executable, folder, of_library })
}

/// The first value of this name that is a text. Cargo writes no characters as numbers.
fn text(json: &str, name: &str) -> Option<String> {
    let begin = format!("\"{name}\":\"");
    let mut text = String::new();
    let mut characters = json[json.find(&begin)? + begin.len()..].chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

/// Runs all programs, and says how many tests ended how, and what failed.
pub(crate) fn run(programs: &[Program], arguments: &[String]) -> (Tally, Vec<String>) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let alone =
        |program: &Program| program.folder.file_name().is_some_and(|folder| ALONE.iter().any(|one| folder == *one));
    let (alone, together): (Vec<_>, Vec<_>) = programs.iter().partition(|program| alone(program));
    let (mut tally, mut failed) = at_once(together, processors.max(AT_ONCE), arguments);
    let (rest, more) = at_once(alone, 1, arguments);
    tally.add(rest);
    failed.extend(more);
    (tally, failed)
}

fn at_once(programs: Vec<&Program>, lanes: usize, arguments: &[String]) -> (Tally, Vec<String>) {
    // The largest first: they take longest, and what is left for the end is to be short.
    let mut queue = programs;
    queue.sort_by_key(|program| Reverse(std::fs::metadata(&program.executable).map_or(0, |file| file.len())));
    let queue = Mutex::new(VecDeque::from(queue));
    let done = Mutex::new((Tally::default(), Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(program) = next() {
                    let (tally, failed) = program.run(arguments);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.0.add(tally);
                    done.1.extend(failed);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the tests that stand in the documentation of the packages' libraries.
pub(crate) fn run_documentation(selection: &[&str], arguments: &[String]) -> (Tally, Option<String>) {
    let mut command = match cargo() {
        Ok(command) => command,
        Err(message) => return (Tally::default(), Some(message)),
    };
    command.args(["test", "--doc", "--no-fail-fast", "--all-features"]).args(selection).arg("--").args(arguments);
    println!("$ {}", line(&command));
    watch("docs", &mut command)
}

impl Program {
    pub(crate) fn is_of_library(&self) -> bool {
        self.of_library
    }

    fn run(&self, arguments: &[String]) -> (Tally, Option<String>) {
        let begun = Instant::now();
        let mut command = Command::new(&self.executable);
        command.args(arguments).current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command.stdin(Stdio::null());
        if std::env::var_os(THREADS).is_none() {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS, (2 * processors).to_string());
        }
        let ended = watch(&self.name, &mut command);
        println!("{} | ended after {:.1} s", self.name, begun.elapsed().as_secs_f64());
        ended
    }
}

/// Runs a command to its end with its output passed on; how many of its tests ended how, and what went wrong.
fn watch(name: &str, command: &mut Command) -> (Tally, Option<String>) {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return (Tally::default(), Some(format!("{name} cannot be started: {error}"))),
    };
    let tally = match child.stdout.take() {
        Some(output) => pass_on(name, output, &mut std::io::stdout()),
        None => Ok(Tally::default()),
    };
    match (tally, child.wait()) {
        (Ok(tally), Ok(status)) if status.success() => (tally, None),
        (Ok(tally), Ok(status)) => (tally, Some(format!("{name} ({status})"))),
        (Err(error), _) => (Tally::default(), Some(format!("{name}: its output cannot be passed on: {error}"))),
        (Ok(tally), Err(error)) => (tally, Some(format!("{name} has no end: {error}"))),
    }
}

/// Copies the output line by line as it comes, with a name in front, and counts the results in it.
fn pass_on(name: &str, from: impl Read, to: &mut impl Write) -> std::io::Result<Tally> {
    let mut tally = Tally::default();
    let (mut from, mut line) = (BufReader::new(from), Vec::new());
    while from.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches('\n');
        tally.add_line(text);
        // In one piece, so that others' lines come before or after it.
        to.write_all(format!("{name} | {text}\n").as_bytes())?;
        line.clear();
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_tells() {
        let message = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///x/stores/files#store-files@0.1.0","manifest_path":"/x/stores/files/Cargo.toml","target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"it","src_path":"/x/main.rs","edition":"2024","doc":false,"doctest":false,"test":true}},"profile":{{"opt_level":"0","debuginfo":2,"test":{test}}},"features":[],"filenames":["/x/it"],"executable":{executable},"fresh":true}}"#
            )
        };
        let found = program(&message("test", true, "\"/x/deps/it-1\"")).unwrap();
        assert_eq!((&*found.name, found.of_library), ("files it", false));
        assert_eq!((&*found.executable, &*found.folder), (Path::new("/x/deps/it-1"), Path::new("/x/stores/files")));
        assert_eq!(program(&message("lib", true, "\"/x/deps/s-1\"")).unwrap().name, "files");
        assert_eq!(program(&message("lib", false, "null")), None);
        assert_eq!(program(&message("bin", false, "\"/x/demo\"")), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(text(r#"{"a":"C:\\x\"y"}"#, "a").unwrap(), r#"C:\x"y"#);
    }

    #[test]
    fn output_is_passed_on_and_counted() {
        let said = "running 2 tests\ntest a ... ok\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; \
                    7 filtered out; finished in 0.00s\ntest result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured";
        let mut passed_on = Vec::new();
        let tally = pass_on("a", said.as_bytes(), &mut passed_on).unwrap();
        let passed_on = String::from_utf8(passed_on).unwrap();
        assert!(
            passed_on.starts_with("a | running 2 tests\na | test a ... ok\na | \na | test result: ok."),
            "{passed_on}"
        );
        assert_eq!(tally, Tally { passed: 5, failed: 4, ignored: 1 });
    }

    /// What one program does is told whatever the others do.
    #[test]
    fn all_programs_are_run() {
        let program = |name: &str, executable: &str| Program {
            name: name.to_owned(),
            executable: executable.into(),
            folder: "/".into(),
            of_library: true,
        };
        let programs = vec![program("good", "true"), program("bad", "false"), program("none", "/no/such/program")];
        let (tally, mut failed) = run(&programs, &[]);
        failed.sort();
        assert_eq!((tally, failed.len()), (Tally::default(), 2));
        assert!(failed[0].starts_with("bad (") && failed[1].starts_with("none cannot be started"), "{failed:?}");
    }
}
