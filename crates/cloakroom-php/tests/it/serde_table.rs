//! The table of `serde_mapping`, row by row.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use cloakroom_php::{
    Array, Bag, ErrorKind, Format, Object, Options, PhpStr, Value, from_slice, from_slice_with, to_vec, to_vec_with,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::support::show;

/// Written so, and read back from that.
fn both<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, text: &str) {
    let written = to_vec(&value).unwrap_or_else(|error| panic!("{error}: {value:?}"));
    assert_eq!(show(&written), show(text.as_bytes()), "{value:?}");
    reads(text, value);
}

#[expect(clippy::needless_pass_by_value, reason = "it reads as a table")]
fn reads<T: DeserializeOwned + PartialEq + Debug>(text: &str, value: T) {
    assert_eq!(from_slice::<T>(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}")), value, "{text}");
}

fn refuses<T: DeserializeOwned + Debug>(text: &str, kind: ErrorKind) {
    let error = from_slice::<T>(text.as_bytes()).expect_err(text);
    assert_eq!(error.kind(), kind, "{text}: {error}");
    assert!(!error.is_data(), "{text}: {error}");
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Suit {
    Hearts,
    Number(i64),
    Pair(i64, String),
    Named { a: i64 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
#[serde(default)]
struct User {
    name: String,
    id: i64,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Unit;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct New(i64);

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Two(i64, bool);

#[test]
fn scalars() {
    both(true, "b:1;");
    both(-5_i8, "i:-5;");
    both(i64::MIN, "i:-9223372036854775808;");
    both(255_u8, "i:255;");
    both(i64::MAX.unsigned_abs(), "i:9223372036854775807;");
    both(7_i128, "i:7;");
    both(7_u128, "i:7;");
    for error in [to_vec(&u64::MAX), to_vec(&i128::MIN), to_vec(&u128::MAX)] {
        assert_eq!(error.expect_err("beyond PHP").kind(), ErrorKind::Number);
    }
    refuses::<u8>("i:256;", ErrorKind::Number);
    refuses::<u64>("i:-1;", ErrorKind::Number);
    both(0.1_f64, "d:0.1;");
    both(0.5_f32, "d:0.5;");
    both(f64::INFINITY, "d:INF;");
    both(-0.0_f64, "d:-0;");
    reads("i:5;", 5.0_f64);
    refuses::<f64>("i:9223372036854775807;", ErrorKind::Number);
    let digits = Options::new().serialize_precision(cloakroom_php::Precision::Digits(17));
    assert_eq!(to_vec_with(&0.1, digits).expect("float"), b"d:0.10000000000000001;");
    both('\u{fc}', "s:2:\"\u{fc}\";");
    both(String::from("tea"), "s:3:\"tea\";");
    both(serde_bytes::ByteBuf::from(vec![b'a', b'b']), "s:2:\"ab\";");
    both((), "N;");
    both(Unit, "N;");
    both(New(5), "i:5;");
    both(Some(5), "i:5;");
    both(None::<i64>, "N;");
    assert_eq!(from_slice::<&str>(b"s:3:\"tea\";").expect("borrowed"), "tea");
    let bytes = b"s:2:\"\xff\xfe\";";
    assert_eq!(from_slice::<String>(bytes).expect_err("bytes").kind(), ErrorKind::Utf8);
    assert_eq!(from_slice::<PhpStr>(bytes).expect("bytes").as_bytes(), b"\xff\xfe");
    assert_eq!(from_slice::<&serde_bytes::Bytes>(bytes).expect("bytes").as_ref(), b"\xff\xfe");
    assert_eq!(to_vec(&PhpStr::from(b"\xff")).expect("bytes"), b"s:1:\"\xff\";");
    reads(r#"S:2:"\41b";"#, String::from("Ab"));
}

#[test]
fn strict_and_loose() {
    for text in ["s:1:\"5\";", "b:1;", "d:5;", "N;", "a:0:{}"] {
        refuses::<i64>(text, ErrorKind::Type);
    }
    refuses::<bool>("i:1;", ErrorKind::Type);
    refuses::<String>("i:1;", ErrorKind::Type);
    refuses::<f64>("s:3:\"1.5\";", ErrorKind::Type);
    let loose = Options::new().loose(true);
    fn get<T: DeserializeOwned>(text: &str, options: Options) -> Option<T> {
        from_slice_with(text.as_bytes(), options).ok()
    }
    assert_eq!(get("s:3:\" 5 \";", loose), Some(5_i64));
    assert_eq!(get("b:1;", loose), Some(1_i64));
    assert_eq!(get("d:5;", loose), Some(5_i64));
    assert_eq!(get::<i64>("d:5.5;", loose), None);
    assert_eq!(get::<i64>("s:2:\"5x\";", loose), None);
    assert_eq!(get("s:3:\"1.5\";", loose), Some(1.5_f64));
    assert_eq!(get::<f64>("s:3:\"inf\";", loose), None);
    assert_eq!(get("s:2:\"On\";", loose), Some(true));
    assert_eq!(get("s:0:\"\";", loose), Some(false));
    assert_eq!(get("i:0;", loose), Some(false));
    assert_eq!(get::<bool>("i:2;", loose), None);
    assert_eq!(get("i:5;", loose), Some(String::from("5")));
    assert_eq!(get("d:0.1;", loose), Some(String::from("0.1")));
}

#[test]
fn lists() {
    both(vec![1, 2], "a:2:{i:0;i:1;i:1;i:2;}");
    both((1, String::from("x")), "a:2:{i:0;i:1;i:1;s:1:\"x\";}");
    both([1, 2, 3], "a:3:{i:0;i:1;i:1;i:2;i:2;i:3;}");
    both(Two(1, true), "a:2:{i:0;i:1;i:1;b:1;}");
    both(Vec::<i64>::new(), "a:0:{}");
    let holes = from_slice::<Vec<i64>>(b"a:2:{i:0;i:1;i:2;i:3;}").expect_err("a hole");
    assert_eq!((holes.kind(), holes.path()), (ErrorKind::Type, "[1]".to_owned()));
    refuses::<Vec<i64>>("a:2:{i:1;i:1;i:0;i:3;}", ErrorKind::Type);
    refuses::<Vec<i64>>("a:1:{s:1:\"a\";i:1;}", ErrorKind::Type);
    refuses::<Vec<i64>>("O:1:\"U\":0:{}", ErrorKind::Type);
    refuses::<(i64, i64)>("a:1:{i:0;i:1;}", ErrorKind::Type);
    refuses::<(i64, i64)>("a:3:{i:0;i:1;i:1;i:1;i:2;i:1;}", ErrorKind::Type);
    // An iterator that does not know its length.
    struct Unsized;
    impl Serialize for Unsized {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..12).filter(|n| n % 4 == 0))
        }
    }
    assert_eq!(to_vec(&Unsized).expect("list"), b"a:3:{i:0;i:0;i:1;i:4;i:2;i:8;}");
}

#[test]
fn structs_and_maps() {
    let user = || User { name: "ada".into(), id: 7 };
    both(user(), "a:2:{s:4:\"name\";s:3:\"ada\";s:2:\"id\";i:7;}");
    reads("a:2:{s:2:\"id\";i:7;s:4:\"name\";s:3:\"ada\";}", user());
    reads("O:1:\"U\":3:{s:7:\"\0*\0name\";s:3:\"ada\";s:5:\"\0U\0id\";i:7;s:4:\"more\";a:1:{i:0;i:1;}}", user());
    reads("a:0:{}", User::default());
    reads("a:0:{}", BTreeMap::<String, i64>::new());
    reads("O:1:\"U\":1:{s:4:\"\0*\0a\";i:1;}", BTreeMap::from([(String::from("a"), 1)]));
    let unordered: HashMap<String, i64> = (0..30).map(|n| (format!("k{n}"), n)).collect();
    let ordered: BTreeMap<String, i64> = (0..30).map(|n| (format!("k{n}"), n)).collect();
    assert_eq!(to_vec(&unordered).expect("map"), to_vec(&ordered).expect("map"));
    both(
        BTreeMap::from([
            (String::from("10"), 1),
            (String::from("9"), 2),
            (String::from("a"), 3),
            (String::from("-1"), 4),
        ]),
        "a:4:{i:-1;i:4;i:9;i:2;i:10;i:1;s:1:\"a\";i:3;}",
    );
    both(BTreeMap::from([(5_u8, true)]), "a:1:{i:5;b:1;}");
    both(BTreeMap::from([(false, 1), (true, 2)]), "a:2:{i:0;i:1;i:1;i:2;}");
    both(BTreeMap::from([('x', 1)]), "a:1:{s:1:\"x\";i:1;}");
    assert_eq!(to_vec(&BTreeMap::from([((1, 2), 1)])).expect_err("no key").kind(), ErrorKind::Key);
    let missing = from_slice::<BTreeMap<String, New>>(b"a:1:{s:1:\"k\";s:6:\"secret\";}").expect_err("a string");
    assert_eq!(missing.path(), "k");
    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[expect(dead_code, reason = "only its presence matters")]
        a: i64,
    }
    refuses::<Strict>("a:1:{s:1:\"b\";i:1;}", ErrorKind::Type);
    refuses::<Strict>("a:0:{}", ErrorKind::Type);
    // The path names the key of the value, whatever key stands before it.
    let path = |text: &str| from_slice::<User>(text.as_bytes()).expect_err("no user").path();
    assert_eq!(path(r#"a:3:{S:4:"\6eone";i:1;s:2:"id";i:1;s:4:"name";i:5;}"#), "name");
    assert_eq!(path(r#"a:2:{s:4:"name";s:1:"x";S:2:"\69d";b:1;}"#), "id");
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Numbered {
        #[serde(rename = "5")]
        five: i64,
        #[serde(rename = "x")]
        text: String,
    }
    both(Numbered { five: 1, text: "\u{e4}".into() }, "a:2:{i:5;i:1;s:1:\"x\";s:2:\"\u{e4}\";}");
    reads("a:2:{s:1:\"x\";s:0:\"\";s:1:\"5\";i:1;}", Numbered { five: 1, text: String::new() });
    let wrong = from_slice::<Numbered>(b"a:1:{s:1:\"5\";b:1;}").expect_err("no integer");
    assert_eq!(wrong.path(), "[5]");
}

#[test]
fn variants() {
    both(Suit::Hearts, "s:6:\"Hearts\";");
    both(Suit::Number(5), "a:1:{s:6:\"Number\";i:5;}");
    both(Suit::Pair(5, "x".into()), "a:1:{s:4:\"Pair\";a:2:{i:0;i:5;i:1;s:1:\"x\";}}");
    both(Suit::Named { a: 1 }, "a:1:{s:5:\"Named\";a:1:{s:1:\"a\";i:1;}}");
    reads("E:11:\"Suit:Hearts\";", Suit::Hearts);
    refuses::<Suit>("s:6:\"Spades\";", ErrorKind::Type);
    refuses::<Suit>("i:1;", ErrorKind::Type);
    assert!(!from_slice::<Suit>(b"s:6:\"secret\";").expect_err("no variant").to_string().contains("secret"));
    // Untagged types see what is there.
    reads("a:2:{i:0;i:1;s:1:\"k\";a:1:{i:0;d:0.5;}}", serde_json::json!({"0": 1, "k": [0.5]}));
    reads("a:2:{i:0;b:1;i:1;N;}", serde_json::json!([true, null]));
    from_slice::<IgnoredAny>(b"a:1:{i:0;C:1:\"U\":2:{xx}}").expect("skipped");
}

#[test]
fn absent_and_null() {
    let mut bag = Bag::new(Format::Php);
    bag.set("null", &None::<i64>).expect("set");
    assert_eq!(bag.get::<i64>("null").expect("get"), None);
    assert_eq!(bag.get::<i64>("absent").expect("get"), None);
    assert!(bag.contains("null") && !bag.contains("absent"));
    assert_eq!(bag.value("null").expect("value"), Some(Value::Null));
    assert_eq!(bag.get::<String>("absent").expect("get"), None);
}

#[test]
fn values_keep_their_order_and_classes() {
    let text = br#"a:3:{s:1:"z";i:1;s:1:"a";O:1:"U":2:{s:1:"5";N;s:4:"%*%x";a:1:{i:7;b:0;}}i:4;E:3:"S:A";}"#;
    let text: Vec<u8> = text.iter().map(|b| if *b == b'%' { 0 } else { *b }).collect();
    let value: Value = from_slice(&text).expect("value");
    assert_eq!(show(&to_vec(&value).expect("value")), show(&text));
    let within: BTreeMap<String, Value> =
        from_slice(&[b"a:1:{s:1:\"k\";", &text[..], b"}"].concat()).expect("value in a map");
    assert_eq!(show(&to_vec(&within).expect("map")), show(&[b"a:1:{s:1:\"k\";", &text[..], b"}"].concat()));
    let array: Array = from_slice(&text).expect("array");
    assert_eq!(show(&to_vec(&array).expect("array")), show(&text));
    let json = serde_json::to_string(&value).expect("json");
    assert!(json.starts_with(r#"{"z":1,"a":{"class":"U","properties":{"5":null,"#), "{json}");
    let back: Value = serde_json::from_str(r#"{"b":[1,2.5,"x",null],"5":true}"#).expect("json");
    assert_eq!(to_vec(&back).expect("value"), br#"a:2:{s:1:"b";a:4:{i:0;i:1;i:1;d:2.5;i:2;s:1:"x";i:3;N;}i:5;b:1;}"#);
    let object = Value::from(Object::new("stdClass", [("5", 1)].into_iter().collect()));
    assert_eq!(object.serialize().expect("object"), br#"O:8:"stdClass":1:{s:1:"5";i:1;}"#);
    assert_eq!(to_vec(&object).expect("object"), object.serialize().expect("object"));
    let bad = Value::from(Object::new("no class", Array::new()));
    assert_eq!(to_vec(&bad).expect_err("no name").kind(), ErrorKind::Unsupported);
    assert!(bad.serialize().is_err_and(|error| !error.is_data()));
    // A reference is part of a whole value.
    let shared = Value::unserialize(b"a:2:{i:0;i:1;i:1;R:2;}").expect("value");
    assert_eq!(to_vec(&shared).expect_err("reference").kind(), ErrorKind::Unsupported);
    let mut bag = Bag::new(Format::Php);
    bag.set_value("v", &shared).expect("set");
    assert_eq!(bag.as_bytes(), b"v|a:2:{i:0;i:1;i:1;R:2;}");
    assert_eq!(bag.get::<Value>("v").expect("get"), Some(shared));
}

#[test]
fn arrays_have_phps_keys() {
    let mut array = Array::new();
    array.insert("5", 1);
    array.insert("05", 2);
    array.insert("-0", 3);
    array.insert("9223372036854775808", 4);
    assert!(array.push("six"));
    array.insert(5, 9);
    let keys: Vec<String> = array.iter().map(|(key, _)| format!("{key:?}")).collect();
    assert_eq!(keys, ["Int(5)", "Str(2 bytes)", "Str(2 bytes)", "Str(19 bytes)", "Int(6)"]);
    assert_eq!(array.get(5), Some(&Value::Int(9)));
    assert_eq!(array.remove("5"), Some(Value::Int(9)));
    assert!(array.get("5").is_none() && array.len() == 4 && !array.is_list());
    let mut list: Array = (0..40).map(|n| (n, n)).collect();
    assert!(list.is_list() && list.get(39) == Some(&Value::Int(39)) && list.get(40).is_none());
    assert_eq!(list.remove(20), Some(Value::Int(20)));
    assert!(!list.is_list() && list.get(39) == Some(&Value::Int(39)));
    list.insert("k", "v");
    assert!(list.push(1) && list.get(40).is_some() && list.get("k").is_some());
    let mut full = Array::new();
    full.insert(i64::MAX, 1);
    assert!(!full.push(2));
    assert_eq!(list.clone(), list);
    assert_eq!(format!("{:?}", Value::from(list)), "Array(41 elements)");
}
