//! Random sessions through a resident PHP, both ways and damaged, and edits made by both.
//!
//! `CLOAKROOM_DIFF_VALUES` says how many values, `CLOAKROOM_DIFF_SEED` repeats a run whose seed was printed.

use std::hash::{BuildHasher, RandomState};

use cloakroom_php::{Bag, ErrorKind, Format, KeyRef, Options, Precision, Value};

use crate::php::{Php, Shares};
use crate::random::Random;
use crate::support::show;

const KEYS: usize = 10;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn values() -> usize {
    usize::try_from(number("CLOAKROOM_DIFF_VALUES", 100_000)).expect("a count")
}

/// Another in every run; what is printed here is shown with a failure.
fn seed() -> u64 {
    let drawn = RandomState::new().hash_one("seed") >> 32;
    let seed = number("CLOAKROOM_DIFF_SEED", drawn);
    println!("CLOAKROOM_DIFF_SEED={seed}");
    seed
}

/// PHP to us: what it wrote is read as it reads it, and written again as it wrote it.
#[test]
fn what_php_makes_up() {
    let Some(mut php) = Php::start() else { return };
    let mut random = Random(seed());
    let sessions = values() / 2 / KEYS / 9 + 1;
    for format in Format::ALL {
        for shares in [Shares::Nothing, Shares::Values, Shares::ValuesAndClasses] {
            let mut left = sessions;
            while left > 0 {
                let batch = left.min(250);
                left -= batch;
                for [stored, before, decoded] in php.generate(format, random.next(), batch, KEYS, shares) {
                    let shown = format!("{format} {}", show(&stored));
                    let bag = Bag::parse(format, stored.clone()).unwrap_or_else(|error| panic!("{error}: {shown}"));
                    let all = bag.serialize_all().unwrap_or_else(|error| panic!("{error}: {shown}"));
                    assert_eq!(show(&all), show(&decoded), "before {}: {shown}", show(&before));
                    assert_eq!(show(&bag.encode().expect("encode").unwrap_or_default()), show(&stored));
                    let mut copy = Bag::new(format);
                    for key in bag.keys() {
                        let value = bag.value(key).expect("value").expect("present");
                        assert_eq!(
                            show(&value.serialize().expect("serialize")),
                            show(&bag.serialized(key).expect("serialized").expect("present")),
                            "{shown}"
                        );
                        copy.set_value(key, &value).unwrap_or_else(|error| panic!("{error}: {shown}"));
                    }
                    // PHP takes some second cases for aliases (`R:`), which values taken one by one are not.
                    if shares == Shares::Nothing && !stored.windows(2).any(|w| w == b"R:") {
                        // A case of an enum that comes again is `r:` to the first, all else is as it was.
                        assert_eq!(show(&copy.serialize_all().expect("serialize")), show(&decoded));
                    }
                }
            }
        }
    }
}

/// Us to PHP: what we wrote it reads, writes again the same, and sees as we do.
#[test]
fn what_we_make_up() {
    let Some(mut php) = Php::start() else { return };
    let mut random = Random(seed());
    let sessions = values() / 2 / KEYS / 3 + 1;
    let mut written_again = 0;
    for format in Format::ALL {
        let mut left = sessions;
        while left > 0 {
            let batch = left.min(250);
            left -= batch;
            let bags: Vec<Bag> = (0..batch).map(|_| made_up(&mut random, format)).collect();
            let stored: Vec<Vec<u8>> = bags.iter().map(|bag| bag.as_bytes().to_vec()).collect();
            for (bag, answer) in bags.iter().zip(php.decode(format, &stored)) {
                let shown = format!("{format} {}", show(bag.as_bytes()));
                let (all, again) = answer.unwrap_or_else(|| panic!("PHP refuses {shown}"));
                let ours = (bag.serialize_all().expect("serialize"), bag.encode().expect("encode").unwrap_or_default());
                if ours == (all.clone(), again.clone()) {
                    continue;
                }
                // Behind a payload that may count, a case that comes again is written again: only the class of the
                // payload, which is at hand in PHP alone, could tell its number. PHP makes of it what it would write.
                let repeated = bag.as_bytes().windows(7).filter(|w| w.starts_with(b"E:11:\"S")).count() > 1;
                assert!(repeated && bag.as_bytes().windows(6).any(|w| w == b"a|i:1;"), "{shown}");
                let read = php.decode(format, &[ours.1]).remove(0).unwrap_or_else(|| panic!("PHP refuses {shown}"));
                assert_eq!((show(&read.0), show(&read.1)), (show(&all), show(&again)), "{shown}");
                assert_eq!(show(&php.unserialize(-1, &[ours.0])[0]), show(&all), "{shown}");
                written_again += 1;
            }
        }
    }
    println!("{written_again} with a case written again");
    assert!(written_again * 100 < values(), "{written_again}");
}

fn made_up(random: &mut Random, format: Format) -> Bag {
    let mut bag = Bag::new(format);
    for _ in 0..KEYS {
        let key = random.text();
        let value = random.value(3);
        match bag.set_value(&key, &value) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Key, "{error}: {}", show(&key)),
        }
    }
    bag
}

/// Damaged on the way: accepted or refused as PHP does, and then read the same.
#[test]
fn what_was_damaged() {
    let Some(mut php) = Php::start() else { return };
    let mut random = Random(seed());
    let (mut accepted, mut refused) = (0, 0);
    for format in Format::ALL {
        for _ in 0..=(values() / 10_000) {
            let whole = php.generate(format, random.next(), 50, 3, Shares::ValuesAndClasses);
            let damaged: Vec<Vec<u8>> = whole
                .iter()
                .flat_map(|[stored, ..]| (0..6).map(|_| damage(&mut random, stored)).collect::<Vec<_>>())
                // What PHP's own classes and enums would object to is not ours to judge.
                .filter(|stored| !stored.windows(2).any(|w| matches!(w, b"O:" | b"C:" | b"E:")))
                .collect();
            for (stored, answer) in damaged.iter().zip(php.decode(format, &damaged)) {
                let shown = format!("{format} {}", show(stored));
                match (Bag::parse(format, stored.clone()), answer) {
                    (Ok(bag), Some((all, again))) => {
                        assert_eq!(show(&bag.serialize_all().expect("serialize")), show(&all), "{shown}");
                        assert_eq!(show(&bag.encode().expect("encode").unwrap_or_default()), show(&again), "{shown}");
                        accepted += 1;
                    }
                    (Err(error), None) => {
                        assert!(error.is_data() && error.offset().is_some(), "{shown}");
                        refused += 1;
                    }
                    (Err(error), Some(_)) => assert_eq!(error.kind(), ErrorKind::RootNotArray, "{error}: {shown}"),
                    (Ok(_), None) => panic!("PHP refuses {shown}"),
                }
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0);
}

fn damage(random: &mut Random, stored: &[u8]) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    if bytes.is_empty() {
        return bytes;
    }
    let at = random.below(bytes.len());
    let to = (at + random.below(12)).min(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => bytes[at] = b"0123456789;:\"{}|aidsNbRrS-+.E"[random.below(29)],
        2 => drop(bytes.drain(at..to)),
        3 => {
            let piece = bytes[at..to].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
            if !digits.is_empty() {
                bytes[digits[random.below(digits.len())]] = b'0' + random.next().to_le_bytes()[0] % 10;
            }
        }
        _ => bytes.insert(at, random.next().to_le_bytes()[0]),
    }
    bytes
}

/// Edits of sessions in which much is shared: PHP makes them on `$_SESSION`, we on the bytes.
#[test]
fn edits() {
    let Some(mut php) = Php::start() else { return };
    let mut random = Random(seed());
    let (mut made, mut refused, mut exact, mut aliases) = (0, 0, 0, 0);
    for format in Format::ALL {
        for _ in 0..=(values() / 10_000) {
            for [stored, ..] in php.generate(format, random.next(), 60, 6, Shares::Values) {
                let mut bag = Bag::parse(format, stored.clone()).expect("PHP wrote it");
                let mut edits: Vec<[Vec<u8>; 3]> = Vec::new();
                for _ in 0..=random.below(5) {
                    let keys: Vec<_> = bag.keys().map(cloakroom_php::Key::from).collect();
                    let key = match keys.get(random.below(keys.len() + 1)) {
                        Some(key) => key.clone(),
                        None => KeyRef::Str(b"fresh").into(),
                    };
                    let name = match key.as_ref() {
                        KeyRef::Int(n) => n.to_string().into_bytes(),
                        KeyRef::Str(name) => name.to_vec(),
                    };
                    let before = bag.as_bytes().to_vec();
                    let (op, value, result) = match random.below(6) {
                        0 | 1 => (b"u", Vec::new(), bag.remove(&key).map(|_| ())),
                        2 => {
                            let donor = &php.generate(format, random.next(), 1, 3, Shares::Values)[0];
                            let donor = Bag::parse(format, donor[0].clone()).expect("PHP wrote it");
                            let first = donor.keys().next();
                            let value = first.map(|key| donor.serialized(key).expect("serialized").expect("present"));
                            let value = value.unwrap_or_else(|| b"N;".to_vec());
                            let result = bag.set_serialized(&key, &value);
                            (b"s", value, result)
                        }
                        3 if format != Format::PhpSerialize => {
                            let donor = php.generate(format, random.next(), 1, 3, Shares::Values)[0][0].clone();
                            let result = bag.merge(&donor);
                            (b"m", donor, result)
                        }
                        _ => {
                            let value = random.value(2);
                            let result = bag.set_value(&key, &value);
                            (b"s", value.serialize().expect("serialize"), result)
                        }
                    };
                    match result {
                        Ok(()) => edits.push([op.to_vec(), name, value]),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}: {}", show(&stored));
                            assert_eq!(bag.as_bytes(), before, "a refused edit changes nothing");
                            refused += 1;
                        }
                    }
                }
                let again = Bag::parse(format, bag.to_bytes()).expect("we wrote it");
                assert!(again.keys().eq(bag.keys()));
                for key in bag.keys() {
                    let read = |bag: &Bag| bag.get::<serde_json::Value>(key).map_err(|error| error.to_string());
                    assert_eq!(read(&bag), read(&again), "{}", show(&stored));
                }
                let shown = || {
                    let edits: Vec<String> = edits
                        .iter()
                        .map(|[op, key, value]| format!("{} {} {}", show(op), show(key), show(value)))
                        .collect();
                    format!("{format}\n{}\n{}\nours: {}", show(&stored), edits.join("\n"), show(bag.as_bytes()))
                };
                let answer = php.edit(format, &stored, bag.as_bytes(), &edits);
                assert_eq!(show(&answer[0]), show(&answer[1]), "{}", shown());
                let encoded = bag.encode().expect("encode").unwrap_or_default();
                if is_same(&encoded, &answer[2]) {
                    exact += 1;
                } else {
                    assert!(php_makes_an_alias(format, &encoded, &answer[2]), "{}\nPHP: {}", shown(), show(&answer[2]));
                    aliases += 1;
                }
                let all = bag.serialize_all().expect("serialize");
                assert!(is_same(&all, &answer[3]), "{}\nall:  {}\nPHP: {}", shown(), show(&all), show(&answer[3]));
                for pair in answer[4..].chunks_exact(2) {
                    let ours = bag.serialized(&pair[0]).expect("serialized").expect("present");
                    assert!(is_same(&ours, &pair[1]), "{}: {}, PHP {}", show(&pair[0]), shown(), show(&pair[1]));
                }
                made += edits.len();
            }
        }
    }
    println!("{made} made, {refused} refused; {exact} encoded the same, {aliases} with an alias of PHP's own making");
    assert!(refused * 20 < made, "{refused} of {made} refused");
    assert!(aliases * 50 < exact, "{aliases} of {exact} encoded otherwise");
}

/// The same bytes, but that a case of an enum behind a `C:` payload may be written again where PHP refers to it: only
/// the payload's class knows which number that is, and the same case is the same object.
fn is_same(ours: &[u8], theirs: &[u8]) -> bool {
    let (mut at, mut rest) = (0, theirs);
    while at < ours.len() && !rest.is_empty() {
        if ours[at..].starts_with(b"E:") && rest.starts_with(b"r:") && ours[..at].windows(2).any(|two| two == b"C:") {
            let end = |text: &[u8]| text.iter().position(|byte| *byte == b';').map_or(text.len(), |end| end + 1);
            at += end(&ours[at..]);
            rest = &rest[end(rest)..];
        } else if ours[at] == rest[0] {
            at += 1;
            rest = &rest[1..];
        } else {
            return false;
        }
    }
    at == ours.len() && rest.is_empty()
}

/// At the top of `php` and `php_binary` PHP takes a key that once was a reference for one for ever: of an object that
/// has been written it makes `R:`, and the next request has two keys that are one variable. Here they stay two, `r:`.
fn php_makes_an_alias(format: Format, ours: &[u8], theirs: &[u8]) -> bool {
    let (ours, theirs) = (Bag::parse(format, ours.to_vec()), Bag::parse(format, theirs.to_vec()));
    let (ours, theirs) = (ours.expect("we wrote it"), theirs.expect("PHP wrote it"));
    let differs = ours.keys().find(|key| ours.raw(*key) != theirs.raw(*key)).expect("a key that differs");
    let (ours, theirs) = (ours.raw(differs).unwrap_or_default(), theirs.raw(differs).unwrap_or_default());
    format != Format::PhpSerialize && theirs.starts_with(b"R:") && ours.starts_with(b"r:") && ours[1..] == theirs[1..]
}

/// Floats of all sizes in several precisions.
#[test]
fn floats() {
    let Some(mut php) = Php::start() else { return };
    let mut random = Random(seed());
    for precision in [-1, 0, 1, 2, 3, 6, 10, 14, 15, 16, 17, 18, 25, 40, 100] {
        let options = Options::new().serialize_precision(match u8::try_from(precision) {
            Ok(n) => Precision::Digits(n),
            Err(_) => Precision::Shortest,
        });
        let mut floats =
            vec![0.5, 1.5, 2.5, 0.125, 9.5, 99.5, 0.25, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1e15, 1e16, 1e17];
        floats.extend((-30..30).map(|n| 10_f64.powi(n)));
        floats.extend((0..1000).map(|_| random.float()));
        if (0..4).contains(&precision) {
            // PHP cuts INF to so many letters, and then cannot read it.
            floats.retain(|float| float.is_finite());
        }
        let values: Vec<Vec<u8>> =
            floats.iter().map(|float| Value::Float(*float).serialize_with(options).expect("serialize")).collect();
        let exact: Vec<Vec<u8>> =
            floats.iter().map(|float| format!("d:{float:e};").replace("inf", "INF").into_bytes()).collect();
        for ((ours, php), float) in values.iter().zip(php.unserialize(precision, &exact)).zip(&floats) {
            assert_eq!(show(ours), show(&php), "{float:e} with precision {precision}");
        }
    }
}
