//! Scenarios: requests, the session directory they begin with, and where cloakroom answers otherwise on purpose.
//!
//! A file in `fixtures/scenarios/` holds a list of [`Scenario`]s of one area, as JSON. In its texts `{save_path}` stands for the fresh
//! directory of this run, `{root}` for the one above it, and `{id1}`, `{id2}`, ... for the ids that were generated during this run, in the
//! order in which they were first seen. All text is Latin-1: one character is one byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Doing, Failure, Result};
use crate::keys::Place;
use crate::store::Entry;

/// One story: what is on disk before, what is asked, and what it shows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A sentence in snake case.
    pub name: String,
    /// The behaviour of PHP that it shows.
    pub shows: String,
    /// php.ini settings (`name=value`) that PHP must be started with; a cloakroom server never sees them.
    #[serde(default)]
    pub php_ini: Vec<String>,
    /// Where the sessions are kept; elsewhere than in files the requests' settings say so by themselves.
    #[serde(default)]
    pub store: Place,
    /// Who must run both servers, where permissions or owners make a difference.
    #[serde(default)]
    pub runs_as: Option<RunsAs>,
    /// What lies in the save path, or under which keys, before the first request.
    #[serde(default)]
    pub files: Vec<Planted>,
    /// One after the other.
    pub requests: Vec<Request>,
    /// Where cloakroom answers otherwise on purpose.
    #[serde(default)]
    pub differs: Option<Differs>,
    /// What PHP 8.4 answers otherwise than PHP 8.2.
    #[serde(default)]
    pub php84: Option<Vec<Patch>>,
}

/// Who a scenario needs to be run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsAs {
    /// Root, who may give files away and read everything.
    Root,
    /// Anybody else.
    User,
}

impl Scenario {
    /// The settings by which PHP loads what this scenario needs, before its own.
    pub fn php_settings(&self) -> Vec<String> {
        let extensions = self.store.extensions().iter().map(|name| format!("extension={name}"));
        extensions.chain(self.php_ini.iter().cloned()).collect()
    }

    /// What `CLOAKROOM_SKIP` may name so that this scenario is left out.
    pub fn needs(&self) -> Vec<String> {
        match self.store {
            Place::Files => Vec::new(),
            store => vec![store.name().to_owned(), format!("php-{}", store.name())],
        }
    }

    /// Whether whoever runs this can play it.
    pub fn playable(&self) -> bool {
        let root = rustix::process::geteuid().is_root();
        !self.needs().iter().any(|need| crate::php::skip(need))
            && self.runs_as.is_none_or(|who| root == (who == RunsAs::Root))
    }
}

/// Something put into the save path, or done to what lies there. Content is Latin-1 text.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// The path under the save path (`../` reaches `{root}`).
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// A file's content.
    #[serde(default)]
    pub content: Content,
    /// Permissions in octal; without it 600 for files and 700 for directories.
    #[serde(default)]
    pub mode: Option<String>,
    /// For how many seconds a record in Redis or Memcached lives; 0 or nothing: for ever.
    #[serde(default)]
    pub ttl: Option<i64>,
    /// How many seconds ago it was last written.
    #[serde(default)]
    pub age: Option<u64>,
    /// The text of a symlink.
    #[serde(default)]
    pub target: Option<String>,
    /// The uid it belongs to.
    #[serde(default)]
    pub owner: Option<u32>,
}

/// What is planted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ordinary file, replaced if it is there.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symlink to `target`.
    Symlink,
    /// What is there keeps its content; only mode, age and owner change.
    Change,
    /// What is there is removed.
    Remove,
}

/// Text, or pieces of which some are repeated: `["x|", ["a:1:{i:0;", 4097], "N;", ["}", 4097]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// As it stands.
    Text(String),
    /// Pieces one after the other.
    Pieces(Vec<Piece>),
}

/// One piece of [`Content`].
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// Once.
    Once(String),
    /// So many times.
    Times(String, usize),
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Content {
    /// The whole text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Pieces(pieces) => pieces
                .iter()
                .map(|piece| match piece {
                    Piece::Once(text) => text.clone(),
                    Piece::Times(text, times) => text.repeat(*times),
                })
                .collect(),
        }
    }
}

/// One request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The `Cookie` header: none, its raw text, several lines, or `"jar"` for what earlier replies set.
    #[serde(default)]
    pub cookie: Cookie,
    /// The query string.
    #[serde(default)]
    pub query: String,
    /// Further headers.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The settings of this request, beside `session.save_handler` and `save_path` and `session.gc_probability=0`,
    /// which it may change.
    #[serde(default)]
    pub ini: Map<String, Value>,
    /// The ops, as the probe takes them.
    pub ops: Vec<Value>,
    /// What happens on disk just before it is sent.
    #[serde(default)]
    pub before: Vec<Planted>,
    /// Requests sent while this one runs.
    #[serde(default)]
    pub meanwhile: Vec<Request>,
    /// For a request in `meanwhile`: how many milliseconds after the first one it is sent.
    #[serde(default)]
    pub after_ms: u64,
}

/// The `Cookie` header of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(untagged)]
pub enum Cookie {
    /// No header.
    #[default]
    None,
    /// One line, or `jar`.
    One(String),
    /// Several header lines.
    Lines(Vec<String>),
}

/// A deliberate difference: cloakroom's answer is PHP's with these patches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differs {
    /// Why, in one sentence.
    pub reason: String,
    /// The rule or known defect of PHP that it follows from.
    pub rule: String,
    /// What is other than PHP's.
    #[serde(default)]
    pub expect: Vec<Patch>,
}

/// What changes in one answer. Answers are counted from 0, those of `meanwhile` right after their request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Which answer.
    pub answer: usize,
    /// All compared headers.
    #[serde(default)]
    pub headers: Option<Vec<String>>,
    /// Single results, by op.
    #[serde(default)]
    pub results: BTreeMap<usize, Value>,
    /// Single names in the store; null: not there.
    #[serde(default)]
    pub store: BTreeMap<String, Option<Entry>>,
    /// The settings refused.
    #[serde(default)]
    pub refused: Option<Vec<String>>,
}

/// The scenarios of one file.
#[derive(Debug, Clone)]
pub struct Area {
    /// The file's name without `.json`.
    pub name: String,
    /// In the file's order.
    pub scenarios: Vec<Scenario>,
}

/// Where the scenarios lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/scenarios")
}

/// Reads every area, in the order of the file names.
pub fn load_all() -> Result<Vec<Area>> {
    let folder = folder();
    let entries = fs::read_dir(&folder).doing(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut areas = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        let scenarios: Vec<Scenario> = serde_json::from_str(&text).doing(|| format!("reading {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        areas.push(Area { name, scenarios });
    }
    if areas.is_empty() {
        return Err(Failure::new(format!("no scenarios in {}", folder.display())));
    }
    Ok(areas)
}
