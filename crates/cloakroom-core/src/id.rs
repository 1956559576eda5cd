//! Session ids: how PHP makes them (`php_session_create_id`), which ones it accepts, and how they stay out of logs.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use crate::{Random, Result};

/// The longest id that fits a file name behind PHP's `sess_`.
pub(crate) const LONGEST: usize = 250;
/// `sid_length` goes up to this.
const LONGEST_NEW: usize = 256;
/// PHP's alphabet; with 4 bits a character only the first 16 are used, with 5 bits the first 32.
const ALPHABET: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,-";

/// The number on the ticket: an id that is well-formed, though not necessarily one that the store knows.
///
/// `Debug` and `Display` show a short keyed tag, never the id: whoever knows the id has the session. The tag is
/// the same for the same id within one process and means nothing elsewhere.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<[u8]>);

impl SessionId {
    /// Takes an id as PHP's `files` handler takes one: 1 to 250 of the characters `A-Z a-z 0-9 , -`.
    ///
    /// PHP itself allows 256, but the file's name is then too long for the file system.
    ///
    /// ```
    /// use cloakroom_core::SessionId;
    /// assert!(SessionId::parse("abc,-123").is_some());
    /// assert!(SessionId::parse("../etc/passwd").is_none());
    /// ```
    pub fn parse(id: impl AsRef<[u8]>) -> Option<SessionId> {
        let id = id.as_ref();
        let fits = !id.is_empty() && id.len() <= LONGEST && id.iter().all(|&byte| is_id_byte(byte));
        fits.then(|| SessionId(id.into()))
    }

    /// Makes a new id as PHP does: `length` characters of `bits` bits each from the random source, behind `prefix`.
    ///
    /// Length and bits are PHP's `session.sid_length` (22 to 256) and `session.sid_bits_per_character` (4 to 6);
    /// values outside are taken to the nearest that is allowed.
    pub fn generate(random: &dyn Random, length: u32, bits: u32) -> Result<SessionId> {
        let length = usize::try_from(length).unwrap_or(LONGEST_NEW).clamp(22, LONGEST_NEW);
        let bits = bits.clamp(4, 6);
        let mut bytes = [0; LONGEST_NEW];
        random.fill(&mut bytes[..length])?;
        Ok(SessionId(spell(&bytes[..length], bits).into()))
    }

    /// The id itself, to be put into a cookie, a key or a file name; keep it out of everything else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The id as text.
    pub fn expose_str(&self) -> &str {
        // Both constructors allow ASCII only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// What stands for the id in logs: 64 bits, keyed anew in each process.
    pub fn tag(&self) -> Tag {
        Tag(keyed_hash(&self.0))
    }

    pub(crate) fn shared(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.tag())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tag().fmt(f)
    }
}

/// What stands for a session id, or a store's key, in logs and errors. See [`SessionId::tag`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(u64);

impl Tag {
    /// The tag of any bytes that are to stay secret.
    pub fn of(secret: &[u8]) -> Tag {
        Tag(keyed_hash(secret))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:016x}", self.0)
    }
}

fn keyed_hash(bytes: &[u8]) -> u64 {
    static KEY: OnceLock<std::hash::RandomState> = OnceLock::new();
    KEY.get_or_init(std::hash::RandomState::new).hash_one(bytes)
}

/// Whether PHP allows this byte in an id (`ps_files_valid_key`).
pub fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b',' || byte == b'-'
}

/// PHP's `bin_to_readable`: a little-endian reader of `bits` bits, one output character for each input byte.
fn spell(bytes: &[u8], bits: u32) -> Vec<u8> {
    let mut rest = bytes.iter();
    let (mut word, mut have) = (0_u32, 0);
    let mut out = Vec::with_capacity(bytes.len());
    while out.len() < bytes.len() {
        if have < bits {
            word |= u32::from(rest.next().copied().unwrap_or(0)) << have;
            have += 8;
        }
        out.push(ALPHABET[(word & ((1 << bits) - 1)) as usize]);
        word >>= bits;
        have -= bits;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[track_caller]
    fn check(bytes: &str, bits: u32, expect: &str) {
        let mut input: Vec<u8> =
            (0..bytes.len()).step_by(2).map(|i| u8::from_str_radix(&bytes[i..i + 2], 16).unwrap()).collect();
        input.resize(expect.len(), 0);
        assert_eq!(String::from_utf8(spell(&input, bits)).unwrap(), expect);
    }

    /// Recomputed from the bytes that PHP drew.
    #[test]
    fn spells_as_php_does() {
        check("ee4a346dc461730b491cf604c6b3", 5, "eni8jmho1rsmg4h3m71csp");
        check("b64c481cb84c79b56fd595233033a91495", 6, "SO4iswbjVlXrlnV8McjGkk");
        check("99535a01ff4e7619c41560", 4, "9935a510ffe467914c5106");
    }

    #[test]
    fn accepts_what_phps_files_handler_accepts() {
        let long = "a".repeat(LONGEST);
        for id in ["a", "AZaz09,-", long.as_str()] {
            assert!(SessionId::parse(id).is_some(), "{id}");
        }
        let longer = "a".repeat(LONGEST + 1);
        for id in ["", "a_b", "a.b", "../x", "a/b", "a b", "a\0b", "a\n", "é", "%2e", longer.as_str()] {
            assert!(SessionId::parse(id).is_none(), "{id:?}");
        }
    }

    #[test]
    fn never_shows_itself() {
        let id = SessionId::parse("0123456789abcdef0123456789abcdef").unwrap();
        for text in [format!("{id}"), format!("{id:?}"), format!("{:?}", id.tag())] {
            assert!(!text.contains("0123456789") && !text.contains("abcdef0123"), "{text}");
        }
        assert_eq!(id.tag(), id.clone().tag());
    }

    #[test]
    fn fails_when_the_random_source_fails() {
        #[derive(Debug)]
        struct Broken;
        impl Random for Broken {
            fn fill(&self, _: &mut [u8]) -> Result<()> {
                Err(crate::Error::unavailable("no randomness"))
            }
        }
        assert!(SessionId::generate(&Broken, 32, 4).is_err());
    }

    #[test]
    fn generates_the_length_and_alphabet_asked_for() {
        for (length, bits, highest) in [(32, 4, b'f'), (26, 5, b'v'), (256, 6, b'z')] {
            let id = SessionId::generate(&SystemRandom, length, bits).unwrap();
            assert_eq!(id.expose().len(), length as usize);
            assert!(id.expose().iter().all(|byte| is_id_byte(*byte) && *byte <= highest));
        }
        let ids: std::collections::HashSet<_> =
            (0..10_000).map(|_| SessionId::generate(&SystemRandom, 32, 4).unwrap()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
