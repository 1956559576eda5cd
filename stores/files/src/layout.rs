//! PHP's layout, as pure functions: the text of `session.save_path` and the names of the files.
//!
//! Mirrors `PS_OPEN_FUNC(files)`, `ps_files_path_create` and `ps_files_valid_key` in ext/session/mod_files.c. This file
//! is the contract with PHP; nothing here does I/O.

use std::error::Error as StdError;
use std::fmt;

/// What stands before the id in a file's name.
pub const PREFIX: &str = "sess_";
/// The longest id whose file name a file system takes (255 bytes with the prefix).
pub const LONGEST_ID: usize = 250;
/// The mode of files that cloakroom and PHP create where the save path names none.
pub const DEFAULT_MODE: u32 = 0o600;

/// `session.save_path` as PHP's `files` handler reads it: `[N;[MODE;]]PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavePath<'a> {
    /// How many directory levels lie between the path and the files; each is one byte of the id. A negative number
    /// is, as in PHP, so large that no id reaches it.
    pub depth: usize,
    /// The mode for new files, before the umask.
    pub mode: u32,
    /// The directory. Empty where PHP would take the system's temporary directory.
    pub path: &'a [u8],
}

impl<'a> SavePath<'a> {
    /// Reads the text of the setting.
    pub fn parse(text: &'a [u8]) -> Result<SavePath<'a>, SavePathError> {
        let mut parts = text.splitn(3, |&byte| byte == b';');
        let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let Some(second) = second else {
            return Ok(SavePath { depth: 0, mode: DEFAULT_MODE, path: first });
        };
        let depth = match strtol(first, 10) {
            // As PHP's cast to size_t: a negative depth is deeper than any id is long.
            Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
            None => return Err(SavePathError::Depth),
        };
        let Some(path) = third else {
            return Ok(SavePath { depth, mode: DEFAULT_MODE, path: second });
        };
        let mode = strtol(second, 8).and_then(|number| u32::try_from(number).ok());
        match mode {
            Some(mode) if mode <= 0o7777 => Ok(SavePath { depth, mode, path }),
            _ => Err(SavePathError::Mode),
        }
    }
}

/// Why PHP refuses a `session.save_path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SavePathError {
    /// The depth does not fit a `long`.
    Depth,
    /// The mode is negative or above 07777.
    Mode,
}

impl SavePathError {
    /// The text of PHP's warning.
    pub fn php_message(self) -> &'static str {
        match self {
            SavePathError::Depth => "The first parameter in session.save_path is invalid",
            SavePathError::Mode => "The second parameter in session.save_path is invalid",
        }
    }
}

impl fmt::Display for SavePathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.php_message())
    }
}

impl StdError for SavePathError {}

/// What PHP says where [`file_path`] has no answer.
pub const PHP_NO_PATH: &str = "Failed to create session data file path. Too short session ID, invalid save_path or \
                               path length exceeds 4096 characters";

/// PHP's limit for a whole path (`MAXPATHLEN`).
const LONGEST_PATH: usize = 4096;

/// `PATH/` and for each level one byte of the id and `/`, then `sess_` and the id.
///
/// `None` for an id that PHP's `files` handler does not take: it holds other bytes than `A-Z a-z 0-9 , -`, is empty,
/// not longer than the depth, or too long.
pub fn file_path(directory: &[u8], depth: usize, id: &[u8]) -> Option<Vec<u8>> {
    if !is_id(id) || id.len() <= depth {
        return None;
    }
    // PHP's own sum, which is a few bytes above the true length.
    if directory.len() + 2 * depth + id.len() + 5 + (PREFIX.len() + 1) > LONGEST_PATH {
        return None;
    }
    let mut path = Vec::with_capacity(directory.len() + 2 + 2 * depth + PREFIX.len() + id.len());
    path.extend_from_slice(directory);
    path.push(b'/');
    for &byte in &id[..depth] {
        path.extend_from_slice(&[byte, b'/']);
    }
    path.extend_from_slice(PREFIX.as_bytes());
    path.extend_from_slice(id);
    Some(path)
}

/// The id of a file with this name; `None` for other files.
pub fn id_of(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(PREFIX.as_bytes()).filter(|id| is_id(id))
}

fn is_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(|&byte| cloakroom_core::is_id_byte(byte))
}

/// C's `strtol` without its end pointer: leading white space, a sign, as many digits as there are. No digits are 0,
/// and `None` is a number that does not fit.
fn strtol(text: &[u8], base: u8) -> Option<i64> {
    let start = text.iter().position(|byte| !byte.is_ascii_whitespace() && *byte != 0x0b).unwrap_or(text.len());
    let (negative, digits) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    let mut number: i64 = 0;
    for digit in digits.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|&digit| digit < base) {
        let digit = i64::from(digit);
        number = number.checked_mul(i64::from(base))?.checked_add(if negative { -digit } else { digit })?;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, depth: usize, mode: u32, path: &str) {
        assert_eq!(SavePath::parse(text.as_bytes()), Ok(SavePath { depth, mode, path: path.as_bytes() }), "{text}");
    }

    #[test]
    fn save_paths_as_php_reads_them() {
        check("/var/lib/php/sessions", 0, 0o600, "/var/lib/php/sessions");
        check("", 0, 0o600, "");
        check("2;/tmp", 2, 0o600, "/tmp");
        check("2;644;/tmp", 2, 0o644, "/tmp");
        check("2;0644;/tmp", 2, 0o644, "/tmp");
        check("2;0600;/a;b;c", 2, 0o600, "/a;b;c");
        check("x;/tmp", 0, 0o600, "/tmp");
        check(";/tmp", 0, 0o600, "/tmp");
        check(" +3x;/tmp", 3, 0o600, "/tmp");
        check("1;;/tmp", 1, 0, "/tmp");
        check("1;zz;/tmp", 1, 0, "/tmp");
        check("1;0689;/tmp", 1, 0o6, "/tmp");
        check("1;7777;/tmp", 1, 0o7777, "/tmp");
        check("-1;/tmp", usize::MAX, 0o600, "/tmp");
        for (text, error) in [
            ("99999999999999999999;/tmp", SavePathError::Depth),
            ("-99999999999999999999;600;/tmp", SavePathError::Depth),
            ("1;10000;/tmp", SavePathError::Mode),
            ("1;-1;/tmp", SavePathError::Mode),
            ("1;7777777777777777777777777;/tmp", SavePathError::Mode),
        ] {
            assert_eq!(SavePath::parse(text.as_bytes()), Err(error), "{text}");
        }
    }

    #[test]
    fn file_names_as_php_makes_them() {
        let path =
            |depth, id: &str| file_path(b"/s", depth, id.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(path(0, "abc").as_deref(), Some("/s/sess_abc"));
        assert_eq!(path(2, "abc").as_deref(), Some("/s/a/b/sess_abc"));
        assert_eq!(path(2, ",-x").as_deref(), Some("/s/,/-/sess_,-x"));
        // PHP wants one byte more than there are levels.
        assert_eq!(path(3, "abc"), None);
        assert_eq!(path(usize::MAX, "abc"), None);
        assert_eq!(file_path(b"", 0, b"abc").as_deref(), Some(b"/sess_abc".as_slice()));
        assert!(path(0, &"a".repeat(250)).is_some());
        for id in ["", "../x", "a/b", "a.b", "a_b", "a\0b", "a b", "é", "%2e", &"a".repeat(251)] {
            assert_eq!(path(0, id), None, "{id:?}");
        }
        assert!(file_path(&[b'd'; 4084], 0, b"a").is_some());
        assert!(file_path(&[b'd'; 4085], 0, b"a").is_none());
        assert!(file_path(&[b'd'; 4082], 1, b"ab").is_none());
    }

    #[test]
    fn names_back_to_ids() {
        assert_eq!(id_of(b"sess_abc"), Some(b"abc".as_slice()));
        for name in ["sess_", "sess_a.bak", "Sess_a", "xsess_a", "sess_bad name"] {
            assert_eq!(id_of(name.as_bytes()), None, "{name}");
        }
    }
}
