//! Telling which records there are, in the order of their keys.

use std::sync::Arc;

use cloakroom_core::store::{BoxFuture, List, Listed};
use cloakroom_core::{Deadline, Key, Result};

use crate::SqliteStore;
use crate::way::Now;

impl List for SqliteStore {
    fn list<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let shared = Arc::clone(&self.shared);
        let after = after.map_or_else(Vec::new, |after| after.record().to_vec());
        Box::pin(async move {
            let deadline = Deadline::new(shared.base.busy, shared.base.busy);
            shared.read(&deadline, move |way, conn| way.list(conn, &after, limit, Now::read())).await
        })
    }
}
