//! What a request costs inside the process: the applications of the HTTP benchmark, called without a network.
//!
//! `cargo run --release --bin requests [-- --rounds N] [--only WORD]`, or `-- --calls N --only WORD` for a profiler.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use cloakroom_bench::timing::{Contender, interleaved, markdown, three};
use cloakroom_bench::{Result, apps};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

const APPS: [&str; 11] = [
    "bare",
    "cloakroom untouched",
    "cloakroom memory read",
    "cloakroom memory changed",
    "cloakroom files read",
    "cloakroom files changed",
    "cloakroom files inline read",
    "cloakroom files inline changed",
    "tower-sessions untouched",
    "tower-sessions memory read",
    "tower-sessions memory changed",
];

fn main() -> Result<()> {
    let (mut rounds, mut calls, mut only) = (25, 0, String::new());
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err("every option wants a value".into()) };
        match name.as_str() {
            "--rounds" => rounds = value.parse()?,
            "--calls" => calls = value.parse()?,
            "--only" => only.clone_from(value),
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let own = std::env::current_exe()?;
    let directory = tempfile::Builder::new().prefix("sessions-").tempdir_in(own.parent().ok_or("no directory")?)?;
    let mut contenders = Vec::new();
    for name in APPS.into_iter().filter(|name| (*name == "bare" && calls == 0) || name.contains(&only)) {
        let app = runtime.block_on(apps::app(name, directory.path()))?;
        let cookie = runtime.block_on(seed(&app))?;
        let runtime = &runtime;
        contenders.push(Contender::new(name, 0, move || runtime.block_on(call(&app, &cookie))));
    }
    if calls > 0 {
        for contender in &mut contenders {
            (contender.batch)(calls)?;
        }
        return Ok(());
    }
    let taken = interleaved(&mut contenders, rounds, Duration::from_millis(10))?;
    let bare = taken.first().map_or(f64::NAN, |bare| bare.seconds);
    let rows =
        taken.iter().map(|one| vec![one.name.to_owned(), three(one.seconds * 1e6), three((one.seconds - bare) * 1e6)]);
    let head = ["application", "us a request", "beyond bare"].map(str::to_owned);
    println!("Medians of {rounds} rounds that take turns.\n\n{}", markdown(&head, &rows.collect::<Vec<_>>()));
    Ok(())
}

async fn seed(app: &Router) -> Result<String> {
    let request = Request::get("/seed").body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let cookie = response.headers().get(header::SET_COOKIE).map(|cookie| cookie.to_str()).transpose()?;
    let cookie = cookie.and_then(|cookie| cookie.split(';').next());
    Ok(cookie.unwrap_or("PHPSESSID=0123456789abcdef0123456789abcdef").to_owned())
}

async fn call(app: &Router, cookie: &str) -> Result<usize> {
    let request = Request::get("/").header(header::COOKIE, cookie).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    if !response.status().is_success() {
        return Err(format!("{}", response.status()).into());
    }
    Ok(response.into_body().collect().await?.to_bytes().len())
}
