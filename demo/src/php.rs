//! The same shop as a PHP page: PHP's own server as a child process, and the way to it through the demo.
//!
//! Whatever becomes of the demo, PHP must not be left behind. It leads a process group of its own, which is killed when
//! the demo ends, fails or panics; and it is started through `setpriv --pdeathsig`, so that the kernel ends it when the
//! demo is killed outright.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::{SessionId, Settings, SystemRandom};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::directory::Directory;
use crate::shop::{Content, Reply};
use crate::site::{LARGEST_FORM, Site};
use crate::words::{Act, Language};

/// The pages, so that the program needs no other file.
const PAGES: [(&str, &str); 5] = [
    ("router.php", include_str!("../php/router.php")),
    ("index.php", include_str!("../php/index.php")),
    ("shop.php", include_str!("../php/shop.php")),
    ("page.php", include_str!("../php/page.php")),
    ("menu.csv", include_str!("menu.csv")),
];
/// What both sides must agree on; PHP is told what cloakroom has.
const SHARED: [&str; 13] = [
    "session.name",
    "session.serialize_handler",
    "session.gc_probability",
    "session.gc_divisor",
    "session.gc_maxlifetime",
    "session.lazy_write",
    "session.use_strict_mode",
    "session.cookie_lifetime",
    "session.cookie_path",
    "session.cookie_httponly",
    "session.cookie_samesite",
    "session.sid_length",
    "session.sid_bits_per_character",
];
/// How long PHP may take to start.
const START: Duration = Duration::from_secs(5);
/// How long PHP may take for a page.
const PATIENCE: Duration = Duration::from_secs(20);
/// How large a page of PHP's may be.
const LARGEST_PAGE: usize = 1 << 20;

/// Whether there is a PHP, and if not, why.
#[derive(Clone, Debug)]
pub(crate) enum PhpState {
    Running(Way),
    Missing,
    Unwanted,
    Failed(String),
}

impl PhpState {
    pub(crate) fn for_the_terminal(&self) -> String {
        match self {
            PhpState::Running(way) => format!("PHP {} runs the same shop under /php/", way.version),
            PhpState::Missing => "php is not installed: install php-cli to see the same shop in PHP".into(),
            PhpState::Unwanted => "PHP is left alone (--no-php)".into(),
            PhpState::Failed(why) => format!("PHP does not run: {why}"),
        }
    }
}

/// The way to PHP.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) version: String,
    address: SocketAddr,
    /// PHP serves nobody who does not know this, so that no page of another site can send it forms past the demo.
    key: String,
    client: Client<HttpConnector, Body>,
}

/// PHP as a child process.
#[derive(Debug)]
pub(crate) struct Php {
    state: PhpState,
    server: Option<Server>,
}

impl Php {
    pub(crate) fn unwanted() -> Php {
        Php { state: PhpState::Unwanted, server: None }
    }

    pub(crate) fn state(&self) -> PhpState {
        self.state.clone()
    }

    /// Starts PHP if it is installed. The demo also runs without, so nothing here is an error.
    pub(crate) async fn start(directory: &Directory, settings: &Settings) -> Php {
        let failed = |why: String| Php { state: PhpState::Failed(why), server: None };
        let Some(version) = version().await else { return Php { state: PhpState::Missing, server: None } };
        let (pages, key) = match (pages(directory), SessionId::generate(&SystemRandom, 32, 4)) {
            (Ok(pages), Ok(key)) => (pages, String::from_utf8_lossy(key.expose()).into_owned()),
            (Err(why), _) => return failed(why),
            (_, Err(error)) => return failed(error.to_string()),
        };
        let mut why = String::new();
        // Another program may take the free port first; and an old setpriv may not know the option.
        for launcher in [LAUNCHER, LAUNCHER, &[]] {
            match Server::start(launcher, &pages, directory.sessions(), &key, settings).await {
                Ok(server) => {
                    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
                    let way = Way { version, address: server.address, key, client };
                    return Php { state: PhpState::Running(way), server: Some(server) };
                }
                Err(error) => why = error,
            }
        }
        _ = std::fs::remove_dir_all(&pages);
        failed(why)
    }

    /// Ends PHP, and waits for it to be gone.
    pub(crate) async fn stop(mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill();
            _ = server.child.wait().await;
        }
    }
}

/// What asks the kernel to end PHP with the thread that started it.
const LAUNCHER: &[&str] = &["setpriv", "--pdeathsig", "KILL"];

#[derive(Debug)]
struct Server {
    child: Child,
    group: Option<Pid>,
    address: SocketAddr,
    pages: PathBuf,
}

impl Server {
    async fn start(
        launcher: &[&str],
        pages: &Path,
        sessions: &Path,
        key: &str,
        settings: &Settings,
    ) -> Result<Server, String> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| format!("no free port: {error}"))?;
        let mut words = launcher.iter().copied().chain(["php"]);
        let mut command = Command::new(words.next().unwrap_or("php"));
        command.args(words).args(["-n", "-d", "display_errors=0", "-d", "log_errors=1"]);
        for name in SHARED {
            if let Some(value) = settings.get(name) {
                command.arg("-d").arg(format!("{name}={value}"));
            }
        }
        command.arg("-S").arg(address.to_string()).arg("-t").arg(pages).arg(pages.join("router.php"));
        command.env("CLOAKROOM_DEMO_SESSIONS", sessions).env("CLOAKROOM_DEMO_KEY", key);
        command.env_remove("PHP_CLI_SERVER_WORKERS").current_dir(pages);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(tell_complaints(stderr));
        }
        let mut server = Server { child, group, address, pages: pages.to_owned() };
        match timeout(START, server.is_ready()).await {
            Ok(ready) => ready.map(|()| server),
            Err(_) => Err("it did not listen in time".into()),
        }
    }

    async fn is_ready(&mut self) -> Result<(), String> {
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended at once ({status})"));
            }
            if TcpStream::connect(self.address).await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        _ = std::fs::remove_dir_all(&self.pages);
    }
}

/// PHP's own complaints, without its access log.
#[expect(clippy::print_stderr, reason = "for whoever has started the demo in a terminal")]
async fn tell_complaints(stderr: tokio::process::ChildStderr) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.contains("PHP ") && !line.contains("Development Server") {
            eprintln!("{line}");
        }
    }
}

/// The version of the PHP that is installed, if it knows sessions.
async fn version() -> Option<String> {
    let mut command = Command::new("php");
    command.args(["-n", "-r", "echo extension_loaded('session') ? PHP_VERSION : '';"]).kill_on_drop(true);
    let output = timeout(START, command.stdin(Stdio::null()).stderr(Stdio::null()).output()).await.ok()?.ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !version.is_empty()).then_some(version)
}

fn pages(directory: &Directory) -> Result<PathBuf, String> {
    let path = directory.for_php()?;
    for (name, text) in PAGES {
        std::fs::write(path.join(name), text).map_err(|error| format!("cannot write {name}: {error}"))?;
    }
    Ok(path)
}

/// Hands a request to PHP, and its answer back: the cookies as they are, both ways.
pub(crate) async fn forward(State(site): State<Arc<Site>>, request: Request) -> Response {
    let PhpState::Running(way) = &site.php else { return Redirect::to("/").into_response() };
    if request.uri().path() == "/php" {
        return Redirect::to("/php/").into_response();
    }
    match timeout(PATIENCE, ask(way, request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refusal.into_response(),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "PHP takes too long\n").into_response(),
    }
}

async fn ask(way: &Way, request: Request) -> Result<Response, (StatusCode, &'static str)> {
    let (head, body) = request.into_parts();
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "this form is too large\n");
    let broken = (StatusCode::BAD_GATEWAY, "PHP did not answer\n");
    let body = to_bytes(body, LARGEST_FORM).await.map_err(|_| too_large)?;
    let path = head.uri.path_and_query().map_or("/php/", |path| path.as_str());
    let uri = Uri::try_from(format!("http://{}{path}", way.address)).map_err(|_| broken)?;
    let mut outward = Request::new(Body::from(body));
    (*outward.method_mut(), *outward.uri_mut()) = (head.method, uri);
    for name in [header::COOKIE, header::CONTENT_TYPE] {
        for value in head.headers.get_all(&name) {
            outward.headers_mut().append(&name, value.clone());
        }
    }
    let key = HeaderValue::from_str(&way.key).map_err(|_| broken)?;
    outward.headers_mut().insert(HeaderName::from_static("x-demo-key"), key);

    let answer = way.client.request(outward).await.map_err(|_| broken)?;
    let (mut head, body) = answer.into_parts();
    // To the end: PHP puts the session back before it closes the connection.
    let body = to_bytes(Body::new(body), LARGEST_PAGE).await.map_err(|_| broken)?;
    let act = head.headers.remove("x-demo-act").and_then(|word| Act::from_word(word.to_str().ok()?));
    for hop in [header::CONNECTION, header::HOST, header::DATE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        head.headers.remove(hop);
    }
    let Some(act) = act else { return Ok(Response::from_parts(head, Body::from(body))) };
    let content = match head.headers.get(header::LOCATION).and_then(|to| to.to_str().ok()) {
        Some(to) => Content::SeeOther(to.to_owned()),
        None => Content::Html(text(&body)),
    };
    head.extensions.insert(Reply { language: Language::Php, act, content });
    Ok(Response::from_parts(head, Body::empty()))
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}
