//! The settings of the store, from PHP's `session.save_path`, from a URL, or one by one.
//!
//! Mirrors `PS_OPEN_FUNC(files)` and `session.gc_maxlifetime`.

use std::path::PathBuf;
use std::time::Duration;

use cloakroom_core::{Error, Result};

use crate::layout::{DEFAULT_MODE, SavePath, SavePathError};

/// Where system calls are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Io {
    /// Small records on a local file system at once, the rest on tokio's blocking pool.
    #[default]
    Auto,
    /// Always at once, on the thread that asks.
    Inline,
    /// Always on tokio's blocking pool.
    Pool,
}

/// What survives a loss of power. The end of the process, `kill -9` included, is always covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// What the kernel has written by itself, as with PHP.
    #[default]
    None,
    /// Every commit that was answered, at the price of one to four flushes each.
    Data,
}

/// The settings of a [`FilesStore`](crate::FilesStore).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct FilesConfig {
    pub(crate) path: PathBuf,
    pub(crate) depth: usize,
    pub(crate) mode: u32,
    pub(crate) lifetime: Duration,
    pub(crate) io: Io,
    pub(crate) durability: Durability,
    pub(crate) lock_threads: usize,
}

impl FilesConfig {
    /// PHP's defaults for files directly in `path`: mode 0600, a lifetime of 1440 seconds.
    pub fn new(path: impl Into<PathBuf>) -> FilesConfig {
        FilesConfig {
            path: path.into(),
            depth: 0,
            mode: DEFAULT_MODE,
            lifetime: Duration::from_secs(1440),
            io: Io::Auto,
            durability: Durability::None,
            lock_threads: 32,
        }
    }

    /// Takes PHP's setting `session.save_path`, as PHP reads it: `[N;[MODE;]]PATH`. An empty text is the system's
    /// directory for temporary files.
    ///
    /// ```
    /// use cloakroom_store_files::FilesConfig;
    /// let config = FilesConfig::from_save_path("2;0640;/var/lib/php/sessions").unwrap();
    /// assert_eq!(config, FilesConfig::new("/var/lib/php/sessions").depth(2).mode(0o640));
    /// ```
    pub fn from_save_path(text: impl AsRef<[u8]>) -> Result<FilesConfig, SavePathError> {
        let text = text.as_ref();
        let SavePath { depth, mode, path } = SavePath::parse(text)?;
        let path = if text.is_empty() { std::env::temp_dir() } else { to_path(path) };
        Ok(FilesConfig::new(path).depth(depth).mode(mode))
    }

    /// Takes a URL: `files:///var/lib/php/sessions?depth=2&mode=0640&lifetime=1440&io=auto&durability=none`.
    ///
    /// ```
    /// use cloakroom_store_files::{FilesConfig, Io};
    /// let config = FilesConfig::from_url("files:///srv/my%20sessions?depth=1&io=pool").unwrap();
    /// assert_eq!(config, FilesConfig::new("/srv/my sessions").depth(1).io(Io::Pool));
    /// ```
    pub fn from_url(url: &str) -> Result<FilesConfig> {
        let rest = url.strip_prefix("files://").ok_or_else(|| Error::config("a files URL begins with files://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !path.starts_with('/') {
            return Err(Error::config("a files URL names an absolute directory: files:///var/lib/php/sessions"));
        }
        let mut config = FilesConfig::new(to_path(&percent_decode(path)?));
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            config = config.with_option(name, value)?;
        }
        Ok(config)
    }

    fn with_option(self, name: &str, value: &str) -> Result<FilesConfig> {
        let bad = || Error::config(format!("the option {name} of a files URL cannot be {value:?}"));
        Ok(match name {
            "depth" => self.depth(value.parse().map_err(|_| bad())?),
            "mode" => match u32::from_str_radix(value, 8) {
                Ok(mode) if mode <= 0o7777 => self.mode(mode),
                _ => return Err(bad()),
            },
            "lifetime" => self.lifetime(Duration::from_secs(value.parse().map_err(|_| bad())?)),
            "io" => self.io(match value {
                "auto" => Io::Auto,
                "inline" => Io::Inline,
                "pool" => Io::Pool,
                _ => return Err(bad()),
            }),
            "durability" => self.durability(match value {
                "none" => Durability::None,
                "data" => Durability::Data,
                _ => return Err(bad()),
            }),
            "lock_threads" => self.lock_threads(value.parse().map_err(|_| bad())?),
            _ => return Err(Error::config(format!("a files URL has no option {name:?}"))),
        })
    }

    /// How many directory levels lie between the path and the files. They must be there already.
    pub fn depth(self, depth: usize) -> FilesConfig {
        FilesConfig { depth, ..self }
    }

    /// The mode of new files, before the umask.
    pub fn mode(self, mode: u32) -> FilesConfig {
        FilesConfig { mode, ..self }
    }

    /// PHP's `session.gc_maxlifetime`: a file that has not been touched for longer has expired. It must be PHP's own
    /// value where PHP shares the files, since PHP's sweeping goes by it.
    pub fn lifetime(self, lifetime: Duration) -> FilesConfig {
        FilesConfig { lifetime, ..self }
    }

    /// Where system calls are made.
    pub fn io(self, io: Io) -> FilesConfig {
        FilesConfig { io, ..self }
    }

    /// What survives a loss of power.
    pub fn durability(self, durability: Durability) -> FilesConfig {
        FilesConfig { durability, ..self }
    }

    /// How many threads of the process may wait for locks at the same time; each busy session needs one.
    pub fn lock_threads(self, lock_threads: usize) -> FilesConfig {
        FilesConfig { lock_threads, ..self }
    }
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn percent_decode(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let pair = tail.get(..2).filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let pair = pair.and_then(|pair| std::str::from_utf8(pair).ok());
        let decoded = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(decoded.ok_or_else(|| Error::config("a files URL holds a % without two hexadecimal digits"))?);
        rest = &tail[2..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    #[test]
    fn reads_urls() {
        let url = "files:///a%2Fb?depth=2&mode=0640&lifetime=60&io=inline&durability=data&lock_threads=4";
        let expect = FilesConfig::new("/a/b")
            .depth(2)
            .mode(0o640)
            .lifetime(Duration::from_secs(60))
            .io(Io::Inline)
            .durability(Durability::Data)
            .lock_threads(4);
        assert_eq!(FilesConfig::from_url(url).unwrap(), expect);
        assert_eq!(FilesConfig::from_url("files:///a?").unwrap(), FilesConfig::new("/a"));
        for url in ["file:///a", "files://a/b", "files:///a%2", "files:///a%zz", "files:///a%+1", "files:///a?dept=1"] {
            assert_eq!(FilesConfig::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
        for option in ["depth=-1", "mode=8", "mode=10000", "lifetime=x", "io=", "durability=full", "lock_threads="] {
            let error = FilesConfig::from_url(&format!("files:///a?{option}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{option}");
        }
    }

    #[test]
    fn an_empty_save_path_is_the_temporary_directory() {
        assert_eq!(FilesConfig::from_save_path("").unwrap(), FilesConfig::new(std::env::temp_dir()));
        assert_eq!(FilesConfig::from_save_path("0;/x").unwrap(), FilesConfig::new("/x"));
        assert_eq!(FilesConfig::from_save_path("0;8888888;/x").map(|_| ()), Ok(()));
        assert_eq!(FilesConfig::from_save_path("0;-7;/x").unwrap_err(), SavePathError::Mode);
    }
}
