//! What goes into a statement and comes out of it, alike for both servers.

use bytes::Bytes;
use cloakroom_core::{Error, Result};
use sqlx::mysql::MySqlRow;
use sqlx::postgres::PgRow;
use sqlx::{MySql, Postgres, Row as _, SqlStr};

use crate::error::sort;

/// A value for a placeholder.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    Text(&'a str),
    Maybe(Option<&'a str>),
}

pub(crate) fn bind_postgres<'q>(
    sql: &SqlStr,
    args: &[Arg<'_>],
) -> sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments> {
    args.iter().fold(sqlx::query(sql.clone()), |query, arg| match *arg {
        Arg::Bytes(bytes) => query.bind(bytes),
        Arg::Int(number) => query.bind(number),
        Arg::Text(text) => query.bind(text),
        Arg::Maybe(text) => query.bind(text),
    })
}

pub(crate) fn bind_mysql<'q>(
    sql: &SqlStr,
    args: &[Arg<'_>],
) -> sqlx::query::Query<'q, MySql, sqlx::mysql::MySqlArguments> {
    args.iter().fold(sqlx::query(sql.clone()), |query, arg| match *arg {
        Arg::Bytes(bytes) => query.bind(bytes),
        Arg::Int(number) => query.bind(number),
        Arg::Text(text) => query.bind(text),
        Arg::Maybe(text) => query.bind(text),
    })
}

/// A row of an answer. Columns are told by their place.
pub(crate) enum Row {
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl Row {
    pub(crate) fn bytes(&self, column: usize) -> Result<Option<Bytes>> {
        let bytes = match self {
            Row::Postgres(row) => row.try_get_unchecked::<Option<&[u8]>, _>(column),
            Row::MySql(row) => row.try_get_unchecked::<Option<&[u8]>, _>(column),
        };
        bytes.map(|bytes| bytes.map(Bytes::copy_from_slice)).map_err(undecoded)
    }

    pub(crate) fn int(&self, column: usize) -> Result<Option<i64>> {
        match self {
            Row::Postgres(row) => row.try_get_unchecked(column),
            Row::MySql(row) => row.try_get_unchecked(column),
        }
        .map_err(undecoded)
    }

    pub(crate) fn flag(&self, column: usize) -> Result<bool> {
        match self {
            Row::Postgres(row) => row.try_get_unchecked::<Option<bool>, _>(column).map(Option::unwrap_or_default),
            Row::MySql(row) => {
                row.try_get_unchecked::<Option<i64>, _>(column).map(|flag| flag.is_some_and(|flag| flag != 0))
            }
        }
        .map_err(undecoded)
    }

    pub(crate) fn text(&self, column: usize) -> Result<Option<String>> {
        match self {
            Row::Postgres(row) => row.try_get_unchecked(column),
            Row::MySql(row) => row.try_get_unchecked(column),
        }
        .map_err(undecoded)
    }
}

fn undecoded(error: sqlx::Error) -> Error {
    sort(error).0.of_read()
}
