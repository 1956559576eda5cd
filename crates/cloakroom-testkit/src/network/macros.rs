//! The macros that make one `#[test]` of each case, and the list of all cases.

/// Runs the [suite](crate::network) on a store: an expression that gives a [`Networked`](crate::network::Networked).
///
/// ```text
/// cloakroom_testkit::store_faults!(Through::new().await);
/// ```
///
/// The tests' names are those of the functions in the modules of [`network`](crate::network). Two stores in one test binary
/// stand in a module each.
#[macro_export]
macro_rules! store_faults {
    ($net:expr) => {
        $crate::__network! { $net;
            cuts::a_read_that_is_cut_anywhere_is_never_absent,
            cuts::a_lock_that_is_cut_anywhere_comes_free,
            cuts::a_creation_that_is_cut_anywhere_is_told_truly,
            cuts::a_change_that_is_cut_anywhere_is_told_truly,
            cuts::a_touch_that_is_cut_anywhere_is_told_truly,
            cuts::a_removal_that_is_cut_anywhere_is_told_truly,
            cuts::a_setting_aside_that_is_cut_anywhere_is_told_truly,
            cuts::a_connection_that_ends_without_a_reset_is_no_better,
            cuts::connecting_that_is_cut_anywhere_is_unavailable,
            cuts::after_a_reset_the_store_works_at_once,
            outages::on_a_closed_port_nothing_is_applied_and_it_is_known,
            outages::in_a_black_hole_every_call_ends_in_time,
            outages::on_a_half_open_connection_a_commit_says_that_it_may_have_been_applied,
            outages::what_arrives_after_the_caller_gave_up_was_announced,
            outages::latency_within_the_limit_harms_nothing,
            outages::latency_beyond_the_limit_is_unavailable,
            outages::after_an_outage_the_store_works_within_a_second,
            outages::many_outages_one_after_the_other_use_nothing_up,
            outages::a_store_that_was_made_in_an_outage_works_when_it_is_over,
            late::a_late_reply_is_not_the_answer_of_a_later_call,
            late::a_late_reply_of_a_change_is_not_the_answer_of_a_later_call,
            late::late_replies_among_many_calls_are_nobody_elses,
            late::a_call_that_is_dropped_in_the_midst_of_its_reply_disturbs_no_other,
            late::calls_that_are_dropped_use_nothing_up,
            leases::a_lock_through_a_reset_is_never_held_by_two,
            leases::a_lock_through_a_long_outage_is_never_held_by_two,
            leases::a_lock_that_is_given_back_in_an_outage_comes_free,
            crowd::of_many_at_once_each_is_unavailable_in_time_and_works_afterwards,
            crowd::increments_by_version_through_resets_are_applied_once,
            crowd::increments_under_the_lock_through_resets_are_applied_once,
            engine::an_outage_empties_nothing_and_logs_nobody_out,
            engine::who_is_new_gets_no_cookie_in_an_outage,
            engine::who_does_not_touch_the_session_does_not_feel_an_outage,
            engine::an_update_that_is_cut_anywhere_runs_once_and_is_told_truly,
            engine::a_start_that_is_cut_anywhere_is_written_or_an_error,
            engine::a_logout_that_is_cut_anywhere_is_told_truly,
            engine::a_rotation_that_is_cut_anywhere_loses_nobody,
            engine::a_login_that_is_cut_anywhere_leaves_nothing_under_the_old_id,
            engine::requests_work_within_a_second_after_an_outage,
            trips::each_verb_asks_the_server_as_often_as_it_shall,
            trips::reading_lets_a_session_live_on_only_when_that_is_due,
        }
    };
}

/// The cases of the [suite](crate::network) that harm the server itself: the expression gives a
/// [`Networked`](crate::network::Networked) whose [`server`](crate::network::Networked::server) nobody else uses meanwhile.
#[macro_export]
macro_rules! store_server_faults {
    ($net:expr) => {
        $crate::__network! { $net;
            server::a_stopped_server_is_unavailable_and_never_absent,
            server::a_paused_server_is_unavailable_and_what_it_does_later_was_announced,
            server::after_a_restart_the_store_works_within_a_second,
            server::after_a_pause_the_store_works_within_a_second,
            server::what_a_restart_lost_is_gone,
            server::a_session_that_a_restart_lost_is_gone_for_who_saw_it,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __network {
    ($net:expr; $($module:ident::$case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::run(stringify!($case), async {
                    $crate::network::$module::$case($net).await;
                });
            }
        )*
    };
}
