//! The statements of Symfony's layout. The version of a record is its payload, since there is no column for one.

use cloakroom_core::Result;
use sqlx::SqlStr;

use crate::layout::{Dialect, Expiry, LONGEST_DURATION, LockMode, Symfony, SymfonyNames, as_php_means};
use crate::native_sql::{What, When};
use crate::pool::statement;

/// The columns of every answer, by their places.
pub(crate) const PAYLOAD: usize = 0;
/// Remaining life in seconds.
pub(crate) const TTL: usize = 1;
pub(crate) const ALIVE: usize = 2;
/// In the answer to a change: whether it was made.
pub(crate) const DONE: usize = 3;

pub(crate) struct Texts {
    pub(crate) dialect: Dialect,
    pub(crate) lock: LockMode,
    pub(crate) expiry: Expiry,
    pub(crate) names: SymfonyNames,
    pub(crate) table: String,
    pub(crate) aside: String,
    /// What is alive.
    pub(crate) load: SqlStr,
    /// Whatever is there: without a lock, with the row's lock, and with it if it can be had at once.
    pub(crate) read: [SqlStr; 3],
    /// For who has the lock already: payload, life, id. The first two change a row that is there, or also make it.
    pub(crate) write: SqlStr,
    pub(crate) upsert: SqlStr,
    /// Life, id.
    pub(crate) touch_held: SqlStr,
    /// Id.
    pub(crate) placeholder: SqlStr,
    pub(crate) delete: SqlStr,
    pub(crate) bury: SqlStr,
    pub(crate) set_aside: SqlStr,
    /// For who has no lock: one statement that takes its turn, looks, and changes. [`When::Held`] is for who found the
    /// record like this, and may write it also if its life has ended since.
    pub(crate) create: SqlStr,
    /// Whether anybody waits for such a lock. In the advisory mode of MySQL: who holds it.
    pub(crate) waits: SqlStr,
    changes: [[SqlStr; 4]; 3],
}

impl Texts {
    pub(crate) fn new(dialect: Dialect, symfony: &Symfony, table: &str, aside: &str) -> Result<Texts> {
        let names = symfony.names(dialect)?;
        let aside = dialect.quote(aside)?;
        let t = dialect.quote(&as_php_means(dialect, table))?;
        let SymfonyNames { id, data, lifetime, time } = &names;
        let (now, end) = (dialect.now_seconds(), symfony.expiry.end_of_life(dialect, lifetime, time));
        let marks: [&str; 4] = match dialect {
            Dialect::Postgres => ["$1", "$2", "$3", "$4"],
            Dialect::MySql => ["?"; 4],
        };
        let [one, two, three, _] = marks;
        let life = |ttl: &str| life(dialect, symfony.expiry, ttl);
        let read = |more: &str| {
            statement(format!("SELECT {data}, {end} - {now}, {end} >= {now} FROM {t} WHERE {id} = {one}{more}"))
        };
        let insert = |values: String| format!("INSERT INTO {t} ({data}, {lifetime}, {time}, {id}) VALUES ({values})");
        let written = insert(format!("{one}, {}, {now}, {three}", life(two)));
        let (upsert, placeholder) = match dialect {
            Dialect::Postgres => (
                format!(
                    "{written} ON CONFLICT ({id}) DO UPDATE SET ({data}, {lifetime}, {time}) = \
                     (excluded.{data}, excluded.{lifetime}, excluded.{time})"
                ),
                format!("{} ON CONFLICT ({id}) DO NOTHING", insert(format!("'', {}, {now}, {one}", life("0")))),
            ),
            Dialect::MySql => (
                format!(
                    "{written} ON DUPLICATE KEY UPDATE {data} = VALUES({data}), {lifetime} = VALUES({lifetime}), \
                     {time} = VALUES({time})"
                ),
                insert(format!("'', {}, {now}, {one}", life("0"))).replacen("INSERT", "INSERT IGNORE", 1),
            ),
        };
        let build = Build { dialect, t: &t, aside: &aside, names: &names, expiry: symfony.expiry, lock: symfony.lock };
        let changes = [When::Is, When::Any, When::Held].map(|when| {
            [What::Write, What::Touch, What::Remove, What::SetAside].map(|what| {
                statement(match dialect {
                    Dialect::Postgres => build.change_postgres(when, what),
                    Dialect::MySql => build.change_mysql(when, what),
                })
            })
        });
        let create = match dialect {
            Dialect::Postgres => build.create_postgres(),
            Dialect::MySql => written.clone(),
        };
        Ok(Texts {
            load: statement(format!("SELECT {data}, {end} - {now} FROM {t} WHERE {id} = {one} AND {end} >= {now}")),
            read: [read(""), read(" FOR UPDATE"), read(" FOR UPDATE NOWAIT")],
            write: statement(format!(
                "UPDATE {t} SET {data} = {one}, {lifetime} = {}, {time} = {now} WHERE {id} = {three}",
                life(two)
            )),
            upsert: statement(upsert),
            touch_held: statement(format!(
                "UPDATE {t} SET {lifetime} = {}, {time} = {now} WHERE {id} = {two}",
                life(one)
            )),
            placeholder: statement(placeholder),
            delete: statement(format!("DELETE FROM {t} WHERE {id} = {one}")),
            bury: statement(format!("DELETE FROM {t} WHERE {id} = {one} AND {end} < {now}")),
            set_aside: statement(format!(
                "INSERT INTO {aside} (payload, aside_at) SELECT {data}, {} FROM {t} WHERE {id} = {one}",
                dialect.now_millis()
            )),
            create: statement(create),
            waits: statement(waits(dialect, symfony.lock).to_owned()),
            changes,
            dialect,
            lock: symfony.lock,
            expiry: symfony.expiry,
            table: t,
            aside,
            names,
        })
    }

    pub(crate) fn change(&self, when: When, what: What) -> &SqlStr {
        &self.changes[when as usize][what as usize]
    }

    pub(crate) fn end_of_life(&self) -> String {
        self.expiry.end_of_life(self.dialect, &self.names.lifetime, &self.names.time)
    }

    /// MySQL cannot tell what it deletes: read, set aside where asked for, and deleted, in one transaction and one go.
    pub(crate) fn remove_mysql(&self, id: &str, when: When, is: Option<&str>, aside: bool) -> String {
        let SymfonyNames { id: id_col, data, .. } = &self.names;
        let (t, now, end) = (&self.table, "@cloakroom_now", self.end_of_life());
        let alive = format!("{end} >= {now}");
        let when = match (when, is) {
            (When::Is, Some(payload)) => format!("({alive} AND {data} = {payload})"),
            (When::Held, Some(payload)) => format!("({data} = {payload})"),
            _ => format!("({alive})"),
        };
        let set_aside = if aside {
            format!(
                "INSERT INTO {} (payload, aside_at) SELECT {data}, {} FROM {t} WHERE {id_col} = {id} AND {when}; ",
                self.aside,
                self.dialect.now_millis()
            )
        } else {
            String::new()
        };
        format!(
            "START TRANSACTION; SET @cloakroom_now = {}; SELECT {data}, {end} - {now}, {end} >= {now}, {when} FROM {t} \
             WHERE {id_col} = {id} FOR UPDATE; {set_aside}DELETE FROM {t} WHERE {id_col} = {id} AND {when}; COMMIT",
            self.dialect.now_seconds()
        )
    }
}

/// Asked by a connection beside those that wait. No server says of a single connection of ours, seen through whatever lies
/// between, whether it waits; but it cannot where nobody does.
fn waits(dialect: Dialect, lock: LockMode) -> &'static str {
    match (dialect, lock) {
        (Dialect::Postgres, LockMode::Advisory) => {
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1 \
             AND ((classid::bigint << 32) | objid::bigint) = $1) \
             OR EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND wait_event <> 'advisory')"
        }
        (Dialect::Postgres, _) => {
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock')"
        }
        (Dialect::MySql, LockMode::Advisory) => "SELECT IS_USED_LOCK(?)",
        (Dialect::MySql, _) => {
            "SELECT EXISTS (SELECT 1 FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() \
             AND DB = DATABASE() AND COMMAND IN ('Query', 'Execute') AND (INFO LIKE '%FOR UPDATE%' OR INFO LIKE 'INSERT IGNORE %'))"
        }
    }
}

/// The value of the column of expiry for a life of so many seconds.
fn life(dialect: Dialect, expiry: Expiry, ttl: &str) -> String {
    match expiry {
        Expiry::Duration => format!("LEAST({ttl}, {LONGEST_DURATION})"),
        Expiry::Absolute | Expiry::Mixed => {
            format!("LEAST({} + {ttl}, {})", dialect.now_seconds(), dialect.last_second())
        }
    }
}

struct Build<'a> {
    dialect: Dialect,
    t: &'a str,
    aside: &'a str,
    names: &'a SymfonyNames,
    expiry: Expiry,
    lock: LockMode,
}

impl Build<'_> {
    /// What a statement does before it looks: wait for PHP's lock, for so long. An advisory lock is one of the
    /// transaction then, and is free once the change can be seen.
    fn turn(&self, touch: bool, mut next: impl FnMut() -> String) -> (String, &'static str) {
        match self.lock {
            LockMode::Advisory if !touch => (
                format!(
                    "wait AS MATERIALIZED (SELECT set_config('lock_timeout', {}, true)), \
                     turn AS MATERIALIZED (SELECT pg_advisory_xact_lock({}) FROM wait), ",
                    next(),
                    next()
                ),
                ", turn",
            ),
            LockMode::Transactional => {
                (format!("turn AS MATERIALIZED (SELECT set_config('lock_timeout', {}, true)), ", next()), ", turn")
            }
            LockMode::Advisory | LockMode::None => (String::new(), ""),
        }
    }

    /// Placeholders: the id; how long to wait and for which lock, where there is one; the payload that is to be there;
    /// what is written.
    fn change_postgres(&self, when: When, what: What) -> String {
        let (t, SymfonyNames { id, data, lifetime, time }) = (self.t, self.names);
        let now = self.dialect.now_seconds();
        let mut last = 1;
        let mut next = || {
            last += 1;
            format!("${last}")
        };
        let (turn, from_turn) = self.turn(what == What::Touch && when == When::Any, &mut next);
        let found = match when {
            When::Is => format!("seen.alive AND seen.payload = {}", next()),
            When::Any => "seen.alive".to_owned(),
            When::Held => format!("seen.payload = {}", next()),
        };
        let change = match what {
            What::Write => {
                let (data_mark, ttl) = (next(), next());
                let life = life(self.dialect, self.expiry, &ttl);
                format!("UPDATE {t} AS kept SET {data} = {data_mark}, {lifetime} = {life}, {time} = {now} FROM seen")
            }
            What::Touch => {
                let life = life(self.dialect, self.expiry, &next());
                format!("UPDATE {t} AS kept SET {lifetime} = {life}, {time} = {now} FROM seen")
            }
            What::Remove | What::SetAside => format!("DELETE FROM {t} AS kept USING seen"),
        };
        let removes = matches!(what, What::Remove | What::SetAside);
        let set_aside = if what == What::SetAside {
            let millis = self.dialect.now_millis();
            let aside = self.aside;
            format!(", put AS (INSERT INTO {aside} (payload, aside_at) SELECT done.payload, {millis} FROM done)")
        } else {
            String::new()
        };
        let end = self.expiry.end_of_life(self.dialect, &format!("s.{lifetime}"), &format!("s.{time}"));
        format!(
            "WITH {turn}seen AS MATERIALIZED (SELECT s.{id} AS id, s.{data} AS payload, {end} - {now} AS ttl, \
             {end} >= {now} AS alive FROM {t} s{from_turn} WHERE s.{id} = $1 FOR UPDATE OF s), \
             done AS ({change} WHERE kept.{id} = seen.id AND {found} \
             RETURNING true AS ok, kept.{data} AS payload){set_aside} \
             SELECT CASE WHEN {removes} OR done.ok IS NULL THEN seen.payload END, seen.ttl, seen.alive, \
             done.ok IS NOT NULL FROM seen LEFT JOIN done ON true"
        )
    }

    /// Placeholders: payload, life, id; how long to wait and for which lock, where there is one. A row is made, or not.
    fn create_postgres(&self) -> String {
        let (t, SymfonyNames { id, data, lifetime, time }) = (self.t, self.names);
        let now = self.dialect.now_seconds();
        let mut last = 3;
        let (turn, from_turn) = self.turn(false, || {
            last += 1;
            format!("${last}")
        });
        let from_turn = from_turn.replacen(", ", " FROM ", 1);
        let end = self.expiry.end_of_life(self.dialect, &format!("kept.{lifetime}"), &format!("kept.{time}"));
        format!(
            "WITH {turn}made AS (INSERT INTO {t} AS kept ({data}, {lifetime}, {time}, {id}) \
             SELECT $1, {}, {now}, $3{from_turn} ON CONFLICT ({id}) DO UPDATE SET ({data}, {lifetime}, {time}) = \
             (excluded.{data}, excluded.{lifetime}, excluded.{time}) WHERE {end} < {now} RETURNING 1) \
             SELECT 1 FROM made",
            life(self.dialect, self.expiry, "$2")
        )
    }

    /// Placeholders: what is written, the id, the payload that is to be there.
    fn change_mysql(&self, when: When, what: What) -> String {
        let (t, SymfonyNames { id, data, lifetime, time }) = (self.t, self.names);
        let (now, end) = (self.dialect.now_seconds(), self.expiry.end_of_life(self.dialect, lifetime, time));
        let set = if what == What::Write { format!("{data} = ?, ") } else { String::new() };
        let found = match when {
            When::Is => format!("{end} >= {now} AND {data} = ?"),
            When::Any => format!("{end} >= {now}"),
            When::Held => format!("{data} = ?"),
        };
        // The condition is looked at before anything is set; but what is set from the left is seen to its right.
        format!(
            "UPDATE {t} SET {set}{lifetime} = {}, {time} = {now} WHERE {id} = ? AND {found}",
            life(self.dialect, self.expiry, "?")
        )
    }
}
