//! Rules about Rust files.

use super::code::code;
use super::{File, Finding, Rule, Tree};

/// Lines before a file's tests above which it is too long, and above which a warning says that it will be.
const MOST_LINES: usize = 500;
const MANY_LINES: usize = 400;

/// Who may read the wall clock, and why.
const CLOCKS: &[(&str, &str)] = &[
    ("crates/cloakroom-core/src/clock.rs", "it is the clock"),
    ("stores/files/src/", "the age of a file is told by the file system's time"),
    ("stores/sqlite/src/way.rs", "SQLite's own clock is that of the machine"),
    ("crates/cloakroom-testkit/", "it watches from outside"),
    ("xtask/", "it watches from outside"),
    ("bench/", "it watches from outside"),
    ("examples/", "a program of one's own may ask the time"),
];

pub(super) const OPENS_WITH_ITS_PURPOSE: Rule = Rule {
    name: "purpose",
    instead: "open the file with a `//!` line that says what it is for",
    check: |tree| {
        // A README.md as a package's documentation says it as well.
        let mute = |file: &&File| !["//!", "#![doc = include_str!("].iter().any(|open| file.text.starts_with(open));
        tree.rust().filter(mute).map(|file| Finding::on_line(&file.path, 1, "no `//!`")).collect()
    },
};

pub(super) const LENGTH: Rule = Rule {
    name: "length",
    instead: "split the file by what its parts are about; 500 lines before its tests are the most",
    check: |tree| {
        let long = lengths(tree).filter(|(_, lines)| *lines > MOST_LINES);
        long.map(|(path, lines)| Finding::in_file(path, format!("{lines} lines"))).collect()
    },
};

pub(super) const WALL_CLOCK: Rule = Rule {
    name: "clock",
    instead: "take the time from cloakroom-core's `Clock`, which tests can set",
    check: |tree| {
        let bound = |file: &&File| !is_test(&file.path) && !CLOCKS.iter().any(|(path, _)| file.path.starts_with(path));
        let find = |file| in_code(file, |line| line.contains("SystemTime::now").then(|| "SystemTime::now".to_owned()));
        tree.rust().filter(bound).flat_map(find).collect()
    },
};

pub(super) const UNSAFE: Rule = Rule {
    name: "unsafe",
    instead: "use a crate that has proven its unsafe code (rustix for system calls)",
    check: |tree| {
        let find = |file| in_code(file, |line| words(line).any(|word| word == "unsafe").then(|| "unsafe".to_owned()));
        tree.rust().flat_map(find).collect()
    },
};

pub(super) const ALLOW: Rule = Rule {
    name: "allow",
    instead: "write `#[expect(lint, reason = \"...\")]`, which ends with its cause",
    check: |tree| {
        let is_allow = |line: &str| {
            let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            let inside = line.contains("cfg_attr(") && line.contains(",allow(");
            (inside || line.contains("#[allow(") || line.contains("#![allow(")).then(|| "allow".to_owned())
        };
        tree.rust().flat_map(|file| in_code(file, is_allow)).collect()
    },
};

pub(super) const UNFINISHED: Rule = Rule {
    name: "unfinished",
    instead: "finish it, or return an error of kind `Unsupported` that says what is missing",
    check: |tree| {
        let marks = ["todo!", "unimplemented!"];
        let find = |line: &str| marks.iter().find(|mark| line.contains(*mark)).map(|mark| (*mark).to_owned());
        tree.rust().flat_map(|file| in_code(file, find)).collect()
    },
};

pub(super) const IGNORED: Rule = Rule {
    name: "ignored",
    instead: "let the test run and fail with the name of what it lacks; an example that cannot run is `no_run` or `text`",
    check: |tree| {
        let attribute = |line: &str| line.contains("#[ignore").then(|| "#[ignore]".to_owned());
        let tests = tree.rust().flat_map(|file| in_code(file, attribute));
        let examples = tree.rust().flat_map(|file| {
            let fences = file.text.lines().enumerate().filter(|(_, line)| {
                let comment = line.trim_start().strip_prefix("//!").or_else(|| line.trim_start().strip_prefix("///"));
                let fence = comment.and_then(|comment| comment.trim_start().strip_prefix("```"));
                fence.is_some_and(|fence| words(fence).any(|word| word == "ignore"))
            });
            fences.map(|(at, _)| Finding::on_line(&file.path, at + 1, "an example that is not compiled"))
        });
        tests.chain(examples).collect()
    },
};

/// A warning for each file that will soon be too long.
pub(super) fn nearly_too_long(tree: &Tree) -> Vec<String> {
    let long = lengths(tree).filter(|(_, lines)| (MANY_LINES + 1..=MOST_LINES).contains(lines));
    long.map(|(path, lines)| format!("{path} has {lines} lines before its tests; {MOST_LINES} are the most")).collect()
}

/// Files and their lines before the tests. Files of tests alone may be as long as they need to be.
fn lengths(tree: &Tree) -> impl Iterator<Item = (&str, usize)> {
    tree.rust().filter(|file| !is_test(&file.path)).map(|file| {
        let lines: Vec<&str> = file.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
        (file.path.as_str(), tests.unwrap_or(lines.len()))
    })
}

fn is_test(path: &str) -> bool {
    let folder = |part| matches!(part, "tests" | "benches" | "fuzz" | "fixtures");
    path.split('/').any(folder) || path.ends_with("/tests.rs") || path.ends_with("_tests.rs")
}

fn in_code(file: &File, find: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let code = code(&file.text);
    let found = code.lines().enumerate().filter_map(|(at, line)| Some((at + 1, find(line)?)));
    found.map(|(line, what)| Finding::on_line(&file.path, line, what)).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}
