//! The PHP that stays gives the same verdicts as PHP's own sessions.

use cloakroom_testkit::php;
use cloakroom_testkit::worker::Worker;

#[test]
fn values_come_back_in_php_s_own_spelling() {
    if php::skip("php") {
        return;
    }
    let mut php = Worker::start(&[]).unwrap();
    let mut value = |bytes: &[u8]| php.unserialize(bytes).unwrap().bytes;
    assert_eq!(value(b"i:+5;").as_deref(), Some(&b"i:5;"[..]));
    assert_eq!(value(b"b:0;").as_deref(), Some(&b"b:0;"[..]));
    assert_eq!(value(b"s:2:\"\x00\xff\";").as_deref(), Some(&b"s:2:\"\x00\xff\";"[..]));
    assert_eq!(value(b"O:7:\"Unknown\":0:{}").as_deref(), Some(&b"O:7:\"Unknown\":0:{}"[..]));
    assert_eq!(value(b"i:1"), None);
    assert_eq!(value(b"E:7:\"Suit:Up\";"), None);
}

#[test]
fn sessions_are_decoded_in_every_format() {
    if php::skip("php") {
        return;
    }
    let mut php = Worker::start(&[]).unwrap();
    for (handler, session) in
        [("php", &b"n|i:1;"[..]), ("php_binary", &b"\x01ni:1;"[..]), ("php_serialize", &b"a:1:{s:1:\"n\";i:1;}"[..])]
    {
        let verdict = php.decode(handler, session).unwrap();
        assert_eq!(verdict.bytes.as_deref(), Some(&b"a:1:{s:1:\"n\";i:1;}"[..]), "{handler}: {verdict:?}");
        assert_eq!(verdict.encoded.as_deref(), Some(session), "{handler}");
        assert!(!verdict.warned, "{verdict:?}");
    }
    let refused = php.decode("php", b"n|i:1;x").unwrap();
    assert!(refused.bytes.is_none() && refused.warned, "{refused:?}");
    let empty = php.decode("php", b"").unwrap();
    assert_eq!((empty.bytes.as_deref(), empty.encoded), (Some(&b"a:0:{}"[..]), None));
    // A question after thousands of others is answered as the first one was.
    for _ in 0..3000 {
        assert!(php.decode("php", b"a|i:1;b|R:1;").unwrap().bytes.is_some());
    }
    let verdict = php.decode("php", b"a|i:1;b|R:1;").unwrap();
    assert_eq!(verdict.encoded.as_deref(), Some(&b"a|i:1;b|R:1;"[..]));
}
