//! What can be set about the store, by name or in a URL.

use std::time::Duration;

use cloakroom_core::{Error, Result};

/// How much a [`MemoryStore`](crate::MemoryStore) holds, and for how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The life of a record that was made by locking it and has not been written yet; PHP's `session.gc_maxlifetime`.
    pub lifetime: Duration,
    /// All records together, with their keys and what it costs to keep them.
    pub max_bytes: usize,
    /// The largest payload of one record.
    pub max_payload: usize,
    /// Into how many parts the records are divided, each behind a mutex of its own; taken up to a power of two.
    pub shards: usize,
    /// How many payloads that were set aside are kept; the oldest goes first.
    pub max_aside: usize,
    /// For how long they are kept.
    pub aside_lifetime: Duration,
}

impl Default for MemoryConfig {
    /// 256 MiB, 16 MiB a record, PHP's 1440 seconds.
    fn default() -> MemoryConfig {
        MemoryConfig {
            lifetime: Duration::from_secs(1440),
            max_bytes: 256 << 20,
            max_payload: 16 << 20,
            shards: 64,
            max_aside: 32,
            aside_lifetime: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl MemoryConfig {
    /// Reads `memory:`, or `memory:?max_bytes=67108864&lifetime=1440` with any of the fields of this struct.
    ///
    /// ```
    /// use cloakroom_store_memory::MemoryConfig;
    /// assert_eq!(MemoryConfig::from_url("memory:?max_bytes=1000000")?.max_bytes, 1_000_000);
    /// assert!(MemoryConfig::from_url("memory:?max_byte=1").is_err());
    /// # Ok::<(), cloakroom_core::Error>(())
    /// ```
    pub fn from_url(url: &str) -> Result<MemoryConfig> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        if !matches!(path, "memory:" | "memory://") {
            return Err(Error::config(
                "the address of the memory store is `memory:`, with nothing but settings after it",
            ));
        }
        let mut config = MemoryConfig::default();
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| pair.split_once('=')) {
            config.set(name, value)?;
        }
        match query.split('&').find(|pair| !pair.is_empty() && !pair.contains('=')) {
            Some(pair) => Err(Error::config(format!("setting `{pair}` of the memory store has no value"))),
            None => Ok(config),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let bad = || Error::config(format!("setting `{name}` of the memory store wants a number, not `{value}`"));
        let size = || value.parse::<usize>().map_err(|source| bad().with_source(source));
        let seconds = || value.parse().map(Duration::from_secs).map_err(|source| bad().with_source(source));
        match name {
            "lifetime" => self.lifetime = seconds()?,
            "max_bytes" => self.max_bytes = size()?,
            "max_payload" => self.max_payload = size()?,
            "shards" => self.shards = size()?,
            "max_aside" => self.max_aside = size()?,
            "aside_lifetime" => self.aside_lifetime = seconds()?,
            _ => return Err(Error::config(format!("the memory store has no setting `{name}`"))),
        }
        Ok(())
    }

    /// Sets [`lifetime`](MemoryConfig::lifetime).
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> MemoryConfig {
        self.lifetime = lifetime;
        self
    }

    /// Sets [`max_bytes`](MemoryConfig::max_bytes).
    #[must_use]
    pub fn max_bytes(mut self, max_bytes: usize) -> MemoryConfig {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets [`max_payload`](MemoryConfig::max_payload).
    #[must_use]
    pub fn max_payload(mut self, max_payload: usize) -> MemoryConfig {
        self.max_payload = max_payload;
        self
    }

    /// Sets [`shards`](MemoryConfig::shards).
    #[must_use]
    pub fn shards(mut self, shards: usize) -> MemoryConfig {
        self.shards = shards;
        self
    }

    /// Sets [`max_aside`](MemoryConfig::max_aside) and [`aside_lifetime`](MemoryConfig::aside_lifetime).
    #[must_use]
    pub fn aside(mut self, max_aside: usize, aside_lifetime: Duration) -> MemoryConfig {
        self.max_aside = max_aside;
        self.aside_lifetime = aside_lifetime;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::ErrorKind;

    #[test]
    fn reads_its_url() {
        let config = MemoryConfig::from_url("memory:?lifetime=60&max_payload=1024&shards=1").unwrap();
        assert_eq!((config.lifetime, config.max_payload, config.shards), (Duration::from_secs(60), 1024, 1));
        assert_eq!(MemoryConfig::from_url("memory:").unwrap().max_bytes, 256 << 20);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for url in ["memory:/x", "memory", "memory:?x=1", "memory:?shards", "memory:?shards=many", "memory:?=1"] {
            assert_eq!(MemoryConfig::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }
}
