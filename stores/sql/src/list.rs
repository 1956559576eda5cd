//! Listing what is there, in pages, without reading payloads.

use std::time::Duration;

use cloakroom_core::store::{BoxFuture, List, Listed};
use cloakroom_core::{Deadline, Key, Result};

use crate::SqlStore;
use crate::error::Failure;
use crate::layout::{Dialect, bytes_literal, text_literal};
use crate::pool::within;
use crate::shared::{Shared, Way};

/// How long one page may take.
const PAGE: Duration = Duration::from_secs(30);

impl List for SqlStore {
    /// One statement a page, by the primary key. Symfony's table on PostgreSQL sorts by the rules of a language, and
    /// has to be sorted anew for each page: for people and their tools.
    fn list<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        Box::pin(async move {
            let deadline = Deadline::new(PAGE, Duration::ZERO);
            self.shared.list(after, limit, &deadline).await.map_err(Failure::of_read)
        })
    }
}

impl Shared {
    async fn list(
        self: &std::sync::Arc<Self>,
        after: Option<&Key>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<Vec<Listed>, Failure> {
        let mut conn = self.connection(deadline).await?;
        let rows = within(deadline, conn.rows_once(self.page(after, limit))).await?;
        let mut listed = Vec::with_capacity(rows.len());
        for row in &rows {
            let decoded = || {
                let size = u64::try_from(row.int(1)?.unwrap_or(0)).unwrap_or(0);
                let ttl = Duration::from_millis(u64::try_from(row.int(2)?.unwrap_or(0)).unwrap_or(0));
                Ok(Listed::new(Key::from_bytes(row.bytes(0)?.unwrap_or_default().to_vec()), size, Some(ttl)))
            };
            listed.push(decoded().map_err(Failure::Lost)?);
        }
        Ok(listed)
    }

    fn takes_text(&self) -> bool {
        self.dialect == Dialect::Postgres && matches!(self.way, Way::Symfony(_))
    }

    fn page(&self, after: Option<&Key>, limit: usize) -> String {
        let limit = limit.min(1 << 31);
        let from = after.map(Key::record).unwrap_or_default();
        let from = if self.takes_text() { text_literal(self.dialect, from) } else { bytes_literal(self.dialect, from) };
        // An id is never empty, but a key might be.
        let than = if after.is_some() { ">" } else { ">=" };
        match &self.way {
            Way::Native(native) => {
                let (t, now) = (&native.texts.table, self.dialect.now_millis());
                format!(
                    "SELECT id, CAST({length} AS {int}), expires_at - {now} FROM {t} \
                     WHERE id {than} {from} AND expires_at > {now} ORDER BY id LIMIT {limit}",
                    length = "OCTET_LENGTH(payload)",
                    int = self.int()
                )
            }
            Way::Symfony(symfony) => {
                let texts = &symfony.texts;
                let (t, end, now) = (&texts.table, texts.end_of_life(), self.dialect.now_seconds());
                let (id, data) = (&texts.names.id, &texts.names.data);
                let by_bytes = if self.takes_text() { format!("{id} COLLATE \"C\"") } else { id.clone() };
                format!(
                    "SELECT {id}, CAST(OCTET_LENGTH({data}) AS {int}), ({end} - {now}) * 1000 FROM {t} \
                     WHERE {by_bytes} {than} {from} AND {end} >= {now} ORDER BY {by_bytes} LIMIT {limit}",
                    int = self.int()
                )
            }
        }
    }

    fn int(&self) -> &'static str {
        if self.dialect == Dialect::Postgres { "BIGINT" } else { "SIGNED" }
    }
}
