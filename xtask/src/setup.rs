//! `cargo xtask setup`: what the tests need from the machine, and how it gets there.
//!
//! To need one thing more, add its row to [`NEEDS`]. Nothing is skipped in silence: what is missing and cannot be
//! installed fails with its name, unless `CLOAKROOM_SKIP=php,...` names it, and then the summary repeats that.

use std::process::{Command, Stdio};

use crate::process::{capture, run as start, works};
use crate::{Result, unknown};

/// The names of needs, separated by commas, that the tests shall do without.
const SKIP: &str = "CLOAKROOM_SKIP";

/// One thing that the tests need.
#[derive(Debug)]
pub(crate) struct Need {
    /// The name by which it is talked about, and by which `CLOAKROOM_SKIP` knows it.
    pub(crate) name: &'static str,
    source: Source,
    /// Which tests cannot run without it.
    pub(crate) needed_for: &'static str,
    found: fn() -> bool,
    /// Whether there is anything left to test without it.
    may_be_skipped: bool,
}

/// Where a need is installed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A Debian package.
    Debian(&'static str),
    /// A component of the Rust toolchain.
    Rust(&'static str),
    /// Nothing that can be installed: how the tests have to be started.
    Advice(&'static str),
}

const NEEDS: &[Need] = &[
    Need {
        name: "git",
        source: Source::Debian("git"),
        needed_for: "tidy, which looks at the files that git knows",
        found: || works("git", &["--version"]),
        may_be_skipped: false,
    },
    Need {
        name: "rustfmt",
        source: Source::Rust("rustfmt"),
        needed_for: "the step `format`",
        found: || works("cargo", &["fmt", "--version"]),
        may_be_skipped: true,
    },
    Need {
        name: "clippy",
        source: Source::Rust("clippy"),
        needed_for: "the step `lints`",
        found: || works("cargo", &["clippy", "--version"]),
        may_be_skipped: true,
    },
    Need {
        name: "php",
        source: Source::Debian("php-cli"),
        needed_for: "every test in which PHP is the judge",
        found: || works("php", &["-n", "-v"]),
        may_be_skipped: true,
    },
    Need {
        name: "redis",
        source: Source::Debian("redis-server"),
        needed_for: "the Redis store: one server, a cluster, a sentinel pair",
        found: || works("redis-server", &["--version"]),
        may_be_skipped: true,
    },
    Need {
        name: "sentinel",
        source: Source::Debian("redis-sentinel"),
        needed_for: "the Redis store behind sentinels",
        found: || works("redis-sentinel", &["--version"]),
        may_be_skipped: true,
    },
    Need {
        name: "openssl",
        source: Source::Debian("openssl"),
        needed_for: "the certificates of Redis with TLS",
        found: || works("openssl", &["version"]),
        may_be_skipped: true,
    },
    Need {
        name: "memcached",
        source: Source::Debian("memcached"),
        needed_for: "the Memcached store",
        found: || works("memcached", &["-V"]),
        may_be_skipped: true,
    },
    Need {
        name: "postgres",
        source: Source::Debian("postgresql"),
        needed_for: "the SQL store on PostgreSQL",
        found: || postgres_is_there(),
        may_be_skipped: true,
    },
    Need {
        name: "mariadb",
        source: Source::Debian("mariadb-server"),
        needed_for: "the SQL store on MariaDB",
        found: || works("mariadbd", &["--version"]),
        may_be_skipped: true,
    },
    Need {
        name: "php-redis",
        source: Source::Debian("php-redis"),
        needed_for: "PHP beside the Redis store",
        found: || php_has(&["igbinary", "redis"]),
        may_be_skipped: true,
    },
    Need {
        name: "php-memcached",
        source: Source::Debian("php-memcached"),
        needed_for: "PHP beside the Memcached store",
        found: || php_has(&["igbinary", "msgpack", "memcached"]),
        may_be_skipped: true,
    },
    Need {
        name: "php-pgsql",
        source: Source::Debian("php-pgsql"),
        needed_for: "PHP beside the SQL store on PostgreSQL",
        found: || php_has(&["pdo", "pdo_pgsql"]),
        may_be_skipped: true,
    },
    Need {
        name: "php-mysql",
        source: Source::Debian("php-mysql"),
        needed_for: "PHP beside the SQL store on MariaDB",
        found: || php_has(&["mysqlnd", "pdo", "pdo_mysql"]),
        may_be_skipped: true,
    },
    Need {
        name: "php-sqlite3",
        source: Source::Debian("php-sqlite3"),
        needed_for: "PHP beside the SQLite store",
        found: || php_has(&["pdo", "pdo_sqlite"]),
        may_be_skipped: true,
    },
    Need {
        name: "symfony",
        source: Source::Debian("php-symfony-http-foundation"),
        needed_for: "Symfony beside the SQL stores",
        found: || std::path::Path::new("/usr/share/php/Symfony/Component/HttpFoundation").exists(),
        may_be_skipped: true,
    },
    Need {
        name: "strace",
        source: Source::Debian("strace"),
        needed_for: "counting the system calls of the files store",
        found: || works("strace", &["-V"]),
        may_be_skipped: true,
    },
    Need {
        name: "root",
        source: Source::Advice("cargo xtask test, as root"),
        needed_for: "full disks (a tmpfs) and files of other users, in the files and SQLite stores",
        found: is_root,
        may_be_skipped: true,
    },
];

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    uids.split_whitespace().nth(1) == Some("0")
}

/// Debian keeps the server's programs out of `PATH`, in a folder for each version.
fn postgres_is_there() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    works("postgres", &["--version"]) || versions.into_iter().any(|version| version.path().join("bin/initdb").exists())
}

/// Whether PHP without any php.ini can load the last of these extensions, after those that it builds on.
fn php_has(extensions: &[&str]) -> bool {
    let loaded = format!("exit(extension_loaded('{}') ? 0 : 1);", extensions.last().unwrap_or(&""));
    let load: Vec<_> = extensions.iter().map(|name| format!("extension={name}")).collect();
    let mut arguments = vec!["-n"];
    arguments.extend(load.iter().flat_map(|one| ["-d", one.as_str()]));
    arguments.extend(["-r", loaded.as_str()]);
    works("php", &arguments)
}

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => setup(&all(NEEDS)).map(drop),
        [check] if check == "--check" => check_only(&all(NEEDS)),
        [argument, ..] => unknown("setup", argument),
    }
}

/// Installs what is missing for the tests or, without `lints`, for all but the steps that need more of the toolchain.
pub(crate) fn install_for_tests(lints: bool) -> Result<()> {
    let needs: Vec<_> = NEEDS.iter().filter(|need| lints || !matches!(need.source, Source::Rust(_))).collect();
    setup(&needs)
}

/// The needs that `CLOAKROOM_SKIP` names.
pub(crate) fn left_out() -> Result<Vec<&'static Need>> {
    skipped(NEEDS, &skip_list())
}

fn all(needs: &'static [Need]) -> Vec<&'static Need> {
    needs.iter().collect()
}

fn setup(needs: &[&'static Need]) -> Result<()> {
    let missing = report(needs, &left_out()?);
    if missing.is_empty() {
        return Ok(());
    }
    for command in commands(&missing, privilege()) {
        install(&missing, command)?;
    }
    let still: Vec<_> = missing.into_iter().filter(|need| !(need.found)()).collect();
    if still.iter().any(|need| matches!(need.source, Source::Advice(_))) {
        return Err(advice(&still));
    }
    if still.is_empty() { Ok(()) } else { Err(format!("{} was installed and yet cannot be run", names(&still))) }
}

fn check_only(needs: &[&'static Need]) -> Result<()> {
    let missing = report(needs, &left_out()?);
    if missing.is_empty() { Ok(()) } else { Err(advice(&missing)) }
}

/// Prints the table of needs and gives those that are missing and not skipped.
fn report(needs: &[&'static Need], skipped: &[&'static Need]) -> Vec<&'static Need> {
    let mut missing = Vec::new();
    for &need in needs {
        let state = if skipped.iter().any(|other| other.name == need.name) {
            "skipped"
        } else if (need.found)() {
            "found"
        } else {
            missing.push(need);
            "missing"
        };
        println!("  {:<13} {state:<8} for {}", need.name, need.needed_for);
    }
    missing
}

/// One installation: from where, and what, as far as this user can do it.
#[derive(Debug, PartialEq, Eq)]
enum Install {
    Apt { packages: Vec<&'static str>, sudo: bool },
    Rustup { components: Vec<&'static str> },
    Impossible,
}

/// What this user may do to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Privilege {
    apt: bool,
    root: bool,
    sudo: bool,
    rustup: bool,
}

fn privilege() -> Privilege {
    let root = capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    Privilege {
        apt: works("apt-get", &["--version"]),
        root,
        sudo: !root && works("sudo", &["-n", "true"]),
        rustup: works("rustup", &["--version"]),
    }
}

fn commands(missing: &[&'static Need], privilege: Privilege) -> Vec<Install> {
    let (packages, components) = by_source(missing);
    let may_apt = privilege.apt && (privilege.root || privilege.sudo);
    if (!packages.is_empty() && !may_apt) || (!components.is_empty() && !privilege.rustup) {
        return vec![Install::Impossible];
    }
    let mut installs = Vec::new();
    if !packages.is_empty() {
        installs.push(Install::Apt { packages, sudo: !privilege.root });
    }
    if !components.is_empty() {
        installs.push(Install::Rustup { components });
    }
    installs
}

fn install(missing: &[&'static Need], install: Install) -> Result<()> {
    match install {
        Install::Apt { packages, sudo } => {
            println!("installing from Debian: {}", packages.join(" "));
            let mut command = Command::new(if sudo { "sudo" } else { "sh" });
            if sudo {
                command.args(["-n", "sh"]);
            }
            command.args(["-c", include_str!("install.sh"), "install.sh"]).args(packages).stdin(Stdio::null());
            match command.status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("the installation failed ({status}). {}", advice(missing))),
                Err(e) => Err(format!("the installation cannot be started: {e}")),
            }
        }
        Install::Rustup { components } => {
            println!("adding to the Rust toolchain: {}", components.join(" "));
            start(Command::new("rustup").args(["component", "add"]).args(components).stdin(Stdio::null()))
        }
        Install::Impossible => Err(advice(missing)),
    }
}

fn by_source(missing: &[&'static Need]) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut packages, mut components) = (Vec::new(), Vec::new());
    for need in missing {
        match need.source {
            Source::Debian(package) => packages.push(package),
            Source::Rust(component) => components.push(component),
            Source::Advice(_) => {}
        }
    }
    (packages, components)
}

/// The one command that installs what is missing, for a person to type.
fn by_hand(missing: &[&'static Need]) -> String {
    let (packages, components) = by_source(missing);
    let mut commands = Vec::new();
    if !packages.is_empty() {
        commands.push(format!("sudo apt-get install --yes --no-install-recommends {}", packages.join(" ")));
    }
    if !components.is_empty() {
        commands.push(format!("rustup component add {}", components.join(" ")));
    }
    let advice = missing.iter().find_map(|need| if let Source::Advice(text) = need.source { Some(text) } else { None });
    if let Some(advice) = advice.filter(|_| commands.is_empty()) {
        return advice.to_owned();
    }
    commands.join(" && ")
}

/// What to do; its first line has the command, since that is all that the summary repeats.
fn advice(missing: &[&'static Need]) -> String {
    let names: Vec<_> = missing.iter().map(|need| need.name).collect();
    format!(
        "the tests need {}. Run: {}\nOn a system that is not Debian, do the like with its own tools. To do without, say \
         {SKIP}={}",
        self::names(missing),
        by_hand(missing),
        names.join(",")
    )
}

fn names(needs: &[&'static Need]) -> String {
    needs.iter().map(|need| need.name).collect::<Vec<_>>().join(" and ")
}

fn skip_list() -> String {
    std::env::var(SKIP).unwrap_or_default()
}

/// The needs that a list names. A name that is none is an error: it would skip less than was meant.
fn skipped(needs: &'static [Need], list: &str) -> Result<Vec<&'static Need>> {
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let known = needs.iter().filter(|need| need.may_be_skipped);
            known.clone().find(|need| need.name == name).ok_or_else(|| {
                let known: Vec<_> = known.map(|need| need.name).collect();
                format!("{SKIP} names `{name}`, but what can be skipped is {}", known.join(", "))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn need(name: &'static str, source: Source, found: fn() -> bool) -> Need {
        Need { name, source, needed_for: "a test", found, may_be_skipped: true }
    }

    const SAMPLE: &[Need] = &[
        need("here", Source::Debian("here-cli"), || true),
        need("gone", Source::Debian("gone-cli"), || false),
        need("lint", Source::Rust("lint"), || false),
        Need { may_be_skipped: false, ..need("must", Source::Debian("must"), || true) },
    ];
    const ROOT: Privilege = Privilege { apt: true, root: true, sudo: false, rustup: true };

    #[test]
    fn missing_is_what_is_neither_found_nor_skipped() {
        let skipped = skipped(SAMPLE, "lint").unwrap();
        assert_eq!(names(&report(&all(SAMPLE), &skipped)), "gone");
        assert_eq!(names(&report(&all(SAMPLE), &[])), "gone and lint");
    }

    #[test]
    fn skip_list_with_an_unknown_name_is_refused() {
        assert!(skipped(SAMPLE, " , ").unwrap().is_empty());
        assert_eq!(names(&skipped(SAMPLE, "gone, here,").unwrap()), "gone and here");
        let told = skipped(SAMPLE, "gone,pph").unwrap_err();
        assert!(told.contains("`pph`") && told.ends_with("here, gone, lint"), "{told}");
        assert!(skipped(SAMPLE, "must").is_err());
    }

    #[test]
    fn root_and_sudo_install_all_others_are_told_the_command() {
        let missing: Vec<_> = SAMPLE[1..3].iter().collect();
        let apt = |sudo| Install::Apt { packages: vec!["gone-cli"], sudo };
        let rustup = || Install::Rustup { components: vec!["lint"] };
        assert_eq!(commands(&missing, ROOT), [apt(false), rustup()]);
        assert_eq!(commands(&missing, Privilege { root: false, sudo: true, ..ROOT }), [apt(true), rustup()]);
        for hopeless in
            [Privilege { root: false, ..ROOT }, Privilege { apt: false, ..ROOT }, Privilege { rustup: false, ..ROOT }]
        {
            assert_eq!(commands(&missing, hopeless), [Install::Impossible], "{hopeless:?}");
        }
        let told = install(&missing, Install::Impossible).unwrap_err();
        let command = "Run: sudo apt-get install --yes --no-install-recommends gone-cli && rustup component add lint\n";
        assert!(told.contains(command) && told.contains("CLOAKROOM_SKIP=gone,lint"), "{told}");
    }

    #[test]
    fn what_cannot_be_installed_is_said() {
        static ROOT_ONLY: &[Need] = &[need("root", Source::Advice("cargo xtask test, as root"), || false)];
        let told = advice(&all(ROOT_ONLY));
        assert!(told.contains("Run: start the tests as root") || told.contains("cargo xtask test, as root"), "{told}");
        assert!(told.contains("CLOAKROOM_SKIP=root"), "{told}");
        assert_eq!(setup(&all(ROOT_ONLY)).unwrap_err(), told);
    }

    #[test]
    fn names_in_the_table_are_different() {
        for (at, need) in NEEDS.iter().enumerate() {
            assert!(NEEDS[..at].iter().all(|other| other.name != need.name), "{} is there twice", need.name);
            assert!(!need.name.contains([',', ' ']), "{} cannot be named in a list", need.name);
        }
    }
}
