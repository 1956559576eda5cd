//! What processes use, and on which core.

use std::process::{Command, Stdio};
use std::time::Duration;

use cloakroom_bench::Result;

/// The CPU time that a process has used, all its threads together.
///
/// From `schedstat`, which counts nanoseconds; `stat` counts hundredths of a second.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { return ticks(pid) };
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    if nanoseconds == 0 { ticks(pid) } else { Ok(Duration::from_nanos(nanoseconds)) }
}

fn ticks(pid: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses and may hold anything.
    let fields: Vec<_> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let (user, system) = (fields.get(11).ok_or("no utime")?, fields.get(12).ok_or("no stime")?);
    Ok(Duration::from_millis(10 * (user.parse::<u64>()? + system.parse::<u64>()?)))
}

/// Binds this process to a core. False if that is not possible here.
pub(crate) fn pin_self(core: &str) -> bool {
    let own = std::process::id().to_string();
    let two = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
    let mut taskset = Command::new("taskset");
    taskset.args(["-p", "-c", core, &own]).stdout(Stdio::null()).stderr(Stdio::null());
    two && taskset.status().is_ok_and(|status| status.success())
}
