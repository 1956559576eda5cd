//! Where a session has moved: the record that a rotation with grace leaves under the old id.

use bytes::Bytes;
use cloakroom_php::{Bag, Format};
use serde::{Deserialize, Serialize};

use crate::{Result, SessionId};

/// The one top-level key under which cloakroom itself remembers something. PHP applications carry it along.
pub(crate) const RESERVED: &str = "_cloakroom";

/// How many moves in a row are followed; each of them is at most a grace period old.
pub(crate) const MOST_MOVES: usize = 8;

/// Leads from the old id to the new one until a deadline. PHP sees a session without any of its data here.
#[derive(Serialize, Deserialize)]
struct Moved {
    to: String,
    until: i64,
}

/// The whole record that stands for a session that has moved.
pub(crate) fn write(format: Format, to: &SessionId, until: i64) -> Result<Bytes> {
    let mut bag = Bag::new(format);
    bag.set(RESERVED, &Moved { to: to.expose_str().to_owned(), until })?;
    Ok(bag.to_bytes())
}

/// What a record says of a move.
pub(crate) enum Move {
    /// It holds a session.
    Stayed,
    /// The session is now under this id.
    To(SessionId),
    /// It has moved too long ago for the old id to be good for anything.
    Over,
}

/// Looks whether a record is only a pointer to another.
pub(crate) fn read(bag: &Bag, now: i64) -> Move {
    if bag.len() != 1 || !bag.contains(RESERVED) {
        return Move::Stayed;
    }
    match bag.get::<Moved>(RESERVED) {
        Ok(Some(moved)) if moved.until < now => Move::Over,
        Ok(Some(moved)) => SessionId::parse(&moved.to).map_or(Move::Stayed, Move::To),
        _ => Move::Stayed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_to_the_new_id_until_the_deadline() {
        for format in [Format::Php, Format::PhpBinary, Format::PhpSerialize] {
            let to = SessionId::parse("newid").unwrap();
            let bag = Bag::parse(format, write(format, &to, 100).unwrap()).unwrap();
            assert!(matches!(read(&bag, 100), Move::To(id) if id == to));
            assert!(matches!(read(&bag, 101), Move::Over));
            assert!(matches!(read(&Bag::new(format), 0), Move::Stayed));
        }
    }
}
