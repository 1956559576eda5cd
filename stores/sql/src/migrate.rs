//! Whether the tables are there, what they hold, and making them where that is asked for.

use cloakroom_core::Deadline;

use crate::error::{Failure, Refusal};
use crate::layout::{Dialect, as_php_means};
use crate::pool::{Conn, within};
use crate::shared::{Shared, Way};

/// Nodes that start together make the tables one after the other: PostgreSQL's `IF NOT EXISTS` alone can fail then.
const TURN: i64 = i64::from_le_bytes(*b"cloakrmg");
/// What a packet of MySQL's holds beside payloads.
const ENVELOPE: usize = 16 << 10;

/// What is known of the tables once they were looked at.
pub(crate) struct Shape {
    /// The most that the column of payloads, and the server's packets, hold.
    pub(crate) max_payload: usize,
}

/// Looks, and makes what is missing if the settings say so.
pub(crate) async fn look(shared: &Shared, deadline: &Deadline) -> Result<Shape, Failure> {
    let mut conn = shared.main.get(deadline).await?;
    let tables = Tables::of(shared);
    let mut looks = vec![(&tables.look_sessions, &tables.make_sessions)];
    if shared.config.migrates() {
        looks.push((&tables.look_aside, &tables.make_aside));
    }
    for (look, make) in looks {
        match within(deadline, conn.flight(look.clone())).await {
            Err(failure) if failure.refusal() == Some(Refusal::Missing) && shared.config.migrates() => {
                self::make(&mut conn, make, deadline).await?;
                within(deadline, conn.flight(look.clone())).await?;
            }
            looked => drop(looked?),
        }
    }
    let max_payload = match shared.dialect {
        Dialect::Postgres => usize::MAX,
        Dialect::MySql => largest(shared, &mut conn, deadline).await?,
    };
    Ok(Shape { max_payload })
}

async fn make(conn: &mut Conn, tables: &str, deadline: &Deadline) -> Result<(), Failure> {
    let flight = match conn.dialect() {
        Dialect::Postgres => format!("BEGIN; SELECT pg_advisory_xact_lock({TURN}); {tables}; COMMIT"),
        // Its locks on names of tables are enough.
        Dialect::MySql => tables.to_owned(),
    };
    conn.set_open(true);
    within(deadline, conn.flight(flight)).await?;
    conn.set_open(false);
    Ok(())
}

async fn largest(shared: &Shared, conn: &mut Conn, deadline: &Deadline) -> Result<usize, Failure> {
    let (schema, table) = split(shared.table_name());
    let schema = schema.map_or_else(|| "DATABASE()".to_owned(), |schema| format!("'{schema}'"));
    let (column, payloads) = match &shared.way {
        Way::Native(_) => ("payload", 1),
        // Compare-and-swap sends the old one along.
        Way::Symfony(symfony) => (symfony.texts.names.data.trim_matches('`'), 2),
    };
    let rows = conn.flight(format!(
        "SELECT CAST(@@max_allowed_packet AS SIGNED); SELECT CAST(CHARACTER_OCTET_LENGTH AS SIGNED) \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} AND TABLE_NAME = '{table}' \
         AND COLUMN_NAME = '{column}'"
    ));
    let rows = within(deadline, rows).await?;
    let number = |at: usize| {
        let number = rows.get(at).map(|row| row.int(0)).transpose().map_err(Failure::Lost)?.flatten();
        Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX))
    };
    let (packet, column) = (number(0)?, number(1)?);
    Ok((packet.saturating_sub(ENVELOPE) / payloads).min(column))
}

/// The statements that look for the tables, and those that make them.
struct Tables {
    look_sessions: String,
    make_sessions: String,
    look_aside: String,
    make_aside: String,
}

impl Tables {
    fn of(shared: &Shared) -> Tables {
        let dialect = shared.dialect;
        let (_, base) = split(shared.table_name());
        let (look_sessions, make_sessions, aside) = match &shared.way {
            Way::Native(native) => {
                let table = &native.texts.table;
                (
                    format!(
                        "SELECT id, payload, version, expires_at, created_at, last_seen_at, user_id, address, agent, \
                         lock_token, lock_until FROM {table} LIMIT 0"
                    ),
                    dialect.native_tables(table, &index(dialect, base, "expires_at")),
                    &native.texts.aside,
                )
            }
            Way::Symfony(symfony) => {
                let (table, names) = (&symfony.texts.table, &symfony.texts.names);
                let crate::layout::SymfonyNames { id, data, lifetime, time } = names;
                let base = as_php_means(dialect, base);
                (
                    format!("SELECT {id}, {data}, {lifetime}, {time} FROM {table} LIMIT 0"),
                    dialect.symfony_tables(table, &index(dialect, &base, lifetime.trim_matches(['`', '"'])), names),
                    &symfony.texts.aside,
                )
            }
        };
        Tables {
            look_sessions,
            make_sessions,
            look_aside: format!("SELECT id, payload, aside_at FROM {aside} LIMIT 0"),
            make_aside: dialect.aside_table(aside),
        }
    }
}

/// The name that Symfony's manual gives to its index, and PostgreSQL to one without a name.
fn index(dialect: Dialect, table: &str, column: &str) -> String {
    let mut name = format!("{table}_{column}_idx");
    name.truncate(63);
    // It is made of names that were quoted before.
    dialect.quote(&name).unwrap_or(name)
}

/// `schema.table`.
pub(crate) fn split(name: &str) -> (Option<&str>, &str) {
    name.split_once('.').map_or((None, name), |(schema, table)| (Some(schema), table))
}
