//! MariaDB for a test program.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::database::{Database, run};
use crate::error::Result;

/// A MariaDB server. `root` is let in without a password.
#[derive(Debug)]
pub struct MariaDb(Database);

impl MariaDb {
    /// Makes a data directory and starts it. Its settings are odd where nothing should depend on them: its clock zone
    /// is Newfoundland's, and it cuts off what is too long.
    ///
    /// `settings` are further ones, such as `max-connections=20`.
    pub fn start(settings: &[&str]) -> Result<MariaDb> {
        let install = |root: &Path| {
            let mut install = Command::new("mariadb-install-db");
            install.arg("--no-defaults").arg(option("datadir", &root.join("data")));
            // Each server that starts clears away what others have in a directory that they share.
            install.arg(option("tmpdir", root)).args([
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                "--skip-log-bin",
                "--innodb-log-file-size=8M",
            ]);
            install
        };
        let database = Database::start("mariadb", "pid", install, |addr, root| {
            let mut serve = Command::new("mariadbd");
            serve.arg("--no-defaults").arg(option("datadir", &root.join("data"))).arg(option("tmpdir", root));
            serve.arg(option("socket", &root.join("socket"))).arg(option("pid-file", &root.join("pid")));
            serve.arg(format!("--port={}", addr.port()));
            serve.args([
                "--bind-address=127.0.0.1",
                "--default-time-zone=-03:30",
                "--sql-mode=",
                "--max-connections=400",
                // What is killed here is the server, never the machine.
                "--innodb-flush-log-at-trx-commit=2",
                "--innodb-flush-method=nosync",
                "--innodb-doublewrite=0",
                "--sync-frm=0",
                "--innodb-log-file-size=8M",
                "--innodb-buffer-pool-size=64M",
                "--skip-log-bin",
            ]);
            serve.args(settings.iter().map(|setting| format!("--{setting}")));
            serve
        })?;
        Ok(MariaDb(database))
    }

    /// The URL of a database, by TCP.
    pub fn url(&self, database: &str) -> String {
        self.url_as("root", database)
    }

    /// The same for another user, with `name:password` if need be.
    pub fn url_as(&self, user: &str, database: &str) -> String {
        format!("mariadb://{user}@{}/{database}", self.0.process.addr())
    }

    /// The URL of a database, by its Unix socket; an option of it stands at the end.
    pub fn socket_url(&self, database: &str) -> String {
        format!("mariadb://root@localhost/{database}?socket={}", self.0.root().join("socket").display())
    }

    /// What PHP's PDO calls it.
    pub fn dsn(&self, database: &str) -> String {
        format!("mysql:host=127.0.0.1;port={};dbname={database}", self.0.process.addr().port())
    }

    /// Runs SQL with `mariadb`, and gives its output: values alone, a row a line.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let port = self.0.process.addr().port().to_string();
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "--skip-ssl", "-h", "127.0.0.1", "-u", "root", "-N", "-B"]);
        client.args(["-P", &port, "-e", sql, database]);
        let output = run("asking mariadb", &mut client)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Ends it, and whatever is under way with it.
    pub fn stop(&self) -> Result<()> {
        self.0.stop(Signal::KILL)
    }

    /// Starts it again, on the same port and with the same data.
    pub fn start_again(&self) -> Result<()> {
        self.0.start_again()
    }

    /// Lets it hang: connections stay open, and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.0.signal_all(Signal::STOP)
    }

    /// Lets it go on after [`pause`](MariaDb::pause).
    pub fn resume(&self) -> Result<()> {
        self.0.signal_all(Signal::CONT)
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// For the [suite of failures](crate::network).
#[expect(clippy::expect_used, reason = "this crate is made of tests")]
impl crate::network::Server for MariaDb {
    fn stop(&self) {
        MariaDb::stop(self).expect("mariadb can be killed");
    }

    fn restart(&self) {
        self.start_again().expect("mariadb comes back");
        self.sql("mysql", "SELECT 1").expect("mariadb lets somebody in");
    }

    fn pause(&self) {
        MariaDb::pause(self).expect("mariadb can be paused");
    }

    fn resume(&self) {
        MariaDb::resume(self).expect("mariadb can go on");
    }

    fn keeps_records(&self) -> bool {
        true
    }
}
