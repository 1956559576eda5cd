//! `ini_set` and `ini_get` for the settings of sessions.

use cloakroom_core::{is_odd_number, is_per_directory};

use super::{Request, Severity};

impl Request {
    /// PHP's `ini_set()`: the former value, or `None` where PHP gives false.
    pub fn ini_set(&mut self, name: &str, value: &str) -> Option<String> {
        let former = self.ini_get(name)?;
        if is_per_directory(name) {
            return None;
        }
        let is_ours = name.starts_with("session.");
        if is_ours && !self.may_change("Session ini settings") {
            return None;
        }
        if is_ours && self.forbidden_by_upload_progress() {
            return None;
        }
        self.apply(name, value).then_some(former)
    }

    /// PHP's `ini_get()`.
    pub fn ini_get(&self, name: &str) -> Option<String> {
        self.settings.get(name)
    }

    /// What a php.ini says, before the script runs.
    pub fn php_ini(&mut self, name: &str, value: &str) -> bool {
        self.apply(name, value)
    }

    /// Sets what has passed PHP's rules of when; false and a warning if the value is not one that PHP takes.
    pub(super) fn apply(&mut self, name: &str, value: &str) -> bool {
        match self.settings.set(name, value) {
            Ok(()) => {
                if is_odd_number(name, value) {
                    self.warn(format!("Invalid \"{name}\" setting: {value:?} is not a number as PHP writes them"));
                }
                self.stale = true;
                true
            }
            Err(error) => {
                self.warn(error.to_string());
                false
            }
        }
    }

    /// Since PHP 8.2.36 and 8.4.28.
    pub(super) fn forbidden_by_upload_progress(&mut self) -> bool {
        let forbidden = self.settings.upload_progress_enabled;
        if forbidden {
            self.complain(
                Severity::Thrown,
                "Session ini settings cannot be changed at runtime when session.upload_progress.enabled is On",
            );
        }
        forbidden
    }
}
