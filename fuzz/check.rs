//! What must hold of any bytes whatever: an answer without a panic, and, where they are a session, agreement between
//! all the ways to read and write it. Shared by the fuzz targets and the ordinary tests.

use cloakroom_php::{Bag, ErrorKind, Format, Value};

/// Panics where something does not hold.
pub(crate) fn check(format: Format, bytes: &[u8]) {
    let bag = match Bag::parse(format, bytes.to_vec()) {
        Ok(bag) => bag,
        Err(error) => {
            assert!(error.is_data() && error.offset().is_some_and(|at| at <= bytes.len()), "{error:?}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(bag.as_bytes(), bytes);
    assert_eq!(bag.keys().count(), bag.len());
    // Written anew it is a session that is written the same again.
    match bag.encode() {
        Ok(Some(encoded)) => {
            let again = Bag::parse(format, encoded.clone()).expect("what we write we read");
            assert_eq!(again.encode().expect("encode"), Some(encoded));
            assert_eq!(again.serialize_all().expect("serialize"), bag.serialize_all().expect("serialize"));
            assert!(again.keys().eq(bag.keys()));
        }
        Ok(None) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}"),
    }
    // Each key's value, and the value made of it.
    let keys: Vec<cloakroom_php::Key> = bag.keys().map(Into::into).collect();
    for key in &keys {
        assert!(bag.contains(key) && bag.raw(key).is_some());
        match (bag.serialized(key), bag.value(key)) {
            (Ok(Some(serialized)), Ok(Some(value))) => {
                assert_eq!(value.serialize().expect("serialize"), serialized);
                let again = Value::unserialize(&serialized).expect("what we write we read");
                assert_eq!(again.serialize().expect("serialize"), serialized);
            }
            (Err(error), _) | (_, Err(error)) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}"),
            (Ok(None), _) | (_, Ok(None)) => panic!("{key:?} is there and is not"),
        }
        drop(bag.get::<String>(key));
        drop(bag.get::<Vec<i64>>(key));
    }
    // Edits: the index that was kept up and one made anew agree, and so does everything else.
    let mut edited = bag.clone();
    for (n, key) in keys.iter().enumerate().take(8) {
        let before = edited.to_bytes();
        let result = match n % 3 {
            0 => edited.set(key, &n),
            1 => edited.remove(key).map(|_| ()),
            _ => edited.set_serialized(key, b"a:2:{i:0;i:1;i:1;R:2;}"),
        };
        match result {
            Ok(()) => {
                let anew = Bag::parse(format, edited.to_bytes()).expect("what we write we read");
                assert!(anew.keys().eq(edited.keys()));
                assert!(anew.keys().all(|key| anew.raw(key) == edited.raw(key)));
            }
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Key | ErrorKind::Depth),
                    "{error:?}"
                );
                assert_eq!(edited.as_bytes(), before);
            }
        }
    }
}
