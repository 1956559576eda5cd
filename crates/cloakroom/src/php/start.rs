//! `session_start()`, step by step as `php_session_start` and `php_session_initialize` do it.

use cloakroom_core::cookie::{self, CookieValue};
use cloakroom_core::{ErrorKind, SessionId, StartOptions};
use cloakroom_php::Bag;
use http::header::COOKIE;

use super::{Request, Severity};

/// A value in the array that `session_start()` takes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StartOption {
    /// `true`, `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A fraction.
    Float(f64),
    /// `null`.
    Null,
    /// A text.
    Text(String),
    /// Something that PHP throws a `TypeError` for: the name of its type.
    Other(&'static str),
}

impl StartOption {
    pub(super) fn as_text(&self) -> String {
        match self {
            StartOption::Bool(flag) => String::from(if *flag { "1" } else { "" }),
            StartOption::Int(number) => number.to_string(),
            StartOption::Float(number) => number.to_string(),
            StartOption::Text(text) => text.clone(),
            StartOption::Null | StartOption::Other(_) => String::new(),
        }
    }

    /// PHP's `zval_get_long`, as far as `read_and_close` needs it.
    fn is_on(&self) -> bool {
        match self {
            StartOption::Bool(flag) => *flag,
            StartOption::Int(number) => *number != 0,
            StartOption::Text(text) => {
                let digits = text.trim_start().trim_start_matches(['+', '-']);
                digits.bytes().take_while(u8::is_ascii_digit).any(|digit| digit != b'0')
            }
            StartOption::Float(_) | StartOption::Null | StartOption::Other(_) => false,
        }
    }

    /// The name of a type that `session_start()` does not take.
    fn wrong_type(&self) -> Option<&'static str> {
        match self {
            StartOption::Bool(_) | StartOption::Int(_) | StartOption::Text(_) => None,
            StartOption::Float(_) => Some("float"),
            StartOption::Null => Some("null"),
            StartOption::Other(kind) => Some(kind),
        }
    }
}

/// Where an id came from, and whether the browser has to be told.
struct Choice {
    id: Option<Vec<u8>>,
    send: bool,
}

impl Request {
    /// PHP's `session_start()`.
    pub async fn session_start(&mut self, options: &[(String, StartOption)]) -> bool {
        if self.started.is_some() {
            self.complain(Severity::Notice, "Ignoring session_start() because a session is already active");
            return true;
        }
        if self.settings.use_cookies && self.head_sent {
            self.warn("Session cannot be started after headers have already been sent");
            return false;
        }
        let mut read_and_close = false;
        for (name, value) in options {
            if let Some(kind) = value.wrong_type() {
                let message = format!("Option \"{name}\" must be of type string|int|bool, {kind} given");
                self.complain(Severity::Thrown, message);
                return false;
            }
            if name == "read_and_close" {
                read_and_close = value.is_on();
                continue;
            }
            let setting = format!("session.{name}");
            if self.forbidden_by_upload_progress() {
                return false;
            }
            let known = self.ini_get(&setting).is_some() && !cloakroom_core::is_per_directory(&setting);
            if !known || !self.apply(&setting, &value.as_text()) {
                self.warn(format!("Setting option \"{name}\" failed"));
            }
        }
        let choice = self.choose_id();
        self.tracked = true;
        if !self.open(choice).await {
            self.id = None;
            self.left = Some(self.empty());
            return false;
        }
        if self.head_sent && !self.settings.cache_limiter.is_empty() {
            self.warn("Session cache limiter cannot be sent after headers have already been sent");
            self.session_abort().await;
            self.id = None;
            return false;
        }
        if read_and_close {
            self.session_abort().await;
        }
        true
    }

    /// The id of an earlier start, of the cookie, or (where PHP is told to look there) of the query.
    fn choose_id(&self) -> Choice {
        let Request { settings, head, .. } = self;
        let mut choice = Choice { id: self.id.clone(), send: true };
        if choice.id.is_none() {
            if settings.use_cookies {
                let cookies = head.headers.get_all(COOKIE).iter().map(http::HeaderValue::as_bytes);
                if let CookieValue::Text(text) = cookie::find(cookies, &settings.name) {
                    choice = Choice { id: Some(text), send: false };
                }
            }
            if !settings.use_only_cookies && choice.id.is_none() {
                choice.id = query_value(head.uri.query().unwrap_or_default(), &settings.name);
                choice.send = choice.id.is_none();
            }
        }
        if let Some(id) = &mut choice.id {
            // PHP 8.2 takes ids for C strings; 8.4 refuses this one.
            id.truncate(id.iter().position(|&byte| byte == 0).unwrap_or(id.len()));
        }
        choice.id = choice.id.filter(|id| !id.is_empty() && !cookie::is_dangerous(id));
        choice
    }

    async fn open(&mut self, Choice { id, send }: Choice) -> bool {
        let handler = self.settings.save_handler.clone();
        let session = match self.session().await {
            Ok(session) => session.clone(),
            Err(error) => {
                self.warn(format!("Failed to initialize storage module: {handler}: {error}"));
                return false;
            }
        };
        let mut options = StartOptions::default().exact_headers();
        let will_send = match &id {
            None => true,
            Some(text) => match SessionId::parse(text) {
                Some(known) => {
                    options = options.id(Some(known)).mark(send);
                    send
                }
                None if self.settings.use_strict_mode => true,
                None => {
                    self.warn(
                        "Session ID is too long or contains illegal characters. Only the A-Z, a-z, 0-9, \"-\", and \
                         \",\" characters are allowed",
                    );
                    self.warn(format!("Failed to read session data: {handler}"));
                    return false;
                }
            },
        };
        if id.as_ref().is_none_or(|text| SessionId::parse(text).is_none()) {
            options = options.id(None);
        }
        match session.start_with(options).await {
            Ok(started) => {
                if self.settings.use_cookies && will_send && cookie::mark(&self.settings, b"", 0).is_none() {
                    self.warn("session.name cannot contain any of the following '=,;.[ \\t\\r\\n\\013\\014'");
                }
                self.id = Some(started.id().expose().to_vec());
                self.started = Some(started);
                self.left = None;
                true
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.warn("Failed to decode session object. Session has been destroyed");
                false
            }
            Err(error) => {
                self.warn(format!("Failed to read session data: {handler}: {error}"));
                false
            }
        }
    }

    /// An empty `$_SESSION`.
    pub(super) fn empty(&self) -> Bag {
        Bag::new(self.settings.serialize_handler)
    }
}

/// The first value of a query's field, decoded as forms are.
fn query_value(query: &str, name: &str) -> Option<Vec<u8>> {
    let decode = |text: &str| cookie::percent_decode(text.replace('+', " ").as_bytes());
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    // PHP keeps the last of several fields of the same name.
    pairs.rev().find(|(field, _)| decode(field) == name.as_bytes()).map(|(_, value)| decode(value))
}
