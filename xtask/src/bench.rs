//! `cargo xtask bench`: the benchmarks, a workspace of their own since the peers' dependencies clash with ours.

use crate::process::{cargo, root, run as start};
use crate::{Result, unknown};

const MANIFEST: &str = "bench/Cargo.toml";

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !root()?.join(MANIFEST).is_file() {
        return Err(format!("there are no benchmarks: {MANIFEST} does not exist"));
    }
    match arguments {
        [check] if check == "--check" => start(cargo()?.args(["check", "--all-targets", "--manifest-path", MANIFEST])),
        [check, argument, ..] if check == "--check" => unknown("bench", argument),
        arguments => start(cargo()?.args(["run", "--release", "--manifest-path", MANIFEST, "--"]).args(arguments)),
    }
}
