//! Steps that are all run, also after one has failed, and the table at the end that says how each went.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::Result;

/// What has been run so far.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    steps: Vec<Step>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Step {
    name: &'static str,
    took: Duration,
    result: Result<String>,
}

impl Summary {
    /// Runs a step and keeps its time and its result: `Ok` with a word about it, or what went wrong.
    pub(crate) fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<String>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let result = work();
        if let Err(message) = &result {
            println!("{message}");
        }
        self.steps.push(Step { name, took: start.elapsed(), result });
    }

    /// Keeps a line for the end.
    pub(crate) fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Prints the table, which has the first line of each failure; the rest stands where it happened. Fails if a step has failed.
    pub(crate) fn finish(&self) -> Result<()> {
        print!("\n{}", self.table());
        let failed: Vec<_> = self.steps.iter().filter(|step| step.result.is_err()).map(|step| step.name).collect();
        if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
    }

    fn table(&self) -> String {
        let width = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0).max("step".len());
        let mut table = format!("{:<width$}  {:>9}  result\n", "step", "time");
        for Step { name, took, result } in &self.steps {
            let result = match result {
                Ok(said) if said.is_empty() => "ok".to_owned(),
                Ok(said) => format!("ok: {said}"),
                Err(message) => format!("FAILED: {}", message.lines().next().unwrap_or_default()),
            };
            let _ = writeln!(table, "{name:<width$}  {:>7.1} s  {result}", took.as_secs_f64());
        }
        for note in &self.notes {
            table += note;
            table.push('\n');
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_after_a_failed_one_run_and_the_end_is_a_failure() {
        let mut summary = Summary::default();
        summary.step("first", || Err("it broke\nin three places".to_owned()));
        summary.step("second", || Ok("12 things".to_owned()));
        summary.note("skipped: php".to_owned());
        let table = summary.table();
        assert!(table.contains("FAILED: it broke\n") && table.contains("ok: 12 things"), "{table}");
        assert!(table.ends_with("skipped: php\n"), "{table}");
        assert_eq!(summary.finish().unwrap_err(), "failed: first");
    }

    #[test]
    fn all_well_is_well() {
        let mut summary = Summary::default();
        summary.step("only", || Ok(String::new()));
        assert_eq!(summary.finish(), Ok(()));
    }
}
