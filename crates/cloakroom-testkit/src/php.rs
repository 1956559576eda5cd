//! Real PHP: finding it, and `php -S` serving the probe with no php.ini but the options given.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::error::{Doing, Failure, Result};
use crate::process::Process;
use crate::scenario::Scenario;

/// Whether `CLOAKROOM_SKIP` (a list such as `php,redis`) names this program. The first time it does, stderr says so.
pub fn skip(name: &str) -> bool {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let listed = std::env::var("CLOAKROOM_SKIP").is_ok_and(|list| list.split(',').any(|one| one.trim() == name));
    if listed
        && let Ok(mut said) = SAID.lock()
        && !said.iter().any(|one| one == name)
    {
        said.push(name.to_owned());
        report(&format!("CLOAKROOM_SKIP: everything that needs {name} is skipped"));
    }
    listed
}

#[expect(clippy::print_stderr, reason = "a skipped test must say so where whoever runs it can see it")]
fn report(text: &str) {
    eprintln!("{text}");
}

/// The version of the PHP on `PATH`, such as `8.2.36`; an error that names what is missing if there is none.
pub fn version() -> Result<String> {
    let output = Command::new("php").args(["-n", "-r", "echo PHP_VERSION;"]).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(
            "no `php` on PATH: install PHP's command line (Debian: php-cli), or leave these tests out with CLOAKROOM_SKIP=php",
        ),
        _ => Failure::new(format!("php -n: {error}")),
    })?;
    String::from_utf8(output.stdout).doing(|| "php's version".to_owned())
}

/// Where the probe's PHP side lies.
pub fn probe_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("php/probe.php")
}

/// How a PHP server is to be started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// php.ini settings in the form `name=value`, given by `-d`; an extension is `extension=redis`.
    pub settings: Vec<String>,
    /// `PHP_CLI_SERVER_WORKERS`: how many requests can run at once (0: one).
    pub workers: usize,
}

/// `php -S` on a free port, serving one router script.
#[derive(Debug)]
pub struct PhpServer(Process);

impl PhpServer {
    /// Serves `script` with PHP's compiled-in settings (`-n`: no php.ini), changed only by `options`.
    ///
    /// PHP's diagnostics go to its log, not into the replies; the probe reports them by itself.
    pub fn start(script: &Path, options: &Options) -> Result<Self> {
        version()?;
        Process::start("php", |addr: SocketAddr, dir: &Path| {
            let mut command = Command::new("php");
            command.args(["-n", "-d", "display_errors=0", "-d", "html_errors=0"]);
            for setting in &options.settings {
                command.arg("-d").arg(setting);
            }
            command.arg("-S").arg(OsString::from(addr.to_string())).arg("-t").arg(dir).arg(script);
            command.env("PROBE_SAID", "1").env_remove("PHP_CLI_SERVER_WORKERS");
            if options.workers > 1 {
                command.env("PHP_CLI_SERVER_WORKERS", options.workers.to_string());
            }
            command
        })
        .map(Self)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The process behind it.
    pub fn process(&self) -> &Process {
        &self.0
    }
}

/// PHP as judge: the probe on one PHP server for every set of php.ini settings that the scenarios ask for.
#[derive(Debug, Default)]
pub struct Judge {
    settings: Vec<String>,
    servers: Mutex<BTreeMap<Vec<String>, PhpServer>>,
}

impl Judge {
    /// A judge whose servers all get these settings too; for a test that wants PHP to answer otherwise.
    pub fn with_settings(settings: &[&str]) -> Self {
        Self { settings: settings.iter().map(|&one| one.to_owned()).collect(), servers: Mutex::default() }
    }

    /// The address that answers this scenario, starting PHP if it is the first of its kind.
    pub fn addr(&self, scenario: &Scenario) -> Result<SocketAddr> {
        let mut servers = self.servers.lock().map_err(|_| Failure::new("another test panicked while starting PHP"))?;
        let settings: Vec<String> = self.settings.iter().cloned().chain(scenario.php_settings()).collect();
        if let Some(server) = servers.get(&settings) {
            return Ok(server.addr());
        }
        let server = PhpServer::start(&probe_script(), &Options { settings: settings.clone(), workers: 4 })?;
        let addr = server.addr();
        servers.insert(settings, server);
        Ok(addr)
    }
}
