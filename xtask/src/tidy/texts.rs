//! Rules about every text file.

use super::{Finding, Rule};

/// Folders directly under `/` that hold one person's or one machine's files.
const PRIVATE_FOLDERS: &[&str] = &["Users", "home", "root", "work"];

pub(super) const WHITE_SPACE: Rule = Rule {
    name: "white space",
    instead: "take the white space at the end of the line away, and end lines with a line feed alone",
    check: |tree| {
        // What PHP wrote stays as PHP wrote it, and so does what a snapshot holds.
        let ours = tree.files.iter().filter(|file| {
            let recorded = file.path.split('/').any(|part| matches!(part, "fixtures" | "snapshots"));
            !recorded && file.extension() != Some("snap")
        });
        ours.flat_map(|file| {
            let lines = file.text.split('\n').enumerate();
            let loose = lines.filter(|(_, line)| line.ends_with([' ', '\t', '\r']));
            loose.map(|(at, _)| Finding::on_line(&file.path, at + 1, "white space at the end"))
        })
        .collect()
    },
};

pub(super) const MACHINES: Rule = Rule {
    name: "machines",
    instead: "write the path from the top of the repository, or make one with tempfile",
    check: |tree| {
        let mut findings = Vec::new();
        for file in &tree.files {
            for (at, line) in file.text.lines().enumerate() {
                findings.extend(private_path(line).map(|path| Finding::on_line(&file.path, at + 1, path)));
            }
        }
        findings
    },
};

/// A path into a private folder, such as `/home/` with something after it. A URL's path does not count.
fn private_path(line: &str) -> Option<&str> {
    PRIVATE_FOLDERS.iter().find_map(|folder| {
        let pattern = format!("/{folder}/");
        line.match_indices(&pattern).find_map(|(at, _)| {
            let starts = !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_./~}".contains(c));
            let rest = &line[at + pattern.len()..];
            let name = rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || "-_.".contains(c)).len();
            (starts && name > 0).then(|| &line[at..at + pattern.len() + name])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_paths_are_told_from_others() {
        let path = |folder: &str| format!("/{folder}/ann");
        assert_eq!(private_path(&format!("see `{}/x`", path("home"))), Some(path("home").as_str()));
        assert_eq!(private_path(&format!("({})", path("work"))), Some(path("work").as_str()));
        assert_eq!(private_path(&format!("https://example.org{}", path("home"))), None);
        assert_eq!(private_path(&format!("target{}", path("work"))), None);
        assert_eq!(private_path(&format!("/{}/", "root")), None);
        assert_eq!(private_path("/var/lib/php/sessions"), None);
    }
}
