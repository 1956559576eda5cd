//! `$_SESSION`: what is in it, in the bytes of PHP's `serialize()`.

use cloakroom_core::{AsKey, Result};
use cloakroom_php::Bag;

use super::Request;

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

    /// `$_SESSION[$key] = unserialize($bytes)`. False, and a warning, for what could not be stored.
    pub fn set(&mut self, key: impl AsKey, bytes: &[u8]) -> bool {
        let result = self.superglobal_mut().set_serialized(key, bytes);
        self.done(result)
    }

    /// `unset($_SESSION[$key])`.
    pub fn unset(&mut self, key: impl AsKey) -> bool {
        let result = self.superglobal_mut().remove(key).map(drop);
        self.done(result)
    }

    /// `serialize($_SESSION)`.
    pub fn all(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.superglobal().map(Bag::serialize_all).transpose()?)
    }

    fn done(&mut self, result: Result<(), cloakroom_php::Error>) -> bool {
        if let Err(error) = &result {
            self.warn(error.to_string());
        }
        result.is_ok()
    }
}
