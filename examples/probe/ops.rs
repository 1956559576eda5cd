//! What each op does.

use axum::http::HeaderMap;
use cloakroom::php::{CookieParams, Request, Severity};
use cloakroom::{AsKey, KeyRef, Session, Value as PhpValue};
use serde_json::{Value, json};

use crate::value::{from_bytes, options, to_bytes};

/// A request under way.
pub(crate) struct Run {
    pub(crate) php: Request,
    /// What the script has put out.
    pub(crate) output: String,
    /// The head, if it has been sent.
    pub(crate) head: Option<HeaderMap>,
    /// PHP itself would have warned, not one of its session functions.
    warned: bool,
}

/// A key as PHP's arrays take it: a number, or text that may look like one.
enum OpKey {
    Int(i64),
    Bytes(Vec<u8>),
}

impl AsKey for OpKey {
    fn as_key(&self) -> KeyRef<'_> {
        match self {
            OpKey::Int(number) => KeyRef::Int(*number),
            OpKey::Bytes(bytes) => KeyRef::of(bytes),
        }
    }
}

impl Run {
    pub(crate) fn new(php: Request) -> Run {
        Run { php, output: String::new(), head: None, warned: false }
    }

    pub(crate) async fn op(&mut self, op: &Value) -> Value {
        let parts: &[Value] = op.as_array().map_or(&[], Vec::as_slice);
        let name = parts.first().and_then(Value::as_str).unwrap_or_default();
        let outcome = self.run(name, parts.get(1), parts.get(2)).await;
        let warnings = self.php.take_warnings();
        let warned = std::mem::take(&mut self.warned) || !warnings.is_empty();
        match outcome {
            // What throws has no value.
            Ok(_) if warnings.iter().any(|warning| warning.severity == Severity::Thrown) => {
                json!({"value": null, "warned": true})
            }
            Ok(value) if warned => json!({"value": value, "warned": true}),
            Ok(value) => json!({ "value": value }),
            // Contents and ids stay out of it; the kind is what a driver can use.
            Err(error) => json!({"value": null, "warned": true, "error": error.kind().as_str()}),
        }
    }

    async fn run(&mut self, name: &str, first: Option<&Value>, second: Option<&Value>) -> cloakroom::Result<Value> {
        let php = &mut self.php;
        let text = || first.and_then(Value::as_str).unwrap_or_default();
        let given = first.filter(|value| !value.is_null());
        let key = match first {
            Some(Value::Number(number)) => OpKey::Int(number.as_i64().unwrap_or_default()),
            _ => OpKey::Bytes(to_bytes(text())),
        };
        let data = to_bytes(second.and_then(Value::as_str).unwrap_or_default());
        Ok(match name {
            "start" => php.session_start(&options(given)).await.into(),
            "status" => (php.session_status() as i64).into(),
            "id" => from_bytes(&php.session_id()),
            "set_id" if given.is_none() => from_bytes(&php.session_id()),
            "set_id" => php.set_session_id(&to_bytes(text())).map_or(Value::Bool(false), |id| from_bytes(&id)),
            "name" => php.session_name().into(),
            "set_name" if given.is_none() => php.session_name().into(),
            "set_name" => or_false(php.set_session_name(text())),
            "get" => bytes_or_null(php.get(key)?),
            "set" => {
                php.set(key, &data);
                Value::Null
            }
            "unset" => {
                php.unset(key);
                Value::Null
            }
            "incr" => {
                let (value, warned) = incr(php, &key)?;
                self.warned |= warned;
                value
            }
            "all" => bytes_or_null(php.all()?),
            "clear" => php.session_unset().into(),
            "write_close" => php.session_write_close().await.into(),
            "abort" => php.session_abort().await.into(),
            "reset" => php.session_reset().into(),
            "destroy" => php.session_destroy().await.into(),
            "regenerate" => php.session_regenerate_id(given.and_then(Value::as_bool).unwrap_or(false)).await.into(),
            "create_id" => or_false(php.session_create_id(text())),
            "gc" => php.session_gc().await.map_or(Value::Bool(false), Value::from),
            "encode" => php.session_encode().map_or(Value::Bool(false), |bytes| from_bytes(&bytes)),
            "decode" => php.session_decode(&to_bytes(text())).await.into(),
            "cookie_params" => cookie_params(&php.session_get_cookie_params()),
            "set_cookie_params" => php.session_set_cookie_params(&options(given)).into(),
            "cache_limiter" if given.is_some() => or_false(php.set_session_cache_limiter(text())),
            "cache_limiter" => php.session_cache_limiter().into(),
            "cache_expire" => match given.and_then(Value::as_i64) {
                Some(minutes) => php.set_session_cache_expire(minutes).map_or(Value::Bool(false), Value::from),
                None => php.session_cache_expire().into(),
            },
            "save_path" if given.is_some() => or_false(php.set_session_save_path(text())),
            "save_path" => php.session_save_path().into(),
            "module_name" if given.is_some() => or_false(php.set_session_module_name(text())),
            "module_name" => php.session_module_name().into(),
            "sleep" => {
                let millis = first.and_then(Value::as_u64).unwrap_or_default();
                tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
                Value::Null
            }
            "output" => {
                let mut head = HeaderMap::new();
                php.send_head(&mut head).await?;
                self.head.get_or_insert(head);
                self.output.push_str(text());
                Value::Null
            }
            "read_get" => bytes_or_null(php.session().await?.read().await?.bag().serialized(key)?),
            "read_all" => from_bytes(&php.session().await?.read().await?.bag().serialize_all()?),
            "update_set" => {
                php.session().await?.update(|s| Ok(s.bag_mut().set_serialized(key.as_key(), &data)?)).await?;
                Value::Null
            }
            "update_unset" => {
                php.session().await?.update(|s| s.remove(key.as_key()).map(drop)).await?;
                Value::Null
            }
            "update_incr" => update_incr(php.session().await?, &key).await?.into(),
            "rotate" => from_bytes(php.session().await?.rotate().await?.expose()),
            "end" => php.session().await?.destroy().await?.into(),
            _ => return Err(cloakroom::Error::misuse("no such op")),
        })
    }
}

/// `$_SESSION[k] = ($_SESSION[k] ?? 0) + 1`, with what PHP makes of text in sums. True beside it if PHP warns.
fn incr(php: &mut Request, key: &OpKey) -> cloakroom::Result<(Value, bool)> {
    let now = match php.superglobal() {
        Some(bag) => bag.value(key.as_key())?,
        None => None,
    };
    let no_number = || cloakroom::Error::misuse("only numbers are counted up");
    let (number, warned) = match now {
        None | Some(PhpValue::Null) => (Number::Int(0), false),
        Some(PhpValue::Int(number)) => (Number::Int(number), false),
        Some(PhpValue::Float(number)) => (Number::Float(number), false),
        Some(PhpValue::Bool(flag)) => (Number::Int(i64::from(flag)), false),
        Some(PhpValue::String(text)) => {
            leading_number(&String::from_utf8_lossy(text.as_bytes())).ok_or_else(no_number)?
        }
        Some(_) => return Err(no_number()),
    };
    let next = match number {
        Number::Int(number) => number.checked_add(1).map_or(Number::Float(to_float(number) + 1.0), Number::Int),
        Number::Float(number) => Number::Float(number + 1.0),
    };
    let (bytes, json) = match next {
        Number::Int(next) => (format!("i:{next};"), Value::from(next)),
        Number::Float(next) => (format!("d:{next:e};"), Value::from(next)),
    };
    if !php.set(key.as_key(), bytes.as_bytes()) {
        return Err(cloakroom::Error::misuse("the session's format has no room for this key"));
    }
    Ok((json, warned))
}

enum Number {
    Int(i64),
    Float(f64),
}

#[expect(clippy::cast_precision_loss, reason = "as PHP does when integers overflow")]
fn to_float(number: i64) -> f64 {
    number as f64
}

/// The number that text begins with, and whether anything follows it.
fn leading_number(text: &str) -> Option<(Number, bool)> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let lengths = (1..=text.len()).rev().filter(|&end| text.is_char_boundary(end));
    for end in lengths {
        let part = &text[..end];
        let looks = part.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        if let Some(number) = part.parse().ok().filter(|_| looks) {
            return Some((Number::Int(number), end < text.len()));
        }
        if let Some(number) = part.parse().ok().filter(|_| looks) {
            return Some((Number::Float(number), end < text.len()));
        }
    }
    None
}

async fn update_incr(session: &Session, key: &OpKey) -> cloakroom::Result<i64> {
    session
        .update(|s| {
            let next = s.get::<i64>(key.as_key())?.unwrap_or(0) + 1;
            s.set(key.as_key(), &next)?;
            Ok(next)
        })
        .await
}

fn bytes_or_null(bytes: Option<Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, |bytes| from_bytes(&bytes))
}

fn or_false(text: Option<String>) -> Value {
    text.map_or(Value::Bool(false), Value::String)
}

fn cookie_params(params: &CookieParams) -> Value {
    let CookieParams { lifetime, path, domain, secure, httponly, samesite, .. } = params;
    json!({
        "lifetime": lifetime, "path": path, "domain": domain, "secure": secure, "httponly": httponly,
        "samesite": samesite,
    })
}
