//! The one thread that writes. What waits for it is done in one transaction, and each is answered only after that was
//! committed.
//!
//! A commit costs about as much for many as for one. If the transaction fails, nothing of it was done, and each of its
//! jobs is tried by itself, so that one that cannot be done does no harm to the others.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_core::Error;
use cloakroom_core::store::{Outcome, Put};
use rusqlite::Connection;

use crate::checkpoint::{Checkpoints, empty_log};
use crate::commit::{Step, Want};
use crate::error::Failure;
use crate::file::{Db, Role};
use crate::job::{Granted, Job, Ran, Work};
use crate::leases::{Leases, LookedAfter};
use crate::lock::Grip;
use crate::shared::Base;
use crate::way::Now;

/// How much is done in one transaction, so that nobody waits long for the others.
const MOST_JOBS: usize = 256;
const MOST_BYTES: usize = 4 << 20;
/// Pauses between tries to get at a database that another process has locked.
const SHORTEST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(2);
/// Who asks for the database again and again leaves no gap for PHP, which looks every 100 ms (SQLite's own busy handler).
/// In Symfony's mode, having had it for most of so long a time, we wait for once longer than that.
const SPELL: Duration = Duration::from_secs(1);
const COURTESY: Duration = Duration::from_millis(110);

pub(crate) struct Writer {
    base: Arc<Base>,
    db: Option<Db>,
    inbox: mpsc::Receiver<Job>,
    /// What came while a lock had the database.
    backlog: Vec<Job>,
    /// The lock that has the database: its transaction is open.
    open: Option<i64>,
    leases: Leases,
    spell: Spell,
    checkpoints: Option<Checkpoints>,
    made_room: bool,
}

/// How much of the time since `since` the database was ours.
struct Spell {
    since: Instant,
    ours: Duration,
    taken: Option<Instant>,
}

/// How an attempt to begin a transaction ended.
enum Begun {
    /// With what became of the leases, if it was time to look.
    Yes(Option<LookedAfter>),
    /// Nobody waits for it any more.
    Needless,
    Failed(Failure),
}

impl Writer {
    pub(crate) fn new(base: Arc<Base>, mut db: Option<Db>, inbox: mpsc::Receiver<Job>) -> Writer {
        let checkpoints = Checkpoints::start(&base);
        if let (Some(checkpoints), Some(open)) = (&checkpoints, &mut db)
            && checkpoints.watch(&mut open.conn).is_err()
        {
            db = None;
        }
        let leases = Leases::new(base.lease);
        let spell = Spell { since: Instant::now(), ours: Duration::ZERO, taken: None };
        Writer { base, db, inbox, backlog: Vec::new(), open: None, leases, spell, checkpoints, made_room: false }
    }

    /// Works until nobody is left who could ask for something.
    pub(crate) fn work(mut self) {
        loop {
            let mut jobs = if self.open.is_none() { std::mem::take(&mut self.backlog) } else { Vec::new() };
            if jobs.is_empty() {
                match self.next() {
                    Ok(job) => jobs.extend(job),
                    Err(mpsc::RecvError) => return,
                }
            }
            self.collect(&mut jobs);
            if self.open.is_some() {
                self.work_within(jobs);
            } else {
                self.made_room = false;
                self.work_together(jobs, true);
            }
        }
    }

    /// Waits for a job, or until there is a lease to look after.
    fn next(&self) -> Result<Option<Job>, mpsc::RecvError> {
        let Some(due_at) = self.leases.due_at() else { return self.inbox.recv().map(Some) };
        match self.inbox.recv_timeout(due_at.saturating_duration_since(Instant::now())) {
            Ok(job) => Ok(Some(job)),
            Err(mpsc::RecvTimeoutError::Timeout) => Ok(None),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(mpsc::RecvError),
        }
    }

    /// What else is waiting by now.
    fn collect(&self, jobs: &mut Vec<Job>) {
        let mut bytes: usize = jobs.iter().map(size).sum();
        while jobs.len() < MOST_JOBS && bytes < MOST_BYTES {
            let Ok(job) = self.inbox.try_recv() else { return };
            bytes += size(&job);
            jobs.push(job);
        }
    }

    /// One transaction, which more may join while it cannot begin yet.
    fn work_together(&mut self, mut jobs: Vec<Job>, open_to_others: bool) {
        let looked_after = match self.begin(&mut jobs, open_to_others) {
            Begun::Yes(looked_after) => looked_after,
            Begun::Needless => return,
            Begun::Failed(failure) => return self.fail(jobs, &failure),
        };
        let Some(db) = &self.db else { return };
        let (conn, way, transactional, now) = (&db.conn, &self.base.way, self.base.transactional, Now::read());
        let (mut done, mut jobs) = (Vec::with_capacity(jobs.len()), jobs.into_iter());
        let mut ended = Ok(());
        while ended.is_ok() {
            let Some(job) = jobs.next() else { break };
            if !job.take_up() {
                continue;
            }
            let ran = if job.is_of_a_lock() {
                // Its transaction is gone, and with it what the holder has found.
                Ok(Ran::Commit(Step::Done(Outcome::Gone)))
            } else {
                job.run(way, transactional, conn, now)
            };
            if let Err(failure) = &ran
                && conn.is_autocommit()
            {
                // SQLite has rolled back everything.
                ended = Err(failure.again());
            }
            done.push((job, ran));
        }
        if ended.is_ok()
            && let Some(token) = done.iter().find_map(|(_, ran)| opens(ran))
        {
            // The transaction is the lock. There is nothing else in it: whoever locks is alone.
            self.open = Some(token);
            return self.tell(done, false);
        }
        let mut doubt = false;
        if ended.is_ok() {
            ended = commit(conn);
            doubt = ended.as_ref().is_err_and(Failure::may_be_in_the_file);
        }
        self.spell.gave_back();
        let Err(failure) = ended else {
            if let Some(found) = looked_after {
                self.leases.were_looked_after(found);
            }
            self.tell(done, false);
            return self.keep_log_short();
        };
        self.give_up_connection(&failure);
        let alone = done.len() + jobs.len() <= 1;
        if doubt || (alone && !self.make_room(&failure)) {
            let told = done.into_iter().map(|(job, ran)| (job, ran.and(Err(failure.again()))));
            return self.tell(told.collect(), doubt);
        }
        // Nothing was done. Each by itself, then.
        let all = done.into_iter().map(|(job, _)| {
            job.put_back();
            job
        });
        for job in all.chain(jobs).collect::<Vec<_>>() {
            self.work_together(vec![job], false);
        }
    }

    /// Once for each group: what fills the disk may be the log.
    fn make_room(&mut self, failure: &Failure) -> bool {
        let Some(db) = self.db.as_ref().filter(|_| failure.is_full() && !self.made_room) else { return false };
        self.made_room = true;
        empty_log(&db.conn)
    }

    fn keep_log_short(&self) {
        if let (Some(checkpoints), Some(db)) = (&self.checkpoints, &self.db) {
            checkpoints.keep_short(&db.conn);
        }
    }

    /// While a lock has the database, nobody but its holder can have anything to do; but for tests, which age records.
    fn work_within(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let (Some(token), Some(db)) = (self.open, &self.db) else {
                self.backlog.push(job);
                continue;
            };
            let ends = match &job.work {
                Work::Commit { want: Want::Whole { token: held }, .. } => *held == token,
                Work::Release { token: given_back, .. } => *given_back == token,
                Work::Age { .. } => false,
                _ => {
                    self.backlog.push(job);
                    continue;
                }
            };
            let taken_up = job.take_up();
            let mut ran =
                if taken_up { job.run(&self.base.way, true, &db.conn, Now::read()) } else { Ok(Ran::Released) };
            let mut doubt = false;
            if ends || db.conn.is_autocommit() {
                self.open = None;
                let ended = if db.conn.is_autocommit() { Ok(()) } else { commit(&db.conn) };
                self.spell.gave_back();
                if let Err(failure) = ended {
                    doubt = failure.may_be_in_the_file();
                    self.give_up_connection(&failure);
                    ran = Err(failure);
                }
            }
            if taken_up {
                self.tell(vec![(job, ran)], doubt);
            }
        }
    }

    /// Takes the database's lock for writing. It takes as long as somebody waits for it.
    fn begin(&mut self, jobs: &mut Vec<Job>, open_to_others: bool) -> Begun {
        let mut pause = SHORTEST;
        loop {
            jobs.retain(|job| !job.has_left());
            if jobs.is_empty() && !self.leases.are_due() {
                return Begun::Needless;
            }
            if self.base.transactional {
                self.spell.be_courteous();
            }
            match self.connection().and_then(begin) {
                Ok(()) => {
                    self.spell.taken = Some(Instant::now());
                    let Some(db) = self.db.as_ref().filter(|_| self.leases.are_due()) else { return Begun::Yes(None) };
                    // Before anybody else has a chance to take what is only late.
                    match self.leases.look_after(&self.base.way, &db.conn) {
                        Ok(found) => return Begun::Yes(Some(found)),
                        Err(failure) => self.give_up_connection(&failure),
                    }
                    continue;
                }
                Err(Failure::Busy) => {}
                Err(failure) => return Begun::Failed(failure),
            }
            self.give_up_waiting(jobs);
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
            if open_to_others {
                self.collect(jobs);
            }
        }
    }

    /// In Symfony's mode, to wait for the database is to wait for somebody's session. And nobody asks whether a lease was given
    /// back when it has run out by itself.
    fn give_up_waiting(&mut self, jobs: &mut Vec<Job>) {
        let (transactional, lease, now) = (self.base.transactional, self.base.lease, Instant::now());
        let is_over = |job: &mut Job| match &job.ticket {
            Some(ticket) => transactional && ticket.wait_until <= now,
            None => now.duration_since(job.born) >= lease,
        };
        for job in jobs.extract_if(.., is_over).collect::<Vec<_>>() {
            let waited = job.ticket.as_ref().map_or(Duration::ZERO, |ticket| now.duration_since(ticket.begun));
            if let Work::Release { token, .. } = &job.work {
                self.leases.let_go(*token);
            }
            if job.take_up() {
                job.answer(Err(Error::locked(waited)), None);
            }
        }
    }

    /// The connection, or another one where the file is another.
    fn connection(&mut self) -> Result<&Connection, Failure> {
        let base = &self.base;
        if self.db.as_ref().is_some_and(|db| !base.site.is_current(db, Duration::ZERO)) {
            tracing::warn!("the file of the SQLite database was deleted or replaced; it is opened anew");
            self.db = None;
        }
        if self.db.is_none() {
            let mut db = base.site.connect(&base.way, Role::Write)?;
            if let Some(checkpoints) = &self.checkpoints {
                checkpoints.watch(&mut db.conn)?;
            }
            self.db = Some(db);
        }
        self.db.as_ref().map(|db| &db.conn).ok_or(Failure::Busy)
    }

    fn give_up_connection(&mut self, failure: &Failure) {
        if let Some(db) = &self.db
            && !db.conn.is_autocommit()
        {
            let _ = db.conn.execute_batch("ROLLBACK");
        }
        if failure.spoils_connection() {
            self.db = None;
        }
    }

    /// Tells everybody what came of it, now that it is committed; or that it was not, or that there is doubt.
    fn tell(&mut self, done: Vec<(Job, Result<Ran, Failure>)>, doubt: bool) {
        let mut spoilt = false;
        for (mut job, ran) in done {
            let mut granted = None;
            match (&job.work, &ran) {
                (Work::Commit { want: Want::Leased { token, .. }, .. }, Ok(Ran::Commit(_))) => {
                    self.leases.let_go(*token);
                }
                (Work::Release { token, key, .. }, ran) => {
                    self.leases.let_go(*token);
                    if ran.is_err() && !self.base.transactional {
                        self.leases.owe(key.clone(), *token, job.born, job.task.take());
                    }
                }
                (Work::Claim { key, .. }, Ok(Ran::Claim(Step::Done(Some(Granted { grip, .. }))))) => {
                    let turn = Arc::new(Mutex::new(job.turn.take()));
                    if let Grip::Row { token, .. } = grip {
                        self.leases.hold(*token, key.clone(), Arc::clone(&turn));
                    }
                    granted = Some(turn);
                }
                _ => {}
            }
            let ran = ran.map_err(|failure| {
                spoilt |= failure.spoils_connection();
                let error = failure.into_error();
                if doubt { error.or_maybe_applied() } else { error }
            });
            job.answer(ran, granted);
        }
        if spoilt && self.open.is_none() {
            self.db = None;
        }
    }

    fn fail(&mut self, jobs: Vec<Job>, failure: &Failure) {
        self.give_up_connection(failure);
        self.leases.look_again();
        let told = jobs.into_iter().filter(Job::take_up).map(|job| (job, Err(failure.again())));
        self.tell(told.collect(), false);
    }
}

impl Spell {
    fn gave_back(&mut self) {
        self.ours += self.taken.take().map_or(Duration::ZERO, |taken| taken.elapsed());
    }

    fn be_courteous(&mut self) {
        let spell = self.since.elapsed();
        if spell < SPELL {
            return;
        }
        if self.ours * 2 > spell {
            thread::sleep(COURTESY);
        }
        (self.since, self.ours) = (Instant::now(), Duration::ZERO);
    }
}

fn begin(conn: &Connection) -> Result<(), Failure> {
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    Ok(())
}

fn commit(conn: &Connection) -> Result<(), Failure> {
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

/// Whether this is a lock that keeps the transaction open.
fn opens(ran: &Result<Ran, Failure>) -> Option<i64> {
    match ran {
        Ok(Ran::Claim(Step::Done(Some(Granted { grip: Grip::Whole { token }, .. })))) => Some(*token),
        _ => None,
    }
}

/// About how many bytes a job writes.
fn size(job: &Job) -> usize {
    match &job.work {
        Work::Commit { put, .. } => match &**put {
            Put::Payload(payload) => payload.bytes.len(),
            _ => 0,
        },
        _ => 0,
    }
}
