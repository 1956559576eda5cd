//! The servers as processes: this program again, with one of the applications.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cloakroom_bench::{Result, apps};

/// A server in a process of its own.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) pid: u32,
    pub(crate) port: u16,
}

impl Child {
    /// Starts this program as a server.
    pub(crate) fn start(name: &str, directory: &Path, pin: bool) -> Result<Child> {
        let own = std::env::current_exe()?;
        let mut command = if pin {
            // It becomes the server: the process id stays.
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(own);
            command
        } else {
            Command::new(own)
        };
        command.arg("serve").arg(name).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| format!("the server {name} did not start"))?;
        Ok(Child { pid: process.id(), process, port })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until it is killed, or its parent has gone.
pub(crate) fn serve(name: &str, directory: &Path) -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let app = apps::app(name, directory).await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        Ok(axum::serve(listener, app).await?)
    })
}
