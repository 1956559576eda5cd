//! What SQLite's errors mean for who asks.

use cloakroom_core::{Error, ErrorKind};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why something did not work, before it is known what the caller has to be told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another process, or another connection, is in the way.
    Busy,
    /// SQLite says no, by this code.
    Sqlite(ffi::Error),
    /// The setup has to be changed: the file or the table is not what it has to be.
    Setup(String),
    /// Ours.
    Other(Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        // Only the code is kept: what a damaged file has SQLite say is nobody's to print.
        match error {
            rusqlite::Error::SqliteFailure(code, _) | rusqlite::Error::SqlInputError { error: code, .. } => {
                Failure::of_code(code)
            }
            rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::Utf8Error(..) => {
                Failure::Other(Error::unavailable("a row of the table of sessions holds values of other types"))
            }
            other => Failure::Other(Error::unavailable("ask SQLite").with_source(other)),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl Failure {
    pub(crate) fn setup(text: impl Into<String>) -> Failure {
        Failure::Setup(text.into())
    }

    fn of_code(code: ffi::Error) -> Failure {
        match code.code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Failure::Busy,
            _ => Failure::Sqlite(code),
        }
    }

    /// The same for another who has to be told.
    pub(crate) fn again(&self) -> Failure {
        match self {
            Failure::Busy => Failure::Busy,
            Failure::Sqlite(code) => Failure::Sqlite(*code),
            Failure::Setup(text) => Failure::Setup(text.clone()),
            Failure::Other(error) => Failure::Other(Error::new(error.kind(), error.to_string())),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Failure::Sqlite(code) if code.code == ErrorCode::DiskFull)
    }

    /// Whether the connection may be the reason, so that another one is worth a try the next time.
    pub(crate) fn spoils_connection(&self) -> bool {
        let Failure::Sqlite(code) = self else { return false };
        !matches!(
            code.code,
            ErrorCode::DiskFull | ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::OutOfMemory
        )
    }

    /// Whether a `COMMIT` that ended so may all the same be found in the file after a crash: its last page may have
    /// been written, and only making sure of it failed.
    pub(crate) fn may_be_in_the_file(&self) -> bool {
        let Failure::Sqlite(code) = self else { return false };
        matches!(code.code, ErrorCode::SystemIoFailure)
    }

    /// Whether it is the setup that has to be changed.
    pub(crate) fn is_setup(&self) -> bool {
        match self {
            Failure::Busy | Failure::Other(_) => false,
            Failure::Setup(_) => true,
            Failure::Sqlite(code) => {
                matches!(code.code, ErrorCode::NotADatabase | ErrorCode::ReadOnly | ErrorCode::CannotOpen)
            }
        }
    }

    /// The error of a store that cannot be opened.
    pub(crate) fn into_setup_error(self) -> Error {
        match self {
            Failure::Setup(text) => Error::config(text),
            failure => {
                let error = failure.into_error();
                Error::config(error.to_string()).with_source(error)
            }
        }
    }

    /// The error that the caller gets. A setup that was right once and is not any more is an outage.
    pub(crate) fn into_error(self) -> Error {
        let code = match self {
            Failure::Busy => return Error::unavailable("another process kept the SQLite database locked for too long"),
            Failure::Setup(text) => return Error::unavailable(text),
            Failure::Other(error) => return error,
            Failure::Sqlite(code) => code,
        };
        let text = match code.code {
            ErrorCode::TooBig => {
                return Error::new(ErrorKind::TooLarge, "write a session of more than SQLite takes").with_source(code);
            }
            ErrorCode::DiskFull => "write to the SQLite database: the disk is full",
            ErrorCode::ReadOnly => "write to the SQLite database: it is read-only",
            ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
                "use the SQLite database: not permitted"
            }
            ErrorCode::CannotOpen => "open the SQLite database or a file beside it",
            ErrorCode::DatabaseCorrupt => "use the SQLite database: its file is damaged",
            ErrorCode::NotADatabase => "use the SQLite database: its file is none",
            ErrorCode::SystemIoFailure => "read or write the SQLite database",
            _ => "use the SQLite database",
        };
        Error::unavailable(text).with_source(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> Failure {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("quotes something secret".to_owned())).into()
    }

    #[test]
    fn who_has_to_act_follows_from_the_code() {
        for (code, kind, text) in [
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable, "locked"),
            (ffi::SQLITE_FULL, ErrorKind::Unavailable, "full"),
            (ffi::SQLITE_READONLY, ErrorKind::Unavailable, "read-only"),
            (ffi::SQLITE_CORRUPT, ErrorKind::Unavailable, "damaged"),
            (ffi::SQLITE_NOTADB, ErrorKind::Unavailable, "is none"),
            (ffi::SQLITE_TOOBIG, ErrorKind::TooLarge, "more than"),
            (ffi::SQLITE_IOERR, ErrorKind::Unavailable, "read or write"),
        ] {
            let error = failure(code).into_error();
            assert_eq!(error.kind(), kind);
            let shown = format!("{error:?}");
            assert!(shown.contains(text) && !shown.contains("secret"), "{shown}");
        }
        assert!(matches!(failure(ffi::SQLITE_BUSY), Failure::Busy));
        assert!(failure(ffi::SQLITE_IOERR).may_be_in_the_file() && !failure(ffi::SQLITE_FULL).may_be_in_the_file());
        assert!(failure(ffi::SQLITE_NOTADB).is_setup() && !failure(ffi::SQLITE_BUSY).is_setup());
    }
}
