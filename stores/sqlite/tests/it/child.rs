//! Other processes: this test binary run again, with a part to play named in the environment.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{Key, Store};
use cloakroom_store_sqlite::SqliteStore;

use crate::util::{config, count_of, increment, key, payload, wait};

const PART: &str = "CLOAKROOM_PART";
const FILE: &str = "CLOAKROOM_FILE";
const OPTIONS: &str = "CLOAKROOM_OPTIONS";
const NUMBER: &str = "CLOAKROOM_NUMBER";

/// A child that says a line when it has come so far; killed and reaped at the end.
pub(crate) struct Talking {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    /// A process of our own that plays `part` on the database.
    pub(crate) fn plays(part: &str, file: &Path, options: &str, number: usize) -> Talking {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child::plays_its_part", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(PART, part).env(FILE, file).env(OPTIONS, options).env(NUMBER, number.to_string());
        Talking::new(command)
    }

    pub(crate) fn new(mut command: Command) -> Talking {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Talking { child, lines }
    }

    pub(crate) fn next_line(&mut self) -> Option<std::io::Result<String>> {
        self.lines.next()
    }

    /// What it says next, past what the test harness says.
    pub(crate) fn line(&mut self) -> String {
        loop {
            let line = self.lines.next().expect("the child has ended without a word").unwrap();
            if let Some(said) = line.strip_prefix("> ") {
                return said.to_owned();
            }
        }
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {text}").unwrap();
    out.flush().unwrap();
}

#[test]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let file = std::env::var(FILE).unwrap();
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    let config = config(Path::new(&file), &std::env::var(OPTIONS).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        if part == "first" {
            // All at the same time: when the parent closes the pipe.
            say("ready");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        let store = SqliteStore::open(config).await.unwrap();
        match part.as_str() {
            "first" => {
                let id = key(&format!("first-{number}"));
                store.commit(&id, Expect::Absent, payload("first"), &wait(5000)).await.unwrap();
                say("done");
            }
            "count" => {
                for n in 0..number {
                    increment(&store, &key("counter"), n % 2 == 0).await;
                }
                say("done");
            }
            "hold" => {
                let held = store.lock(&key("held"), Claim::Existing, &wait(5000)).await.unwrap().unwrap();
                say("held");
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(held);
            }
            "write" => write_for_ever(&store, number).await,
            other => panic!("no part {other}"),
        }
    });
}

/// A payload that tells whether it is whole: its number and length, and then bytes that follow from them.
pub(crate) fn numbered(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = format!("{number} {length} ").into_bytes();
    let letters = (b'a'..=b'z').cycle().skip(number % 26);
    bytes.extend(letters.take(length.saturating_sub(bytes.len())));
    bytes
}

/// The number of a payload that is whole.
pub(crate) fn number_of(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let mut words = text.split(' ').map(str::parse::<usize>);
    match (words.next(), words.next()) {
        (Some(Ok(number)), Some(Ok(length))) if numbered(number, length) == bytes => Some(number),
        _ => None,
    }
}

/// Writes several sessions as fast as it can, some of them under their locks, and says which commits were answered.
async fn write_for_ever(store: &SqliteStore, size: usize) {
    let write = async |id: Key, number: usize| {
        let put = payload(numbered(number, size + [0, 5000, 50, 0][number % 4]));
        let expect = if number.is_multiple_of(3) {
            Expect::Held(store.lock(&id, Claim::Existing, &wait(5000)).await.unwrap().unwrap().lease)
        } else {
            Expect::Any
        };
        assert!(matches!(store.commit(&id, expect, put, &wait(5000)).await.unwrap(), Outcome::Done(_)));
    };
    say("0");
    for number in 1.. {
        tokio::join!(write(key("a"), number), write(key("b"), number), write(key("c"), number));
        say(&number.to_string());
    }
}

#[test]
fn a_torn_payload_is_told_from_a_whole_one() {
    assert_eq!(number_of(&numbered(7, 300)), Some(7));
    assert_eq!(number_of(&numbered(7, 300)[..299]), None);
    assert_eq!(number_of(&[&numbered(7, 300)[..150], &numbered(8, 300)[150..]].concat()), None);
    assert_eq!(count_of(b"12"), 12);
}
