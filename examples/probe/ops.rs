//! What each op does.

use axum::http::HeaderMap;
use cloakroom::php::{CookieParams, Request};
use cloakroom::{AsKey, ErrorKind, KeyRef, Session, Value as PhpValue};
use serde_json::{Value, json};

use crate::value::{from_bytes, options, to_bytes};

/// A request under way.
pub(crate) struct Run {
    pub(crate) php: Request,
    /// What the script has put out.
    pub(crate) output: String,
    /// The head, if it has been sent.
    pub(crate) head: Option<HeaderMap>,
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
        Run { php, output: String::new(), head: None }
    }

    pub(crate) async fn op(&mut self, op: &Value) -> Value {
        let parts: &[Value] = op.as_array().map_or(&[], Vec::as_slice);
        let name = parts.first().and_then(Value::as_str).unwrap_or_default();
        let value = match self.run(name, parts.get(1), parts.get(2)).await {
            Ok(value) => value,
            Err(error) => {
                // Contents and ids stay out of it; the kind is what a driver can use.
                let warnings = self.php.take_warnings();
                let kind = if error.kind() == ErrorKind::Gone { "gone" } else { error.kind().as_str() };
                drop(warnings);
                return json!({"value": null, "warned": true, "error": kind});
            }
        };
        if self.php.take_warnings().is_empty() { json!({ "value": value }) } else { json!({"value": value, "warned": true}) }
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
            "set_id" => php.set_session_id(&to_bytes(text())).map_or(Value::Bool(false), |id| from_bytes(&id)),
            "name" => php.session_name().into(),
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
            "incr" => incr(php, &key)?,
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
                Some(minutes) => php.set_session_cache_expire(minutes).into(),
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

/// `$_SESSION[k] = ($_SESSION[k] ?? 0) + 1`.
fn incr(php: &mut Request, key: &OpKey) -> cloakroom::Result<Value> {
    let now = match php.superglobal() {
        Some(bag) => bag.value(key.as_key())?,
        None => None,
    };
    let next = match now {
        None | Some(PhpValue::Null) => 1,
        Some(PhpValue::Int(number)) => number.wrapping_add(1),
        Some(PhpValue::Bool(flag)) => i64::from(flag) + 1,
        Some(_) => return Err(cloakroom::Error::misuse("only integers are counted up")),
    };
    php.set(key.as_key(), format!("i:{next};").as_bytes());
    Ok(next.into())
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
