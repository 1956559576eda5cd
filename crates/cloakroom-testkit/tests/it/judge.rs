//! Every scenario is played twice against real PHP: both runs agree, and both are what was recorded.

use std::fmt::Write as _;

use cloakroom_testkit::compare::compare;
use cloakroom_testkit::golden;
use cloakroom_testkit::php::{self, Judge};
use cloakroom_testkit::play::play;
use cloakroom_testkit::scenario;

#[test]
fn php_agrees_with_itself_and_with_its_record() {
    if php::skip("php") {
        return;
    }
    let version = php::version().unwrap();
    let (one, other) = (Judge::default(), Judge::default());
    let mut report = String::new();
    for area in scenario::load_all().unwrap() {
        let golden = golden::read(&area.name).unwrap();
        for scenario in &area.scenarios {
            if !scenario.playable() {
                continue;
            }
            let first = play(scenario, one.addr(scenario).unwrap()).unwrap();
            let second = play(scenario, other.addr(scenario).unwrap()).unwrap();
            for difference in compare(scenario, &first, &second) {
                let _ = writeln!(report, "{}/{}: two runs of PHP differ: {difference}", area.name, scenario.name);
            }
            for difference in compare(scenario, &golden.answers(scenario, &version).unwrap(), &first) {
                let _ = writeln!(
                    report,
                    "{}/{}: PHP {version} differs from the record: {difference}",
                    area.name, scenario.name
                );
            }
        }
    }
    assert!(report.is_empty(), "{report}");
}
