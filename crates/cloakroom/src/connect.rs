//! The one list of stores: which URL, and which of PHP's save handlers, opens which.

use std::fmt;
use std::sync::Arc;

use cloakroom_core::{DynStore, Error, Result, Settings};

/// From where a [`Builder`](crate::Builder) takes its store.
pub(crate) enum Source {
    /// PHP's `save_handler` and `save_path`.
    Settings,
    Url(String),
    Store(Arc<dyn DynStore>),
}

impl fmt::Debug for Source {
    /// A URL shows its scheme alone: passwords may stand behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Settings => f.write_str("Settings"),
            Source::Url(url) => write!(f, "Url({}:)", url.split(':').next().unwrap_or_default()),
            Source::Store(store) => store.fmt(f),
        }
    }
}

pub(crate) async fn open(source: Source, settings: &Settings) -> Result<Arc<dyn DynStore>> {
    match source {
        Source::Settings => by_handler(settings),
        Source::Url(url) => by_url(&url, settings),
        Source::Store(store) => Ok(store),
    }
}

fn by_url(url: &str, settings: &Settings) -> Result<Arc<dyn DynStore>> {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| {
        Error::config("a store's URL looks like files:///var/lib/php/sessions or memory:, with a scheme in front")
    })?;
    match scheme.to_ascii_lowercase().as_str() {
        "files" => files_by_url(rest, settings),
        "memory" => memory(rest, settings),
        scheme => match planned(scheme) {
            Some(store) => Err(Error::config(format!("{store} is not part of this version of cloakroom"))),
            None => Err(Error::config(format!("no store has URLs that begin with {scheme}:"))),
        },
    }
}

fn by_handler(settings: &Settings) -> Result<Arc<dyn DynStore>> {
    match settings.save_handler.as_str() {
        "files" => files_by_path(settings),
        handler => {
            Err(Error::config(format!("session.save_handler = {handler} is not part of this version of cloakroom")))
        }
    }
}

/// PHP allows 0 and less, with which it removes what is older than this very second.
#[cfg(any(feature = "files", feature = "memory"))]
fn lifetime(settings: &Settings) -> std::time::Duration {
    settings.lifetime().max(std::time::Duration::from_secs(1))
}

/// Stores that have a URL reserved.
fn planned(scheme: &str) -> Option<&'static str> {
    Some(match scheme {
        "redis" | "rediss" | "redis+unix" | "redis+cluster" | "redis+sentinel" => "a Redis store",
        "memcached" => "a Memcached store",
        "sqlite" => "an SQLite store",
        "postgres" | "postgresql" => "a PostgreSQL store",
        "mysql" | "mariadb" => "a MySQL store",
        _ => return None,
    })
}

#[cfg(feature = "files")]
fn files_by_url(rest: &str, settings: &Settings) -> Result<Arc<dyn DynStore>> {
    use cloakroom_store_files::{FilesConfig, FilesStore};
    let config = FilesConfig::from_url(&format!("files:{rest}"))?.lifetime(lifetime(settings));
    Ok(Arc::new(FilesStore::open(config)?))
}

#[cfg(feature = "files")]
fn files_by_path(settings: &Settings) -> Result<Arc<dyn DynStore>> {
    use cloakroom_store_files::{FilesConfig, FilesStore};
    let config = FilesConfig::from_save_path(&settings.save_path)
        .map_err(|error| Error::config(error.php_message()).with_source(error))?;
    let config = config.lifetime(lifetime(settings));
    Ok(Arc::new(FilesStore::open(config)?))
}

#[cfg(not(feature = "files"))]
fn files_by_url(_: &str, _: &Settings) -> Result<Arc<dyn DynStore>> {
    Err(Error::config("sessions in files need the feature `files` of the crate cloakroom"))
}

#[cfg(not(feature = "files"))]
fn files_by_path(_: &Settings) -> Result<Arc<dyn DynStore>> {
    Err(Error::config("session.save_handler = files needs the feature `files` of the crate cloakroom"))
}

#[cfg(feature = "memory")]
fn memory(rest: &str, settings: &Settings) -> Result<Arc<dyn DynStore>> {
    use cloakroom_store_memory::{MemoryConfig, MemoryStore};
    let config = MemoryConfig::from_url(&format!("memory:{rest}"))?.lifetime(lifetime(settings));
    Ok(Arc::new(MemoryStore::new(config)))
}

#[cfg(not(feature = "memory"))]
fn memory(_: &str, _: &Settings) -> Result<Arc<dyn DynStore>> {
    Err(Error::config("sessions in memory need the feature `memory` of the crate cloakroom"))
}
