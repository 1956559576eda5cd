//! Layouts with columns keep who is logged in, and from where, beside the payload.

use bytes::Bytes;
use cloakroom_core::store::{Columns, Expect, Outcome, Payload, Put};

use super::Harness;
use super::tools::{LONG, assert_is, commit, create, found, write};

fn with(payload: &'static str, user: Option<&str>, address: Option<&str>, agent: Option<&str>) -> Put {
    let mut payload = Payload::new(Bytes::from(payload), LONG);
    payload.columns.user = user.map(str::to_owned);
    payload.columns.address = address.map(str::to_owned);
    payload.columns.agent = agent.map(str::to_owned);
    Put::Payload(payload)
}

#[track_caller]
fn assert_columns(columns: &Columns, user: Option<&str>, address: Option<&str>, agent: Option<&str>) {
    let found = (columns.user.as_deref(), columns.address.as_deref(), columns.agent.as_deref());
    assert_eq!(found, (user, address, agent));
}

/// All of them.
pub async fn columns_come_back<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("columns"));
    let put = with("data", Some("17"), Some("2001:db8::1"), Some("Mozilla/5.0 (caf\u{e9})"));
    assert_is!(commit(&store, &key, Expect::Absent, put).await, Outcome::Done(_));
    let record = found(&store, &key).await;
    assert_columns(&record.columns, Some("17"), Some("2001:db8::1"), Some("Mozilla/5.0 (caf\u{e9})"));
}

/// "`None` leaves a column as it is."
pub async fn a_column_that_is_not_written_stays<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("stays"));
    let put = with("1", Some("17"), Some("192.0.2.1"), Some("one"));
    assert_is!(commit(&store, &key, Expect::Absent, put).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Any, with("2", None, Some("192.0.2.2"), None)).await, Outcome::Done(_));
    assert_columns(&found(&store, &key).await.columns, Some("17"), Some("192.0.2.2"), Some("one"));
    assert_is!(commit(&store, &key, Expect::Any, write("3")).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Any, Put::Touch(LONG)).await, Outcome::Done(_));
    assert_columns(&found(&store, &key).await.columns, Some("17"), Some("192.0.2.2"), Some("one"));
}

/// A record that is made again has none of the old one's.
pub async fn columns_die_with_their_record<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("die"));
    assert_is!(commit(&store, &key, Expect::Absent, with("1", Some("17"), None, None)).await, Outcome::Done(_));
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    create(&store, &key, "2").await;
    assert_columns(&found(&store, &key).await.columns, None, None, None);
}
