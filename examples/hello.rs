//! The smallest service: a counter in PHP's session files, which `cat` can show and PHP can share.
//!
//! `cargo run --example hello`, then open http://127.0.0.1:8081.
#![expect(clippy::print_stdout, reason = "a program for people")]

use axum::{Router, routing::get};
use cloakroom::{Cloakroom, Session};

async fn visits(session: Session) -> cloakroom::Result<String> {
    let visits = session
        .update(|s| {
            let visits = s.get::<u32>("visits")?.unwrap_or(0) + 1;
            s.set("visits", &visits)?;
            Ok(visits)
        })
        .await?;
    Ok(format!("visit number {visits}\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // What goes wrong is logged, never sent to the visitor.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    // Whoever can list the directory can read the ids. A name that anybody could make first, as in /tmp, is no place.
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/hello-sessions");
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(&directory)?;
    let room = Cloakroom::connect(&format!("files://{}", directory.display())).await?;
    let app = Router::new().route("/", get(visits)).layer(room.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8081").await?;
    println!("http://{}, sessions in {}", listener.local_addr()?, directory.display());
    axum::serve(listener, app).await?;
    Ok(())
}
