//! Cargo.toml, read as simply as this project writes it: a line is a header or `key = value`.

/// What the rules need to know of one Cargo.toml.
#[derive(Debug, Default)]
pub(super) struct Manifest {
    /// Where it lies: `stores/files`; the top is empty.
    pub(super) folder: String,
    /// The package's name; empty where there is no package.
    pub(super) name: String,
    /// As written: `"0.1.0"`, or `workspace` if it is inherited.
    pub(super) version: Option<String>,
    /// The version that packages inherit.
    pub(super) workspace_version: Option<String>,
    pub(super) has_features: bool,
    pub(super) dependencies: Vec<Dependency>,
}

/// One dependency, under the name of the package and not the one it may have been given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) package: String,
    pub(super) kind: Kind,
    pub(super) version: Option<String>,
    pub(super) line: usize,
    alias: String,
}

/// Which table a dependency stands in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[dependencies]` and `[build-dependencies]`: what a build for users needs.
    #[default]
    Normal,
    /// `[dev-dependencies]`: tests may need what they like.
    Dev,
    /// `[workspace.dependencies]`: only what others inherit.
    Workspace,
}

impl Manifest {
    /// All manifests among the files.
    pub(super) fn all<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Manifest> {
        let mut manifests: Vec<Manifest> = files
            .filter_map(|(path, text)| {
                let folder = path.strip_suffix("Cargo.toml")?;
                (folder.is_empty() || folder.ends_with('/')).then(|| Manifest::read(folder.trim_end_matches('/'), text))
            })
            .collect();
        let top = manifests.iter().find(|manifest| manifest.folder.is_empty());
        let renamed: Vec<(String, String)> = top.map_or(Vec::new(), |top| {
            let renamed = top.dependencies.iter().filter(|dependency| dependency.alias != dependency.package);
            renamed.map(|dependency| (dependency.alias.clone(), dependency.package.clone())).collect()
        });
        for dependency in manifests.iter_mut().flat_map(|manifest| &mut manifest.dependencies) {
            if let Some((_, package)) = renamed.iter().find(|(alias, _)| *alias == dependency.package) {
                dependency.package.clone_from(package);
            }
        }
        manifests
    }

    fn read(folder: &str, text: &str) -> Manifest {
        let mut manifest = Manifest { folder: folder.to_owned(), ..Manifest::default() };
        let mut table = String::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                header.0.trim_matches(['[', ']', ' ']).clone_into(&mut table);
                if let Some((kind, Some(name))) = dependency_table(&table) {
                    manifest.dependencies.push(Dependency::new(name, kind, at + 1));
                }
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                manifest.take(&table, key.trim(), value.trim(), at + 1);
            }
        }
        manifest
    }

    fn take(&mut self, table: &str, key: &str, value: &str, line: usize) {
        let text = || value.split('"').nth(1).unwrap_or_default().to_owned();
        match (table, key) {
            ("package", "name") => self.name = text(),
            ("package", "version") => self.version = Some(text()),
            ("package", "version.workspace") => self.version = Some("workspace".to_owned()),
            ("workspace.package", "version") => self.workspace_version = Some(text()),
            ("features", _) => self.has_features = true,
            _ => match dependency_table(table) {
                Some((kind, None)) => {
                    let mut dependency = Dependency::new(key.split('.').next().unwrap_or(key), kind, line);
                    dependency.package = field(value, "package").unwrap_or(dependency.package);
                    let plain = value.starts_with('"').then(text);
                    dependency.version = field(value, "version").or(plain);
                    self.dependencies.push(dependency);
                }
                Some((_, Some(_))) => {
                    let last = self.dependencies.last_mut();
                    match (last, key) {
                        (Some(last), "package") => last.package = text(),
                        (Some(last), "version") => last.version = Some(text()),
                        _ => {}
                    }
                }
                None => {}
            },
        }
    }

    /// Whether this is a package of the workspace, not of one of those that stand beside it.
    pub(super) fn in_workspace(&self) -> bool {
        !self.name.is_empty() && !["bench", "fuzz"].iter().any(|apart| self.folder.starts_with(apart))
    }
}

impl Dependency {
    fn new(name: &str, kind: Kind, line: usize) -> Dependency {
        let name = name.trim_matches('"').to_owned();
        Dependency { package: name.clone(), kind, version: None, line, alias: name }
    }
}

/// Whether a table holds dependencies, of which kind, and of which name if it is the table of one alone.
fn dependency_table(table: &str) -> Option<(Kind, Option<&str>)> {
    for (word, kind) in [
        ("workspace.dependencies", Kind::Workspace),
        ("dev-dependencies", Kind::Dev),
        ("build-dependencies", Kind::Normal),
        ("dependencies", Kind::Normal),
    ] {
        let Some(at) = table.find(word) else { continue };
        let (before, after) = (&table[..at], &table[at + word.len()..]);
        let starts = before.is_empty() || before.starts_with("target.");
        match after.strip_prefix('.') {
            Some(name) if starts => return Some((kind, Some(name))),
            None if starts && after.is_empty() => return Some((kind, None)),
            _ => {}
        }
    }
    None
}

/// A text inside an inline table: `{ version = "=0.1.0", ... }`.
fn field(value: &str, name: &str) -> Option<String> {
    let inside = value.strip_prefix('{')?;
    let (_, rest) = inside.split(',').find_map(|part| part.split_once('=').filter(|(key, _)| key.trim() == name))?;
    Some(rest.split('"').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Manifest {
        Manifest::all([("a/Cargo.toml", text)].into_iter()).remove(0)
    }

    fn seen(manifest: &Manifest) -> Vec<(&str, Kind)> {
        manifest.dependencies.iter().map(|dependency| (dependency.package.as_str(), dependency.kind)).collect()
    }

    #[test]
    fn dependencies_are_found_however_they_are_written() {
        let manifest = read(
            "[dependencies]\na = \"1\"\nb.workspace = true # why\nc = { version = \"2\", features = [\n  \"x\",\n] }\n\
             # d = \"1\"\ne = { path = \"p\", package = \"real-e\" }\n\n[dependencies.f]\nversion = \"3\"\npackage = \
             \"real-f\"\n[target.'cfg(unix)'.dependencies]\ng = \"1\"\n[build-dependencies]\nh = \"1\"\n\
             [dev-dependencies]\ni = \"1\"\n[target.x.dev-dependencies.j]\npath = \"..\"\n[lints]\nworkspace = true\n",
        );
        let names = ["a", "b", "c", "real-e", "real-f", "g", "h"].map(|name| (name, Kind::Normal));
        assert_eq!(seen(&manifest)[..7], names);
        assert_eq!(seen(&manifest)[7..], [("i", Kind::Dev), ("j", Kind::Dev)]);
        let versions: Vec<_> = manifest.dependencies.iter().map(|dependency| dependency.version.as_deref()).collect();
        assert_eq!(versions[..5], [Some("1"), None, Some("2"), None, Some("3")]);
        assert_eq!(manifest.dependencies[2].line, 4);
    }

    #[test]
    fn packages_and_features_are_found() {
        let manifest = read("[package]\nname = \"x\"\nversion.workspace = true\n[features]\n# none\n");
        assert_eq!((manifest.name.as_str(), manifest.folder.as_str()), ("x", "a"));
        assert_eq!(manifest.version.as_deref(), Some("workspace"));
        assert!(!manifest.has_features);
        assert!(read("[features]\ny = []\n").has_features);
    }

    #[test]
    fn renaming_in_the_workspace_is_followed() {
        let top = "[workspace.dependencies]\nshort = { package = \"long\", version = \"1\" }\n";
        let files = [("Cargo.toml", top), ("a/Cargo.toml", "[dependencies]\nshort.workspace = true\n")];
        let manifests = Manifest::all(files.into_iter());
        assert_eq!(seen(&manifests[1]), [("long", Kind::Normal)]);
    }
}
