//! What reading and writing sessions costs, beside php_serde, phpserz, serde_json and PHP itself, as Markdown tables.
//!
//! `cargo run --release --bin formats [-- --rounds N] [--turn MILLISECONDS] [--only WORD]`

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_bench::Result;
use cloakroom_bench::corpus::{Corpus, Kind};
use cloakroom_bench::php::Php;
use cloakroom_bench::shapes::{Dense, Framework, Login, Shape, Shopper, Texts};
use cloakroom_bench::timing::{Contender, Taken, interleaved, markdown, three};
use cloakroom_php::{Bag, Format, Value};
use phpserz::PhpDeserializer;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// Our columns.
const OURS: [(&str, Format); 3] =
    [("php", Format::Php), ("php_binary", Format::PhpBinary), ("php_serialize", Format::PhpSerialize)];
/// The others'.
const OTHERS: [&str; 6] =
    ["phpserz", "php_serde", "serde_json", "PHP php", "PHP php_serialize", "PHP unserialize/serialize"];

/// What is measured: its name, and what each contender does for it.
const OPERATIONS: [(&str, &str); 6] = [
    (
        "index",
        "stored bytes to something that can be asked for keys, everything checked; others skip through all of it (`IgnoredAny`), PHP decodes",
    ),
    ("get", "stored bytes to the value of the last key, an integer; others by a struct with that one field"),
    (
        "splice",
        "stored bytes to stored bytes with that integer changed; php_serde by the whole struct, serde_json by its `Value`",
    ),
    ("encode", "the whole session from structs to bytes; PHP from its arrays and objects"),
    ("decode to structs", "stored bytes to structs by serde"),
    ("decode to values", "stored bytes to a tree of values"),
];

#[derive(Deserialize)]
struct One {
    n: i64,
}

struct Options {
    rounds: usize,
    turn: Duration,
    only: String,
}

fn main() -> Result<()> {
    let mut options = Options { rounds: 15, turn: Duration::from_millis(4), only: String::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("every option wants a value")?;
        match argument.as_str() {
            "--rounds" => options.rounds = value.parse()?,
            "--turn" => options.turn = Duration::from_millis(value.parse()?),
            "--only" => options.only = value,
            _ => return Err(format!("{argument} is not known").into()),
        }
    }
    let php = Php::start()?.map(RefCell::new);
    let version = php.as_ref().map_or("none".into(), |php| php.borrow().version.clone());
    let corpora = Corpus::all()?;
    for corpus in &corpora {
        match corpus.kind {
            Kind::Login => check::<Login>(corpus, php.as_ref())?,
            Kind::Shopper => check::<Shopper>(corpus, php.as_ref())?,
            Kind::Framework => check::<Framework>(corpus, php.as_ref())?,
            Kind::Dense => check::<Dense>(corpus, php.as_ref())?,
            Kind::Texts => check::<Texts>(corpus, php.as_ref())?,
        }
    }
    println!("PHP {version}; medians of {} rounds that take turns.\n", options.rounds);
    println!("{}", sizes(&corpora));
    for (operation, what) in OPERATIONS.iter().filter(|(name, _)| name.contains(&options.only)) {
        println!("## {operation}\n\n{what}.\n");
        let mut rows = Vec::new();
        for corpus in &corpora {
            let mut contenders = match corpus.kind {
                Kind::Login => contenders::<Login>(operation, corpus, php.as_ref())?,
                Kind::Shopper => contenders::<Shopper>(operation, corpus, php.as_ref())?,
                Kind::Framework => contenders::<Framework>(operation, corpus, php.as_ref())?,
                Kind::Dense => contenders::<Dense>(operation, corpus, php.as_ref())?,
                Kind::Texts => contenders::<Texts>(operation, corpus, php.as_ref())?,
            };
            rows.push((corpus.name, interleaved(&mut contenders, options.rounds, options.turn)?));
        }
        println!("{}", table(&rows));
    }
    Ok(())
}

/// Everybody must mean the same session before anybody is timed.
fn check<S: Shape>(corpus: &Corpus, php: Option<&RefCell<Php>>) -> Result<()> {
    let expect: S = serde_json::from_slice(&corpus.json)?;
    for (_, format) in OURS {
        let bag = Bag::parse(format, corpus.bytes(format).to_vec())?;
        assert_eq!(S::from_bag(&bag)?, expect, "{} in {format}", corpus.name);
        assert_eq!(bag.encode()?.as_deref(), Some(corpus.bytes(format)), "{} in {format}", corpus.name);
        let bag = expect.to_bag(format)?;
        assert_eq!(S::from_bag(&bag)?, expect, "{} in {format}, written", corpus.name);
        if let Some(php) = php {
            let mut php = php.borrow_mut();
            for (name, bytes) in [("session", corpus.bytes(format)), ("written", bag.as_bytes())] {
                let file = php.file(&format!("{name}-{}-{format}", corpus.name), bytes)?;
                php.run("check", format.name(), &file, 1)?;
            }
        }
    }
    if let Ok(found) = phpserz_decode::<S>(&corpus.php_serialize) {
        assert_eq!(found, expect, "{} by phpserz", corpus.name);
    }
    if let Ok(found) = php_serde::from_bytes::<S>(&corpus.php_serialize) {
        assert_eq!(found, expect, "{} by php_serde", corpus.name);
    }
    Ok(())
}

fn contenders<'a, S: Shape + 'a>(
    operation: &'static str,
    corpus: &'a Corpus,
    php: Option<&'a RefCell<Php>>,
) -> Result<Vec<Contender<'a>>> {
    let mut list = Vec::new();
    for (name, format) in OURS {
        list.push(ours::<S>(operation, name, format, corpus)?);
    }
    list.extend(peers::<S>(operation, corpus)?);
    if let Some(php) = php {
        let operation = match operation {
            "index" | "decode to values" => "decode",
            "decode to structs" => return Ok(list),
            other => other,
        };
        let ways = [("PHP php", "php"), ("PHP php_serialize", "php_serialize")];
        for (name, how) in ways.into_iter().chain([("PHP unserialize/serialize", "unserialize")]) {
            let bytes = if how == "php" { &corpus.php } else { &corpus.php_serialize };
            let file = php.borrow().file(&format!("{}.{how}", corpus.name), bytes)?;
            let batch = Box::new(move |times| php.borrow_mut().run(operation, how, &file, times));
            list.push(Contender { name, bytes: bytes.len(), batch });
        }
    }
    Ok(list)
}

fn ours<'a, S: Shape + 'a>(
    operation: &str,
    name: &'static str,
    format: Format,
    corpus: &'a Corpus,
) -> Result<Contender<'a>> {
    let bytes = Bytes::copy_from_slice(corpus.bytes(format));
    let size = bytes.len();
    let parse = move || Bag::parse(format, bytes.clone());
    let mut next = 1000_i64;
    Ok(match operation {
        "index" => Contender::new(name, size, move || Ok(parse()?)),
        "get" => Contender::new(name, size, move || Ok(parse()?.get::<i64>("n")?)),
        "splice" => Contender::new(name, size, move || {
            next += 1;
            let mut bag = parse()?;
            bag.set("n", &next)?;
            Ok(bag.to_bytes())
        }),
        "encode" => {
            let session: S = serde_json::from_slice(&corpus.json)?;
            if format == Format::PhpSerialize {
                return Ok(Contender::new(name, size, move || Ok(cloakroom_php::to_vec(&session)?)));
            }
            Contender::new(name, size, move || Ok(session.to_bag(format)?))
        }
        "decode to structs" => Contender::new(name, size, move || Ok(S::from_bag(&parse()?)?)),
        _ if format == Format::PhpSerialize => {
            Contender::new(name, size, || Ok(Value::unserialize(&corpus.php_serialize)?))
        }
        _ => Contender::new(name, size, move || {
            let bag = parse()?;
            Ok(bag.keys().map(|key| bag.value(key)).collect::<cloakroom_php::Result<Vec<_>>>()?)
        }),
    })
}

fn phpserz_decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, phpserz::Error> {
    T::deserialize(&mut PhpDeserializer::new(bytes))
}

/// The other crates; one that cannot do it is left out.
fn peers<'a, S: Shape + 'a>(operation: &str, corpus: &'a Corpus) -> Result<Vec<Contender<'a>>> {
    fn three_ways<'a, T: DeserializeOwned + 'a>(corpus: &'a Corpus) -> Vec<Contender<'a>> {
        let (php, json) = (&corpus.php_serialize[..], &corpus.json[..]);
        let mut list = Vec::new();
        if phpserz_decode::<T>(php).is_ok() {
            list.push(Contender::new("phpserz", php.len(), || Ok(phpserz_decode::<T>(php)?)));
        }
        if php_serde::from_bytes::<T>(php).is_ok() {
            list.push(Contender::new("php_serde", php.len(), || Ok(php_serde::from_bytes::<T>(php)?)));
        }
        list.push(Contender::new("serde_json", json.len(), || Ok(serde_json::from_slice::<T>(json)?)));
        list
    }
    let (php, json) = (&corpus.php_serialize[..], &corpus.json[..]);
    Ok(match operation {
        "index" => three_ways::<IgnoredAny>(corpus),
        "get" => three_ways::<Only>(corpus),
        "decode to structs" => three_ways::<S>(corpus),
        "splice" => {
            let mut list = Vec::new();
            if php_serde::from_bytes::<S>(php).is_ok() {
                list.push(Contender::new("php_serde", php.len(), || {
                    let mut session: S = php_serde::from_bytes(php)?;
                    *session.n() += 1;
                    Ok(php_serde::to_vec(&session)?)
                }));
            }
            list.push(Contender::new("serde_json", json.len(), || {
                let mut session: serde_json::Value = serde_json::from_slice(json)?;
                session["n"] = 8.into();
                Ok(serde_json::to_vec(&session)?)
            }));
            list
        }
        "encode" => {
            let session: S = serde_json::from_slice(json)?;
            let again: S = serde_json::from_slice(json)?;
            vec![
                Contender::new("php_serde", php.len(), move || Ok(php_serde::to_vec(&session)?)),
                Contender::new("serde_json", json.len(), move || Ok(serde_json::to_vec(&again)?)),
            ]
        }
        _ => vec![Contender::new("serde_json", json.len(), || Ok(serde_json::from_slice::<serde_json::Value>(json)?))],
    })
}

/// Keeps its field from being called unused.
#[derive(Deserialize)]
#[serde(from = "One")]
struct Only(#[expect(dead_code, reason = "it is there to be decoded")] i64);

impl From<One> for Only {
    fn from(one: One) -> Only {
        Only(one.n)
    }
}

fn sizes(corpora: &[Corpus]) -> String {
    let head = ["session", "php", "php_binary", "php_serialize", "JSON"].map(str::to_owned);
    let row = |corpus: &Corpus| {
        let sizes = [&corpus.php, &corpus.php_binary, &corpus.php_serialize, &corpus.json];
        let sizes = sizes.iter().map(|bytes| format!("{} B", bytes.len()));
        std::iter::once(corpus.name.to_owned()).chain(sizes).collect()
    };
    markdown(&head, &corpora.iter().map(row).collect::<Vec<Vec<_>>>())
}

/// Times with rates; the last column is how many times as long the best of the others takes as our php_serialize.
fn table(rows: &[(&str, Vec<Taken>)]) -> String {
    let columns = OURS.map(|(name, _)| name).into_iter().chain(OTHERS);
    let there = |column: &str| rows.iter().any(|(_, taken)| taken.iter().any(|one| one.name == column));
    let columns: Vec<_> = columns.filter(|column| there(column)).collect();
    let mut head = vec!["us (MB/s)".to_owned()];
    head.extend(columns.iter().map(|name| (*name).to_owned()));
    head.push("best other / ours".to_owned());
    let body = rows.iter().map(|(corpus, taken)| {
        let cell = |name: &&str| {
            let one = taken.iter().find(|one| one.name == *name);
            one.map_or("-".to_owned(), |one| format!("{} ({})", three(one.seconds * 1e6), three(one.rate())))
        };
        let best = |ours: bool| {
            let side = taken.iter().filter(|one| OTHERS.contains(&one.name) != ours);
            side.filter(|one| !ours || one.name == "php_serialize").map(|one| one.seconds).fold(f64::NAN, f64::min)
        };
        let mut row = vec![(*corpus).to_owned()];
        row.extend(columns.iter().map(cell));
        row.push(three(best(false) / best(true)));
        row
    });
    let body: Vec<_> = body.collect();
    markdown(&head, &body)
}
