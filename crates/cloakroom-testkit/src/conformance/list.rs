//! Stores that can tell what they hold tell it in the order of the keys, page by page.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use bytes::Bytes;
use cloakroom_core::Key;
use cloakroom_core::store::{Expect, Listed, Outcome, Put};

use super::Harness;
use super::tools::{LONG, Shared, assert_is, commit, create, seconds, short_of_long};

async fn list(store: &Shared, after: Option<&Key>, limit: usize) -> Vec<Listed> {
    store.as_list().unwrap().list(after, limit).await.unwrap()
}

/// Makes records in another order than that of their keys, and gives their keys in order.
async fn records<H: Harness>(harness: &H, count: usize) -> Vec<Key> {
    let store = harness.store();
    let name = |n: usize| format!("{:03}-listed", n * 7 % count);
    for n in 0..count {
        create(&store, &harness.key(&name(n)), Bytes::from(vec![b'x'; n])).await;
    }
    let mut keys: Vec<_> = (0..count).map(|n| harness.key(&name(n))).collect();
    keys.sort();
    keys
}

fn names(listed: &[Listed]) -> Vec<&[u8]> {
    listed.iter().map(|listed| listed.key.record()).collect()
}

fn records_of(keys: &[Key]) -> Vec<&[u8]> {
    keys.iter().map(Key::record).collect()
}

/// Nothing, and then everything once.
pub async fn a_list_has_every_record_in_order<H: Harness>(harness: H) {
    let store = harness.store();
    assert!(list(&store, None, 100).await.is_empty());
    let keys = records(&harness, 25).await;
    assert_eq!(names(&list(&store, None, 100).await), records_of(&keys));
    assert_eq!(names(&list(&store, None, 25).await), records_of(&keys));
}

/// Each page begins where the last one ended.
pub async fn a_list_comes_in_pages<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, 25).await;
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = list(&store, after.as_ref(), 10).await;
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.key.clone());
        all.extend(page);
    }
    assert_eq!(names(&all), records_of(&keys));
    assert!(list(&store, None, 0).await.is_empty());
}

/// A page can follow a record that was removed meanwhile.
pub async fn a_page_follows_a_key_that_is_gone<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, 10).await;
    assert_is!(commit(&store, &keys[4], Expect::Any, Put::Remove).await, Outcome::Removed(_));
    assert_eq!(names(&list(&store, Some(&keys[4]), 2).await), records_of(&keys[5..7]));
    assert!(list(&store, Some(&keys[9]), 5).await.is_empty());
}

/// Only what is present.
pub async fn a_list_leaves_out_what_is_dead<H: Harness>(harness: H) {
    let store = harness.store();
    let keys = records(&harness, 6).await;
    harness.age(&keys[0], LONG + seconds(1)).await;
    assert_is!(commit(&store, &keys[2], Expect::Any, Put::Remove).await, Outcome::Removed(_));
    assert_is!(commit(&store, &keys[4], Expect::Any, Put::SetAside).await, Outcome::Removed(_));
    let alive = [keys[1].clone(), keys[3].clone(), keys[5].clone()];
    assert_eq!(names(&list(&store, None, 100).await), records_of(&alive));
}

/// Size and remaining life, without reading the payload.
pub async fn a_list_tells_size_and_life<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("told"));
    create(&store, &key, vec![0; 1234]).await;
    harness.age(&key, seconds(300)).await;
    let listed = list(&store, None, 10).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].size, 1234);
    assert_is!(listed[0].ttl, Some(ttl) if ttl <= short_of_long(299) && ttl > short_of_long(360));
}
