//! The session directory: planting files in it, and reading what a request left there.

use std::collections::BTreeMap;
use std::fs::{self, FileTimes, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Failure, Result};
use crate::latin1;
use crate::scenario::{Kind, Planted};

/// The save path's name inside the scenario's own directory.
pub const SAVE_PATH: &str = "sessions";
/// What was written longer ago than this is stale; planted files are either fresh or at least ten minutes old.
const STALE: Duration = Duration::from_secs(120);
/// Longer contents are recorded by length and hash.
const LONGEST: usize = 4000;

/// One name in the store, as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A file's bytes as Latin-1 text, or length and hash of long ones; a symlink's target. Directories have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<String>,
    /// `file`, left out, or `directory` or `symlink`.
    #[serde(default, skip_serializing_if = "is_file")]
    pub kind: Kind,
    /// Permissions in octal; a symlink's are not looked at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Last written (or touched) before this scenario began.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stale: bool,
    /// For how many seconds a record in Redis or Memcached lives; -1 for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
}

impl Entry {
    /// A record with its remaining life.
    pub fn record(bytes: &[u8], ttl: i64) -> Entry {
        Entry { bytes: Some(text(bytes)), kind: Kind::File, mode: String::new(), stale: false, ttl: Some(ttl) }
    }

    /// Whether both are the same but for the seconds that the tests themselves take.
    pub fn is_like(&self, other: &Entry) -> bool {
        let lives_alike = match (self.ttl, other.ttl) {
            (Some(one), Some(other)) if one >= 0 && other >= 0 => one.abs_diff(other) <= 2,
            (one, other) => one == other,
        };
        lives_alike && Entry { ttl: None, ..self.clone() } == Entry { ttl: None, ..other.clone() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_file(kind: &Kind) -> bool {
    *kind == Kind::File
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Puts one planted thing in place, its placeholders already filled in.
pub fn plant(save_path: &Path, planted: &Planted) -> Result<()> {
    let path = save_path.join(&planted.name);
    let doing = || format!("planting {}", planted.name);
    let mode = planted.mode.as_deref().map(|octal| u32::from_str_radix(octal, 8)).transpose().doing(doing)?;
    let mode = match planted.kind {
        Kind::File => Some(mode.unwrap_or(0o600)),
        Kind::Directory => Some(mode.unwrap_or(0o700)),
        Kind::Symlink | Kind::Change | Kind::Remove => mode,
    };
    match planted.kind {
        Kind::File => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).doing(doing)?;
            }
            fs::write(&path, latin1::bytes(&planted.content.text())).doing(doing)?;
        }
        Kind::Directory => fs::create_dir_all(&path).doing(doing)?,
        Kind::Symlink => {
            let target =
                planted.target.as_deref().ok_or_else(|| Failure::new(format!("{} needs a target", planted.name)))?;
            symlink(target, &path).doing(doing)?;
        }
        Kind::Change => {}
        Kind::Remove => {
            return if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.doing(doing);
        }
    }
    if let Some(age) = planted.age {
        let then = SystemTime::now() - Duration::from_secs(age);
        let file = fs::File::open(&path).doing(doing)?;
        file.set_times(FileTimes::new().set_accessed(then).set_modified(then)).doing(doing)?;
    }
    if let Some(mode) = mode {
        fs::set_permissions(&path, Permissions::from_mode(mode)).doing(doing)?;
    }
    if let Some(owner) = planted.owner {
        lchown(&path, Some(owner), None).doing(doing)?;
    }
    Ok(())
}

/// Everything in the scenario's directory: names under the save path as they are, others with `../` before them.
///
/// Names under the save path that begin with a dot are cloakroom's own business and left out.
pub fn list(root: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    for entry in read_dir(root)? {
        let name = latin1::text(entry.file_name().as_encoded_bytes());
        if name == SAVE_PATH {
            walk(&entry.path(), "", &mut entries)?;
        } else {
            add(&entry.path(), format!("../{name}"), &mut entries)?;
        }
    }
    Ok(entries)
}

fn walk(folder: &Path, prefix: &str, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    for entry in read_dir(folder)? {
        let name = latin1::text(entry.file_name().as_encoded_bytes());
        if !(prefix.is_empty() && (name.starts_with('.') || name.starts_with("cloakroom:"))) {
            add(&entry.path(), format!("{prefix}{name}"), entries)?;
        }
    }
    Ok(())
}

fn add(path: &Path, name: String, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let meta = fs::symlink_metadata(path).doing(|| format!("looking at {name}"))?;
    let mode = format!("{:o}", meta.mode() & 0o7777);
    let stale = meta.modified().is_ok_and(|then| then.elapsed().is_ok_and(|age| age > STALE));
    let entry = if meta.is_symlink() {
        let target = fs::read_link(path).doing(|| format!("reading {name}"))?;
        let bytes = Some(latin1::text(target.as_os_str().as_encoded_bytes()));
        Entry { bytes, kind: Kind::Symlink, mode: String::new(), stale: false, ttl: None }
    } else if meta.is_dir() {
        walk(path, &format!("{name}/"), entries)?;
        Entry { bytes: None, kind: Kind::Directory, mode, stale: false, ttl: None }
    } else {
        let bytes = read_anyway(path, &meta.permissions()).doing(|| format!("reading {name}"))?;
        Entry { bytes: Some(text(&bytes)), kind: Kind::File, mode, stale, ttl: None }
    };
    entries.insert(name, entry);
    Ok(())
}

/// A file's bytes, also of one whose owner, who plays this, may not read it.
fn read_anyway(path: &Path, permissions: &Permissions) -> std::io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            let bytes = fs::read(path);
            fs::set_permissions(path, permissions.clone())?;
            bytes
        }
        other => other,
    }
}

fn read_dir(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let doing = || format!("listing {}", folder.display());
    fs::read_dir(folder).doing(doing)?.collect::<std::io::Result<_>>().doing(doing)
}

fn text(bytes: &[u8]) -> String {
    if bytes.len() > LONGEST { summary(bytes) } else { latin1::text(bytes) }
}

/// Length and FNV-1a hash of what is too long to read.
fn summary(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("<{} bytes, fnv1a {hash:016x}>", bytes.len())
}
