//! PHP's transcripts as recorded data: scenarios can be checked without PHP, and a PHP that changed is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::compare::patched;
use crate::error::{Doing, Failure, Result};
use crate::play::Transcript;
use crate::scenario::{self, Scenario};

/// What PHP answered to the scenarios of one area.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The version that answered.
    pub php: String,
    /// By the scenario's name.
    pub transcripts: BTreeMap<String, Transcript>,
}

impl Golden {
    /// What a PHP of this version is known to answer: the record, with the scenario's row for PHP 8.4 applied if the record is older.
    pub fn answers(&self, scenario: &Scenario, version: &str) -> Result<Transcript> {
        let recorded = self.transcripts.get(&scenario.name);
        let recorded = recorded.ok_or_else(|| Failure::new(format!("{} is not recorded yet", scenario.name)))?;
        Ok(match &scenario.php84 {
            Some(patches) if at_least_84(version) && !at_least_84(&self.php) => patched(recorded, patches),
            _ => recorded.clone(),
        })
    }
}

fn at_least_84(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(8), Some(4))
}

fn path(area: &str) -> PathBuf {
    scenario::folder().join("golden").join(format!("{area}.json"))
}

/// Reads the record of an area.
pub fn read(area: &str) -> Result<Golden> {
    let path = path(area);
    let text = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).doing(|| format!("reading {}", path.display()))
}

/// Writes the record of an area.
pub fn write(area: &str, golden: &Golden) -> Result<()> {
    let path = path(area);
    let text = serde_json::to_string_pretty(golden).doing(|| format!("writing {}", path.display()))?;
    fs::write(&path, text + "\n").doing(|| format!("writing {}", path.display()))
}
