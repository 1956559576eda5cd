//! What the driver and the servers say, sorted by what is known about the statement then.
//!
//! Nothing of a server's own text is kept: MySQL quotes the key of a row that is there already, which is a session's id.

use std::borrow::Cow;

use cloakroom_core::{Error, ErrorKind};
use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// Why a statement has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It never left this process.
    NotSent(Error),
    /// It was sent, and what came of it is not known.
    Lost(Error),
    /// The server did not carry it out, for this reason and with this code.
    Refused(Refusal, String),
}

/// Why a server did not carry a statement out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Two got in each other's way, and this one was asked to try again.
    Again,
    /// Somebody held a lock for longer than the statement was to wait.
    Held,
    /// There is such a row already.
    Duplicate,
    /// There is no such table or column.
    Missing,
    /// More bytes than a column or a packet holds.
    TooLarge,
    /// User, password, database or rights are wrong.
    Setup,
    /// No room, no memory, read-only, or something that nobody has thought of.
    Other,
}

impl Failure {
    /// Of a statement that changes nothing.
    pub(crate) fn of_read(self) -> Error {
        match self {
            Failure::NotSent(error) | Failure::Lost(error) => error,
            Failure::Refused(refusal, code) => refused(refusal, &code),
        }
    }

    /// Of a statement that is a change by itself.
    pub(crate) fn of_write(self) -> Error {
        match self {
            Failure::Lost(error) => error.or_maybe_applied(),
            other => other.of_read(),
        }
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Failure::Refused(refusal, _) => Some(*refusal),
            _ => None,
        }
    }

    /// Nothing was done, since somebody else was in the way.
    pub(crate) fn is_in_the_way(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::Again | Refusal::Held))
    }

    /// For who deploys, where waiting will not help.
    pub(crate) fn is_setup(&self) -> bool {
        matches!(self.refusal(), Some(Refusal::Setup | Refusal::Missing))
    }
}

fn refused(refusal: Refusal, code: &str) -> Error {
    let (kind, why) = match refusal {
        Refusal::TooLarge => (ErrorKind::TooLarge, "the session is larger than the database takes"),
        Refusal::Missing => (ErrorKind::Unavailable, "the table of sessions, or one of its columns, is not there"),
        Refusal::Setup => (ErrorKind::Unavailable, "the database does not let this user in, or not do this"),
        Refusal::Again => (ErrorKind::Unavailable, "the database asked again and again to try once more"),
        Refusal::Held => (ErrorKind::Unavailable, "a row of the database was locked for too long"),
        Refusal::Duplicate => (ErrorKind::Unavailable, "the database has a row of this name already"),
        Refusal::Other => (ErrorKind::Unavailable, "the database refused a statement"),
    };
    Error::new(kind, format!("{why} (its code: {code})"))
}

/// Sorts an error of a statement that was sent. The second value says whether the connection is still good.
pub(crate) fn sort(error: sqlx::Error) -> (Failure, bool) {
    match error {
        sqlx::Error::Database(error) => {
            let (refusal, code, fatal) = refusal(&*error);
            if fatal {
                let error = Error::unavailable(format!("the database ended the connection (its code: {code})"));
                return (Failure::Lost(error), false);
            }
            // A statement that was prepared is not any more, or its table has changed: a new connection prepares it anew.
            let good = !matches!(&*code, "0A000" | "26000" | "1243" | "1615");
            (Failure::Refused(refusal, code.into_owned()), good)
        }
        error => (Failure::Lost(broken(error)), false),
    }
}

/// Sorts an error of connecting, before any statement.
pub(crate) fn sort_connecting(error: sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(error) => {
            let (refusal, code, _) = refusal(&*error);
            Failure::Refused(refusal, code.into_owned())
        }
        error => Failure::NotSent(broken(error)),
    }
}

/// What can be said without quoting anybody.
fn broken(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Io(error) => Error::unavailable("the connection to the database broke").with_source(error),
        sqlx::Error::Tls(error) => {
            Error::unavailable("the database's certificate or TLS is not accepted").with_source(error)
        }
        sqlx::Error::PoolTimedOut => Error::unavailable("the database could not be reached in time"),
        sqlx::Error::PoolClosed => Error::unavailable("the store has been closed"),
        sqlx::Error::Configuration(_) => Error::unavailable("the driver cannot use its configuration"),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
            Error::unavailable("a column of the table has a type that the layout does not have")
        }
        _ => Error::unavailable("the database said something that the driver does not understand"),
    }
}

fn refusal(error: &dyn DatabaseError) -> (Refusal, Cow<'_, str>, bool) {
    if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
        let fatal = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic);
        return (of_postgres(error.code()), Cow::Borrowed(error.code()), fatal);
    }
    if let Some(error) = error.try_downcast_ref::<MySqlDatabaseError>() {
        let number = error.number();
        // Shutdown, aborted, killed, thrown out for being idle.
        let fatal = matches!(number, 1053 | 1152 | 1158..=1161 | 1184 | 1927 | 4031);
        return (of_mysql(number), Cow::Owned(number.to_string()), fatal);
    }
    (Refusal::Other, Cow::Borrowed("unknown"), false)
}

/// By SQLSTATE.
fn of_postgres(code: &str) -> Refusal {
    match code {
        // The last one: called off, by a limit of the server's or by who took it for somebody else's.
        "40001" | "40P01" | "23P01" | "57014" => Refusal::Again,
        "55P03" => Refusal::Held,
        "23505" => Refusal::Duplicate,
        "42P01" | "42703" | "3F000" => Refusal::Missing,
        "22001" | "54000" => Refusal::TooLarge,
        "28000" | "28P01" | "3D000" | "42501" => Refusal::Setup,
        _ => Refusal::Other,
    }
}

/// By number, which says more than MySQL's SQLSTATE does.
fn of_mysql(number: u16) -> Refusal {
    match number {
        1213 | 1020 | 1317 => Refusal::Again,
        1205 | 3572 => Refusal::Held,
        1062 => Refusal::Duplicate,
        1146 | 1054 => Refusal::Missing,
        1406 | 1153 | 1301 => Refusal::TooLarge,
        1044 | 1045 | 1049 | 1142 | 1143 | 1227 | 1698 => Refusal::Setup,
        _ => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_may_have_been_applied() {
        let error = || Error::unavailable("x");
        assert!(!Failure::NotSent(error()).of_write().may_have_been_applied());
        assert!(Failure::Lost(error()).of_write().may_have_been_applied());
        assert!(!Failure::Lost(error()).of_read().may_have_been_applied());
        assert!(!Failure::Refused(Refusal::Other, "1".into()).of_write().may_have_been_applied());
    }

    #[test]
    fn what_is_too_large_says_so() {
        let error = Failure::Refused(of_mysql(1406), "1406".into()).of_write();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(error.to_string().contains("1406"));
    }
}
