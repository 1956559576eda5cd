//! PostgreSQL for a test program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::database::{Database, run};
use crate::error::{Doing, Failure, Result};

/// What it says to those who come too early.
const STARTING: [&str; 2] = ["starting up", "not yet accepting connections"];

/// A PostgreSQL server. Everybody is let in, but who has a password: see [`url_as`](Postgres::url_as).
#[derive(Debug)]
pub struct Postgres(Database);

impl Postgres {
    /// Makes a cluster and starts it. Its settings are odd where nothing should depend on them: it lives in
    /// Newfoundland.
    ///
    /// `pg_stat_statements` is loaded; `settings` are further ones, such as `max_connections=20`.
    pub fn start(settings: &[&str]) -> Result<Postgres> {
        let programs = programs()?;
        let install = |root: &Path| {
            let mut initdb = Command::new(programs.join("initdb"));
            initdb.arg("-D").arg(root.join("data"));
            initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
            initdb
        };
        let database = Database::start("postgres", "data/postmaster.pid", install, |addr, root| {
            // The first line that fits is the one that counts.
            let doors = "local all all trust\nhost all keyholder all scram-sha-256\nhost all all all trust\n";
            // If that fails, everybody is let in, and a test of passwords says so.
            let _ = fs::write(root.join("data/pg_hba.conf"), doors);
            let mut postgres = Command::new(programs.join("postgres"));
            postgres.arg("-D").arg(root.join("data")).arg("-k").arg(root).args(["-p", &addr.port().to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "max_connections=400",
                "shared_buffers=64MB",
                "shared_preload_libraries=pg_stat_statements",
                "TimeZone=America/St_Johns",
            ]
            .iter()
            .chain(settings)
            {
                postgres.args(["-c", setting]);
            }
            postgres
        })?;
        let server = Postgres(database);
        server.sql("postgres", "CREATE EXTENSION pg_stat_statements")?;
        Ok(server)
    }

    /// The URL of a database, by TCP.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The same for another user, with `name:password` if need be. A user with the name `keyholder` has to have one.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@{}/{database}", self.0.process.addr())
    }

    /// The URL of a database, by its Unix socket; an option of it stands at the end.
    pub fn socket_url(&self, database: &str) -> String {
        let port = self.0.process.addr().port();
        format!("postgres://postgres@localhost:{port}/{database}?host={}", self.0.root().display())
    }

    /// What PHP's PDO calls it.
    pub fn dsn(&self, database: &str) -> String {
        format!("pgsql:host=127.0.0.1;port={};dbname={database};user=postgres", self.0.process.addr().port())
    }

    /// Runs SQL with `psql`, and gives its output: values alone, a row a line.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let port = self.0.process.addr().port().to_string();
        // Debian's `psql` outside of this folder is a script that looks for this one, for three times as long.
        let mut psql = Command::new(programs()?.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        // It listens some moments before it lets anybody in.
        let mut left = 1000;
        psql.args(["-p", &port, "-d", database, "-c", sql]);
        loop {
            match run("asking postgres", &mut psql) {
                Err(failure) if left > 0 && STARTING.iter().any(|text| failure.to_string().contains(text)) => {
                    left -= 1;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                ended => return Ok(String::from_utf8_lossy(&ended?.stdout).trim_end().to_owned()),
            }
        }
    }

    /// Ends it, and whatever is under way with it.
    pub fn stop(&self) -> Result<()> {
        self.0.stop(Signal::INT)
    }

    /// Kills it with all its processes. With this module's settings it loses the last changes then; with
    /// `synchronous_commit=on` it does not.
    pub fn kill(&self) -> Result<()> {
        self.0.kill()
    }

    /// Starts it again, on the same port and with the same data.
    pub fn start_again(&self) -> Result<()> {
        self.0.start_again()
    }

    /// Lets it hang: connections stay open, and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.0.signal_all(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Postgres::pause).
    pub fn resume(&self) -> Result<()> {
        self.0.signal_all(Signal::CONT)
    }
}

/// Debian keeps the programs of each version apart, outside of `PATH`.
fn programs() -> Result<PathBuf> {
    let versions =
        fs::read_dir("/usr/lib/postgresql").doing(|| "looking for PostgreSQL (Debian: postgresql)".to_owned())?;
    let mut found: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
    found.retain(|bin| bin.join("initdb").exists());
    found.sort();
    found.pop().ok_or_else(|| Failure::new("no `initdb`: install PostgreSQL (Debian: postgresql), or leave these tests out with CLOAKROOM_SKIP=postgres"))
}

/// For the [suite of failures](crate::network).
#[expect(clippy::expect_used, reason = "this crate is made of tests")]
impl crate::network::Server for Postgres {
    /// At once, as by a crash of the machine.
    fn stop(&self) {
        self.kill().expect("postgres can be killed");
    }

    /// It listens some moments before it lets anybody in.
    fn restart(&self) {
        self.start_again().expect("postgres comes back");
        self.sql("postgres", "SELECT 1").expect("postgres lets somebody in");
    }

    fn pause(&self) {
        Postgres::pause(self).expect("postgres can be paused");
    }

    fn resume(&self) {
        Postgres::resume(self).expect("postgres can go on");
    }

    fn keeps_records(&self) -> bool {
        true
    }
}
