//! For each rule a small tree that breaks it, and one close by that does not.

use super::{Finding, RULES, Tree};

struct Sample {
    rule: &'static str,
    broken: &'static [(&'static str, &'static str)],
    /// Path, line and a part of what is said.
    finds: (&'static str, Option<usize>, &'static str),
    well: &'static [(&'static str, &'static str)],
}

const CORE: (&str, &str) = ("crates/cloakroom-core/Cargo.toml", "[package]\nname = \"cloakroom-core\"\n");
const PHP: (&str, &str) = ("crates/cloakroom-php/Cargo.toml", "[package]\nname = \"cloakroom-php\"\n");
const FACADE: (&str, &str) = ("crates/cloakroom/Cargo.toml", "[package]\nname = \"cloakroom\"\n");
const REDIS: (&str, &str) = ("stores/redis/Cargo.toml", "[package]\nname = \"store-redis\"\n");
const TOP: (&str, &str) = ("Cargo.toml", "[workspace.package]\nversion = \"0.1.0\"\n");

const SAMPLES: &[Sample] = &[
    Sample {
        rule: "purpose",
        broken: &[("demo/src/main.rs", "// a comment\nfn main() {}\n")],
        finds: ("demo/src/main.rs", Some(1), "//!"),
        well: &[
            ("demo/src/main.rs", "//! A shop.\nfn main() {}\n"),
            ("stores/a/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n"),
            ("demo/shop.php", "<?php\n"),
        ],
    },
    Sample {
        rule: "clock",
        broken: &[("crates/a/src/lib.rs", "//! A.\nfn f() {\n    let t = std::time::SystemTime::now();\n}\n")],
        finds: ("crates/a/src/lib.rs", Some(3), "SystemTime::now"),
        well: &[
            ("crates/cloakroom-core/src/clock.rs", "fn now() { SystemTime::now() }"),
            ("stores/files/src/sweep.rs", "fn now() { SystemTime::now() }"),
            ("crates/a/tests/it/main.rs", "fn now() { SystemTime::now() }"),
            ("crates/a/src/lib.rs", "// not SystemTime::now() but the clock\n"),
        ],
    },
    Sample {
        rule: "unsafe",
        broken: &[("crates/a/src/lib.rs", "fn f() {\n    unsafe { g() }\n}")],
        finds: ("crates/a/src/lib.rs", Some(2), "unsafe"),
        well: &[("crates/a/src/lib.rs", "#![forbid(unsafe_code)]\n// unsafe\nconst A: &str = \"unsafe\";\n")],
    },
    Sample {
        rule: "allow",
        broken: &[("crates/a/src/lib.rs", "fn f() {}\n#[allow(dead_code)]\nfn g() {}\n")],
        finds: ("crates/a/src/lib.rs", Some(2), "allow"),
        well: &[("crates/a/src/lib.rs", "#[expect(dead_code, reason = \"no #[allow(x)]\")]\nfn allow() {}\n")],
    },
    Sample {
        rule: "allow",
        broken: &[("crates/a/src/lib.rs", "#![cfg_attr(test, allow(dead_code))]\n")],
        finds: ("crates/a/src/lib.rs", Some(1), "allow"),
        well: &[("crates/a/src/lib.rs", "#![cfg_attr(test, expect(dead_code))]\n")],
    },
    Sample {
        rule: "unfinished",
        broken: &[("crates/a/src/lib.rs", "fn f() { unimplemented!(\"later\") }\n")],
        finds: ("crates/a/src/lib.rs", Some(1), "unimplemented!"),
        well: &[("crates/a/src/lib.rs", "/* todo!() */ fn f() {}\n")],
    },
    Sample {
        rule: "ignored",
        broken: &[("crates/a/src/lib.rs", "#[test]\n#[ignore = \"no server\"]\nfn f() {}\n")],
        finds: ("crates/a/src/lib.rs", Some(2), "ignore"),
        well: &[("crates/a/src/lib.rs", "#[test]\nfn ignore() {}\n")],
    },
    Sample {
        rule: "ignored",
        broken: &[("crates/a/src/lib.rs", "//! A.\n//! ```rust,ignore\n//! f()\n//! ```\n")],
        finds: ("crates/a/src/lib.rs", Some(2), "not compiled"),
        well: &[("crates/a/src/lib.rs", "//! ```no_run\n//! f() // ignore\n//! ```\n")],
    },
    Sample {
        rule: "direction",
        broken: &[
            PHP,
            ("stores/a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\ncloakroom-php.workspace = true\n"),
        ],
        finds: ("stores/a/Cargo.toml", Some(4), "a must not depend on cloakroom-php"),
        well: &[
            (PHP),
            (CORE),
            (
                "stores/a/Cargo.toml",
                "[package]\nname = \"a\"\n[dependencies]\ncloakroom-core.workspace = true\nother = \"1\"\n\
                 [dev-dependencies]\ncloakroom-php.workspace = true\n",
            ),
        ],
    },
    Sample {
        rule: "direction",
        broken: &[REDIS, ("stores/a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\nstore-redis = \"1\"\n")],
        finds: ("stores/a/Cargo.toml", Some(4), "store-redis"),
        well: &[
            REDIS,
            ("crates/cloakroom/Cargo.toml", "[package]\nname = \"c\"\n[dependencies]\nstore-redis = \"1\"\n"),
        ],
    },
    Sample {
        rule: "direction",
        broken: &[REDIS, ("web/a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies.store-redis]\npath = \"x\"\n")],
        finds: ("web/a/Cargo.toml", Some(3), "store-redis"),
        well: &[CORE, ("web/a/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\ncloakroom-core = \"1\"\n")],
    },
    Sample {
        rule: "direction",
        broken: &[CORE, ("demo/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\ncloakroom-core = \"1\"\n")],
        finds: ("demo/Cargo.toml", Some(4), "cloakroom-core"),
        well: &[FACADE, ("demo/Cargo.toml", "[package]\nname = \"a\"\n[dependencies]\ncloakroom = \"1\"\n")],
    },
    Sample {
        rule: "direction",
        broken: &[("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n[dependencies]\nserde = \"1\"\n")],
        finds: ("xtask/Cargo.toml", Some(4), "serde"),
        well: &[("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n[dependencies]\n")],
    },
    Sample {
        rule: "layer",
        broken: &[("crates/cloakroom-new/Cargo.toml", "[package]\nname = \"cloakroom-new\"\n")],
        finds: ("crates/cloakroom-new/Cargo.toml", None, "no layer"),
        well: &[REDIS, CORE, ("bench/Cargo.toml", "[package]\nname = \"bench\"\n")],
    },
    Sample {
        rule: "versions",
        broken: &[TOP, ("demo/Cargo.toml", "[package]\nname = \"demo\"\nversion = \"0.2.0\"\n")],
        finds: ("demo/Cargo.toml", None, "0.2.0"),
        well: &[TOP, ("demo/Cargo.toml", "[package]\nname = \"demo\"\nversion.workspace = true\n")],
    },
    Sample {
        rule: "versions",
        broken: &[
            CORE,
            (
                "Cargo.toml",
                "[workspace.package]\nversion = \"0.1.0\"\n[workspace.dependencies]\n\
                 cloakroom-core = { path = \"crates/cloakroom-core\", version = \"0.1.0\" }\n",
            ),
        ],
        finds: ("Cargo.toml", Some(4), "cloakroom-core"),
        well: &[
            CORE,
            (
                "Cargo.toml",
                "[workspace.package]\nversion = \"0.1.0\"\n[workspace.dependencies]\n\
                 cloakroom-core = { path = \"crates/cloakroom-core\", version = \"=0.1.0\" }\nserde = \"1\"\n",
            ),
        ],
    },
    Sample {
        rule: "stores",
        broken: &[
            REDIS,
            ("stores/redis/src/lib.rs", ""),
            ("stores/redis/src/store.rs", ""),
            ("stores/redis/src/util.rs", ""),
        ],
        finds: ("stores/redis/src/util.rs", None, "util"),
        well: &[
            REDIS,
            ("stores/redis/src/lib.rs", ""),
            ("stores/redis/src/store.rs", ""),
            ("stores/redis/tests/it/x.rs", ""),
        ],
    },
    Sample {
        rule: "stores",
        broken: &[REDIS, ("stores/redis/src/lib.rs", "")],
        finds: ("stores/redis", None, "store.rs"),
        well: &[REDIS, ("stores/redis/src/lib.rs", ""), ("stores/redis/src/store.rs", "")],
    },
    Sample {
        rule: "adapters",
        broken: &[("web/tower/src/helpers/mod.rs", "")],
        finds: ("web/tower/src/helpers/mod.rs", None, "helpers"),
        well: &[("web/tower/src/layer.rs", ""), ("web/tower/src/service/call.rs", "")],
    },
    Sample {
        rule: "readme",
        broken: &[REDIS],
        finds: ("stores/redis", None, "README.md"),
        well: &[REDIS, ("stores/redis/README.md", "# Redis\n")],
    },
    Sample {
        rule: "white space",
        broken: &[("README.md", "a\nb \n")],
        finds: ("README.md", Some(2), "white space"),
        well: &[("README.md", "a\n\nb\n"), ("fixtures/x.toml", "a \n")],
    },
    Sample {
        rule: "white space",
        broken: &[("README.md", "a\r\n")],
        finds: ("README.md", Some(1), "white space"),
        well: &[("README.md", "a\n")],
    },
    Sample {
        rule: "machines",
        broken: &[("docs/x.md", concat!("First.\nSee `/ho", "me/ann/notes`.\n"))],
        finds: ("docs/x.md", Some(2), "ann"),
        well: &[("docs/x.md", "See `docs/notes.md` and https://example.org/home/ann.\n")],
    },
];

fn findings(rule: &str, files: &[(&str, &str)]) -> Vec<Finding> {
    let rule = RULES.iter().find(|other| other.name == rule).unwrap();
    (rule.check)(&Tree::of(files))
}

#[test]
fn each_rule_fails_on_its_broken_sample_and_only_there() {
    for Sample { rule, broken, finds: (path, line, part), well } in SAMPLES {
        let found = findings(rule, broken);
        let [Finding { path: at, line: on, what }] = &found[..] else { panic!("{rule}: {found:?}") };
        assert_eq!((at.as_str(), *on), (*path, *line), "{rule}: {what}");
        assert!(what.contains(part), "{rule}: {what}");
        assert_eq!(findings(rule, well), [], "{rule} finds what is well");
    }
}

#[test]
fn long_files_are_found() {
    let lines = |count: usize| format!("//! Long.\n{}", "fn f() {}\n".repeat(count - 1));
    let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &lines(600) + "}\n";
    let found = |text: String| findings("length", &[("crates/a/src/lib.rs", &text)]);
    assert_eq!(found(lines(501)), [Finding::in_file("crates/a/src/lib.rs", "501 lines")]);
    assert_eq!(found(lines(500)), []);
    assert_eq!(found(lines(500) + &tests), [], "tests do not count");
    assert_eq!(found(format!("#[cfg(test)]\nmod samples;\n{}", lines(501))).len(), 1, "tests elsewhere end nothing");
    assert_eq!(findings("length", &[("crates/a/tests/it/main.rs", &lines(900))]), []);

    let warned = |count| super::sources::nearly_too_long(&Tree::of(&[("crates/a/src/lib.rs", &lines(count))])).len();
    assert_eq!([400, 401, 500, 501].map(warned), [0, 1, 1, 0]);
}

#[test]
fn each_rule_has_a_name_of_its_own_and_a_sample() {
    for (at, rule) in RULES.iter().enumerate() {
        assert!(RULES[..at].iter().all(|other| other.name != rule.name), "{} is there twice", rule.name);
        assert!(!rule.instead.is_empty() && !rule.instead.contains('\n'), "{}", rule.name);
        let sampled = SAMPLES.iter().any(|sample| sample.rule == rule.name) || rule.name == "length";
        assert!(sampled, "{} is never seen to fail", rule.name);
    }
}
