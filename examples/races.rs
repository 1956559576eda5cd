//! The race table: a small service that a driver asks for lost updates, revived sessions and erased writes.
//!
//! `cargo run --release --example races -- --listen 127.0.0.1:8082 --store files:///tmp/s`. Any URL that
//! [`Cloakroom::connect`] takes will do. Once it is ready it prints `listening on http://ADDR`.
#![expect(clippy::print_stdout, reason = "the driver waits for this line")]

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cloakroom::{Cloakroom, ErrorKind, KeyRef, Session, Settings, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};

type Answer = Result<Json<Value>, Failure>;

/// An error of the session as a response; a session that is gone is the client's conflict.
struct Failure(cloakroom::Error);

impl From<cloakroom::Error> for Failure {
    fn from(error: cloakroom::Error) -> Failure {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self.0.kind() {
            ErrorKind::Gone => (StatusCode::CONFLICT, Json(json!({"error": "gone"}))).into_response(),
            _ => self.0.into_response(),
        }
    }
}

#[derive(Deserialize)]
struct Options {
    /// How many milliseconds the request thinks.
    #[serde(default)]
    d: u64,
    #[serde(default)]
    mode: String,
    #[serde(default)]
    k: String,
    #[serde(default)]
    w: u8,
}

async fn think(options: &Options) {
    tokio::time::sleep(Duration::from_millis(options.d)).await;
}

async fn login(session: Session) -> Answer {
    let mut s = session.start().await?;
    s.regenerate_id(true).await?;
    s.set("user", "bob")?;
    s.write_close().await?;
    Ok(Json(json!({"user": "bob"})))
}

async fn inc(session: Session, Query(options): Query<Options>) -> Answer {
    if options.mode == "start" {
        let mut s = session.start().await?;
        let n = s.get::<i64>("n")?.unwrap_or(0);
        think(&options).await;
        s.set("n", &(n + 1))?;
        s.write_close().await?;
        return Ok(Json(json!({"n": n + 1})));
    }
    session.read().await?.get::<i64>("n")?;
    think(&options).await;
    let n = session
        .update(|s| {
            let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
            s.set("n", &n)?;
            Ok(n)
        })
        .await?;
    Ok(Json(json!({"n": n})))
}

async fn setk(session: Session, Query(options): Query<Options>) -> Answer {
    session.read().await?;
    think(&options).await;
    session.update(|s| s.set(format!("k{}", options.k).as_str(), &1)).await?;
    Ok(Json(json!({})))
}

async fn slow(session: Session, Query(options): Query<Options>) -> Answer {
    session.read().await?;
    think(&options).await;
    if options.w == 1 {
        session.update(|s| s.set("slow", &1)).await?;
    }
    Ok(Json(json!({})))
}

async fn logout(session: Session) -> Answer {
    Ok(Json(json!({"destroyed": session.destroy().await?})))
}

async fn rot(session: Session) -> Answer {
    session.rotate().await?;
    Ok(Json(json!({})))
}

async fn show(session: Session) -> Answer {
    Ok(Json(json!(contents(&session.read().await?)?)))
}

fn contents(session: &Snapshot) -> cloakroom::Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for key in session.keys() {
        let name = match key {
            KeyRef::Int(number) => number.to_string(),
            KeyRef::Str(text) => String::from_utf8_lossy(text).into_owned(),
        };
        all.insert(name, session.get::<Value>(key)?.unwrap_or_default());
    }
    Ok(all)
}

fn app(room: &Cloakroom) -> Router {
    Router::new()
        .route("/login", get(login))
        .route("/inc", get(inc))
        .route("/setk", get(setk))
        .route("/slow", get(slow))
        .route("/logout", get(logout))
        .route("/rot", get(rot))
        .route("/get", get(show))
        .layer(room.layer())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What goes wrong is logged, never sent to the visitor.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    let mut listen = String::from("127.0.0.1:8082");
    let mut store = String::from("memory:");
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{argument} needs a value"))?;
        match argument.as_str() {
            "--listen" => listen = value,
            "--store" => store = value,
            _ => return Err(format!("unknown argument {argument}: --listen ADDR --store URL").into()),
        }
    }
    // Whether anything is lost is asked here, not how soon a crowded machine answers.
    let mut settings = Settings::php();
    settings.io_timeout = Duration::from_secs(2);
    let room = Cloakroom::builder().url(store).settings(settings).build().await?;
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(&room)).await?;
    Ok(())
}
