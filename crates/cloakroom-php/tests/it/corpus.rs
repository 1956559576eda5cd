//! Sessions that PHP wrote, and damaged ones: decoded, refused and encoded again as PHP does.

use cloakroom_php::{Bag, ErrorKind, Format, Key, Value};

use crate::support::{bytes, format, lines, show};

/// The session as PHP has it after decoding, through our values.
fn through_values(bag: &Bag) -> Bag {
    let mut copy = Bag::new(bag.format());
    for key in bag.keys() {
        copy.set_value(key, &bag.value(key).expect("value").expect("present")).expect("set");
    }
    copy
}

#[test]
fn sessions_that_php_wrote() {
    let (mut through, mut with_references) = (0, 0);
    for (n, line) in lines("values.jsonl").iter().enumerate() {
        let (format, stored) = (format(line), bytes(line, "bytes").expect("bytes"));
        let shown = format!("line {}: {format} {}", n + 1, show(&stored));
        let bag = Bag::parse(format, stored.clone()).unwrap_or_else(|error| panic!("{error}: {shown}"));
        let decoded = bytes(line, "decoded").or_else(|| bytes(line, "serialize")).expect("serialize");
        let all = bag.serialize_all().unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert_eq!(show(&all), show(&decoded), "{shown}");
        let again = bytes(line, "again").unwrap_or_else(|| stored.clone());
        let encoded = bag.encode().expect("encode").unwrap_or_default();
        assert_eq!(show(&encoded), show(&again), "{shown}");
        assert_eq!(show(bag.as_bytes()), show(&stored));
        // The whole as a value, and each key's value by itself.
        let value = Value::unserialize(&decoded).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert_eq!(show(&value.serialize().expect("serialize")), show(&decoded), "{shown}");
        let keys: Vec<Key> = bag.keys().map(Key::from).collect();
        let in_tree: Vec<Key> = value.as_array().expect("array").iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, in_tree, "{shown}");
        if bag.as_bytes().windows(2).any(|w| w == b"R:" || w == b"r:") {
            // Taken one by one, keys no longer share anything.
            through_values(&bag);
            with_references += 1;
        } else {
            assert_eq!(show(through_values(&bag).as_bytes()), show(&again), "{shown}");
            through += 1;
        }
    }
    assert_eq!((through, with_references), (279, 121));
}

#[test]
fn damaged_sessions() {
    let (mut accepted, mut refused, mut roots) = (0, 0, 0);
    for (n, line) in lines("malformed.jsonl").iter().enumerate() {
        let (format, stored) = (format(line), bytes(line, "bytes").expect("bytes"));
        let shown = format!("line {}: {format} {}", n + 1, show(&stored));
        match (Bag::parse(format, stored.clone()), line["ok"].as_bool().expect("ok")) {
            (Ok(bag), true) => {
                let expected = bytes(line, "serialize").expect("serialize");
                assert_eq!(show(&bag.serialize_all().expect("serialize")), show(&expected), "{shown}");
                accepted += 1;
            }
            (Err(error), true) => {
                // The one deliberate difference: PHP takes the session, and never writes it again.
                assert_eq!(error.kind(), ErrorKind::RootNotArray, "{shown}: {error}");
                assert_eq!(format, Format::PhpSerialize);
                roots += 1;
            }
            (Err(error), false) => {
                assert!(error.is_data() && error.offset().is_some(), "{shown}: {error:?}");
                refused += 1;
            }
            (Ok(_), false) => panic!("PHP refuses {shown}"),
        }
    }
    assert_eq!((accepted, refused, roots), (36, 112, 2));
}
