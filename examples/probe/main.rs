//! The probe: PHP's session functions over HTTP, so that real PHP can be the judge of them.
//!
//! `cargo run --release --example probe -- --listen 127.0.0.1:8083`. Each `POST` is one PHP request: a JSON body
//! `{"ini": {…}, "ops": [["start"], ["set", "n", "i:1;"]]}`, answered by `{"results": [{"value": …}, …]}`. Values
//! travel as the bytes of PHP's `serialize()`, one character a byte.
#![expect(clippy::print_stdout, reason = "whoever starts the probe waits for this line")]

mod ops;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cloakroom::{Cloakroom, Settings, php};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// The largest request body.
const LIMIT: usize = 64 << 20;

/// One cloakroom for each store that a request may name; without a name it is where PHP's settings say.
struct Rooms {
    by_settings: Cloakroom,
    by_url: Mutex<HashMap<String, Cloakroom>>,
}

impl Rooms {
    async fn open() -> cloakroom::Result<Rooms> {
        let by_settings = Cloakroom::builder().settings(Settings::php_defaults()).build().await?;
        Ok(Rooms { by_settings, by_url: Mutex::default() })
    }

    async fn get(&self, url: Option<&str>) -> cloakroom::Result<Cloakroom> {
        let Some(url) = url else { return Ok(self.by_settings.clone()) };
        let mut rooms = self.by_url.lock().await;
        if let Some(room) = rooms.get(url) {
            return Ok(room.clone());
        }
        let room = Cloakroom::builder().url(url).settings(Settings::php_defaults()).build().await?;
        rooms.insert(url.to_owned(), room.clone());
        Ok(room)
    }
}

async fn probe(State(rooms): State<Arc<Rooms>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LIMIT).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let Ok(task) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    let empty = serde_json::Map::new();
    let ini = task.get("ini").and_then(Value::as_object).unwrap_or(&empty);
    let room = match rooms.get(ini.get("cloakroom.store").and_then(Value::as_str)).await {
        Ok(room) => room,
        Err(error) => return error.into_response(),
    };
    let mut php = php::Request::new(&room, head);
    for (name, value) in ini.iter().filter(|(name, _)| *name != "cloakroom.store") {
        php.ini_set(name, &value::ini_text(value));
    }
    php.take_warnings();

    let mut run = ops::Run::new(php);
    let mut results = Vec::new();
    for op in task.get("ops").and_then(Value::as_array).into_iter().flatten() {
        results.push(run.op(op).await);
    }
    answer(run, &json!({ "results": results })).await
}

async fn answer(run: ops::Run, results: &Value) -> Response {
    let ops::Run { php, output, head, .. } = run;
    let mut headers = HeaderMap::new();
    if let Err(error) = php.finish(&mut headers).await {
        return error.into_response();
    }
    let mut response = Response::new(Body::from(format!("{output}{results}")));
    *response.headers_mut() = head.unwrap_or(headers);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What goes wrong is logged, never sent to the visitor.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let mut listen = String::from("127.0.0.1:8083");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--listen" => listen = value,
            _ => return Err(format!("unknown argument {argument}: --listen ADDR").into()),
        }
    }
    let app = Router::new().fallback(probe).with_state(Arc::new(Rooms::open().await?));
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
