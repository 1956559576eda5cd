//! Records come back as they were written, and making one differs from changing one.

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Put, Version};

use super::Harness;
use super::tools::{
    LONG, assert_absent, assert_holds, assert_is, commit, create, found, hold, load, lock, version, write,
};

/// "A record that is absent is `None`" and not an error.
pub async fn what_was_never_written_is_absent<H: Harness>(harness: H) {
    let store = harness.store();
    assert!(load(&store, &harness.key("never")).await.is_none());
    assert!(load(&store, &harness.key("never")).await.is_none());
}

/// Stores move bytes, whichever.
pub async fn payload_comes_back_byte_for_byte<H: Harness>(harness: H) {
    let store = harness.store();
    let all: Vec<u8> = (0..=255).collect();
    let payloads: [&[u8]; 9] = [
        b"user|s:3:\"ann\";cart|a:1:{i:0;d:9.95;}",
        b"\0",
        b"a\0b\0",
        &all,
        b"\xff\xfe not UTF-8 \xc3",
        "Caf\u{e9} \u{1f355}".as_bytes(),
        b"'; DROP TABLE sessions; --\\",
        b"\r\nEND\r\n",
        b" trailing spaces  ",
    ];
    for (n, payload) in payloads.into_iter().enumerate() {
        let key = harness.key(&format!("bytes-{n}"));
        create(&store, &key, Bytes::copy_from_slice(payload)).await;
        assert_holds(&store, &key, payload).await;
        let locked = hold(&store, &key).await;
        assert!(locked.record.is_some_and(|record| record.payload == payload), "payload {n} under the lock");
        locked.lease.release().await;
    }
}

/// "Present, even with 0 bytes."
pub async fn an_empty_payload_is_present<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("empty"));
    create(&store, &key, "").await;
    assert_holds(&store, &key, "").await;
    assert_is!(commit(&store, &key, Expect::Absent, write("other")).await, Outcome::Taken);
    assert_is!(commit(&store, &key, Expect::Any, write("full")).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Any, write("")).await, Outcome::Done(_));
    assert_holds(&store, &key, "").await;
}

/// Large sessions are whole.
pub async fn a_megabyte_comes_back<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("large"));
    let most = store.capabilities().max_payload.and_then(|most| usize::try_from(most).ok());
    let length = most.unwrap_or(usize::MAX).min(1 << 20);
    let payload: Bytes = (0..=250).cycle().take(length).collect();
    create(&store, &key, payload.clone()).await;
    assert_holds(&store, &key, &payload).await;
}

/// Nothing of a longer payload stays behind a shorter one.
pub async fn a_payload_grows_and_shrinks<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("lengths"));
    let most = store.capabilities().max_payload.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    create(&store, &key, "x").await;
    for (n, length) in (0_u8..).zip([4096, 1, 4097, 4095, 0, 65_536, 65_535, 7, 7, 8, 20_000, 2]) {
        let length = length.min(most);
        let payload = vec![b'a' + n; length];
        assert_is!(commit(&store, &key, Expect::Any, write(payload.clone())).await, Outcome::Done(_));
        assert_holds(&store, &key, &payload).await;
        let payload = vec![b'A' + n; length];
        let locked = hold(&store, &key).await;
        assert_is!(commit(&store, &key, Expect::Held(locked.lease), write(payload.clone())).await, Outcome::Done(_));
        assert_holds(&store, &key, &payload).await;
    }
}

/// Creating is exclusive; a chosen id never takes over somebody's session.
pub async fn creating_what_is_there_is_refused<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("taken"));
    create(&store, &key, "first").await;
    let before = version(&store, &key).await;
    for _ in 0..2 {
        assert_is!(commit(&store, &key, Expect::Absent, write("second")).await, Outcome::Taken);
        assert_holds(&store, &key, "first").await;
    }
    assert_is!(commit(&store, &key, Expect::Is(&before), write("third")).await, Outcome::Done(_));
}

/// A change never makes a record: a destroyed session is not brought back.
pub async fn changing_what_is_missing_is_gone<H: Harness>(harness: H) {
    let (store, key, other) = (harness.store(), harness.key("missing"), harness.key("other"));
    create(&store, &other, "somebody else's").await;
    let stale = version(&store, &other).await;
    let expectations: [Option<&Version>; 2] = [None, Some(&stale)];
    for is in expectations {
        for put in [write("new"), Put::Touch(LONG), Put::Remove, Put::SetAside] {
            let shown = format!("{is:?} {put:?}");
            let outcome = commit(&store, &key, is.map_or(Expect::Any, Expect::Is), put).await;
            assert!(matches!(outcome, Outcome::Gone), "{shown}: {outcome:?}");
            assert_absent(&store, &key).await;
        }
    }
    assert_holds(&store, &other, "somebody else's").await;
}

/// Removing is safe to do again.
pub async fn removing_twice_is_gone<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("twice"));
    create(&store, &key, "data").await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    for _ in 0..2 {
        assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Gone);
        assert_absent(&store, &key).await;
    }
}

/// "Removed, and what was there."
pub async fn removing_tells_what_was_there<H: Harness>(harness: H) {
    let store = harness.store();
    for (name, how) in [("any", 0), ("is", 1), ("held", 2), ("aside", 3)] {
        let key = harness.key(name);
        create(&store, &key, name).await;
        let seen = version(&store, &key).await;
        let outcome = match how {
            0 => commit(&store, &key, Expect::Any, Put::Remove).await,
            1 => commit(&store, &key, Expect::Is(&seen), Put::Remove).await,
            2 => {
                let lease = hold(&store, &key).await.lease;
                commit(&store, &key, Expect::Held(lease), Put::Remove).await
            }
            _ => commit(&store, &key, Expect::Any, Put::SetAside).await,
        };
        assert!(matches!(&outcome, Outcome::Removed(was) if was.payload == name), "{name}: {outcome:?}");
        assert_absent(&store, &key).await;
    }
}

/// "A record is present, whichever."
pub async fn any_takes_whichever_record_is_there<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("any"));
    create(&store, &key, "one").await;
    for payload in ["two", "three", "three"] {
        assert_is!(commit(&store, &key, Expect::Any, write(payload)).await, Outcome::Done(_));
        assert_holds(&store, &key, payload).await;
    }
}

/// Names that are nearly the same: case, prefixes, and long ones that differ in their last byte.
pub async fn similar_keys_are_different_records<H: Harness>(harness: H) {
    let store = harness.store();
    let long = "0123456789abcdef".repeat(8);
    let names = ["a", "A", "aa", "a-", "a,", "-a", "0", "00", &long, &format!("{}e", &long[..127]), &long[..127]];
    for name in names {
        create(&store, &harness.key(name), Bytes::from(name.to_owned())).await;
    }
    for name in names {
        assert_holds(&store, &harness.key(name), name).await;
    }
    assert_is!(commit(&store, &harness.key("a"), Expect::Any, Put::Remove).await, Outcome::Removed(_));
    for name in &names[1..] {
        assert_holds(&store, &harness.key(name), name).await;
    }
}

/// What a dead record held is nowhere in its successor.
pub async fn a_removed_record_can_be_made_again<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("again"));
    for payload in ["first and long", "second", ""] {
        create(&store, &key, payload).await;
        assert_holds(&store, &key, payload).await;
        assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
        assert_absent(&store, &key).await;
    }
}

/// A load reads and does nothing else.
pub async fn reading_changes_nothing<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("read"));
    create(&store, &key, "data").await;
    let first = found(&store, &key).await;
    for _ in 0..5 {
        assert_eq!(found(&store, &key).await.payload, first.payload);
    }
    assert_is!(commit(&store, &key, Expect::Is(&first.version), write("new")).await, Outcome::Done(_));
}

/// A visitor may send any well-formed id. One that the layout has no room for is unknown, like any other that nobody
/// has made; it is no failure of the store.
pub async fn an_id_without_room_in_the_layout_is_absent<H: Harness>(harness: H) {
    let store = harness.store();
    for length in [129, 200, 250] {
        let key = harness.key(&"a".repeat(length));
        assert_absent(&store, &key).await;
        assert!(lock(&store, &key, Claim::Existing).await.is_none());
        for put in [Put::Touch(LONG), Put::Remove, write("x")] {
            assert_is!(commit(&store, &key, Expect::Any, put).await, Outcome::Gone);
        }
    }
}
