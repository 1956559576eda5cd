//! The macro that makes one `#[test]` of each case, and the list of all cases.

/// Runs the [conformance suite](crate::conformance) on a store: an expression that gives a
/// [`Harness`](crate::conformance::Harness), a semicolon, and the groups of cases beyond the base that apply.
///
/// ```text
/// cloakroom_testkit::store_conformance!(Fresh::new().await; list, sweep);
/// ```
///
/// The tests' names are those of the functions in the modules of [`conformance`](crate::conformance). Two stores in
/// one test binary stand in a module each.
#[macro_export]
macro_rules! store_conformance {
    ($harness:expr $(; $($group:ident),* $(,)?)?) => {
        $crate::__conformance_group!(base, $harness);
        $($($crate::__conformance_group!($group, $harness);)*)?

        #[test]
        fn the_store_can_what_it_states() {
            let stated: &[&str] = &[$($(stringify!($group)),*)?];
            $crate::conformance::run("the_store_can_what_it_states", async {
                $crate::conformance::stated::the_store_can_what_it_states($harness, stated).await;
            });
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance {
    ($harness:expr; $($module:ident::$case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::conformance::run(stringify!($case), async {
                    $crate::conformance::$module::$case($harness).await;
                });
            }
        )*
    };
}

/// All cases, by group.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_group {
    (base, $harness:expr) => {
        $crate::__conformance! { $harness;
            records::an_id_without_room_in_the_layout_is_absent,
            records::what_was_never_written_is_absent,
            records::payload_comes_back_byte_for_byte,
            records::an_empty_payload_is_present,
            records::a_megabyte_comes_back,
            records::a_payload_grows_and_shrinks,
            records::creating_what_is_there_is_refused,
            records::changing_what_is_missing_is_gone,
            records::removing_twice_is_gone,
            records::removing_tells_what_was_there,
            records::any_takes_whichever_record_is_there,
            records::similar_keys_are_different_records,
            records::a_removed_record_can_be_made_again,
            records::reading_changes_nothing,
            versions::the_version_that_was_read_can_be_changed,
            versions::a_conflict_tells_the_record_as_it_is_now,
            versions::a_version_works_only_once,
            versions::a_commit_tells_the_version_for_the_next,
            versions::a_lock_alone_leaves_the_version,
            versions::the_version_of_a_dead_record_is_gone,
            versions::a_conflict_changes_nothing,
            versions::a_version_that_was_read_can_be_removed,
            life::the_expired_is_absent,
            life::the_expired_cannot_be_changed,
            life::the_expired_can_be_made_anew,
            life::the_expired_is_not_found_under_the_lock,
            life::a_claim_on_the_expired_begins_afresh,
            life::a_touch_extends_life_and_leaves_the_data,
            life::a_touch_can_shorten_life,
            life::a_write_begins_a_new_life,
            life::reading_does_not_extend_life,
            life::the_remaining_life_is_told,
            life::a_short_life_ends_in_time,
            life::a_record_can_expire_while_a_commit_waits,
            claims::existing_is_not_met_by_what_is_missing,
            claims::new_is_not_met_by_what_is_there,
            claims::a_claim_that_is_not_met_holds_nothing,
            claims::new_makes_a_record,
            claims::either_takes_what_is_there_or_makes_it,
            claims::a_new_record_that_is_not_written_is_empty_or_absent,
            claims::a_new_record_is_made_by_one_only,
            claims::who_waited_for_a_destroyed_record_does_not_get_it,
            claims::who_takes_either_after_a_destruction_begins_afresh,
            claims::a_new_claim_keeps_creators_out,
            locks::a_lock_tells_what_is_there,
            locks::a_lock_excludes_locks,
            locks::a_lock_excludes_commits,
            locks::a_commit_that_waited_sees_what_the_holder_wrote,
            locks::reading_waits_for_nobody,
            locks::waiting_ends_at_its_limit,
            locks::a_free_lock_needs_no_waiting,
            locks::waiting_is_not_talking,
            locks::a_lease_that_is_released_is_free,
            locks::a_lease_that_is_dropped_is_free,
            locks::the_holders_commit_gives_the_lock_back,
            locks::a_lock_holds_up_other_records_only_where_there_is_one_lock,
            locks::a_lease_does_nothing_to_another_record,
            queues::waiting_is_first_come_first_served,
            queues::commits_wait_their_turn,
            queues::a_waiter_that_is_dropped_is_not_missed,
            queues::a_waiter_that_gave_up_is_not_missed,
            queues::a_long_queue_comes_to_its_end,
            deaths::what_was_destroyed_stays_so,
            deaths::a_change_that_waited_for_a_logout_is_gone,
            deaths::a_logout_waits_for_the_holder,
            deaths::a_logout_at_its_limit_is_refused_or_final,
            deaths::a_change_that_waited_does_not_hit_a_successor,
            deaths::a_new_record_can_be_destroyed_by_its_maker,
            deaths::what_is_set_aside_is_no_session,
            races::of_many_creators_one_wins,
            races::of_many_removers_one_removes,
            races::increments_by_version_lose_none,
            races::increments_under_the_lock_lose_none,
            races::increments_in_both_ways_lose_none,
            races::touches_lose_no_increments,
            races::a_logout_among_changes_is_final,
            races::readers_see_whole_payloads,
            dropped::a_dropped_commit_is_done_or_not,
            dropped::a_dropped_lock_is_free,
            dropped::a_dropped_commit_of_the_holder_gives_the_lock_back,
            dropped::a_lock_that_arrives_too_late_is_passed_on,
            dropped::a_waiter_that_was_woken_and_dropped_keeps_nothing,
            privacy::debug_shows_no_ids_and_no_contents,
            privacy::errors_show_no_ids_and_no_contents,
        }
    };
    (aside, $harness:expr) => {
        $crate::__conformance! { $harness;
            aside::what_is_set_aside_is_kept,
            aside::what_is_removed_is_not_kept,
        }
    };
    (columns, $harness:expr) => {
        $crate::__conformance! { $harness;
            columns::columns_come_back,
            columns::a_column_that_is_not_written_stays,
            columns::columns_die_with_their_record,
        }
    };
    (limit, $harness:expr) => {
        $crate::__conformance! { $harness;
            limit::the_largest_payload_fits,
            limit::a_larger_payload_is_refused,
            limit::a_commit_that_fails_gives_the_lock_back,
        }
    };
    (list, $harness:expr) => {
        $crate::__conformance! { $harness;
            list::a_list_has_every_record_in_order,
            list::a_list_comes_in_pages,
            list::a_page_follows_a_key_that_is_gone,
            list::a_list_leaves_out_what_is_dead,
            list::a_list_tells_size_and_life,
        }
    };
    (lost, $harness:expr) => {
        $crate::__conformance! { $harness;
            lost::who_lost_the_lock_changes_nothing,
            lost::who_lost_the_lock_does_not_undo_what_others_did,
            lost::who_lost_the_lock_does_not_free_it,
        }
    };
    (second, $harness:expr) => {
        $crate::__conformance! { $harness;
            second::each_handle_sees_what_the_other_wrote,
            second::a_handle_that_is_made_later_sees_what_was_written,
            second::a_settled_store_holds_nothing,
            second::a_version_holds_across_handles,
            second::a_lock_holds_across_handles,
            second::a_logout_holds_across_handles,
            second::an_end_of_life_holds_across_handles,
            second::increments_across_handles_lose_none,
        }
    };
    (sweep, $harness:expr) => {
        $crate::__conformance! { $harness;
            sweep::a_sweep_of_nothing_is_done,
            sweep::a_sweep_removes_only_the_expired,
            sweep::a_sweep_goes_in_steps,
            sweep::a_new_round_finds_what_expired_since,
            sweep::a_sweep_goes_by_the_last_end_of_life,
            sweep::a_sweep_leaves_the_locked,
            sweep::many_sweepers_remove_each_record_once,
            sweep::a_sweep_beside_touches_removes_nothing_alive,
        }
    };
    (talks, $harness:expr) => {
        $crate::__conformance! { $harness;
            talks::reading_without_time_is_unavailable,
            talks::a_commit_without_time_is_unavailable,
            talks::a_holders_commit_without_time_leaves_no_lock,
        }
    };
    (versions, $harness:expr) => {
        $crate::__conformance! { $harness;
            versions::rewriting_the_same_bytes_is_another_version,
            versions::there_and_back_again_is_a_conflict,
            versions::a_record_made_again_is_another_one,
        }
    };
}
