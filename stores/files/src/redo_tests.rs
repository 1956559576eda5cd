//! Every state that a write can leave, made by hand, and what must not be taken for one.

use super::*;
use crate::write::Plan;

fn change<'a>(old: &'a [u8], new: &'a [u8], durable: bool) -> Change<'a> {
    // Short ones would do without, but are quicker to try in full.
    let (Plan::Redo(range) | Plan::Patch(range)) = Plan::new(old, new, Durability::Data) else {
        panic!("{old:?} -> {new:?} is no write");
    };
    let kept = new.len() - range.end;
    Change {
        durable,
        inode: 7,
        old_length: old.len(),
        new_length: new.len(),
        from: range.start,
        head: xxh3_64(&old[..range.start]),
        tail: xxh3_64(&new[range.end..]),
        old: &old[range.start..old.len() - kept],
        new: &new[range],
    }
}

/// The file after `k` bytes of the new content have been copied.
fn after(old: &[u8], new: &[u8], k: usize) -> Vec<u8> {
    let mut file = old[..old.len().min(new.len())].to_vec();
    file.resize(file.len().max(k), 0);
    file[..k].copy_from_slice(&new[..k]);
    file
}

/// Pairs that need a redo: growing, shrinking, of the same length, with and without common parts.
fn pairs() -> Vec<(Vec<u8>, Vec<u8>)> {
    let digits =
        |length: usize, shift: usize| (0..length).map(|i| b"0123456789"[(i * 7 + shift) % 10]).collect::<Vec<_>>();
    let mut same = digits(40, 0);
    same[5] = b'x';
    same[30] = b'y';
    let mut head = digits(20, 0);
    head.extend(digits(30, 3));
    vec![
        (digits(40, 0), digits(40, 1)),
        (digits(40, 0), same),
        (digits(40, 0), digits(25, 1)),
        (digits(25, 0), digits(40, 1)),
        (digits(40, 0), head.clone()),
        (head, digits(30, 0)),
        (b"aaaaaaaaaa".to_vec(), b"aaaaabaaaaaaaa".to_vec()),
        (b"aaaabaaaaaaaaa".to_vec(), b"aaaaaaaabaa".to_vec()),
        (Vec::new(), digits(40, 2)),
        (b"x".to_vec(), b"y".repeat(30)),
    ]
}

/// Kills nowhere within a page lose anything, but the redo holds for any byte.
#[test]
fn knows_every_state_that_its_write_can_leave() {
    for (old, new) in pairs() {
        let change = change(&old, &new, false);
        for k in 0..=new.len() {
            let file = after(&old, &new, k);
            let expect = match &file {
                file if file.is_empty() => State::Foreign,
                file if *file == old => State::Old,
                file if *file == new => State::New,
                _ => State::Torn,
            };
            assert_eq!(change.judge(&file), expect, "{k} of {old:?} -> {new:?}");
        }
        // Before the end is cut off.
        assert_eq!(change.judge(&old), if old.is_empty() { State::Foreign } else { State::Old });
    }
}

/// By another way than the code: all `k` are tried.
#[test]
fn takes_nothing_else_for_its_own() {
    for (old, new) in pairs() {
        let change = change(&old, &new, false);
        let own: Vec<Vec<u8>> = (0..=new.len()).map(|k| after(&old, &new, k)).chain([old.clone()]).collect();
        for file in own.clone() {
            for at in 0..file.len() {
                // Somebody has changed one byte since, or cut the file, or made it longer.
                let mut changed = file.clone();
                changed[at] ^= 1;
                for foreign in [changed, file[..at].to_vec(), [&file[..], b"0"].concat()] {
                    if !own.contains(&foreign) {
                        assert_eq!(change.judge(&foreign), State::Foreign, "{foreign:?} of {old:?} -> {new:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_incomplete_redo_is_none() {
    for (old, new) in pairs() {
        let change = change(&old, &new, true);
        let [header, checksum] = change.frame();
        let text = [&header[..], change.old, change.new, &checksum[..]].concat();
        assert_eq!(Change::parse(&text).as_ref(), Some(&change));
        for at in 0..text.len() {
            assert_eq!(Change::parse(&text[..at]), None);
            let mut broken = text.clone();
            broken[at] ^= 4;
            assert_eq!(Change::parse(&broken), None);
        }
    }
}

/// Without power, sectors reach the disk in any order, the length too.
#[test]
fn mixtures_of_sectors_count_only_where_the_power_is_covered() {
    let old: Vec<u8> = (0..=250).cycle().take(4 * SECTOR).collect();
    let new: Vec<u8> = (0..=240).map(|byte: u8| byte ^ 0x55).cycle().take(6 * SECTOR + 100).collect();
    let (kill, power) = (change(&old, &new, false), change(&old, &new, true));
    for length in [old.len(), old.len() + 10, 5 * SECTOR, new.len()] {
        for mask in 0_u32..128 {
            let mut file = old.clone();
            file.resize(length, 0);
            for sector in (0..7).filter(|sector| mask >> sector & 1 == 1) {
                let range = length.min(sector * SECTOR)..length.min((sector + 1) * SECTOR);
                file[range.clone()].copy_from_slice(&new[range]);
            }
            let whole = file == old || file == new;
            assert_eq!(power.judge(&file) == State::Torn, !whole, "{length} {mask:b}");
            let front_to_back = (0..=new.len()).any(|k| after(&old, &new, k) == file);
            assert_eq!(kill.judge(&file) == State::Torn, front_to_back && !whole, "{length} {mask:b}");
        }
    }
    let mut file = [&new[..SECTOR], &old[SECTOR..]].concat();
    assert_eq!(power.judge(&file), State::Torn);
    file[2 * SECTOR + 3] ^= 1;
    assert_eq!(power.judge(&file), State::Foreign);
}
