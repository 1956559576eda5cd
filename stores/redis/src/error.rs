//! What an error of the client means: was anything done, may it be asked again, and who has to act.
//!
//! Redis quotes commands with their keys in some of its errors, so that no text of it goes into ours.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use cloakroom_core::{Error, ErrorKind};
use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind as Server};

/// What to do about an error that came instead of an answer.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The server does not know the script (any more), and did nothing.
    UnknownScript,
    /// Another server of the cluster has the slot; nothing was done. The client asks for the new map by itself.
    Moved,
    /// This key is at that server already, though its slot has not moved yet; nothing was done.
    Ask(String, u16),
    /// The slot is on its way, and the keys of the script are not together; nothing was done.
    NotYet,
    /// This server is no master any more; nothing was done.
    NotMaster,
    /// The server refused, and did nothing.
    Refused(Error),
    /// The request never left, since there is no connection.
    NotSent(Error),
    /// No answer came, and nobody knows what was done.
    Lost(Error),
}

/// Judges an error of an exchange.
pub(crate) fn judge(error: &RedisError) -> Verdict {
    match error.kind() {
        RedisKind::Server(Server::NoScript) => Verdict::UnknownScript,
        RedisKind::Server(Server::Moved) => Verdict::Moved,
        RedisKind::Server(Server::TryAgain) => Verdict::NotYet,
        RedisKind::Server(Server::ReadOnly) => Verdict::NotMaster,
        RedisKind::Server(Server::Ask) => match error.redirect_node().and_then(|(node, _)| node.rsplit_once(':')) {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                Verdict::Ask(host.to_owned(), port.parse().unwrap_or_default())
            }
            _ => Verdict::NotYet,
        },
        RedisKind::ClusterConnectionNotFound => {
            Verdict::NotSent(Error::unavailable("no node of the Redis cluster can be reached"))
        }
        RedisKind::Server(_) | RedisKind::Extension => {
            // Before Redis 7, what went wrong within a script stands in the text of a general error.
            let (code, text) = (error.code().unwrap_or_default(), error.detail().unwrap_or_default());
            let within = |known: &&&str| text.contains(**known);
            let code = if code == "ERR" { CODES.iter().find(within).copied().unwrap_or(code) } else { code };
            if code == "READONLY" { Verdict::NotMaster } else { Verdict::Refused(refusal(code)) }
        }
        _ if error.is_connection_refusal() => Verdict::NotSent(connecting(error)),
        _ if error.is_io_error() => {
            Verdict::Lost(with_source(Error::unavailable("the connection to Redis broke off"), error))
        }
        _ => Verdict::Lost(Error::unavailable("Redis sent an answer that cannot be understood")),
    }
}

/// The codes that [`refusal`] knows and that may stand in the text of another one.
const CODES: &[&str] = &["OOM", "READONLY", "MISCONF", "NOREPLICAS", "WRONGTYPE", "NOPERM"];

/// A refusal of the server. Nothing was changed.
fn refusal(code: &str) -> Error {
    match code {
        "OOM" => Error::unavailable("the Redis server is full (maxmemory) and evicts nothing: nothing was changed"),
        "LOADING" => Error::unavailable("the Redis server is still loading its data"),
        "MASTERDOWN" => Error::unavailable("the Redis replica has lost its master"),
        "CLUSTERDOWN" => Error::unavailable("the Redis cluster is down, or nobody serves this session's slot"),
        "MISCONF" => Error::unavailable("the Redis server cannot save to its disk and takes no changes (MISCONF)"),
        "NOREPLICAS" => Error::unavailable("the Redis server has too few replicas and takes no changes (NOREPLICAS)"),
        "NOAUTH" => Error::unavailable("the Redis server wants a password"),
        "WRONGPASS" => Error::unavailable("the Redis server does not take this user and password"),
        "NOPERM" => Error::unavailable("the Redis user may not run a command or see a key that sessions need (NOPERM)"),
        "BUSY" => Error::unavailable("the Redis server is busy with somebody's script"),
        "WRONGTYPE" => Error::new(ErrorKind::Corrupt, "the session's key in Redis holds something else than a string"),
        _ => Error::unavailable("the Redis server refused a command"),
    }
}

/// Why no connection came about.
pub(crate) fn connecting(error: &RedisError) -> Error {
    if is_setup(error) {
        return Error::unavailable("the Redis server does not take this user, password or database");
    }
    match error.kind() {
        RedisKind::MasterNameNotFoundBySentinel => {
            Error::unavailable("the Redis sentinels know no living master of this service")
        }
        RedisKind::NoValidReplicasFoundBySentinel => {
            Error::unavailable("the Redis sentinels know no living replica of this service")
        }
        RedisKind::RESP3NotSupported => Error::unavailable("the Redis server is older than 6.0, or no Redis server"),
        RedisKind::Server(_) | RedisKind::Extension => refusal(error.code().unwrap_or_default()),
        _ => with_source(Error::unavailable("the Redis server cannot be reached"), error),
    }
}

/// Whether the server was reached and does not take what we say who we are: somebody has to change the setup.
pub(crate) fn is_setup(error: &RedisError) -> bool {
    // A cluster's client keeps the words of the error alone.
    let text = error.to_string();
    let told = ["NOAUTH", "WRONGPASS", "authentication failed", "refused to switch database"];
    told.iter().any(|told| text.contains(told))
}

/// Keeps what the system said about a connection: it knows neither keys nor passwords.
fn with_source(ours: Error, error: &RedisError) -> Error {
    let shared = error.source().and_then(|source| source.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    match shared.and_then(|shared| shared.downcast_ref::<io::Error>()) {
        Some(source) => ours.with_source(io::Error::new(source.kind(), source.to_string())),
        None => ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> RedisError {
        redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap().extract_error().unwrap_err()
    }

    fn refused(text: &str) -> Error {
        match judge(&answer(text)) {
            Verdict::Refused(error) => error,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_was_not_done_is_known_for_such() {
        assert!(matches!(judge(&answer("NOSCRIPT No matching script.")), Verdict::UnknownScript));
        assert!(matches!(judge(&answer("MOVED 1 10.0.0.1:6379")), Verdict::Moved));
        assert!(matches!(judge(&answer("TRYAGAIN Multiple keys request")), Verdict::NotYet));
        assert!(matches!(judge(&answer("READONLY You can't write")), Verdict::NotMaster));
        assert!(matches!(judge(&answer("ASK 1 ::1:6379")), Verdict::Ask(host, 6379) if host == "::1"));
        assert!(matches!(judge(&answer("ASK 1 nowhere")), Verdict::NotYet));
        let old = "ERR Error running script (call to f_abc): @user_script:9: READONLY You can't write";
        assert!(matches!(judge(&answer(old)), Verdict::NotMaster));
    }

    #[test]
    fn a_refusal_says_who_has_to_act() {
        for (text, kind, says) in [
            ("OOM command not allowed", ErrorKind::Unavailable, "full"),
            ("ERR Error running script: @user_script: 1: -OOM command not allowed", ErrorKind::Unavailable, "full"),
            ("LOADING Redis is loading", ErrorKind::Unavailable, "loading"),
            ("NOAUTH Authentication required.", ErrorKind::Unavailable, "password"),
            ("CLUSTERDOWN Hash slot not served", ErrorKind::Unavailable, "cluster"),
            ("WRONGTYPE Operation against a key", ErrorKind::Corrupt, "something else"),
            ("NOPERM this user has no permissions", ErrorKind::Unavailable, "NOPERM"),
            ("ERR unknown command 'X', with args beginning with: 'sess'", ErrorKind::Unavailable, "refused"),
        ] {
            let error = refused(text);
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(!error.may_have_been_applied(), "{text}");
        }
    }

    #[test]
    fn a_login_that_is_refused_is_a_matter_of_setup() {
        for text in ["WRONGPASS invalid username-password pair", "NOAUTH Authentication required."] {
            assert!(is_setup(&answer(text)));
            let cluster = (RedisKind::Io, "Failed to create initial connections", text.to_owned());
            assert!(is_setup(&RedisError::from(cluster)));
        }
        assert!(!is_setup(&answer("LOADING Redis is loading")));
    }

    #[test]
    fn nothing_of_redis_own_words_is_repeated() {
        let quoting = "ERR unknown command 'X', with args beginning with: 'PHPREDIS_SESSION:0badc0ffee'";
        assert!(!format!("{:?}", refused(quoting)).contains("0badc0ffee"));
    }

    #[test]
    fn a_broken_connection_leaves_it_open_what_was_done() {
        let broken = RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset));
        let Verdict::Lost(error) = judge(&broken) else { panic!("lost") };
        assert!(format!("{error:?}").contains("broke off: connection reset"), "{error:?}");
        let refused = RedisError::from(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert!(matches!(judge(&refused), Verdict::NotSent(_)));
    }
}
