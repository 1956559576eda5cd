//! What a request costs with sessions of several kinds, beside the same request without any.
//!
//! `cargo run --release --bin http [-- --seconds N] [--rounds N] [--only WORD]`: one server process for each variant,
//! on one core, and the load on the other; the variants take turns.

mod client;
mod server;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::Load;
use cloakroom_bench::Result;
use cloakroom_bench::timing::{markdown, median, three};

/// A server: its name, and whether each request leaves the counter one higher.
pub(crate) struct Variant {
    name: &'static str,
    changes: bool,
    /// The design's figure for the throughput beside bare.
    target: Option<f64>,
}

const fn variant(name: &'static str, changes: bool, target: Option<f64>) -> Variant {
    Variant { name, changes, target }
}

const VARIANTS: [Variant; 12] = [
    variant("bare", false, None),
    variant("cloakroom untouched", false, Some(0.97)),
    variant("cloakroom memory read", false, Some(0.92)),
    variant("cloakroom memory changed", true, Some(0.88)),
    variant("cloakroom files read", false, Some(0.48)),
    variant("cloakroom files changed", true, Some(0.38)),
    // Without the store's judgement whether the file system is slow.
    variant("cloakroom files inline read", false, Some(0.48)),
    variant("cloakroom files inline changed", true, Some(0.38)),
    variant("tower-sessions untouched", false, None),
    variant("tower-sessions memory read", false, None),
    variant("tower-sessions memory changed", true, None),
    // Once more, under another name: what differs between the two is noise.
    variant("bare again", false, None),
];

/// One variant while it takes part.
struct Candidate {
    what: &'static Variant,
    server: server::Child,
    load: Load,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    rate: f64,
    micros: f64,
    busy: f64,
}

struct Options {
    seconds: f64,
    rounds: usize,
    only: String,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [mode, name, directory] = &arguments[..]
        && mode == "serve"
    {
        return server::serve(name, Path::new(directory));
    }
    let mut options = Options { seconds: 1.0, rounds: 9, only: String::new() };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err("every option wants a value".into()) };
        match name.as_str() {
            "--seconds" => options.seconds = value.parse()?,
            "--rounds" => options.rounds = value.parse()?,
            "--only" => options.only.clone_from(value),
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    let pinned = usage::pin_self("1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&options, pinned))
}

async fn run(options: &Options, pinned: bool) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("sessions-").tempdir_in(beside_target()?)?;
    let mut candidates = Vec::new();
    for variant in &VARIANTS {
        if variant.name != "bare" && !variant.name.contains(&options.only) {
            continue;
        }
        let server = server::Child::start(variant.name, directory.path(), pinned)?;
        let load = Load::connect(server.port).await?;
        candidates.push(Candidate { what: variant, server, load, rounds: Vec::new() });
    }
    for round in 0..=options.rounds {
        for candidate in &mut candidates {
            // The first round warms up.
            let seconds = if round == 0 { options.seconds.min(0.3) } else { options.seconds };
            let found = candidate.turn(Duration::from_secs_f64(seconds)).await?;
            if round > 0 {
                candidate.rounds.push(found);
            }
        }
    }
    for candidate in &mut candidates {
        candidate.load.check(candidate.what.changes).await?;
    }
    println!(
        "{} connections, each with a session of its own; medians of {} rounds of {} s that take turns; {}.\n",
        client::CONNECTIONS,
        options.rounds,
        options.seconds,
        if pinned { "server on core 0, load on core 1" } else { "not pinned: no taskset" },
    );
    println!("{}", table(&candidates));
    Ok(())
}

impl Candidate {
    async fn turn(&mut self, time: Duration) -> Result<Round> {
        let before = usage::cpu(self.server.pid)?;
        let (requests, took) = self.load.run(time).await?;
        let cpu = usage::cpu(self.server.pid)?.saturating_sub(before);
        let (requests, seconds, cpu) = (f64::from(requests), took.as_secs_f64(), cpu.as_secs_f64());
        Ok(Round { rate: requests / seconds, micros: cpu * 1e6 / requests, busy: cpu / seconds })
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(&mut self.rounds.iter().map(of).collect::<Vec<_>>())
    }

    /// The median of each round's ratio to the same round of `bare`.
    fn beside(&self, bare: &Candidate, ratio: impl Fn(&Round, &Round) -> f64) -> f64 {
        median(&mut self.rounds.iter().zip(&bare.rounds).map(|(own, bare)| ratio(own, bare)).collect::<Vec<_>>())
    }
}

fn table(candidates: &[Candidate]) -> String {
    let head = ["server", "requests/s", "CPU us", "busy", "requests beside bare", "CPU beside bare", "target"];
    let Some(bare) = candidates.first() else { return String::new() };
    let rows = candidates.iter().map(|one| {
        vec![
            one.what.name.to_owned(),
            format!("{:.0}", one.median(|round| round.rate)),
            three(one.median(|round| round.micros)),
            format!("{:.0} %", one.median(|round| round.busy) * 100.0),
            format!("{:.3}", one.beside(bare, |own, bare| own.rate / bare.rate)),
            format!("{:.3}", one.beside(bare, |own, bare| bare.micros / own.micros)),
            one.what.target.map_or(String::new(), |target| format!("{target:.2}")),
        ]
    });
    markdown(&head.map(str::to_owned), &rows.collect::<Vec<_>>())
}

/// A directory on the file system that `target/` is on.
fn beside_target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().ok_or("the program is in no directory")?.to_owned())
}
