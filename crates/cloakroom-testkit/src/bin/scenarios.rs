//! The scenarios from the command line: record PHP's answers, play them against a server, list the deliberate differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;

use cloakroom_testkit::compare::{Difference, compare, expected_of_cloakroom};
use cloakroom_testkit::error::{Doing, Failure, Result};
use cloakroom_testkit::golden::{self, Golden};
use cloakroom_testkit::php::{self, Judge};
use cloakroom_testkit::play::play;
use cloakroom_testkit::scenario::{self, Area, Scenario};

const USAGE: &str = "usage: scenarios COMMAND [--only TEXT]   (TEXT: an area, or part of a scenario's name)
  play --against ADDR [--golden]  play against a probe at ADDR and compare with PHP (or with its recorded answers)
  check                           play against PHP and compare with its recorded answers
  record                          play against PHP and record its answers in fixtures/scenarios/golden
  show                            play against PHP and print its answers
  compat                          print the deliberate differences as a Markdown table
  list                            print every scenario and what it shows";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok((text, ok)) => {
            say(&text);
            if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(failure) => {
            say(&format!("scenarios: {failure}\n"));
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "a command's answer")]
fn say(text: &str) {
    print!("{text}");
}

/// What to print, and whether all is well.
fn run(arguments: &[String]) -> Result<(String, bool)> {
    let option = |name: &str| {
        let at = arguments.iter().position(|one| one == name)?;
        arguments.get(at + 1).cloned()
    };
    let mut areas = scenario::load_all()?;
    if let Some(only) = option("--only") {
        if areas.iter().any(|area| area.name == only) {
            areas.retain(|area| area.name == only);
        } else {
            for area in &mut areas {
                area.scenarios.retain(|scenario| scenario.name.contains(&only));
            }
        }
        areas.retain(|area| !area.scenarios.is_empty());
    }
    match arguments.first().map(String::as_str) {
        Some("play") => {
            let against = option("--against").ok_or_else(|| Failure::new("play needs --against ADDR"))?;
            play_against(&areas, address(&against)?, arguments.iter().any(|one| one == "--golden"))
        }
        Some("check") => check(&areas),
        Some("record") => record(&areas),
        Some("show") => show(&areas),
        Some("compat") => Ok((compat(&areas), true)),
        Some("list") => Ok((list(&areas), true)),
        _ => Err(Failure::new(USAGE)),
    }
}

fn address(text: &str) -> Result<SocketAddr> {
    let text = text.trim_start_matches("http://").trim_end_matches('/');
    let mut found = text.to_socket_addrs().doing(|| format!("looking up {text}"))?;
    found.next().ok_or_else(|| Failure::new(format!("{text} is no address")))
}

/// Counts and prints: one run over all scenarios.
#[derive(Default)]
struct Tally {
    text: String,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn count(&mut self, area: &Area, scenario: &Scenario, outcome: Result<Vec<Difference>>) {
        let problems: Vec<String> = match outcome {
            Ok(differences) => differences.iter().map(ToString::to_string).collect(),
            Err(failure) => vec![failure.to_string()],
        };
        if problems.is_empty() {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        let _ = writeln!(self.text, "FAILED {}/{} ({})", area.name, scenario.name, scenario.shows);
        for problem in problems {
            let _ = writeln!(self.text, "  {problem}");
        }
    }

    fn end(mut self) -> (String, bool) {
        let Self { passed, failed, skipped, .. } = self;
        let _ = write!(self.text, "{passed} passed, {failed} failed");
        let _ = writeln!(
            self.text,
            "{}",
            if skipped > 0 { format!(", {skipped} skipped (need another user)") } else { String::new() }
        );
        (self.text, failed == 0)
    }
}

fn play_against(areas: &[Area], target: SocketAddr, recorded: bool) -> Result<(String, bool)> {
    let judge = Judge::default();
    let recorded = recorded || php::skip("php");
    let mut tally = Tally::default();
    for area in areas {
        let golden = if recorded { Some(golden::read(&area.name)?) } else { None };
        for scenario in &area.scenarios {
            if !scenario.playable() {
                tally.skipped += 1;
                continue;
            }
            let outcome = (|| {
                let php = match &golden {
                    Some(golden) => golden.answers(scenario, &golden.php)?,
                    None => play(scenario, judge.addr(scenario)?)?,
                };
                Ok(compare(scenario, &expected_of_cloakroom(scenario, &php), &play(scenario, target)?))
            })();
            tally.count(area, scenario, outcome);
        }
    }
    Ok(tally.end())
}

fn check(areas: &[Area]) -> Result<(String, bool)> {
    let judge = Judge::default();
    let version = php::version()?;
    let mut tally = Tally::default();
    for area in areas {
        let golden = golden::read(&area.name)?;
        for scenario in &area.scenarios {
            if !scenario.playable() {
                tally.skipped += 1;
                continue;
            }
            let outcome = (|| {
                let recorded = golden.answers(scenario, &version)?;
                Ok(compare(scenario, &recorded, &play(scenario, judge.addr(scenario)?)?))
            })();
            tally.count(area, scenario, outcome);
        }
    }
    Ok(tally.end())
}

fn record(areas: &[Area]) -> Result<(String, bool)> {
    let judge = Judge::default();
    let version = php::version()?;
    let mut text = String::new();
    for area in areas {
        let before = golden::read(&area.name).map(|golden| golden.transcripts).unwrap_or_default();
        let mut transcripts = BTreeMap::new();
        for scenario in &area.scenarios {
            if scenario.playable() {
                let transcript = play(scenario, judge.addr(scenario)?)?;
                let changed =
                    before.get(&scenario.name).map(|was| compare(scenario, was, &transcript)).unwrap_or_default();
                for difference in changed {
                    let _ = writeln!(text, "CHANGED {}/{}: {difference}", area.name, scenario.name);
                }
                transcripts.insert(scenario.name.clone(), transcript);
            } else if let Some(was) = before.get(&scenario.name) {
                transcripts.insert(scenario.name.clone(), was.clone());
            }
        }
        let _ = writeln!(text, "{}: {} scenarios", area.name, transcripts.len());
        golden::write(&area.name, &Golden { php: version.clone(), transcripts })?;
    }
    Ok((text, true))
}

fn show(areas: &[Area]) -> Result<(String, bool)> {
    let judge = Judge::default();
    let mut text = String::new();
    for scenario in areas.iter().flat_map(|area| &area.scenarios).filter(|scenario| scenario.playable()) {
        let transcript = play(scenario, judge.addr(scenario)?)?;
        let _ = writeln!(text, "== {} ({})", scenario.name, scenario.shows);
        let mut ops = scenario.requests.iter().flat_map(|request| std::iter::once(request).chain(&request.meanwhile));
        for answer in &transcript.answers {
            let _ = writeln!(text, "-- {} {}", answer.status, answer.headers.join(" | "));
            let ops = ops.next().map(|request| request.ops.clone()).unwrap_or_default();
            for (n, result) in answer.results.iter().enumerate() {
                let op = ops.get(n).map(ToString::to_string).unwrap_or_default();
                let said = answer.said.get(n).map(ToString::to_string).filter(|said| said != "[]").unwrap_or_default();
                let _ = writeln!(text, "   {op} -> {result} {said}");
            }
            let json = |value: std::result::Result<String, serde_json::Error>| value.unwrap_or_default();
            if answer.said.len() > answer.results.len() {
                let _ = writeln!(
                    text,
                    "   at the end: {}",
                    json(serde_json::to_string(&answer.said[answer.results.len()]))
                );
            }
            if let Some(refused) = &answer.refused {
                let _ = writeln!(text, "   refused {}", refused.join(" "));
            }
            if let Some(body) = &answer.body {
                let _ = writeln!(text, "   body {body}");
            }
            for (name, entry) in answer.store.iter().flatten() {
                let _ = writeln!(text, "   {name}: {}", json(serde_json::to_string(entry)));
            }
        }
    }
    Ok((text, true))
}

fn compat(areas: &[Area]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut text = "| Case | PHP | cloakroom differs because | Follows from |\n|---|---|---|---|\n".to_owned();
    for scenario in areas.iter().flat_map(|area| &area.scenarios) {
        if let Some(differs) = &scenario.differs {
            let name = scenario.name.replace('_', " ");
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {} |",
                cell(&scenario.shows),
                cell(&differs.reason),
                cell(&differs.rule)
            );
        }
    }
    text
}

fn list(areas: &[Area]) -> String {
    let mut text = String::new();
    for area in areas {
        let _ = writeln!(text, "{} ({})", area.name, area.scenarios.len());
        for scenario in &area.scenarios {
            let mark = if scenario.differs.is_some() { " [differs]" } else { "" };
            let _ = writeln!(text, "  {}{mark}: {}", scenario.name, scenario.shows);
        }
    }
    text
}
