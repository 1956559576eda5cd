//! Rules about sibling folders: who knows one store or one adapter knows where things are in all of them.

use super::{Finding, Rule, Tree};

/// The files that a store may have in src/, each in each store about the same thing.
const STORE_FILES: &[&str] = &["config", "error", "layout", "lib", "list", "lock", "store", "sweep"];

/// What one store alone has to have a file for.
const OWN_STORE_FILES: &[(&str, &str, &str)] = &[
    ("stores/files", "access", "getting at a file, under its lock or beside who holds it"),
    ("stores/files", "aside", "sessions that could not be read, kept for people to look at"),
    ("stores/files", "elsewhere", "the answer on systems without flock"),
    ("stores/files", "file", "one session file: opened safely, read, and its age"),
    ("stores/files", "gauge", "on which thread system calls are made"),
    ("stores/files", "pool", "threads that wait in flock"),
    ("stores/files", "redo", "what a change of several steps is about to do, written down before the first"),
    ("stores/files", "redo_tests", "the tests of redo"),
    ("stores/files", "side", "the directory beside the sessions for what is our own"),
    ("stores/files", "write", "changing a file in place without losing it"),
    ("stores/memcached", "commit", "what is done under a lock, and giving it back"),
    ("stores/memcached", "pool", "one server and the connections to it"),
    ("stores/memcached", "ring", "which server holds which key, as libmemcached decides it"),
    ("stores/memcached", "wait", "waiting for a lock and taking it"),
    ("stores/memcached", "wire", "Memcached's meta commands on one connection"),
    ("stores/sql", "commit", "commits, of those who have no lock and of the holder"),
    ("stores/sql", "migrate", "whether the tables are there, and making them"),
    ("stores/sql", "native", "the layout of our own"),
    ("stores/sql", "native_sql", "its statements"),
    ("stores/sql", "patience", "waiting for a lock that somebody else holds"),
    ("stores/sql", "pool", "connections, and one way of asking for both servers"),
    ("stores/sql", "row", "what goes into a statement and comes out of it"),
    ("stores/sql", "shared", "what all clones of a store share"),
    ("stores/sql", "symfony", "the layout of Symfony's PdoSessionHandler"),
    ("stores/sql", "symfony_lock", "its locks, by connections"),
    ("stores/sql", "symfony_sql", "its statements"),
    ("stores/memory", "table", "records in shards, and the bound on their bytes"),
    ("stores/redis", "aside", "sessions that could not be read, kept for people to look at"),
    ("stores/redis", "dial", "how a connection is made: to a server, a cluster, what sentinels name"),
    ("stores/redis", "link", "a shared connection that mends itself and never repeats a write"),
    ("stores/redis", "reply", "what the scripts answer, read"),
    ("stores/redis", "save_path", "PHP's session.save_path in php-redis's syntax"),
    ("stores/redis", "script", "the scripts that run within the server"),
    ("stores/redis", "url", "the URLs of the store"),
    ("stores/sqlite", "checkpoint", "bringing the log over into the database, beside who writes"),
    ("stores/sqlite", "commit", "what a commit does to a row, decided from its state"),
    ("stores/sqlite", "file", "the database's file: opened safely, made ready, and noticed when it is another"),
    ("stores/sqlite", "job", "what the writing thread is asked to do"),
    ("stores/sqlite", "leases", "the leases in rows that are to be renewed"),
    ("stores/sqlite", "native", "the rows of our own layout"),
    ("stores/sqlite", "reader", "connections for reading, and on which thread"),
    ("stores/sqlite", "shared", "what all clones share, and the way of a call to the threads"),
    ("stores/sqlite", "symfony", "the rows of Symfony's layout"),
    ("stores/sqlite", "way", "the two layouts behind one face"),
    ("stores/sqlite", "writer", "the one thread that writes"),
];

/// The files that an adapter may have in src/.
const WEB_FILES: &[&str] =
    &["body", "extract", "future", "layer", "lib", "middleware", "reject", "service", "transform"];

pub(super) const STORES: Rule = Rule {
    name: "stores",
    instead: "name files as the other stores do (each has lib.rs and store.rs), or give one a row in `OWN_STORE_FILES` that says what it is for",
    check: |tree| {
        let mut findings = strange(tree, "stores/", STORE_FILES, OWN_STORE_FILES);
        for folder in siblings(tree, "stores/") {
            for file in ["lib", "store"] {
                if !tree.has(&format!("{folder}/src/{file}.rs")) {
                    findings.push(Finding::in_file(&folder, format!("no src/{file}.rs")));
                }
            }
        }
        findings
    },
};

pub(super) const WEB: Rule = Rule {
    name: "adapters",
    instead: "give the file the name it has in the other adapters, or add the name to `WEB_FILES`",
    check: |tree| strange(tree, "web/", WEB_FILES, &[]),
};

pub(super) const README: Rule = Rule {
    name: "readme",
    instead: "write a README.md: what PHP does with this store, how to connect, what it can and cannot do",
    check: |tree| {
        let without = siblings(tree, "stores/").into_iter().filter(|folder| !tree.has(&format!("{folder}/README.md")));
        without.map(|folder| Finding::in_file(&folder, "no README.md")).collect()
    },
};

/// The folders directly under a parent that hold a package.
fn siblings(tree: &Tree, parent: &str) -> Vec<String> {
    let folders = tree.manifests.iter().map(|manifest| &manifest.folder);
    folders.filter(|folder| folder.starts_with(parent)).cloned().collect()
}

/// Files and folders in the src/ of siblings whose names are not on the list.
fn strange(tree: &Tree, parent: &str, names: &[&str], own: &[(&str, &str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let Some((folder, inside)) = file.path.split_once("/src/").filter(|(folder, _)| folder.starts_with(parent))
        else {
            continue;
        };
        let name = inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs");
        let is_own = own.iter().any(|(sibling, file, _)| *sibling == folder && *file == name);
        if !names.contains(&name) && !is_own {
            findings.push(Finding::in_file(&file.path, format!("the others know no `{name}`")));
        }
    }
    findings
}
