//! `cargo xtask tidy`: the project's rules of order, the ones that a machine can see.
//!
//! Each rule is a row of [`RULES`] and says in one line what to do instead. It looks at a [`Tree`], which is the
//! repository or, in the tests, a small broken sample: no rule without one in which it is seen to fail.

mod code;
mod folders;
mod layers;
mod manifest;
#[cfg(test)]
mod samples;
mod sources;
mod texts;

use std::path::Path;
use std::process::Command;

use crate::process::{capture, cargo, root};
use crate::{Result, compat, unknown};
use manifest::Manifest;

/// One thing that has to be so everywhere.
#[derive(Debug)]
struct Rule {
    name: &'static str,
    /// What to do where it is not so.
    instead: &'static str,
    check: fn(&Tree) -> Vec<Finding>,
}

const RULES: &[Rule] = &[
    sources::OPENS_WITH_ITS_PURPOSE,
    sources::LENGTH,
    sources::WALL_CLOCK,
    sources::UNSAFE,
    sources::ALLOW,
    sources::UNFINISHED,
    sources::IGNORED,
    layers::DIRECTION,
    layers::KNOWN_LAYER,
    layers::VERSIONS,
    folders::STORES,
    folders::WEB,
    folders::README,
    texts::WHITE_SPACE,
    texts::MACHINES,
];

/// A place where a rule does not hold.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: Option<usize>,
    what: String,
}

impl Finding {
    fn in_file(path: &str, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line: None, what: what.into() }
    }

    fn on_line(path: &str, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line: Some(line), what: what.into() }
    }
}

/// The text files of the repository.
#[derive(Debug)]
pub(crate) struct Tree {
    files: Vec<File>,
    manifests: Vec<Manifest>,
}

#[derive(Debug)]
struct File {
    /// From the top of the repository, with `/`.
    path: String,
    text: String,
}

impl File {
    fn extension(&self) -> Option<&str> {
        Path::new(&self.path).extension()?.to_str()
    }
}

impl Tree {
    /// The files that git knows or would take in, as they lie in the work tree; those that are no text are left out.
    pub(crate) fn of_repository() -> Result<Tree> {
        let root = root()?;
        let mut git = Command::new("git");
        // In a container the files often belong to somebody else, and git then asks for this.
        git.current_dir(&root).args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]);
        let listed = capture(git.arg("--exclude-standard"))?;
        let read = |path: &str| {
            let text = String::from_utf8(std::fs::read(root.join(path)).ok()?).ok()?;
            (!text.contains('\0')).then(|| File { path: path.to_owned(), text })
        };
        Ok(Tree::new(listed.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect()))
    }

    fn new(mut files: Vec<File>) -> Tree {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        let manifests = Manifest::all(files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
        Tree { files, manifests }
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File { path: (*path).to_owned(), text: (*text).to_owned() };
        Tree::new(files.iter().map(file).collect())
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.extension() == Some("rs"))
    }

    fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }

    /// Whether a package of the workspace has features, so that building all of them differs from building none.
    pub(crate) fn has_features(&self) -> bool {
        self.manifests.iter().any(|manifest| manifest.has_features && manifest.in_workspace())
    }

    /// The packages, but for this one, with a Rust file that mentions the word.
    pub(crate) fn packages_that_mention(&self, word: &str) -> Vec<String> {
        let mentions = |folder: &str| {
            self.rust().any(|file| {
                let inside = file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
                inside && file.text.contains(word)
            })
        };
        let packages = self.manifests.iter().filter(|manifest| manifest.in_workspace() && manifest.folder != "xtask");
        packages.filter(|manifest| mentions(&manifest.folder)).map(|manifest| manifest.name.clone()).collect()
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(argument) = arguments.first() {
        return unknown("tidy", argument);
    }
    println!("{}", check()?);
    Ok(())
}

/// Checks all rules, the demo's dependencies and the generated part of COMPAT.md.
pub(crate) fn check() -> Result<String> {
    let tree = Tree::of_repository()?;
    for warning in sources::nearly_too_long(&tree) {
        println!("warning: {warning}");
    }
    let mut broken = broken_rules(&tree);
    broken.extend(clients_in_demo().unwrap_or_else(Some));
    if compat::has_generated_part()? {
        broken.extend(compat::run(&["--check".to_owned()]).err());
    }
    if broken.is_empty() {
        Ok(format!("{} rules hold in {} files", RULES.len() + 1, tree.files.len()))
    } else {
        Err(format!("rules that do not hold: {}\n{}", broken.len(), broken.join("\n")))
    }
}

/// One text for each rule that does not hold: where, and what to do instead.
fn broken_rules(tree: &Tree) -> Vec<String> {
    let describe = |rule: &Rule| {
        let findings = (rule.check)(tree);
        if findings.is_empty() {
            return None;
        }
        let mut lines = vec![format!("{}: {}", rule.name, rule.instead)];
        lines.extend(findings.into_iter().map(|Finding { path, line, what }| {
            let line = line.map_or(String::new(), |line| format!(":{line}"));
            format!("    {path}{line}: {what}")
        }));
        Some(lines.join("\n"))
    };
    RULES.iter().filter_map(describe).collect()
}

/// The demo has to build fast and to show that nothing but files is needed.
fn clients_in_demo() -> Result<Option<String>> {
    let tree = capture(cargo()?.args(["tree", "-p", "cloakroom-demo", "-e", "normal", "--prefix", "none"]))?;
    let clients = layers::clients(&tree);
    Ok((!clients.is_empty()).then(|| {
        let clients = clients.join(", ");
        format!(
            "demo: turn off the feature of cloakroom that brings a database client in\n    demo/Cargo.toml: {clients}"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let broken = broken_rules(&Tree::of_repository().unwrap());
        assert!(broken.is_empty(), "\n{}", broken.join("\n"));
    }

    #[test]
    fn the_demo_builds_without_database_clients() {
        assert_eq!(clients_in_demo().unwrap(), None);
    }

    #[test]
    fn a_broken_rule_tells_where_and_what_to_do_instead() {
        let broken = broken_rules(&Tree::of(&[("crates/x/src/lib.rs", "//! X.\nfn f() {\n    todo!()\n}\n")]));
        assert_eq!(
            broken,
            [format!(
                "{}: {}\n    crates/x/src/lib.rs:3: todo!",
                sources::UNFINISHED.name,
                sources::UNFINISHED.instead
            )]
        );
    }
}
