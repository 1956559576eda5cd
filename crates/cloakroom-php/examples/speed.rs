//! How fast a session of a megabyte is indexed, read by one key and decoded whole:
//! `cargo run --release -p cloakroom-php --example speed [bytes [file to write the session to]]`.

#![expect(clippy::print_stdout, reason = "it reports")]

use std::hint::black_box;
use std::time::Instant;

use cloakroom_php::{Bag, Error, Format, Value};
use serde::Deserialize;

#[derive(Deserialize)]
#[expect(dead_code, reason = "decoded, not looked at")]
struct Item<'a> {
    id: i64,
    name: &'a str,
    price: f64,
    tags: Vec<&'a str>,
    stock: Option<bool>,
}

/// A shop's session: carts of items, longer texts, a few scalars.
fn session(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut key = 0;
    while out.len() < bytes {
        out.extend_from_slice(format!("cart{key}|a:20:{{").as_bytes());
        for n in 0..20 {
            let id = key * 1000 + n;
            out.extend_from_slice(
                format!(
                    r#"i:{n};a:5:{{s:2:"id";i:{id};s:4:"name";s:22:"A cup of Assam tea, {:02}";s:5:"price";d:{}.95;s:4:"tags";a:2:{{i:0;s:5:"drink";i:1;s:3:"hot";}}s:5:"stock";b:1;}}"#,
                    id % 100,
                    id % 90
                )
                .as_bytes(),
            );
        }
        out.push(b'}');
        let text = "lorem ipsum dolor sit amet ".repeat(20);
        out.extend_from_slice(format!("seen{key}|i:17{key};note{key}|s:{}:\"{text}\";", text.len()).as_bytes());
        key += 1;
    }
    out.extend_from_slice(b"last|i:5;");
    out
}

fn rate(what: &str, bytes: usize, mut work: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    let mut best = f64::INFINITY;
    for _ in 0..60 {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "a megabyte")]
    let rate = bytes as f64 / best / 1e6;
    println!("{what:<42} {:>9.1} us {rate:>8.0} MB/s", best * 1e6);
    Ok(())
}

fn main() -> Result<(), Error> {
    let bytes =
        bytes::Bytes::from(session(std::env::args().nth(1).and_then(|size| size.parse().ok()).unwrap_or(1 << 20)));
    if let Some(path) = std::env::args().nth(2) {
        std::fs::write(path, &bytes).ok();
    }
    let len = bytes.len();
    println!("{len} bytes");
    rate("index and get one key", len, || {
        let bag = Bag::parse(Format::Php, bytes.clone())?;
        black_box(bag.get::<i64>("last")?);
        Ok(())
    })?;
    let bag = Bag::parse(Format::Php, bytes.clone())?;
    println!("{} keys", bag.len());
    rate("set one key in the middle", len, || {
        let mut bag = bag.clone();
        bag.set("seen5", &1)?;
        black_box(bag.to_bytes());
        Ok(())
    })?;
    rate("decode all by serde", len, || {
        for key in bag.keys() {
            match key.as_str() {
                Some(name) if name.starts_with("cart") => drop(black_box(bag.get::<Vec<Item<'_>>>(key)?)),
                Some(name) if name.starts_with("note") => drop(black_box(bag.get::<&str>(key)?)),
                _ => drop(black_box(bag.get::<i64>(key)?)),
            }
        }
        Ok(())
    })?;
    rate("decode all as values", len, || {
        for key in bag.keys() {
            drop(black_box(bag.value(key)?));
        }
        Ok(())
    })?;
    let all = bag.serialize_all()?;
    let value = Value::unserialize(&all)?;
    rate("Value::unserialize", all.len(), || Value::unserialize(&all).map(|value| drop(black_box(value))))?;
    rate("Value::serialize", all.len(), || value.serialize().map(|bytes| drop(black_box(bytes))))?;
    Ok(())
}
