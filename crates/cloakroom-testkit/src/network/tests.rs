//! The suite finds what it is for: a store that does everything right passes, and each flaw is caught by the case that is meant
//! for it.

mod toy_server;
mod toy_store;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{DynStore, Key};

use self::toy_server::ToyServer;
use self::toy_store::{Flaw, LOCK_LIFE, ToyStore};
use super::{Networked, Server, crowd, cuts, engine, late, leases, outages, server, trips};
use crate::proxy::Proxy;

struct Toy {
    server: ToyServer,
    proxy: Proxy,
    flaw: Option<Flaw>,
    store: ToyStore,
    trusted: ToyStore,
}

impl Toy {
    fn new(flaw: Option<Flaw>) -> Toy {
        let server = ToyServer::start();
        let proxy = Proxy::before(server.addr()).unwrap();
        let (store, trusted) = (ToyStore::new(proxy.addr(), flaw), ToyStore::new(server.addr(), None));
        Toy { server, proxy, flaw, store, trusted }
    }
}

impl Networked for Toy {
    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn another(&self) -> Arc<dyn DynStore> {
        Arc::new(ToyStore::new(self.proxy.addr(), self.flaw))
    }

    fn trusted(&self) -> Arc<dyn DynStore> {
        Arc::new(self.trusted.clone())
    }

    fn lock_life(&self) -> Duration {
        LOCK_LIFE
    }

    async fn age(&self, key: &Key, by: Duration) {
        self.server.age(std::str::from_utf8(key.record()).unwrap(), by);
    }

    fn server(&self) -> Option<&dyn Server> {
        Some(&self.server)
    }
}

mod right {
    use super::Toy;

    crate::store_faults!(Toy::new(None));
    crate::store_server_faults!(Toy::new(None));
}

/// A case that the macros do not name would never run.
#[test]
fn the_macros_name_every_case() {
    let macros = include_str!("macros.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/network");
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let module = path.file_stem().unwrap().to_str().unwrap();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let name = rest.split('<').next().unwrap();
            assert!(macros.contains(&format!("{module}::{name},")), "{module}::{name} is in no list of macros.rs");
            cases += 1;
        }
    }
    assert!(cases > 40, "only {cases} cases found");
}

/// What a case says that finds nothing.
const RIGHT: &str = "nothing wrong";

/// Runs a case on a toy with a flaw; what it says.
fn verdict<F: Future<Output = ()>>(name: &str, flaw: Flaw, case: impl FnOnce(Toy) -> F) -> String {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        crate::conformance::run(name, async { case(Toy::new(Some(flaw))).await });
    }));
    let Err(panic) = ended else { return RIGHT.to_owned() };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

macro_rules! caught {
    ($($test:ident: $flaw:ident by $module:ident::$case:ident, $says:literal;)*) => {
        $(
            #[test]
            fn $test() {
                let said = verdict(stringify!($case), Flaw::$flaw, $module::$case);
                assert!(said != RIGHT && said.contains($says), "{} says of {:?}: {said}", stringify!($case), Flaw::$flaw);
            }
        )*
    };
}

caught! {
    a_blind_retry_of_a_creation: RetriesBlindly
        by cuts::a_creation_that_is_cut_anywhere_is_told_truly, "was sent 2 times";
    a_blind_retry_of_a_change: RetriesBlindly
        by cuts::a_change_that_is_cut_anywhere_is_told_truly, "was sent 2 times";
    a_blind_retry_of_a_removal: RetriesBlindly
        by cuts::a_removal_that_is_cut_anywhere_is_told_truly, "nobody else";
    a_blind_retry_of_a_setting_aside: RetriesBlindly
        by cuts::a_setting_aside_that_is_cut_anywhere_is_told_truly, "nobody else";
    a_blind_retry_of_a_logout: RetriesBlindly
        by engine::a_logout_that_is_cut_anywhere_is_told_truly, "was not found";
    a_blind_retry_of_an_update: RetriesBlindly
        by engine::an_update_that_is_cut_anywhere_runs_once_and_is_told_truly, "the closure ran 2 times";
    a_blind_retry_among_many: RetriesBlindly
        by crowd::increments_by_version_through_resets_are_applied_once, "applied twice";
    a_reply_that_goes_to_the_next: MixesReplies
        by late::a_late_reply_is_not_the_answer_of_a_later_call, "somebody else's reply";
    a_reply_to_a_change_that_goes_to_the_next: MixesReplies
        by late::a_late_reply_of_a_change_is_not_the_answer_of_a_later_call, "somebody else's reply";
    a_reply_that_goes_to_another_of_many: MixesReplies
        by late::late_replies_among_many_calls_are_nobody_elses, "somebody else's reply";
    the_reply_to_a_dropped_call_that_goes_to_the_next: MixesDroppedReplies
        by late::a_call_that_is_dropped_in_the_midst_of_its_reply_disturbs_no_other, "somebody else's reply";
    an_error_taken_for_absent: TakesErrorsForAbsent
        by cuts::a_read_that_is_cut_anywhere_is_never_absent, "nothing was read";
    an_outage_taken_for_absent: TakesErrorsForAbsent
        by outages::in_a_black_hole_every_call_ends_in_time, "an answer where there can be none";
    a_visitor_who_is_forgotten_in_an_outage: TakesErrorsForAbsent
        by engine::an_outage_empties_nothing_and_logs_nobody_out, "unwrap_err";
    a_session_that_is_begun_anew_in_an_outage: BeginsAnew
        by engine::a_start_that_is_cut_anywhere_is_written_or_an_error, "begun anew";
    a_lock_that_was_never_granted: BeginsAnew
        by cuts::a_lock_that_is_cut_anywhere_comes_free, "was locked where there is";
    a_doubt_that_is_not_told: ForgetsDoubt
        by cuts::a_change_that_is_cut_anywhere_is_told_truly, "by what the call said";
    a_doubt_about_a_touch_that_is_not_told: ForgetsDoubt
        by cuts::a_touch_that_is_cut_anywhere_is_told_truly, "by what the call said";
    a_doubt_that_is_not_told_on_a_half_open_connection: ForgetsDoubt
        by outages::on_a_half_open_connection_a_commit_says_that_it_may_have_been_applied, "by what the call said";
    a_doubt_that_is_not_told_and_comes_true_later: ForgetsDoubt
        by outages::what_arrives_after_the_caller_gave_up_was_announced, "by what the call said";
    a_doubt_that_is_not_told_and_comes_true_by_latency: ForgetsDoubt
        by outages::latency_beyond_the_limit_is_unavailable, "by what the call said";
    a_doubt_that_is_not_told_when_the_server_hangs: ForgetsDoubt
        by server::a_paused_server_is_unavailable_and_what_it_does_later_was_announced, "by what the call said";
    a_doubt_that_is_not_told_to_a_rotation: ForgetsDoubt
        by engine::a_rotation_that_is_cut_anywhere_loses_nobody, "gone";
    a_doubt_where_nothing_was_sent: DoubtsEverything
        by outages::on_a_closed_port_nothing_is_applied_and_it_is_known, "nothing can have been sent";
    a_doubt_about_a_read: DoubtsReads
        by cuts::a_read_that_is_cut_anywhere_is_never_absent, "a read changes nothing";
    a_store_that_stays_broken: NeverRecovers
        by outages::after_an_outage_the_store_works_within_a_second, "does not recover";
    a_store_that_stays_broken_after_a_reset: NeverRecovers
        by cuts::after_a_reset_the_store_works_at_once, "does not recover";
    a_store_that_stays_broken_after_a_restart: NeverRecovers
        by server::after_a_restart_the_store_works_within_a_second, "does not recover";
    a_store_that_takes_its_time: RecoversLate
        by outages::after_an_outage_the_store_works_within_a_second, "to work again";
    a_store_that_takes_its_time_for_requests: RecoversLate
        by engine::requests_work_within_a_second_after_an_outage, "to work again";
    a_store_that_takes_its_time_after_a_pause: RecoversLate
        by server::after_a_pause_the_store_works_within_a_second, "to work again";
    a_store_that_was_early_and_takes_its_time: RecoversLate
        by outages::a_store_that_was_made_in_an_outage_works_when_it_is_over, "to work";
    a_call_without_end: Hangs by outages::in_a_black_hole_every_call_ends_in_time, "no end within";
    a_call_without_end_to_a_server_that_hangs: Hangs
        by server::a_paused_server_is_unavailable_and_what_it_does_later_was_announced, "no end within";
    a_call_without_end_where_half_is_there: Hangs
        by cuts::a_connection_that_ends_without_a_reset_is_no_better, "no end within";
    a_crowd_that_stands_in_line: OneAtATime
        by crowd::of_many_at_once_each_is_unavailable_in_time_and_works_afterwards, "no end within";
    a_lock_that_is_never_given_back: KeepsLocks
        by cuts::a_lock_that_is_cut_anywhere_comes_free, "does not come free";
    a_lock_whose_place_in_line_is_kept: KeepsPlaces
        by cuts::a_lock_that_is_cut_anywhere_comes_free, "does not come free for its own process";
    a_lease_that_is_never_given_back: KeepsLeases
        by leases::a_lock_that_is_given_back_in_an_outage_comes_free, "does not come free";
    half_a_reply_taken_for_the_whole: BelievesPieces
        by cuts::a_read_that_is_cut_anywhere_is_never_absent, "was read where there is";
    a_pool_that_runs_dry: LosesPlaces by late::calls_that_are_dropped_use_nothing_up, "no end within";
    a_pool_that_runs_dry_in_outages: LooksBack
        by outages::many_outages_one_after_the_other_use_nothing_up, "does not recover";
    a_question_too_many: AsksTwice
        by trips::each_verb_asks_the_server_as_often_as_it_shall, "counted on the left";
    a_life_that_is_never_extended: TellsNoLife
        by trips::reading_lets_a_session_live_on_only_when_that_is_due, "due";
    a_holder_who_lost_its_lock_and_writes: WritesWithoutItsLock
        by leases::a_lock_through_a_long_outage_is_never_held_by_two, "two held one lock";
    a_panic_at_half_a_reply: Panics
        by cuts::a_connection_that_ends_without_a_reset_is_no_better, "a toy that panics";
    an_outage_that_is_blamed_on_the_setup: BlamesTheSetup
        by cuts::a_change_that_is_cut_anywhere_is_told_truly, "config: the toy is not there";
    an_outage_that_is_blamed_on_the_setup_while_connecting: BlamesTheSetup
        by cuts::connecting_that_is_cut_anywhere_is_unavailable, "an outage is not";
}
