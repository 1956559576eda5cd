//! Depth, memory and hostile input: nothing recurses, nothing is believed, nothing panics.

use cloakroom_php::{Bag, ErrorKind, Format, Value, from_slice, to_vec};

use crate::random::Random;

fn nested(levels: usize, leaf: &str) -> Vec<u8> {
    let mut bytes = "a:1:{i:0;".repeat(levels);
    bytes.push_str(leaf);
    bytes.push_str(&"}".repeat(levels));
    bytes.into_bytes()
}

/// On the smallest stack a server is likely to give.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 << 10).spawn(test).expect("a thread").join().expect("no overflow");
}

#[test]
fn depth_is_phps_and_takes_no_stack() {
    on_a_small_stack(|| {
        for (levels, leaf, fits) in
            [(4096, "i:1;", true), (4096, "a:0:{}", true), (4097, "i:1;", false), (4096, "O:1:\"U\":0:{}", false)]
        {
            let bytes = nested(levels, leaf);
            let session = [b"v|", &bytes[..]].concat();
            assert_eq!(Bag::parse(Format::Php, session.clone()).is_ok(), fits, "{levels} {leaf}");
            match Value::unserialize(&bytes) {
                Ok(value) => {
                    assert!(fits);
                    let copy = value.clone();
                    assert!(copy == value);
                    assert!(!format!("{copy:?}").is_empty());
                    assert_eq!(copy.serialize().expect("serialize"), bytes);
                    let mut bag = Bag::new(Format::Php);
                    bag.set_value("v", &copy).expect("set");
                    assert!(bag.value("v").expect("value") == Some(value));
                    assert_eq!(bag.serialized("v").expect("serialized"), Some(bytes.clone()));
                    bag.set_serialized("w", b"a:2:{i:0;i:1;i:1;R:2;}").expect("set");
                    assert!(bag.serialize_all().is_ok());
                }
                Err(error) => {
                    assert!(!fits);
                    assert_eq!(error.kind(), ErrorKind::Depth);
                    assert!(error.is_data());
                }
            }
        }
        // The array of php_serialize is a level too.
        let root = |levels| [b"a:1:{s:1:\"v\";", &nested(levels, "i:1;")[..], b"}"].concat();
        assert!(Bag::parse(Format::PhpSerialize, root(4095)).is_ok());
        assert!(Bag::parse(Format::PhpSerialize, root(4096)).is_err());
        let mut bag = Bag::new(Format::PhpSerialize);
        assert!(bag.set_serialized("v", &nested(4096, "i:1;")).is_err());
        assert!(bag.is_empty());
    });
}

/// Its own types recurse, and how much stack a level takes is theirs to say.
#[test]
fn serde_stops_at_its_limit() {
    let deep = nested(4000, "i:1;");
    assert_eq!(from_slice::<serde_json::Value>(&deep).expect_err("too deep").kind(), ErrorKind::Depth);
    assert!(from_slice::<serde_json::Value>(&nested(128, "i:1;")).is_ok());
    assert!(from_slice::<serde_json::Value>(&nested(129, "i:1;")).is_err());
    let value = Value::unserialize(&deep).expect("within PHP's depth");
    assert!(to_vec(&value).is_err() && serde_json::to_string(&value).is_err());
    assert!(serde_json::from_slice::<Value>(&b"[".repeat(4000)).is_err());
}

/// What is held after, and the most that was held while.
fn measure<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(work()));
    let held = usize::try_from(info.bytes_current.max(0)).expect("small");
    (result.expect("ran"), held, usize::try_from(info.bytes_max).expect("small"))
}

#[test]
fn memory_is_bounded_by_the_input() {
    let element = |n: usize, what: &str| format!("i:{n};{what}");
    let many = |what: &str, n: usize| {
        let body: String = (0..n).map(|i| element(i, what)).collect();
        format!("a:{n}:{{{body}}}").into_bytes()
    };
    let strings: String = (0..20_000).flat_map(|n| [format!("s:5:\"{n:05}\";"), "N;".to_owned()]).collect();
    let short: String =
        (32..127).flat_map(|n: u8| ["s:1:\"".to_owned(), char::from(n).to_string(), "\";N;".to_owned()]).collect();
    let inputs = [
        many("N;", 20_000),
        many("s:1:\"a\";", 20_000),
        many("a:0:{}", 20_000),
        many("a:1:{i:0;N;}", 20_000),
        many("a:1:{i:5;N;}", 20_000),
        many("O:1:\"a\":0:{}", 20_000),
        many("O:1:\"a\":1:{s:1:\"b\";N;}", 20_000),
        many("E:3:\"A:b\";", 20_000),
        many("C:1:\"a\":0:{}", 20_000),
        format!("a:20000:{{{strings}}}").into_bytes(),
        format!("a:95:{{{short}}}").into_bytes(),
        nested(4096, "N;"),
    ];
    for input in inputs {
        let shown = String::from_utf8_lossy(&input[..40.min(input.len())]).into_owned();
        let (value, held, most) = measure(|| Value::unserialize(&input).expect("valid"));
        assert!(held <= 16 * input.len(), "{shown}: {held} for {}", input.len());
        assert!(most <= 24 * input.len(), "{shown}: at most {most} for {}", input.len());
        drop(value);
        let session = [b"v|", &input[..]].concat();
        let (bag, held, most) = measure(|| Bag::parse(Format::Php, session.clone()).expect("valid"));
        // The bytes themselves, a stack of at most 4096 counts, and the one entry.
        assert!(held <= session.len() + 1024 && most <= session.len() + (64 << 10), "{shown}: {held}, {most}");
        drop(bag);
    }
    // The index's own bound, with the shortest keys and values there are.
    let session: Vec<u8> = (0..50_000).flat_map(|n| format!("{n:x}|N;").into_bytes()).collect();
    let len = session.len();
    let (_bag, held, _) = measure(|| Bag::parse(Format::Php, session).expect("valid"));
    assert!(held - len <= 50_000 * 24 + 1024, "{held} for {len}");
}

/// The same value behind thousands of references, whole in each of the values asked for.
#[test]
fn references_do_not_multiply_memory() {
    let list = |what: &str| (0..5000).flat_map(|n| [format!("i:{n};"), what.to_owned()]).collect::<String>();
    let (items, again) = (list("N;"), list("R:1;"));
    let session = format!("x|a:5000:{{{items}}}all|a:5000:{{{again}}}").into_bytes();
    let value = format!("a:2:{{i:0;a:5000:{{{items}}}i:1;a:5000:{{{}}}}}", again.replace("R:1;", "R:2;")).into_bytes();
    let len = session.len();
    let bag = Bag::parse(Format::Php, session).expect("valid");
    let (result, _, most) = measure(|| bag.get::<Vec<Value>>("all").map(drop));
    assert_eq!(result.expect_err("beyond measure").kind(), ErrorKind::Limit);
    assert!(most <= 400 * len, "{most} for {len}");
    let (result, _, most) = measure(|| from_slice::<(Value, Vec<Value>)>(&value).map(drop));
    assert_eq!(result.expect_err("beyond measure").kind(), ErrorKind::Limit);
    assert!(most <= 400 * len, "{most} for {len}");
    // Where each variable is written once there is nothing to multiply.
    let (written, _, most) = measure(|| [bag.serialize_all(), bag.serialized("all").map(Option::unwrap_or_default)]);
    assert!(most <= 200 * len, "{most} for {len}");
    assert!(written.iter().all(|bytes| bytes.as_ref().expect("serialize").len() <= 2 * len));
    let (all, held, _) = measure(|| bag.value("all").expect("value"));
    assert!(all.is_some() && held <= 16 * len, "{held} for {len}");
}

#[test]
fn counts_are_not_believed() {
    for input in [
        "a:9999999:{",
        "a:9999999:{i:0;",
        "a:4294967297:{i:0;i:1;}",
        "a:18446744073709551617:{i:0;i:1;}",
        "O:1:\"a\":9999999:{}",
        "s:99999999999:\"a\";",
        "C:1:\"a\":9223372036854775807:{a}",
        "O:1:\"a\":",
        "O:1:\"a\":-",
        "d:-",
        "d:1e",
        "E:1:\"",
        "S:3:\"\\4",
    ] {
        let (result, _, most) = measure(|| Value::unserialize(input.as_bytes()));
        let error = result.expect_err("damaged");
        assert!(error.is_data() && error.offset().is_some(), "{input}: {error:?}");
        assert!(most < 16 << 10, "{input}: {most}");
    }
    // Half of the bytes are enough for the count, at each of many levels.
    let mut bytes = Vec::new();
    for _ in 0..2000 {
        bytes.extend_from_slice(b"a:9000:{i:0;");
    }
    bytes.resize(bytes.len() + 20_000, b'x');
    let (result, _, most) = measure(|| Value::unserialize(&bytes));
    assert!(result.is_err() && most < 16 * bytes.len(), "{most}");
}

#[test]
fn no_input_panics() {
    let mut random = Random(3);
    let seeds: Vec<&[u8]> = vec![
        br#"a|a:3:{i:0;s:1:"x";s:1:"k";d:1.5;i:2;R:2;}b|O:8:"stdClass":1:{s:1:"p";r:1;}c|C:1:"c":3:{r:1}d|E:3:"S:a";"#,
        br#"a:3:{s:1:"a";S:2:"\41b";i:5;a:1:{i:0;R:2;}s:1:"a";N;}"#,
        b"\x01aa:1:{i:0;R:1;}\x01bR:2;\x00b:1;",
    ];
    for _ in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.next().to_le_bytes()[0],
                1 => bytes.truncate(at.max(1)),
                2 => bytes[at] = b"0123456789:;{}\"|RrasOCESidNb"[random.below(28)],
                _ => drop(bytes.drain(at / 2..at)),
            }
            if bytes.is_empty() {
                bytes.push(b'|');
            }
        }
        for format in Format::ALL {
            crate::fuzz_corpus::check(format, &bytes);
        }
    }
}

#[test]
fn errors_say_where_and_never_what() {
    let error = |bytes: &[u8]| Bag::parse(Format::Php, bytes.to_vec()).expect_err("damaged");
    let damaged = error(br#"x|i:1;user|a:2:{s:4:"name";s:6:"secret";s:4:"tags";a:2:{i:0;i:1;i:1;s:9:"secret";}}"#);
    assert_eq!(damaged.path(), "user.tags[1]");
    assert_eq!(damaged.to_string(), "string shorter or longer than its length at byte 82, key user.tags[1]");
    assert!(damaged.is_data());
    let bag = Bag::parse(Format::Php, &br#"cart|a:1:{i:0;a:1:{s:5:"price";s:6:"secret";}}"#[..]).expect("valid");
    #[derive(serde::Deserialize, Debug)]
    struct Item {
        #[expect(dead_code, reason = "only its type matters")]
        price: i64,
    }
    let wrong = bag.get::<Vec<Item>>("cart").expect_err("a string");
    assert_eq!(wrong.to_string(), "expected i64, found string at byte 31, key cart[0].price");
    assert_eq!((wrong.kind(), wrong.is_data()), (ErrorKind::Type, false));
    assert!(!format!("{wrong:?} {wrong} {bag:?}").contains("secret"));
    assert_eq!(size_of::<cloakroom_php::Error>(), size_of::<usize>());
}
