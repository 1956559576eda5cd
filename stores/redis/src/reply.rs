//! What the scripts answer, read.

use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Record, Version};
use cloakroom_core::{Error, Result};
use redis::Value;

/// An answer of one of the scripts `LOCK` and `COMMIT`.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Somebody else holds the lock.
    Locked,
    /// The claim is not met.
    Refused,
    /// The lock is ours, and this is there.
    Held(Option<Record>),
    Done,
    Removed(Record),
    Conflict(Record),
    Taken,
    Gone,
    /// The lock is ours no more; whether a record is there.
    Lost(bool),
}

pub(crate) fn read(mut answer: Vec<Value>) -> Result<Reply> {
    let Some(Value::Array(parts)) = answer.pop() else { return Err(strange()) };
    let mut parts = parts.into_iter();
    let Some(Value::BulkString(word)) = parts.next() else { return Err(strange()) };
    Ok(match (word.as_slice(), parts.next(), parts.next()) {
        (b"locked", None, _) => Reply::Locked,
        (b"refused", None, _) => Reply::Refused,
        (b"held", None, _) => Reply::Held(None),
        (b"held", Some(value), Some(life)) => Reply::Held(one(value, &life)?),
        (b"done", None, _) => Reply::Done,
        (b"removed", Some(value), Some(life)) => Reply::Removed(one(value, &life)?.ok_or_else(strange)?),
        (b"conflict", Some(value), Some(life)) => Reply::Conflict(one(value, &life)?.ok_or_else(strange)?),
        (b"taken", None, _) => Reply::Taken,
        (b"gone", None, _) => Reply::Gone,
        (b"lost", Some(Value::Int(there)), None) => Reply::Lost(there != 0),
        _ => return Err(strange()),
    })
}

/// The answers to `GET` and `PTTL`.
pub(crate) fn record(mut answer: Vec<Value>) -> Result<Option<Record>> {
    match (answer.pop(), answer.pop(), answer.pop()) {
        (Some(life), Some(value), None) => one(value, &life),
        _ => Err(strange()),
    }
}

/// A value and its remaining life. Its bytes are also its version: equal bytes are the same state.
fn one(value: Value, life: &Value) -> Result<Option<Record>> {
    const FOR_EVER: i64 = -1;
    let (payload, ttl) = match (value, life) {
        (Value::Nil, _) => return Ok(None),
        (Value::BulkString(bytes), Value::Int(FOR_EVER)) => (Bytes::from(bytes), None),
        (Value::BulkString(bytes), Value::Int(millis)) => match u64::try_from(*millis) {
            Ok(millis) => (Bytes::from(bytes), Some(Duration::from_millis(millis))),
            // It ended between the two.
            Err(_) => return Ok(None),
        },
        _ => return Err(strange()),
    };
    let version = Version::new(payload.clone());
    Ok(Some(Record::new(payload, version, ttl)))
}

/// The answer to `WAIT`, where fewer replicas than were wanted are known to have the change.
pub(crate) fn too_few(copies: Option<&Value>, wanted: u32) -> Option<String> {
    let why = match copies {
        Some(Value::Int(copies)) if *copies >= wanted.into() => return None,
        Some(Value::Int(copies)) => {
            return Some(format!("{copies} of {wanted} Redis replicas have the change in time"));
        }
        Some(Value::ServerError(error)) => match error.code() {
            "UNBLOCKED" => "the server has become a replica meanwhile",
            "NOPERM" => "the user may not run WAIT (NOPERM)",
            _ => "the server refused WAIT",
        },
        _ => "the server did not tell",
    };
    Some(format!("whether {wanted} Redis replicas have the change is not known: {why}"))
}

/// An answer that no Redis gives.
#[cold]
pub(crate) fn strange() -> Error {
    Error::unavailable("Redis sent an answer that was not expected")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn answers_of_the_scripts() {
        let of = |parts: Vec<Value>| read(vec![Value::Array(parts)]);
        assert!(matches!(of(vec![bulk("locked")]), Ok(Reply::Locked)));
        assert!(matches!(of(vec![bulk("held")]), Ok(Reply::Held(None))));
        let held = of(vec![bulk("held"), bulk("data"), Value::Int(1500)]);
        let Ok(Reply::Held(Some(record))) = held else { panic!("{held:?}") };
        assert_eq!((&record.payload[..], record.ttl), (&b"data"[..], Some(Duration::from_millis(1500))));
        assert!(matches!(of(vec![bulk("lost"), Value::Int(0)]), Ok(Reply::Lost(false))));
        for strange in [vec![], vec![bulk("x")], vec![bulk("removed")], vec![bulk("held"), bulk("data")]] {
            assert!(of(strange).is_err());
        }
        assert!(read(vec![]).is_err() && read(vec![Value::Nil]).is_err());
    }

    #[test]
    fn an_error_of_wait_leaves_it_open_who_has_the_change() {
        let of = |text: &str| too_few(Some(&redis::parse_redis_value(text.as_bytes()).unwrap()), 1);
        assert_eq!(of(":1\r\n"), None);
        for (answer, says) in [
            (":0\r\n", "0 of 1"),
            ("-UNBLOCKED force unblock from blocking operation\r\n", "has become a replica"),
            ("-NOPERM this user has no permissions\r\n", "NOPERM"),
            ("-ERR WAIT cannot be used with replica instances\r\n", "refused WAIT"),
            ("+OK\r\n", "did not tell"),
        ] {
            assert!(of(answer).is_some_and(|told| told.contains(says)), "{answer}");
        }
    }

    #[test]
    fn a_record_with_its_life() {
        assert!(record(vec![Value::Nil, Value::Int(-2)]).unwrap().is_none());
        assert!(record(vec![bulk("late"), Value::Int(-2)]).unwrap().is_none());
        assert_eq!(record(vec![bulk("x"), Value::Int(-1)]).unwrap().unwrap().ttl, None);
        assert!(record(vec![bulk("x")]).is_err() && record(vec![Value::Int(1), Value::Int(1)]).is_err());
    }
}
