//! PHP's transcripts as recorded data: scenarios can be checked without PHP, and a PHP that changed is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Doing, Result};
use crate::play::Transcript;
use crate::scenario;

/// What PHP answered to the scenarios of one area.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// The version that answered.
    pub php: String,
    /// By the scenario's name.
    pub transcripts: BTreeMap<String, Transcript>,
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
