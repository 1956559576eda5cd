//! The demo: a pizza shop on cloakroom that shows, beside each page, what just happened to the session. Where PHP is
//! installed, the same shop runs as a PHP page on the same session files.
//!
//! | to know | look in |
//! |---|---|
//! | what a handler of an application looks like | `shop.rs` |
//! | how the panel knows what happened | `trace.rs` |
//! | how PHP gets in | `php.rs`, `php/index.php` |
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people, who start it in a terminal")]

mod arguments;
mod directory;
mod page;
mod panel;
mod php;
mod shop;
mod site;
mod trace;
mod words;

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cloakroom::files::{FilesConfig, FilesStore};
use cloakroom::{Cloakroom, Settings};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Arguments, HELP, Wish};
use crate::directory::Directory;
use crate::php::Php;
use crate::site::Site;

/// How long connections may take to end once the demo has been told to.
const LAST_ORDERS: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Wish::Serve(arguments)) => arguments,
        Ok(Wish::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    // What goes wrong in a request, cloakroom tells in its log; ids and contents are never in there.
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .init();
    // The thread that starts PHP is the one that PHP is not to outlive: the main thread, which runs this future.
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: Arguments) -> Result<(), String> {
    let mut stop = Stop::listen().map_err(|error| format!("no signals: {error}"))?;
    let listener = bind(&arguments.listen).await?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let directory = Directory::prepare(arguments.sessions)?;

    let settings = Settings::php();
    let config = FilesConfig::new(directory.sessions()).lifetime(settings.lifetime());
    let store = FilesStore::open(config).map_err(|error| format!("no session files: {error:?}"))?;
    let room = Cloakroom::builder()
        .store(store)
        .settings(settings)
        .build()
        .await
        .map_err(|error| format!("no sessions: {error:?}"))?;

    let php = if arguments.php { Php::start(&directory, room.settings()).await } else { Php::unwanted() };
    let site = Arc::new(Site::new(room.clone(), directory.sessions().to_owned(), php.state()));

    println!("listening on http://{address}");
    println!("the session files lie in {}", directory.sessions().display());
    println!("{}", php.state().for_the_terminal());

    let (told, tell) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, site::router(site)).with_graceful_shutdown(async move { _ = tell.await });
    let mut server = tokio::spawn(async move { server.await });
    tokio::select! {
        () = stop.asked() => {}
        _ = &mut server => {}
    }
    _ = told.send(());
    if tokio::time::timeout(LAST_ORDERS, &mut server).await.is_err() {
        server.abort();
    }
    room.shutdown().await;
    php.stop().await;
    Ok(())
}

async fn bind(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{address} is already in use: end the program there, or take another address, as in --listen 127.0.0.1:8090")
        }
        _ => format!("cannot listen on {address} ({error}): take another address with --listen"),
    })
}

/// What ends the demo: Ctrl-C, `kill`, or the terminal that goes away.
struct Stop([tokio::signal::unix::Signal; 3]);

impl Stop {
    fn listen() -> std::io::Result<Stop> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Stop([interrupt?, terminate?, hangup?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
