//! The other session functions of PHP, in the order of its manual's list by purpose.

use cloakroom_core::{SessionId, is_id_byte};

use super::{Request, Severity, StartOption, Status};

/// What `session_get_cookie_params()` gives, in PHP's order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CookieParams {
    /// Seconds; 0 until the browser is closed.
    pub lifetime: i64,
    /// Raw, as it is sent.
    pub path: String,
    /// Raw, as it is sent.
    pub domain: String,
    /// Over TLS only.
    pub secure: bool,
    /// Hidden from scripts.
    pub httponly: bool,
    /// Raw, as it is sent.
    pub samesite: String,
}

impl Request {
    /// PHP's `session_status()`.
    pub fn session_status(&self) -> Status {
        if self.started.is_some() { Status::Active } else { Status::None }
    }

    /// PHP's `session_id()`: empty if there is none, and cut at a NUL.
    pub fn session_id(&self) -> Vec<u8> {
        let id = self.id.clone().unwrap_or_default();
        id.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
    }

    /// PHP's `session_id($id)`: the former id, or `None` where PHP gives false.
    pub fn set_session_id(&mut self, id: &[u8]) -> Option<Vec<u8>> {
        if self.started.is_some() {
            self.warn("Session ID cannot be changed when a session is active");
            return None;
        }
        if self.head_sent && self.settings.use_cookies {
            self.warn("Session ID cannot be changed after headers have already been sent");
            return None;
        }
        let former = self.session_id();
        self.id = Some(id.to_vec());
        Some(former)
    }

    /// PHP's `session_name()`.
    pub fn session_name(&self) -> String {
        self.settings.name.clone()
    }

    /// PHP's `session_name($name)`: the former name even if the new one is refused, or `None` where PHP gives false.
    pub fn set_session_name(&mut self, name: &str) -> Option<String> {
        self.change("Session name", "session.name", name)
    }

    /// PHP's `session_save_path()`.
    pub fn session_save_path(&self) -> String {
        self.settings.save_path.clone()
    }

    /// PHP's `session_save_path($path)`.
    pub fn set_session_save_path(&mut self, path: &str) -> Option<String> {
        if path.contains('\0') && self.started.is_none() && !self.head_sent {
            self.complain(Severity::Thrown, "Argument #1 ($path) must not contain any null bytes");
            return None;
        }
        self.change("Session save path", "session.save_path", path)
    }

    /// PHP's `session_module_name()`.
    pub fn session_module_name(&self) -> String {
        self.settings.save_handler.clone()
    }

    /// PHP's `session_module_name($module)`.
    pub fn set_session_module_name(&mut self, module: &str) -> Option<String> {
        if !self.may_change("Session save handler module") {
            return None;
        }
        if module.eq_ignore_ascii_case("user") {
            self.complain(Severity::Thrown, "Argument #1 ($module) cannot be \"user\"");
            return None;
        }
        if self.forbidden_by_upload_progress() {
            return None;
        }
        let former = self.session_module_name();
        self.apply("session.save_handler", module).then_some(former)
    }

    /// PHP's `session_cache_limiter()`.
    pub fn session_cache_limiter(&self) -> String {
        self.settings.cache_limiter.clone()
    }

    /// PHP's `session_cache_limiter($value)`.
    pub fn set_session_cache_limiter(&mut self, limiter: &str) -> Option<String> {
        self.change("Session cache limiter", "session.cache_limiter", limiter)
    }

    /// PHP's `session_cache_expire()`, in minutes.
    pub fn session_cache_expire(&self) -> i64 {
        self.settings.cache_expire
    }

    /// PHP's `session_cache_expire($minutes)`: the former value, also while a session is active; `None` where PHP gives
    /// false.
    pub fn set_session_cache_expire(&mut self, minutes: i64) -> Option<i64> {
        let former = self.session_cache_expire();
        let active = self.started.is_some();
        let changed = self.change("Session cache expiration", "session.cache_expire", &minutes.to_string());
        (active || changed.is_some()).then_some(former)
    }

    /// PHP's `session_get_cookie_params()`.
    pub fn session_get_cookie_params(&self) -> CookieParams {
        let s = &self.settings;
        CookieParams {
            lifetime: s.cookie_lifetime,
            path: s.cookie_path.clone(),
            domain: s.cookie_domain.clone(),
            secure: s.cookie_secure,
            httponly: s.cookie_httponly,
            samesite: s.cookie_samesite.clone(),
        }
    }

    /// PHP's `session_set_cookie_params($options)`; an integer key is given as its digits with `numeric` true.
    pub fn session_set_cookie_params(&mut self, options: &[(String, StartOption)]) -> bool {
        if !self.settings.use_cookies {
            self.warn("Session cookies cannot be used when session.use_cookies is disabled");
            return false;
        }
        if !self.may_change("Session cookie parameters") {
            return false;
        }
        let mut known = Vec::new();
        for (name, value) in options {
            let lower = name.to_ascii_lowercase();
            if name.parse::<i64>().is_ok() {
                self.warn("Argument #1 ($lifetime_or_options) cannot contain numeric keys");
            } else if ["lifetime", "path", "domain", "secure", "httponly", "samesite"].contains(&lower.as_str()) {
                known.push((lower, value));
            } else {
                self.warn(format!("Argument #1 ($lifetime_or_options) contains an unrecognized key \"{name}\""));
            }
        }
        if known.is_empty() {
            self.complain(Severity::Thrown, "Argument #1 ($lifetime_or_options) must contain at least 1 valid key");
            return false;
        }
        if self.forbidden_by_upload_progress() {
            return false;
        }
        // In PHP's order, whatever the order of the array; the first that is refused ends it.
        for name in ["lifetime", "path", "domain", "secure", "httponly", "samesite"] {
            for (_, value) in known.iter().filter(|(known, _)| known == name) {
                let text = match (name, value) {
                    ("secure" | "httponly", value) => String::from(if is_true(value) { "1" } else { "0" }),
                    (_, value) => value.as_text(),
                };
                if !self.apply(&format!("session.cookie_{name}"), &text) {
                    return false;
                }
            }
        }
        true
    }

    /// PHP's `session_write_close()`: true even if writing failed, which is only a warning.
    pub async fn session_write_close(&mut self) -> bool {
        let Some(started) = self.started.take() else { return false };
        self.left = Some(started.bag().clone());
        if self.settings.save_handler == "redis" && self.settings.gc_maxlifetime <= 0 {
            self.complain(Severity::Notice, "session.gc_maxlifetime is <= 0, defaulting to 1440 seconds");
        }
        if let Err(error) = started.write_close().await {
            let Request { settings, .. } = self;
            let message = format!(
                "Failed to write session data ({}). Please verify that the current setting of session.save_path is \
                 correct ({}): {error}",
                settings.save_handler, settings.save_path
            );
            self.warn(message);
        }
        true
    }

    /// PHP's `session_abort()`.
    pub async fn session_abort(&mut self) -> bool {
        let Some(started) = self.started.take() else { return false };
        self.left = Some(started.abort().await.bag().clone());
        true
    }

    /// PHP's `session_reset()`.
    pub fn session_reset(&mut self) -> bool {
        let Some(started) = &mut self.started else { return false };
        if let Err(error) = started.reset() {
            self.warn(error.to_string());
        }
        true
    }

    /// PHP's `session_unset()`.
    pub fn session_unset(&mut self) -> bool {
        let Some(started) = &mut self.started else { return false };
        started.bag_mut().clear();
        true
    }

    /// PHP's `session_destroy()`: `$_SESSION` and the browser's cookie stay as they are.
    pub async fn session_destroy(&mut self) -> bool {
        let Some(started) = self.started.take() else {
            self.warn("Trying to destroy uninitialized session");
            return false;
        };
        self.left = Some(started.bag().clone());
        self.id = None;
        if let Err(error) = started.destroy().await {
            self.warn(format!("Session object destruction failed: {error}"));
            return false;
        }
        true
    }

    /// PHP's `session_regenerate_id($delete_old_session)`.
    pub async fn session_regenerate_id(&mut self, delete_old: bool) -> bool {
        if self.started.is_none() {
            self.warn("Session ID cannot be regenerated when there is no active session");
            return false;
        }
        if self.head_sent {
            self.warn("Session ID cannot be regenerated after headers have already been sent");
            return false;
        }
        let Some(started) = &mut self.started else { return false };
        match started.regenerate_id(delete_old).await {
            Ok(id) => {
                self.id = Some(id.expose().to_vec());
                true
            }
            Err(error) => {
                self.warn(format!("Failed to create session ID: {error}"));
                false
            }
        }
    }

    /// PHP's `session_create_id($prefix)`; `None` where PHP gives false.
    pub fn session_create_id(&mut self, prefix: &str) -> Option<String> {
        // PHP looks at the prefix as a C string.
        let seen = prefix.split('\0').next().unwrap_or_default();
        if seen.len() > 256 || !seen.bytes().all(is_id_byte) {
            self.warn(
                "Prefix cannot contain special characters. Only the A-Z, a-z, 0-9, \"-\", and \",\" characters are \
                 allowed",
            );
            return None;
        }
        let s = &self.settings;
        match SessionId::generate(&cloakroom_core::SystemRandom, s.sid_length, s.sid_bits_per_character) {
            Ok(id) => Some(format!("{prefix}{}", id.expose_str())),
            Err(error) => {
                self.complain(Severity::Thrown, error.to_string());
                None
            }
        }
    }

    /// PHP's `session_gc()`: how many were removed; `None` where PHP gives false.
    pub async fn session_gc(&mut self) -> Option<usize> {
        if self.started.is_none() {
            self.warn("Session cannot be garbage collected when there is no active session");
            return None;
        }
        let engine = match self.room.reconfigured(&self.settings).await {
            Ok(engine) if engine.store().capabilities().expires_by_itself => return None,
            Ok(engine) => engine,
            Err(_) => return None,
        };
        match engine.sweep().await {
            Ok(removed) => Some(removed),
            Err(error) => {
                self.complain(Severity::Notice, error.to_string());
                None
            }
        }
    }

    /// PHP's `session_encode()`; `None` where PHP gives false.
    pub fn session_encode(&mut self) -> Option<Vec<u8>> {
        let Some(bag) = self.superglobal().filter(|_| self.tracked) else {
            self.warn("Cannot encode non-existent session");
            return None;
        };
        match bag.encode() {
            Ok(encoded) => encoded,
            Err(error) => {
                self.warn(error.to_string());
                None
            }
        }
    }

    /// PHP's `session_decode($data)`. What cannot be decoded destroys the session; here it is set aside.
    pub async fn session_decode(&mut self, data: &[u8]) -> bool {
        let Some(started) = &mut self.started else {
            self.warn("Session data cannot be decoded when there is no active session");
            return false;
        };
        if started.decode(data).is_ok() {
            return true;
        }
        if let Some(started) = self.started.take() {
            let set_aside = started.set_aside().await;
            self.id = None;
            self.left = Some(self.empty());
            self.warn("Failed to decode session object. Session has been destroyed");
            if let Err(error) = set_aside {
                self.warn(error.to_string());
            }
        }
        false
    }

    /// A setter with PHP's common rule. PHP returns the former value also for a value that it refuses.
    fn change(&mut self, what: &str, setting: &str, value: &str) -> Option<String> {
        if !self.may_change(what) || self.forbidden_by_upload_progress() {
            return None;
        }
        let former = self.ini_get(setting);
        self.apply(setting, value);
        former
    }
}

/// PHP's truth.
fn is_true(value: &StartOption) -> bool {
    match value {
        StartOption::Bool(flag) => *flag,
        StartOption::Int(number) => *number != 0,
        StartOption::Text(text) => !text.is_empty() && text != "0",
        StartOption::Float(number) => *number != 0.0,
        StartOption::Null => false,
        StartOption::Other(_) => true,
    }
}
