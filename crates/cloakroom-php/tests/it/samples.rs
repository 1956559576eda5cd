//! Records of single expressions and inputs: each as PHP wrote it, read it or refused it.

use cloakroom_php::{Bag, ErrorKind, Options, Precision};
use serde_json::Value as Json;

use crate::support::{bytes, format, lines, show};

#[test]
fn what_php_encodes() {
    let (mut same, mut nothing, mut payloads) = (0, 0, 0);
    for line in lines("encode.jsonl") {
        let Some(stored) = bytes(&line, "bytes") else {
            nothing += 1;
            continue;
        };
        let shown = format!("{}: {} {}", line["php"], format(&line), show(&stored));
        let precision = match line.get("precision").and_then(Json::as_i64) {
            Some(n) if n >= 0 => Precision::Digits(u8::try_from(n).expect("digits")),
            _ => Precision::Shortest,
        };
        let options = Options::new().serialize_precision(precision);
        let bag = Bag::parse(format(&line), stored.clone()).unwrap_or_else(|error| panic!("{error}: {shown}"));
        match bag.with_options(options).encode() {
            Ok(encoded) => {
                assert_eq!(show(&encoded.unwrap_or_default()), show(&stored), "{shown}");
                same += 1;
            }
            // Only the class knows what its payload counts; the bytes themselves stay.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{shown}");
                payloads += 1;
            }
        }
    }
    // Nothing: exceptions, and sessions whose keys PHP refuses.
    assert_eq!((same, nothing, payloads), (961, 24, 15));
}

/// Records in which a class that PHP knew decides: it adds properties, corrects its name, or does not exist as an
/// enum, or makes nothing of a `C:`. A reader without PHP's classes cannot tell, and keeps what lies there.
fn class_decides(stored: &[u8]) -> bool {
    let known: [&[u8]; 8] =
        [br#":"P":"#, br#":"p":"#, br#":"Typed":"#, br#":"Wk":"#, br#":"Ms":"#, b"C:", b"E:", br#"O:4:"Cust""#];
    known.iter().any(|name| stored.windows(name.len()).any(|w| w == *name))
}

#[test]
fn what_php_decodes() {
    let (mut same, mut refused, mut roots, mut left_out) = (0, 0, 0, 0);
    for line in lines("decode.jsonl") {
        let stored = bytes(&line, "bytes").expect("bytes");
        let shown = format!("{}: {} {}", line["how"], format(&line), show(&stored));
        let parsed = Bag::parse(format(&line), stored.clone());
        if line.get("exception").is_some() {
            // An exception out of a class or enum that PHP knew.
            left_out += 1;
            continue;
        }
        match (parsed, line["ok"].as_bool().expect("ok")) {
            (Ok(bag), true) => {
                let expected = bytes(&line, "serialize").expect("serialize");
                let all = bag.serialize_all().unwrap_or_else(|error| panic!("{error}: {shown}"));
                if all != expected && class_decides(&stored) {
                    left_out += 1;
                    continue;
                }
                assert_eq!(show(&all), show(&expected), "{shown}");
                let again = bag.encode().unwrap_or_else(|error| panic!("{error}: {shown}")).unwrap_or_default();
                assert_eq!(show(&again), show(&bytes(&line, "again").unwrap_or_default()), "{shown}");
                same += 1;
            }
            (Err(error), true) => {
                assert_eq!(error.kind(), ErrorKind::RootNotArray, "{error}: {shown}");
                roots += 1;
            }
            (Err(error), false) => {
                assert!(error.is_data() && error.offset().is_some(), "{shown}: {error:?}");
                refused += 1;
            }
            (Ok(_), false) => {
                assert!(class_decides(&stored), "PHP refuses {shown}");
                left_out += 1;
            }
        }
    }
    assert_eq!((same, refused, roots, left_out), (279, 436, 9, 75));
}
