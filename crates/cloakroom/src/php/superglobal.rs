//! `$_SESSION`: what is in it, in the bytes of PHP's `serialize()`.

use cloakroom_core::{AsKey, Result};
use cloakroom_php::{Bag, ErrorKind, Value};

use super::{Request, Severity};

impl Request {
    /// `$_SESSION`, or `None` if nothing has set it yet.
    pub fn superglobal(&self) -> Option<&Bag> {
        match &self.started {
            Some(started) => Some(started.bag()),
            None => self.left.as_ref(),
        }
    }

    /// `$_SESSION`, to be changed. While no session is active it is an ordinary array, which nobody stores.
    pub fn superglobal_mut(&mut self) -> &mut Bag {
        let empty = self.empty();
        match &mut self.started {
            Some(started) => started.bag_mut(),
            None => self.left.get_or_insert(empty),
        }
    }

    /// `serialize($_SESSION[$key])`.
    pub fn get(&self, key: impl AsKey) -> Result<Option<Vec<u8>>> {
        Ok(match self.superglobal() {
            Some(bag) => bag.serialized(key)?,
            None => None,
        })
    }

    /// `$_SESSION[$key] = unserialize($bytes)`. False, and a warning, for what could not be stored. What is no value is a
    /// notice, and `false` is stored, as in PHP.
    pub fn set(&mut self, key: impl AsKey, bytes: &[u8]) -> bool {
        let result = match unserialize(bytes) {
            // As PHP would write it: `i:+5;` is `i:5;`.
            Ok(value) => {
                if is_beyond_integers(bytes) {
                    self.warn("unserialize(): Numerical result out of range");
                }
                let options = self.superglobal_mut().options();
                value.serialize_with(options).and_then(|bytes| self.superglobal_mut().set_serialized(key, &bytes))
            }
            Err(error) => {
                if !bytes.is_empty() {
                    self.complain(Severity::Notice, format!("unserialize(): {error}"));
                }
                self.superglobal_mut().set(key, &false)
            }
        };
        self.done(&result)
    }

    /// `unset($_SESSION[$key])`.
    pub fn unset(&mut self, key: impl AsKey) -> bool {
        let result = self.superglobal_mut().remove(key).map(drop);
        self.done(&result)
    }

    /// `serialize($_SESSION)`.
    pub fn all(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.superglobal().map(Bag::serialize_all).transpose()?)
    }

    fn done(&mut self, result: &Result<(), cloakroom_php::Error>) -> bool {
        if let Err(error) = result {
            self.warn(error.to_string());
        }
        result.is_ok()
    }
}

/// PHP's `unserialize()`, which passes over what stands behind the value.
fn unserialize(bytes: &[u8]) -> Result<Value, cloakroom_php::Error> {
    let whole = Value::unserialize(bytes);
    match &whole {
        Err(error) if error.kind() == ErrorKind::Trailing => match error.offset().and_then(|at| bytes.get(..at)) {
            Some(value) => Value::unserialize(value),
            None => whole,
        },
        _ => whole,
    }
}

/// Whether these bytes are an integer that does not fit PHP's, so that PHP warns and takes the nearest.
fn is_beyond_integers(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"i:").and_then(|rest| rest.split(|&byte| byte == b';').next());
    let digits = text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("0");
    digits.parse::<i64>().is_err_and(|error| {
        matches!(error.kind(), std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow)
    })
}
