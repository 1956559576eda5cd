//! Rules about who may depend on whom: `php <- core <- stores, web <- cloakroom <- cli, demo`.

use super::manifest::{Dependency, Kind, Manifest};
use super::{Finding, Rule};

/// The layers: where their packages lie, and on which layers they may build. Tests may need what they like.
const LAYERS: &[(Layer, &str, &[Layer])] = &[
    (Layer::Php, "crates/cloakroom-php", &[]),
    (Layer::Core, "crates/cloakroom-core", &[Layer::Php]),
    (Layer::Store, "stores/*", &[Layer::Core]),
    (Layer::Web, "web/*", &[Layer::Core]),
    (Layer::Facade, "crates/cloakroom", &[Layer::Php, Layer::Core, Layer::Store, Layer::Web]),
    (Layer::Program, "crates/cloakroom-cli", &[Layer::Facade]),
    (Layer::Program, "crates/cloakroom-inspect", &[Layer::Facade]),
    (Layer::Program, "demo", &[Layer::Facade]),
    (Layer::Program, "examples", &[Layer::Facade]),
    (Layer::Testkit, "crates/cloakroom-testkit", &[Layer::Php, Layer::Core]),
    (Layer::Alone, "xtask", &[]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Php,
    Core,
    Store,
    Web,
    Facade,
    Program,
    Testkit,
    /// Not even on what others have written, so that it builds when nothing else does.
    Alone,
}

/// Beginnings of the names of packages that talk to a database.
const CLIENTS: &[&str] = &[
    "async-memcached",
    "bb8",
    "bmemcached",
    "deadpool",
    "diesel",
    "fred",
    "libmysqlclient",
    "libpq",
    "libsqlite3-sys",
    "memcache",
    "mysql",
    "pq-sys",
    "postgres",
    "r2d2",
    "redis",
    "rusqlite",
    "sea-orm",
    "sqlite",
    "sqlx",
    "tokio-postgres",
];

pub(super) const DIRECTION: Rule = Rule {
    name: "direction",
    instead: "move the code to the layer that may use both sides: php <- core <- stores, web <- cloakroom <- cli, demo",
    check: |tree| {
        let mut findings = Vec::new();
        for manifest in tree.manifests.iter().filter(|manifest| manifest.in_workspace()) {
            let Some((layer, _, may)) = layer(&manifest.folder) else { continue };
            for dependency in manifest.dependencies.iter().filter(|dependency| dependency.kind == Kind::Normal) {
                let target = tree.manifests.iter().find(|other| other.name == dependency.package);
                let target = target.and_then(|other| self::layer(&other.folder)).map(|(layer, ..)| *layer);
                if target.is_some_and(|target| !may.contains(&target)) || *layer == Layer::Alone {
                    let path = format!("{}/Cargo.toml", manifest.folder);
                    let what = format!("{} must not depend on {}", manifest.name, dependency.package);
                    findings.push(Finding::on_line(&path, dependency.line, what));
                }
            }
        }
        findings
    },
};

pub(super) const KNOWN_LAYER: Rule = Rule {
    name: "layer",
    instead: "give the package a row in `LAYERS` in xtask/src/tidy/layers.rs",
    check: |tree| {
        let manifests = tree.manifests.iter().filter(|manifest| manifest.in_workspace());
        let strangers = manifests.filter(|manifest| layer(&manifest.folder).is_none());
        let finding = |manifest: &Manifest| Finding::in_file(&format!("{}/Cargo.toml", manifest.folder), "no layer");
        strangers.map(finding).collect()
    },
};

pub(super) const VERSIONS: Rule = Rule {
    name: "versions",
    instead: "inherit the one version: `version.workspace = true`, and `version = \"=X.Y.Z\"` in the workspace's dependencies",
    check: |tree| {
        let Some(top) = tree.manifests.iter().find(|manifest| manifest.folder.is_empty()) else { return Vec::new() };
        let exact = format!("={}", top.workspace_version.as_deref().unwrap_or_default());
        let mut findings = Vec::new();
        for manifest in tree.manifests.iter().filter(|manifest| manifest.in_workspace() || manifest.folder.is_empty()) {
            let path = if manifest.folder.is_empty() { String::new() } else { format!("{}/", manifest.folder) };
            let path = path + "Cargo.toml";
            let own = manifest.version.as_deref().filter(|version| *version != "workspace");
            findings.extend(own.map(|version| Finding::in_file(&path, format!("version {version} of its own"))));
            let is_ours = |dependency: &&Dependency| tree.manifests.iter().any(|m| m.name == dependency.package);
            for dependency in manifest.dependencies.iter().filter(is_ours) {
                if dependency.version.as_ref().is_some_and(|version| *version != exact) {
                    let what = format!("{} is wanted as {:?}", dependency.package, dependency.version);
                    findings.push(Finding::on_line(&path, dependency.line, what));
                }
            }
        }
        findings
    },
};

fn layer(folder: &str) -> Option<&'static (Layer, &'static str, &'static [Layer])> {
    LAYERS.iter().find(|(_, pattern, _)| match pattern.strip_suffix('*') {
        Some(parent) => folder.strip_prefix(parent).is_some_and(|name| !name.contains('/')),
        None => folder == *pattern,
    })
}

/// The database clients in what `cargo tree --prefix none` prints.
pub(super) fn clients(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut clients: Vec<&str> = names.filter(|name| CLIENTS.iter().any(|client| name.starts_with(client))).collect();
    clients.sort_unstable();
    clients.dedup();
    clients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_found_in_what_cargo_prints() {
        let tree = "cloakroom-demo v0.1.0 (demo)\naxum v0.8.9\nredis v1.0.0\nmysql_async v0.36.0\nredis v1.0.0 (*)\n";
        assert_eq!(clients(tree), ["mysql_async", "redis"]);
        assert_eq!(clients("cloakroom-demo v0.1.0\ncloakroom-store-files v0.1.0\nmemchr v2.8.3\n"), [""; 0]);
    }

    #[test]
    fn layers_are_found_by_folder() {
        assert_eq!(layer("stores/redis").unwrap().0, Layer::Store);
        assert_eq!(layer("crates/cloakroom").unwrap().0, Layer::Facade);
        assert!(layer("stores/redis/deep").is_none());
        assert!(layer("crates/cloakroom-new").is_none());
    }
}
