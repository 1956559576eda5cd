//! References, case by case: what an edit does, and that PHP agrees with it.

use std::collections::BTreeMap;

use cloakroom_php::{Bag, ErrorKind, Format, KeyRef};

use crate::php::Php;
use crate::support::show;

enum Edit {
    Set(&'static str, &'static str),
    Remove(&'static str),
}
use Edit::{Remove, Set};

/// Session, edits, and what the session is then; PHP makes the same edits and must see the same.
const CASES: &[(&str, &[Edit], &str)] = &[
    // A key that is `R:` writes to what it refers to.
    ("a|i:1;b|R:1;", &[Set("b", "i:5;")], "a|i:5;b|R:1;"),
    ("a|i:1;b|R:1;", &[Set("a", "s:1:\"x\";")], "a|s:1:\"x\";b|R:1;"),
    (
        "a|a:2:{i:0;i:1;i:1;i:2;}b|R:3;c|i:0;d|R:4;",
        &[Set("b", "a:1:{i:0;i:9;}")],
        "a|a:2:{i:0;i:1;i:1;a:1:{i:0;i:9;}}b|R:3;c|i:0;d|R:5;",
    ),
    ("a|a:1:{i:0;i:7;}b|R:2;", &[Set("b", "N;")], "a|a:1:{i:0;N;}b|R:2;"),
    // A removed target moves to the first that refers to it.
    ("a|i:1;b|R:1;", &[Remove("a")], "b|i:1;"),
    ("a|i:1;b|R:1;c|R:1;", &[Remove("a")], "b|i:1;c|R:1;"),
    ("a|i:1;b|R:1;c|R:1;", &[Remove("b")], "a|i:1;c|R:1;"),
    ("a|O:8:\"stdClass\":1:{s:1:\"x\";i:1;}b|r:1;c|i:3;d|R:4;", &[Remove("a")], ""),
    ("a|O:1:\"U\":1:{s:1:\"x\";i:1;}b|r:1;c|i:3;d|R:4;", &[Remove("a")], "b|O:1:\"U\":1:{s:1:\"x\";i:1;}c|i:3;d|R:3;"),
    ("a|O:1:\"U\":0:{}b|r:1;c|r:1;", &[Set("a", "i:0;")], "a|i:0;b|O:1:\"U\":0:{}c|r:2;"),
    ("a|O:1:\"U\":0:{}b|R:1;c|r:1;", &[Set("a", "i:0;")], "a|i:0;b|R:1;c|O:1:\"U\":0:{}"),
    ("a|a:2:{i:0;a:1:{s:1:\"k\";i:5;}i:1;i:6;}b|R:2;c|R:4;", &[Remove("a")], "b|a:1:{s:1:\"k\";i:5;}c|i:6;"),
    ("a|a:2:{i:0;a:1:{s:1:\"k\";i:5;}i:1;i:6;}b|R:3;c|R:2;", &[Set("a", "N;")], "a|N;b|i:5;c|a:1:{s:1:\"k\";R:2;}"),
    // Everything behind an edit is numbered anew.
    ("a|i:1;b|i:2;c|R:2;", &[Set("a", "a:1:{i:0;i:0;}")], "a|a:1:{i:0;i:0;}b|i:2;c|R:3;"),
    ("a|a:1:{i:0;i:0;}b|i:2;c|R:3;", &[Set("a", "i:1;")], "a|i:1;b|i:2;c|R:2;"),
    ("a|i:1;b|i:2;c|R:2;", &[Set("d", "i:4;"), Remove("a")], "b|i:2;c|R:1;d|i:4;"),
    ("x|a:2:{i:0;i:1;i:1;R:1;}y|i:1;z|R:3;", &[Set("y", "i:2;")], "x|a:2:{i:0;i:1;i:1;R:1;}y|i:2;z|R:3;"),
    ("a|i:0;x|a:2:{i:0;i:1;i:1;R:2;}", &[Remove("a")], "x|a:2:{i:0;i:1;i:1;R:1;}"),
    // No number moves: the bytes around it stay, repeated keys in them too.
    ("a|a:1:{i:0;i:0;}b|i:2;c|R:3;", &[Set("a", "a:1:{i:0;s:2:\"ab\";}")], "a|a:1:{i:0;s:2:\"ab\";}b|i:2;c|R:3;"),
    ("a|a:1:{i:0;i:0;}b|R:2;", &[Set("a", "a:1:{i:0;i:5;}")], "a|a:1:{i:0;i:5;}b|i:0;"),
    ("a|a:1:{i:0;i:0;}b|R:1;", &[Set("a", "a:1:{i:0;i:5;}")], "a|a:1:{i:0;i:5;}b|R:1;"),
    (
        "a|i:1;b|a:2:{i:0;i:2;i:0;i:3;}c|R:3;",
        &[Set("a", "s:3:\"xyz\";")],
        "a|s:3:\"xyz\";b|a:2:{i:0;i:2;i:0;i:3;}c|R:3;",
    ),
    ("a|i:1;b|O:1:\"U\":0:{}c|r:2;d|i:4;", &[Set("a", "N;"), Set("d", "a:0:{}")], "a|N;b|O:1:\"U\":0:{}c|r:2;d|a:0:{}"),
    ("a|O:1:\"U\":0:{}b|i:2;c|R:2;", &[Set("a", "i:12345;"), Set("b", "i:6;")], "a|i:12345;b|i:6;c|R:2;"),
    // A value that brings its own references.
    ("a|i:1;b|R:1;", &[Set("c", "a:2:{i:0;i:5;i:1;R:2;}")], "a|i:1;b|R:1;c|a:2:{i:0;i:5;i:1;R:3;}"),
    (
        "a|i:1;b|i:2;c|R:2;",
        &[Set("a", "a:2:{i:0;O:1:\"U\":0:{}i:1;r:2;}")],
        "a|a:2:{i:0;O:1:\"U\":0:{}i:1;r:2;}b|i:2;c|R:4;",
    ),
    ("a|i:1;", &[Set("a", "a:2:{i:0;i:1;i:1;R:1;}")], "a|a:2:{i:0;i:1;i:1;a:2:{i:0;i:1;i:1;R:3;}}"),
    // Repeated keys: the value of the last, and both count; removing one removes all.
    ("a|i:1;b|R:1;a|i:9;", &[Set("b", "i:3;")], "a|i:9;b|i:3;"),
    ("a|i:1;b|R:1;a|i:9;", &[Remove("a")], "b|i:1;"),
    ("a|i:1;b|i:2;a|i:3;", &[Remove("a")], "b|i:2;"),
    ("a|i:1;b|i:2;a|i:3;", &[Set("a", "i:4;")], "a|i:4;b|i:2;"),
    // A payload that holds nothing countable is like any other value.
    ("c|C:8:\"OldStyle\":2:{pp}a|i:1;b|R:2;", &[Remove("c")], "a|i:1;b|R:1;"),
    ("a|i:0;c|C:8:\"OldStyle\":2:{pp}d|r:2;", &[Remove("c")], "a|i:0;d|C:8:\"OldStyle\":2:{pp}"),
];

#[test]
fn edits_do_what_php_does() {
    let Some(mut php) = Php::start() else { return };
    for (session, edits, expected) in CASES.iter().filter(|case| !case.2.is_empty()) {
        let mut bag = Bag::parse(Format::Php, session.as_bytes()).unwrap_or_else(|error| panic!("{error}: {session}"));
        let mut list = Vec::new();
        for edit in *edits {
            match edit {
                Set(key, value) => {
                    bag.set_serialized(key, value.as_bytes()).unwrap_or_else(|error| panic!("{error}: {session}"));
                    list.push([b"s".to_vec(), key.as_bytes().to_vec(), value.as_bytes().to_vec()]);
                }
                Remove(key) => {
                    assert!(bag.remove(key).unwrap_or_else(|error| panic!("{error}: {session}")));
                    list.push([b"u".to_vec(), key.as_bytes().to_vec(), Vec::new()]);
                }
            }
        }
        assert_eq!(show(bag.as_bytes()), show(expected.as_bytes()), "{session}");
        let answer = php.edit(Format::Php, session.as_bytes(), bag.as_bytes(), &list);
        assert_eq!(
            show(&answer[0]),
            show(&answer[1]),
            "PHP makes something else of {session}: {}",
            show(bag.as_bytes())
        );
        // The index that was kept up and one made anew say the same.
        let anew = Bag::parse(Format::Php, bag.to_bytes()).expect("we wrote it");
        assert!(anew.keys().eq(bag.keys()), "{session}");
        assert!(anew.keys().all(|key| anew.raw(key) == bag.raw(key)), "{session}");
        for key in bag.keys() {
            let read = |bag: &Bag| bag.get::<serde_json::Value>(key).map_err(|error| error.to_string());
            assert_eq!(read(&bag), read(&anew), "{session}");
        }
    }
}

/// Random edits once stood at `r:` against PHP's `R:`: a class whose `__serialize()` hands out a reference to its
/// property makes PHP write an alias where none was, whatever had been stored. That is the class's doing and cannot be
/// seen in the bytes: what was two variables stays two, and one that gives back what it got is written as PHP does.
#[test]
fn only_a_class_makes_an_alias_of_a_handle() {
    let Some(mut php) = Php::start() else { return };
    for object in ["E:11:\"Suit:Hearts\";", "O:8:\"stdClass\":0:{}"] {
        for (class, own) in [("O:4:\"Kept\"", "r:2;"), ("O:2:\"Ms\"", "R:2;")] {
            let holder = |d: &str| format!("{class}:2:{{s:1:\"d\";{d}i:7;s:5:\"seven\";}}");
            let session = format!("a|{object}b|a:2:{{i:0;r:1;i:1;{}}}", holder("R:1;"));
            let mut bag = Bag::parse(Format::Php, session.clone()).expect("valid");
            bag.remove("a").expect("remove");
            let written = |d: &str| format!("b|a:2:{{i:0;{object}i:1;{}}}", holder(d));
            assert_eq!(show(bag.as_bytes()), show(written("r:2;").as_bytes()));
            let edits = [[b"u".to_vec(), b"a".to_vec(), Vec::new()]];
            let answer = php.edit(Format::Php, session.as_bytes(), bag.as_bytes(), &edits);
            assert_eq!(show(&answer[0]), show(&answer[1]), "{class}");
            assert_eq!(show(&answer[2]), show(written(own).as_bytes()));
            // Nor does PHP itself leave it at `r:` when it has merely read the session.
            let (_, again) = php.decode(Format::Php, &[bag.as_bytes().to_vec()]).remove(0).expect("PHP reads it");
            assert_eq!(show(&again), show(written(own).as_bytes()));
        }
    }
}

#[test]
fn get_follows_references_across_keys() {
    let bag = Bag::parse(
        Format::Php,
        &br#"user|O:1:"U":1:{s:4:"name";s:3:"ada";}cart|a:2:{i:0;i:4;i:1;i:5;}who|r:1;last|R:5;all|a:2:{i:0;R:3;i:1;r:1;}"#[..],
    )
    .expect("valid");
    #[derive(serde::Deserialize, PartialEq, Debug)]
    struct User<'a> {
        name: &'a str,
    }
    assert_eq!(bag.get::<User<'_>>("who").expect("get"), Some(User { name: "ada" }));
    assert_eq!(bag.get::<i64>("last").expect("get"), Some(5));
    assert_eq!(bag.get::<(Vec<i64>, User<'_>)>("all").expect("get"), Some((vec![4, 5], User { name: "ada" })));
    assert_eq!(bag.serialized("last").expect("get").as_deref(), Some(&b"i:5;"[..]));
    let all = bag.get::<cloakroom_php::Value>("all").expect("get").expect("present");
    assert_eq!(
        show(&all.serialize().expect("serialize")),
        show(&bag.serialized("all").expect("get").expect("present"))
    );
    // Null behind a reference is null too.
    let bag = Bag::parse(Format::Php, &b"a|N;b|R:1;"[..]).expect("valid");
    assert_eq!(bag.get::<i64>("b").expect("get"), None);
    assert!(bag.contains("b"));
}

#[test]
fn what_contains_itself_ends() {
    let bag = Bag::parse(Format::Php, &b"x|a:2:{i:0;i:1;i:1;R:1;}"[..]).expect("valid");
    let error = bag.get::<serde_json::Value>("x").expect_err("endless");
    assert_eq!(error.kind(), ErrorKind::Depth);
    assert!(!error.is_data());
    let all = bag.serialize_all().expect("serialize");
    assert_eq!(show(&all), show(b"a:1:{s:1:\"x\";a:2:{i:0;i:1;i:1;R:2;}}"));
    // Twice as much at each level.
    let mut session = b"v0|a:1:{i:0;i:1;}".to_vec();
    let mut slot = 1;
    for level in 1..40 {
        session.extend_from_slice(format!("v{level}|a:2:{{i:0;R:{slot};i:1;R:{slot};}}").as_bytes());
        slot = level + 2;
    }
    let bag = Bag::parse(Format::Php, session).expect("valid");
    assert_eq!(bag.get::<serde_json::Value>("v39").expect_err("beyond measure").kind(), ErrorKind::Limit);
}

/// Behind a payload that may count, nothing may move; what cannot be done names the key and changes nothing.
#[test]
fn payloads_freeze_the_numbers() {
    let session = br#"a|i:1;c|C:2:"CS":22:{a:2:{i:0;i:5;i:1;i:6;}}y|R:1;q|a:1:{i:0;i:7;}r|R:7;z|i:0;"#;
    let open = || Bag::parse(Format::Php, &session[..]).expect("valid");
    let refused = |result: Result<(), cloakroom_php::Error>, key: &str| {
        let error = result.expect_err("must be refused");
        assert_eq!((error.kind(), error.path()), (ErrorKind::Unsupported, key.to_owned()));
        assert!(!error.is_data());
    };
    let mut bag = open();
    refused(bag.set("a", &[1, 2][..]), "a");
    refused(bag.remove("a").map(|_| ()), "a");
    refused(bag.set("c", "gone"), "c");
    refused(bag.remove("q").map(|_| ()), "q");
    refused(bag.set("r", &1), "r");
    let payload = br#"C:2:"CS":15:{a:1:{i:0;i:5;};}"#;
    refused(bag.set_serialized("a", payload), "a");
    assert_eq!(bag.as_bytes(), session);
    // One scalar for another; a removed alias; what lies behind all references; what is new.
    bag.set("a", "one").expect("a scalar");
    bag.remove("y").expect("an alias");
    bag.set("z", &[1, 2, 3][..]).expect("behind");
    bag.set("new", &true).expect("behind");
    bag.remove("z").expect("behind");
    assert_eq!(
        show(bag.as_bytes()),
        show(br#"a|s:3:"one";c|C:2:"CS":22:{a:2:{i:0;i:5;i:1;i:6;}}q|a:1:{i:0;i:7;}r|R:7;new|b:1;"#)
    );
    // A payload that refers out of itself.
    let mut bag = Bag::parse(Format::Php, &br#"o|O:1:"U":0:{}c|C:2:"CS":14:{a:1:{i:0;r:1;}}"#[..]).expect("valid");
    refused(bag.remove("o").map(|_| ()), "o");
    refused(bag.set("o", &1), "o");
    assert!(bag.remove("c").expect("the last"));
    assert!(bag.remove("o").expect("nothing refers any more"));
    assert!(bag.is_empty());
}

#[test]
fn keys_that_php_would_lose() {
    let refused = |format, key: KeyRef<'_>| {
        let mut bag = Bag::new(format);
        assert_eq!(bag.set(key, &1).expect_err("PHP would lose it").kind(), ErrorKind::Key);
        assert!(bag.is_empty());
    };
    let long = [b'k'; 128];
    refused(Format::Php, KeyRef::Str(b"a|b"));
    refused(Format::Php, KeyRef::Int(5));
    refused(Format::Php, KeyRef::Str(b"5"));
    refused(Format::PhpBinary, KeyRef::Int(5));
    refused(Format::PhpBinary, KeyRef::Str(&long));
    refused(Format::PhpSerialize, KeyRef::Str(b"5"));
    let mut bag = Bag::new(Format::PhpSerialize);
    bag.set("5", &1).expect("set");
    bag.set("a|b", &2).expect("set");
    bag.set(&long[..], &3).expect("set");
    assert_eq!(bag.get::<i64>(5).expect("get"), Some(1));
    assert!(bag.as_bytes().starts_with(br#"a:3:{i:5;i:1;s:3:"a|b";i:2;"#));
    // A key that PHP cannot reach is carried along, and can be reached by its own bytes.
    let mut bag = Bag::parse(Format::Php, &b"5|i:1;a|i:2;"[..]).expect("valid");
    assert!(!bag.contains("5") && !bag.contains(5) && bag.contains(KeyRef::Str(b"5")));
    bag.set("a", &3).expect("set");
    assert_eq!(bag.as_bytes(), b"5|i:1;a|i:3;");
    assert!(bag.remove(KeyRef::Str(b"5")).expect("remove"));
    assert_eq!(bag.as_bytes(), b"a|i:3;");
}

/// Random edits without references against an ordered map, the index included.
#[test]
fn splices_agree_with_a_map() {
    let mut random = crate::random::Random(7);
    for format in Format::ALL {
        for _ in 0..60 {
            let mut bag = Bag::new(format);
            let mut model: Vec<(Vec<u8>, i64)> = Vec::new();
            for n in 0..60 {
                let key = format!("k{}", random.below(24)).into_bytes();
                let at = model.iter().position(|(k, _)| *k == key);
                if random.one_in(3) {
                    assert_eq!(bag.remove(&key).expect("remove"), at.is_some());
                    if let Some(at) = at {
                        model.remove(at);
                    }
                } else {
                    let value = i64::from(n) << random.below(40);
                    bag.set(&key, &value).expect("set");
                    match at {
                        Some(at) => model[at].1 = value,
                        None => model.push((key, value)),
                    }
                }
                assert_eq!(bag.len(), model.len());
                for (key, value) in &model {
                    assert_eq!(bag.get::<i64>(key).expect("get"), Some(*value));
                }
            }
            let anew = Bag::parse(format, bag.to_bytes()).expect("we wrote it");
            let keys: BTreeMap<_, _> = anew.keys().map(|key| (key, anew.raw(key))).collect();
            assert!(bag.keys().eq(anew.keys()) && bag.keys().all(|key| keys[&key] == bag.raw(key)));
            let empty = if format == Format::PhpSerialize { &b"a:0:{}"[..] } else { b"" };
            bag.clear();
            assert_eq!(bag.as_bytes(), empty);
        }
    }
}
