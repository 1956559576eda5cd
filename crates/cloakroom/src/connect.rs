//! The one list of stores: which URL, and which of PHP's save handlers, opens which.

use std::fmt;
use std::sync::Arc;

use cloakroom_core::store::BoxFuture;
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
            Source::Url(url) => write!(f, "Url({}:)", url.split_once(':').map_or("", |(scheme, _)| shown(scheme))),
            Source::Store(store) => store.fmt(f),
        }
    }
}

/// A scheme that may be shown: what stands before the first colon of a URL that lacks one may be a name with a password.
fn shown(scheme: &str) -> &str {
    let is_scheme = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-'));
    if is_scheme { scheme } else { "…" }
}

/// Boxed, so that no user's future carries the types of every client along.
pub(crate) fn open(source: Source, settings: &Settings) -> BoxFuture<'_, Opened> {
    Box::pin(async move {
        match source {
            Source::Settings => by_handler(settings).await,
            Source::Url(url) => by_url(&url, settings).await,
            Source::Store(store) => Ok(store),
        }
    })
}

async fn by_url(url: &str, settings: &Settings) -> Opened {
    let (scheme, rest) = url.split_once(':').ok_or_else(|| {
        Error::config("a store's URL looks like files:///var/lib/php/sessions or memory:, with a scheme in front")
    })?;
    let scheme = scheme.to_ascii_lowercase();
    let url = &format!("{scheme}:{rest}");
    match scheme.as_str() {
        "files" => files::by_url(url, settings).await,
        "memory" => memory::by_url(url, settings).await,
        "memcached" => memcached::by_url(url, settings).await,
        "redis" | "rediss" | "redis+unix" | "redis+cluster" | "rediss+cluster" | "redis+sentinel"
        | "rediss+sentinel" => redis::by_url(url, settings).await,
        "postgres" | "postgresql" | "mysql" | "mariadb" => sql::by_url(url, settings).await,
        "sqlite" => sqlite::by_url(url, settings).await,
        scheme => Err(Error::config(format!("no store has URLs that begin with {}:", shown(scheme)))),
    }
}

async fn by_handler(settings: &Settings) -> Opened {
    match settings.save_handler.as_str() {
        "files" => files::by_settings(settings).await,
        "memcached" => memcached::by_settings(settings).await,
        "redis" | "rediscluster" => redis::by_settings(settings).await,
        handler => Err(Error::config(format!("session.save_handler = {handler} is no handler of cloakroom's"))),
    }
}

/// PHP allows 0 and less, with which it removes what is older than this very second.
#[cfg(any(feature = "files", feature = "memory", feature = "memcached", feature = "sql", feature = "sqlite"))]
fn lifetime(settings: &Settings) -> std::time::Duration {
    settings.lifetime().max(std::time::Duration::from_secs(1))
}

/// A configuration from a URL with PHP's `gc_maxlifetime`, unless the URL names a lifetime itself.
#[cfg(any(feature = "files", feature = "memory", feature = "memcached", feature = "sql", feature = "sqlite"))]
fn with_lifetime<C>(config: C, url: &str, settings: &Settings, set: fn(C, std::time::Duration) -> C) -> C {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let named = query.split('&').any(|pair| pair.split('=').next() == Some("lifetime"));
    if named { config } else { set(config, lifetime(settings)) }
}

type Opened = Result<Arc<dyn DynStore>>;

/// Stands for a store whose feature is off.
#[cfg(not(all(
    feature = "files",
    feature = "memory",
    feature = "memcached",
    feature = "redis",
    feature = "sql",
    feature = "sqlite"
)))]
macro_rules! left_out {
    ($store:ident, $feature:literal $(, $by_settings:ident)?) => {
        mod $store {
            use cloakroom_core::{Error, Settings};

            const NEEDED: &str = concat!("this store needs the feature `", $feature, "` of the crate cloakroom");
            pub(super) async fn by_url(_: &str, _: &Settings) -> super::Opened {
                Err(Error::config(NEEDED))
            }

            $(
                pub(super) async fn $by_settings(_: &Settings) -> super::Opened {
                    Err(Error::config(NEEDED))
                }
            )?
        }
    };
}

#[cfg(feature = "files")]
mod files {
    use std::sync::Arc;

    use cloakroom_core::{Error, Result, Settings};
    use cloakroom_store_files::{FilesConfig, FilesStore};

    use super::{Opened, lifetime, with_lifetime};

    pub(super) fn config(url: &str, settings: &Settings) -> Result<FilesConfig> {
        Ok(with_lifetime(FilesConfig::from_url(url)?, url, settings, FilesConfig::lifetime))
    }

    #[expect(clippy::unused_async, reason = "others have to talk to a server")]
    pub(super) async fn by_url(url: &str, settings: &Settings) -> Opened {
        Ok(Arc::new(FilesStore::open(config(url, settings)?)?))
    }

    #[expect(clippy::unused_async, reason = "others have to talk to a server")]
    pub(super) async fn by_settings(settings: &Settings) -> Opened {
        let config = FilesConfig::from_save_path(&settings.save_path)
            .map_err(|error| Error::config(error.php_message()).with_source(error))?;
        Ok(Arc::new(FilesStore::open(config.lifetime(lifetime(settings)))?))
    }
}

#[cfg(not(feature = "files"))]
left_out!(files, "files", by_settings);

#[cfg(feature = "memory")]
mod memory {
    use std::sync::Arc;

    use cloakroom_core::{Result, Settings};
    use cloakroom_store_memory::{MemoryConfig, MemoryStore};

    use super::{Opened, with_lifetime};

    pub(super) fn config(url: &str, settings: &Settings) -> Result<MemoryConfig> {
        Ok(with_lifetime(MemoryConfig::from_url(url)?, url, settings, MemoryConfig::lifetime))
    }

    #[expect(clippy::unused_async, reason = "others have to talk to a server")]
    pub(super) async fn by_url(url: &str, settings: &Settings) -> Opened {
        Ok(Arc::new(MemoryStore::new(config(url, settings)?)))
    }
}

#[cfg(not(feature = "memory"))]
left_out!(memory, "memory");

#[cfg(feature = "memcached")]
mod memcached {
    use std::sync::Arc;

    use cloakroom_core::{Result, Settings};
    use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};

    use super::{Opened, with_lifetime};

    pub(super) fn config(url: &str, settings: &Settings) -> Result<MemcachedConfig> {
        Ok(with_lifetime(MemcachedConfig::from_url(url)?, url, settings, MemcachedConfig::lifetime))
    }

    pub(super) async fn by_url(url: &str, settings: &Settings) -> Opened {
        Ok(Arc::new(MemcachedStore::open(config(url, settings)?).await?))
    }

    pub(super) async fn by_settings(settings: &Settings) -> Opened {
        Ok(Arc::new(MemcachedStore::open(MemcachedConfig::from_settings(settings)?).await?))
    }
}

#[cfg(not(feature = "memcached"))]
left_out!(memcached, "memcached", by_settings);

#[cfg(feature = "redis")]
mod redis {
    use std::sync::Arc;

    use cloakroom_core::Settings;
    use cloakroom_store_redis::{RedisConfig, RedisStore};

    use super::Opened;

    pub(super) async fn by_url(url: &str, _: &Settings) -> Opened {
        Ok(Arc::new(RedisStore::open(RedisConfig::from_url(url)?).await?))
    }

    pub(super) async fn by_settings(settings: &Settings) -> Opened {
        Ok(Arc::new(RedisStore::open(RedisConfig::from_settings(settings)?).await?))
    }
}

#[cfg(not(feature = "redis"))]
left_out!(redis, "redis", by_settings);

#[cfg(feature = "sql")]
mod sql {
    use std::sync::Arc;

    use cloakroom_core::{Result, Settings};
    use cloakroom_store_sql::{SqlConfig, SqlStore};

    use super::{Opened, with_lifetime};

    pub(super) fn config(url: &str, settings: &Settings) -> Result<SqlConfig> {
        Ok(with_lifetime(SqlConfig::from_url(url)?, url, settings, SqlConfig::lifetime))
    }

    pub(super) async fn by_url(url: &str, settings: &Settings) -> Opened {
        Ok(Arc::new(SqlStore::open(config(url, settings)?).await?))
    }
}

#[cfg(not(feature = "sql"))]
left_out!(sql, "sql");

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Arc;

    use cloakroom_core::{Result, Settings};
    use cloakroom_store_sqlite::{SqliteConfig, SqliteStore};

    use super::{Opened, with_lifetime};

    pub(super) fn config(url: &str, settings: &Settings) -> Result<SqliteConfig> {
        Ok(with_lifetime(SqliteConfig::from_url(url)?, url, settings, SqliteConfig::lifetime))
    }

    pub(super) async fn by_url(url: &str, settings: &Settings) -> Opened {
        Ok(Arc::new(SqliteStore::open(config(url, settings)?).await?))
    }
}

#[cfg(not(feature = "sqlite"))]
left_out!(sqlite, "sqlite");

#[cfg(all(test, feature = "files", feature = "memory", feature = "memcached", feature = "sql", feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_url_has_the_lifetime_or_else_phps_settings() -> Result<()> {
        let mut settings = Settings::php();
        settings.gc_maxlifetime = 7200;
        for (query, life) in
            [("", 7200), ("?max_aside=3", 7200), ("?lifetime=60", 60), ("?max_aside=3&lifetime=60", 60)]
        {
            let life = Duration::from_secs(life);
            assert_eq!(memory::config(&format!("memory:{query}"), &settings)?.lifetime, life, "{query}");
            assert_eq!(memcached::config(&format!("memcached://a{query}"), &settings)?.lifetime, life, "{query}");
            let url = format!("sqlite://a{query}");
            let expect = cloakroom_store_sqlite::SqliteConfig::from_url(&url)?.lifetime(life);
            assert_eq!(sqlite::config(&url, &settings)?, expect, "{query}");
            let sql = sql::config(&format!("mysql://a/b{query}"), &settings)?;
            assert!(format!("{sql:?}").contains(&format!("lifetime: {life:?}")), "{sql:?}");
            let url = format!("files:///a{}", query.replace("max_aside", "depth"));
            let expect = cloakroom_store_files::FilesConfig::from_url(&url)?.lifetime(life);
            assert_eq!(files::config(&url, &settings)?, expect, "{query}");
        }
        Ok(())
    }
}
