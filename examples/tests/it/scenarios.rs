//! Every scenario, played against cloakroom's probe and against PHP.

use cloakroom_testkit::compare::{compare, expected_of_cloakroom};
use cloakroom_testkit::golden;
use cloakroom_testkit::php::{Judge, skip};
use cloakroom_testkit::play::play;
use cloakroom_testkit::scenario;

use crate::program::start;

#[test]
fn the_probe_answers_as_php_does() {
    let probe = start("probe", &[]);
    let judge = Judge::default();
    let (mut played, mut failed) = (0, Vec::new());
    for area in scenario::load_all().unwrap() {
        let recorded = skip("php").then(|| golden::read(&area.name).unwrap());
        for scenario in &area.scenarios {
            if !scenario.playable() {
                continue;
            }
            played += 1;
            let php = match &recorded {
                Some(golden) => golden.transcripts[&scenario.name].clone(),
                None => play(scenario, judge.addr(scenario).unwrap()).unwrap(),
            };
            let ours = play(scenario, probe.addr()).unwrap();
            for difference in compare(scenario, &expected_of_cloakroom(scenario, &php), &ours) {
                failed.push(format!("{}/{}: {difference}", area.name, scenario.name));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {played} scenarios differ:\n{}", failed.len(), failed.join("\n"));
}
