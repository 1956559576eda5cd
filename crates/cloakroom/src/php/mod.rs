//! PHP's session functions under their own names, with PHP's warnings, refusals and per-request settings.
//!
//! For code that is ported from PHP line by line. New code is better off with the verbs of [`Session`], which lose
//! nothing silently. One [`Request`] is one PHP request: settings, session and cookies begin afresh.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use cloakroom::{Cloakroom, Settings, php};
//! use http::HeaderMap;
//!
//! let room = Cloakroom::builder().url("memory:").settings(Settings::php_defaults()).build().await?;
//! let head = http::Request::new(()).into_parts().0;
//!
//! let mut php = php::Request::new(&room, head);
//! assert!(php.session_start(&[]).await);
//! php.set("pizza", b"i:1;");
//! let mut headers = HeaderMap::new();
//! php.finish(&mut headers).await?;
//! assert!(headers.contains_key("set-cookie"));
//! # Ok::<(), cloakroom::Error>(()) }).unwrap();
//! ```
//!
//! What differs from PHP on purpose is listed in COMPAT.md.

mod functions;
mod ini;
mod locking;
mod start;
mod superglobal;

use std::fmt;

use cloakroom_core::{Result, Session, Settings, Started};
use cloakroom_php::Bag;
use http::HeaderMap;
use http::request::Parts;

pub use self::functions::CookieParams;
pub use self::start::StartOption;
use crate::Cloakroom;

/// One PHP request.
///
/// Its functions return what PHP's return; where PHP would raise a warning or throw, they add one to
/// [`take_warnings`](Request::take_warnings).
pub struct Request {
    room: Cloakroom,
    head: Parts,
    settings: Settings,
    /// Begun with the first function that needs it, so that it gets the settings of that moment.
    session: Option<Session>,
    /// The settings have changed since the session learned of them.
    stale: bool,
    started: Option<Started>,
    /// `$_SESSION` while no session is active; `None` until something has set it.
    left: Option<Bag>,
    /// A start has been tried, so that `$_SESSION` is the session's.
    tracked: bool,
    /// PHP's `PS(id)`: kept after a close, dropped by a destroy and by a failed start.
    id: Option<Vec<u8>>,
    head_sent: bool,
    warnings: Vec<Warning>,
}

/// Something that PHP would have complained about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// How loudly.
    pub severity: Severity,
    /// In PHP's words where PHP has words for it.
    pub message: String,
}

/// How loudly PHP complains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Severity {
    /// `E_NOTICE`.
    Notice,
    /// `E_WARNING`.
    Warning,
    /// An exception.
    Thrown,
}

/// PHP's `session_status()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `PHP_SESSION_NONE`.
    None = 1,
    /// `PHP_SESSION_ACTIVE`.
    Active = 2,
}

impl Request {
    /// Begins a request under the settings of `room`. Nothing has been read or asked yet.
    pub fn new(room: &Cloakroom, head: Parts) -> Request {
        Request {
            room: room.clone(),
            head,
            settings: room.settings().clone(),
            session: None,
            stale: false,
            started: None,
            left: None,
            tracked: false,
            id: None,
            head_sent: false,
            warnings: Vec::new(),
        }
    }

    /// What PHP would have complained about since this was called last.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// The settings of this request.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The handle of the same session for cloakroom's own verbs. They answer
    /// [`Misuse`](crate::ErrorKind::Misuse) while a session is active.
    pub async fn session(&mut self) -> Result<&Session> {
        match &mut self.session {
            Some(session) if self.stale && self.started.is_none() => {
                session.reconfigure(self.room.reconfigured(&locking::settings(&self.settings)).await?).await?;
            }
            Some(_) => {}
            none => {
                let engine = self.room.reconfigured(&locking::settings(&self.settings)).await?;
                *none = Some(engine.begin(&self.head));
            }
        }
        self.stale = false;
        self.session.as_ref().ok_or_else(cloakroom_core::Error::gone)
    }

    /// The first output of a script: PHP sends the head now. An open session is written and closed first, because
    /// here nothing may be sent before it is stored.
    pub async fn send_head(&mut self, out: &mut HeaderMap) -> Result<()> {
        if let Some(started) = self.started.take() {
            self.left = Some(started.bag().clone());
            if self.head_sent {
                started.write_close().await?;
            } else {
                drop(started);
            }
        }
        self.head_sent = true;
        match &self.session {
            Some(session) => self.room.finish(session.clone(), out).await,
            None => Ok(()),
        }
    }

    /// The end of a script: writes what is open, and puts the cookie and the cache limiter's headers into `out` unless
    /// the head was sent before.
    pub async fn finish(mut self, out: &mut HeaderMap) -> Result<()> {
        if self.head_sent {
            return self.send_head(&mut HeaderMap::new()).await;
        }
        self.send_head(out).await
    }

    fn complain(&mut self, severity: Severity, message: impl Into<String>) {
        self.warnings.push(Warning { severity, message: message.into() });
    }

    fn warn(&mut self, message: impl Into<String>) {
        self.complain(Severity::Warning, message);
    }

    /// PHP's common rule for setters: not while a session is active, not after the head was sent.
    fn may_change(&mut self, what: &str) -> bool {
        if self.started.is_some() {
            self.warn(format!("{what} cannot be changed when a session is active"));
            return false;
        }
        if self.head_sent {
            self.warn(format!("{what} cannot be changed after headers have already been sent"));
            return false;
        }
        true
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("status", &self.session_status()).finish_non_exhaustive()
    }
}
