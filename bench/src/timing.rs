//! Medians of rounds that take turns, so that whatever else the machine does hits every contender alike.

use std::time::{Duration, Instant};

use crate::Result;

/// Runs the work so many times and says how long it took.
pub type Batch<'a> = Box<dyn FnMut(u64) -> Result<Duration> + 'a>;

/// One who takes part.
pub struct Contender<'a> {
    /// Its column.
    pub name: &'static str,
    /// The bytes that it works on, for MB/s.
    pub bytes: usize,
    /// Its work.
    pub batch: Batch<'a>,
}

impl<'a> Contender<'a> {
    /// A contender in this process.
    pub fn new<T>(name: &'static str, bytes: usize, mut work: impl FnMut() -> Result<T> + 'a) -> Contender<'a> {
        let batch = Box::new(move |times| {
            let begin = now();
            for _ in 0..times {
                std::hint::black_box(work()?);
            }
            Ok(begin.elapsed())
        });
        Contender { name, bytes, batch }
    }
}

/// What one contender took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Its column.
    pub name: &'static str,
    /// The bytes that it works on.
    pub bytes: usize,
    /// The median time of one turn, in seconds.
    pub seconds: f64,
}

impl Taken {
    /// Megabytes (of a million bytes) a second.
    pub fn rate(&self) -> f64 {
        count(self.bytes) / self.seconds / 1e6
    }
}

/// Measures all of them: A, B, C, A, B, C … `rounds` times, each turn about as long as `turn`.
pub fn interleaved(contenders: &mut [Contender<'_>], rounds: usize, turn: Duration) -> Result<Vec<Taken>> {
    let mut times = Vec::new();
    for contender in &mut *contenders {
        times.push(calibrate(contender, turn)?);
    }
    let mut found = vec![Vec::new(); contenders.len()];
    for _ in 0..rounds {
        for (at, contender) in contenders.iter_mut().enumerate() {
            let taken = (contender.batch)(times[at])?;
            found[at].push(taken.as_secs_f64() / count(times[at]));
        }
    }
    let taken = contenders.iter().zip(&mut found);
    Ok(taken.map(|(one, found)| Taken { name: one.name, bytes: one.bytes, seconds: median(found) }).collect())
}

/// How often the work fits into one turn; also warms everything up.
fn calibrate(contender: &mut Contender<'_>, turn: Duration) -> Result<u64> {
    let mut times = 1;
    loop {
        let taken = (contender.batch)(times)?;
        if taken >= turn || times >= 1 << 24 {
            return Ok(times);
        }
        let ratio = turn.as_secs_f64() / taken.as_secs_f64().max(1e-9);
        times = if ratio < 1.2 { return Ok(times) } else { scaled(times, ratio.min(100.0)) };
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number below 2^32")]
fn scaled(times: u64, ratio: f64) -> u64 {
    (count(times) * ratio).ceil() as u64
}

/// The middle one.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => numbers[n / 2],
        n => f64::midpoint(numbers[n / 2 - 1], numbers[n / 2]),
    }
}

/// A count as a number to divide by.
pub fn count<T: TryInto<u64>>(n: T) -> f64 {
    let n: u64 = n.try_into().unwrap_or(u64::MAX);
    // Exact below 2^53, which nothing counted here reaches.
    #[expect(clippy::cast_precision_loss, reason = "counts of bytes and turns")]
    let n = n as f64;
    n
}

/// The clock.
pub fn now() -> Instant {
    Instant::now()
}

/// Three digits that count.
pub fn three(number: f64) -> String {
    match number.abs() {
        n if n >= 99.95 => format!("{number:.0}"),
        n if n >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A table in Markdown, its columns aligned.
pub fn markdown(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().chain(std::iter::once(&head.to_vec())).map(|row| row[at].chars().count()).max();
        cells.unwrap_or(3).max(3)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let fill = " ".repeat(width - cell.chars().count());
            if at == 0 { format!(" {cell}{fill} ") } else { format!(" {fill}{cell} ") }
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let rule = widths
        .iter()
        .enumerate()
        .map(|(at, width)| if at == 0 { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    line(head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}
