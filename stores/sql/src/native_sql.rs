//! The statements of the native layout. Each operation is one of them, so that nothing is checked first and written later.

use cloakroom_core::Result;
use sqlx::SqlStr;

use crate::layout::Dialect;
use crate::pool::statement;

/// Under which condition a record is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// It is alive and has this version, and nobody holds it.
    Is,
    /// It is alive, and nobody holds it.
    Any,
    /// This lease is on it.
    Held,
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Write,
    Touch,
    Remove,
    SetAside,
}

/// The columns of every answer, by their places.
pub(crate) const PAYLOAD: usize = 0;
pub(crate) const VERSION: usize = 1;
pub(crate) const TTL: usize = 2;
pub(crate) const USER: usize = 3;
pub(crate) const ADDRESS: usize = 4;
pub(crate) const AGENT: usize = 5;
pub(crate) const ALIVE: usize = 6;
pub(crate) const HELD: usize = 7;
/// In the answer to a change: the version it has now, or nothing if the change was not made.
pub(crate) const DONE: usize = 8;
/// In the answer to a claim: whether the lease is ours.
pub(crate) const MINE: usize = 8;

pub(crate) struct Texts {
    pub(crate) dialect: Dialect,
    pub(crate) table: String,
    pub(crate) aside: String,
    pub(crate) load: SqlStr,
    pub(crate) state: SqlStr,
    pub(crate) renew: SqlStr,
    pub(crate) release: SqlStr,
    pub(crate) bury: SqlStr,
    /// PostgreSQL's claims: on what exists, on what does not, on either.
    pub(crate) claims: [SqlStr; 3],
    pub(crate) create: SqlStr,
    pub(crate) replace_dead: SqlStr,
    /// By [`When`] and [`What`].
    changes: [[SqlStr; 4]; 3],
}

impl Texts {
    pub(crate) fn new(dialect: Dialect, table: &str, aside: &str) -> Result<Texts> {
        let (t, aside) = (dialect.quote(table)?, dialect.quote(aside)?);
        let (now, marks) = (dialect.now_millis(), Marks::new(dialect));
        let changes = [When::Is, When::Any, When::Held].map(|when| {
            [What::Write, What::Touch, What::Remove, What::SetAside].map(|what| {
                statement(match dialect {
                    Dialect::Postgres => change_postgres(&t, &aside, when, what),
                    Dialect::MySql => change_mysql(&t, when, what),
                })
            })
        });
        let Marks { one, two, three } = marks;
        let record = "payload, version";
        let columns = "user_id, address, agent";
        Ok(Texts {
            load: statement(format!(
                "SELECT {record}, expires_at - {now}, {columns} FROM {t} WHERE id = {one} AND expires_at > {now}"
            )),
            state: statement(format!(
                "SELECT {record}, expires_at - {now}, {columns}, expires_at > {now}, lock_until > {now} FROM {t} \
                 WHERE id = {one}"
            )),
            renew: statement(format!(
                "UPDATE {t} SET lock_until = {now} + {one} WHERE id = {two} AND lock_token = {three}"
            )),
            release: statement(format!(
                "UPDATE {t} SET lock_token = 0, lock_until = 0 WHERE id = {one} AND lock_token = {two}"
            )),
            bury: statement(format!(
                "DELETE FROM {t} WHERE id = {one} AND expires_at <= {now} AND lock_until <= {now}"
            )),
            claims: [claim_existing_postgres(&t), claim_postgres(&t, true), claim_postgres(&t, false)].map(statement),
            create: statement(match dialect {
                Dialect::Postgres => create_postgres(&t),
                Dialect::MySql => format!(
                    "INSERT INTO {t} (payload, version, expires_at, created_at, last_seen_at, user_id, address, agent, \
                     id) VALUES (?, ?, {now} + ?, {now}, {now}, ?, ?, ?, ?)"
                ),
            }),
            replace_dead: statement(format!(
                "UPDATE {t} SET payload = ?, version = ?, expires_at = {now} + ?, created_at = {now}, \
                 last_seen_at = {now}, user_id = ?, address = ?, agent = ?, lock_token = 0, lock_until = 0 \
                 WHERE id = ? AND expires_at <= {now} AND lock_until <= {now}"
            )),
            changes,
            dialect,
            table: t,
            aside,
        })
    }

    pub(crate) fn change(&self, when: When, what: What) -> &SqlStr {
        &self.changes[when as usize][what as usize]
    }

    /// MySQL's claim: taken if it is free, and then told who has it, in one go. `fresh` is the version of a record that
    /// has to be made; `None` takes only one that exists.
    pub(crate) fn claim_mysql(&self, id: &str, token: i64, lease: i64, fresh: Option<Fresh>) -> String {
        let (t, now) = (&self.table, self.dialect.now_millis());
        let take = match fresh {
            None => format!(
                "UPDATE {t} SET lock_token = {token}, lock_until = {now} + {lease} \
                 WHERE id = {id} AND expires_at > {now} AND lock_until <= {now}"
            ),
            // From left to right, each column still sees those to its right as they were.
            Some(Fresh { version, lifetime, only_new }) => {
                let dead = format!("lock_until <= {now} AND expires_at <= {now}");
                let free = if only_new { dead.clone() } else { format!("lock_until <= {now}") };
                format!(
                    "INSERT INTO {t} (id, payload, version, expires_at, created_at, last_seen_at, lock_token, \
                     lock_until) VALUES ({id}, '', {version}, {now} + {lifetime}, {now}, {now}, {token}, {now} + {lease}) \
                     ON DUPLICATE KEY UPDATE payload = IF({dead}, '', payload), version = IF({dead}, {version}, version), \
                     created_at = IF({dead}, {now}, created_at), last_seen_at = IF({dead}, {now}, last_seen_at), \
                     user_id = IF({dead}, NULL, user_id), address = IF({dead}, NULL, address), \
                     agent = IF({dead}, NULL, agent), lock_token = IF({free}, {token}, lock_token), \
                     expires_at = IF({dead}, {now} + {lifetime}, expires_at), \
                     lock_until = IF(lock_token = {token}, {now} + {lease}, lock_until)"
                )
            }
        };
        format!(
            "{take}; SELECT payload, version, expires_at - {now}, user_id, address, agent, expires_at > {now}, \
             lock_until > {now}, lock_token = {token} FROM {t} WHERE id = {id}"
        )
    }

    /// MySQL cannot tell what it deletes: read, set aside where asked for, and deleted, in one transaction and one go.
    pub(crate) fn remove_mysql(&self, id: &str, when: &str, aside: bool) -> String {
        let (t, now) = (&self.table, "@cloakroom_now");
        let set_aside = if aside {
            format!(
                "INSERT INTO {} (payload, aside_at) SELECT payload, {now} FROM {t} WHERE id = {id} AND {when}; ",
                self.aside
            )
        } else {
            String::new()
        };
        format!(
            "START TRANSACTION; SET @cloakroom_now = {}; SELECT payload, version, expires_at - {now}, user_id, address, \
             agent, expires_at > {now}, lock_until > {now}, {when} FROM {t} WHERE id = {id} FOR UPDATE; {set_aside}\
             DELETE FROM {t} WHERE id = {id} AND {when}; COMMIT",
            self.dialect.now_millis()
        )
    }
}

/// What a claim makes where nothing is.
#[derive(Clone, Copy)]
pub(crate) struct Fresh {
    pub(crate) version: i64,
    pub(crate) lifetime: i64,
    pub(crate) only_new: bool,
}

/// The first three placeholders.
struct Marks {
    one: &'static str,
    two: &'static str,
    three: &'static str,
}

impl Marks {
    fn new(dialect: Dialect) -> Marks {
        match dialect {
            Dialect::Postgres => Marks { one: "$1", two: "$2", three: "$3" },
            Dialect::MySql => Marks { one: "?", two: "?", three: "?" },
        }
    }
}

/// The row as it is now, locked for the length of the statement, so that the condition, the change and what is told all
/// speak of the same state. Placeholders: the id; the version or the lease; what is written.
fn change_postgres(t: &str, aside: &str, when: When, what: What) -> String {
    let now = Dialect::Postgres.now_millis();
    let mut last = 1;
    let mut next = || {
        last += 1;
        format!("${last}")
    };
    let condition = match when {
        When::Is => format!("seen.alive AND NOT seen.held AND seen.version = {}", next()),
        // A touch changes no data: it need not wait for the holder.
        When::Any if what == What::Touch => "seen.alive".to_owned(),
        When::Any => "seen.alive AND NOT seen.held".to_owned(),
        When::Held => format!("seen.lock_token = {}", next()),
    };
    let unlock = if when == When::Any && what == What::Touch { "" } else { ", lock_token = 0, lock_until = 0" };
    let (change, more) = match what {
        What::Write => (
            format!(
                "UPDATE {t} AS kept SET payload = {}, version = kept.version + 1, expires_at = {now} + {}, \
                 last_seen_at = {now}, user_id = COALESCE({}, kept.user_id), address = COALESCE({}, kept.address), \
                 agent = COALESCE({}, kept.agent){unlock} FROM seen",
                next(),
                next(),
                next(),
                next(),
                next()
            ),
            "",
        ),
        What::Touch => (
            format!("UPDATE {t} AS kept SET expires_at = {now} + {}, last_seen_at = {now}{unlock} FROM seen", next()),
            "",
        ),
        What::Remove | What::SetAside => (format!("DELETE FROM {t} AS kept USING seen"), ", kept.payload"),
    };
    let (set_aside, removes) = match what {
        What::SetAside => {
            (format!(", put AS (INSERT INTO {aside} (payload, aside_at) SELECT done.payload, {now} FROM done)"), true)
        }
        What::Remove => (String::new(), true),
        What::Write | What::Touch => (String::new(), false),
    };
    format!(
        "WITH seen AS MATERIALIZED (SELECT id, payload, version, expires_at - {now} AS ttl, user_id, address, agent, \
         expires_at > {now} AS alive, lock_until > {now} AS held, lock_token FROM {t} WHERE id = $1 FOR UPDATE), \
         done AS ({change} WHERE kept.id = seen.id AND {condition} RETURNING kept.version{more}){set_aside} \
         SELECT CASE WHEN {removes} OR done.version IS NULL THEN seen.payload END, seen.version, seen.ttl, seen.user_id, \
         seen.address, seen.agent, seen.alive, seen.held, done.version FROM seen LEFT JOIN done ON true"
    )
}

/// Placeholders: what is written, the id, the version or the lease. Removing is [`Texts::remove_mysql`].
fn change_mysql(t: &str, when: When, what: What) -> String {
    let now = Dialect::MySql.now_millis();
    let free = format!("expires_at > {now} AND lock_until <= {now}");
    let condition = match when {
        When::Is => format!("version = ? AND {free}"),
        When::Any if what == What::Touch => format!("expires_at > {now}"),
        When::Any => free,
        When::Held => "lock_token = ?".to_owned(),
    };
    let unlock = if when == When::Any && what == What::Touch { "" } else { ", lock_token = 0, lock_until = 0" };
    // LAST_INSERT_ID(…) is told in the answer to the statement itself.
    match what {
        What::Write => format!(
            "UPDATE {t} SET payload = ?, version = LAST_INSERT_ID(version + 1), expires_at = {now} + ?, \
             last_seen_at = {now}, user_id = COALESCE(?, user_id), address = COALESCE(?, address), \
             agent = COALESCE(?, agent){unlock} WHERE id = ? AND {condition}"
        ),
        _ => format!(
            "UPDATE {t} SET version = LAST_INSERT_ID(version), expires_at = {now} + ?, last_seen_at = {now}{unlock} \
             WHERE id = ? AND {condition}"
        ),
    }
}

/// Placeholders: the id, the lease, its length.
fn claim_existing_postgres(t: &str) -> String {
    let now = Dialect::Postgres.now_millis();
    format!(
        "WITH seen AS MATERIALIZED (SELECT id, payload, version, expires_at - {now} AS ttl, user_id, address, agent, \
         expires_at > {now} AS alive, lock_until > {now} AS held FROM {t} WHERE id = $1 FOR UPDATE), \
         mine AS (UPDATE {t} AS kept SET lock_token = $2, lock_until = {now} + $3 FROM seen \
         WHERE kept.id = seen.id AND seen.alive AND NOT seen.held RETURNING kept.id), \
         dead AS (DELETE FROM {t} AS kept USING seen \
         WHERE kept.id = seen.id AND NOT seen.alive AND NOT seen.held) \
         SELECT seen.payload, seen.version, seen.ttl, seen.user_id, seen.address, seen.agent, seen.alive, seen.held, \
         mine.id IS NOT NULL FROM seen LEFT JOIN mine ON true"
    )
}

/// Placeholders: the id, the version of a new record, its life, the lease, its length.
fn claim_postgres(t: &str, only_new: bool) -> String {
    let now = Dialect::Postgres.now_millis();
    let alive = format!("kept.expires_at > {now}");
    let keep = |column: &str| format!("{column} = CASE WHEN {alive} THEN kept.{column} ELSE excluded.{column} END");
    let kept = ["payload", "version", "expires_at", "created_at", "last_seen_at", "user_id", "address", "agent"];
    let kept = kept.map(keep).join(", ");
    let only_dead = if only_new { format!(" AND NOT {alive}") } else { String::new() };
    format!(
        "WITH mine AS (INSERT INTO {t} AS kept (id, payload, version, expires_at, created_at, last_seen_at, \
         lock_token, lock_until) VALUES ($1, '', $2, {now} + $3, {now}, {now}, $4, {now} + $5) \
         ON CONFLICT (id) DO UPDATE SET {kept}, lock_token = excluded.lock_token, lock_until = excluded.lock_until \
         WHERE kept.lock_until <= {now}{only_dead} RETURNING payload, version, expires_at, user_id, address, agent) \
         SELECT payload, version, expires_at - {now}, user_id, address, agent, true, false, true FROM mine UNION ALL \
         SELECT NULL, version, 0, NULL, NULL, NULL, expires_at > {now}, lock_until > {now}, false FROM {t} \
         WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM mine)"
    )
}

/// Placeholders: payload, version, life, user, address, agent, id.
fn create_postgres(t: &str) -> String {
    let now = Dialect::Postgres.now_millis();
    let columns =
        "payload, version, expires_at, created_at, last_seen_at, user_id, address, agent, lock_token, lock_until";
    let take = columns.split(", ").map(|column| format!("{column} = excluded.{column}")).collect::<Vec<_>>().join(", ");
    format!(
        "WITH made AS (INSERT INTO {t} AS kept ({columns}, id) \
         VALUES ($1, $2, {now} + $3, {now}, {now}, $4, $5, $6, 0, 0, $7) \
         ON CONFLICT (id) DO UPDATE SET {take} WHERE kept.expires_at <= {now} AND kept.lock_until <= {now} \
         RETURNING version) \
         SELECT NULL::bytea, version, NULL::bigint, NULL, NULL, NULL, true, false, version FROM made UNION ALL \
         SELECT NULL, NULL, NULL, NULL, NULL, NULL, expires_at > {now}, lock_until > {now}, NULL FROM {t} \
         WHERE id = $7 AND NOT EXISTS (SELECT 1 FROM made)"
    )
}
