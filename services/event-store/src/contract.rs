//! What every [`EventStore`] promises, one function a promise.
//!
//! An implementation writes a [`Fixture`] and calls [`crate::contract_suite`] in a
//! test file; each promise then is a test of its own, on a database of its own.

pub mod appending;
pub mod checking;
pub mod commands;
pub mod epochs;
pub mod ground;
pub mod reading;
pub mod receipts;
pub mod refusals;
pub mod searching;
pub mod tree;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use catrust_domain::{Notary, Timestamp};

pub use crate::faults::CommitStep;
use crate::{Clock, EventStore};

/// A database for one test, and the means to open it, break it and look into it.
#[async_trait]
pub trait Fixture: Sized + Send + Sync + 'static {
    /// The implementation under test.
    type Store: EventStore;

    /// SQL type of the column `events.payload`.
    const PAYLOAD_TYPE: &'static str;

    /// Makes an empty database of the current schema.
    async fn create() -> Self;

    /// The clock that every store of this database reads.
    fn clock(&self) -> &TestClock;

    /// Opens the database once more, as another process would.
    async fn open(&self) -> Self::Store;

    /// Opens it as a server with keys does.
    async fn open_with(&self, notary: Arc<dyn Notary>) -> Self::Store;

    /// Lets the next commit of `store` die at `step`.
    fn crash_at(store: &Self::Store, step: CommitStep);

    /// Runs statements as the owner of the tables; the text of the error where one fails.
    async fn execute(&self, sql: &str) -> Result<(), String>;

    /// Takes away what guards the log, as only its owner can.
    async fn drop_guards(&self);

    /// Runs statements past the guards.
    async fn tamper(&self, sql: &str) {
        self.drop_guards().await;
        self.execute(sql).await.expect("tampering works without the guards");
    }
}

/// A clock that a test sets. Each reading is a millisecond after the one before.
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// 2026-01-01T00:00:00Z.
    const START: i64 = 1_767_225_600_000_000;

    /// A clock at the start of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(Self::START)))
    }

    /// Moves the clock, backwards for a negative number.
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    /// The time that it shows, without moving it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// The clock as a store takes it.
    #[must_use]
    pub fn reader(&self) -> Clock {
        let micros = Arc::clone(&self.0);
        Arc::new(move || Timestamp::from_micros(micros.fetch_add(1_000, Ordering::Relaxed)))
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a promise may take to come true.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Makes a test of every promise for a fixture.
#[macro_export]
macro_rules! contract_suite {
    ($fixture:ty) => {
        $crate::contract_suite! { $fixture:
            appending::many_writers_on_two_connections_make_one_dense_log_in_real_time_order,
            appending::a_change_is_read_back_at_once_by_every_connection,
            appending::a_refused_command_in_the_middle_of_a_batch_fails_alone,
            appending::commands_of_a_batch_see_the_ones_before_them,
            appending::a_batch_of_refusals_records_nothing,
            appending::a_repeated_request_gives_the_stored_reply_and_records_nothing,
            appending::a_request_id_with_another_request_is_refused,
            appending::a_repeat_within_one_batch_has_one_effect,
            appending::a_repeat_after_a_restart_gives_the_stored_reply,
            appending::a_crash_before_the_commit_leaves_nothing,
            appending::a_crash_after_the_commit_leaves_everything_and_the_repeat_is_answered,
            appending::an_abandoned_append_harms_nobody,
            appending::too_many_commands_are_refused_whole,
            appending::events_cannot_be_changed_or_removed,
            appending::time_never_runs_backwards_along_the_log,
            appending::a_deleted_certificate_can_be_registered_anew,
            appending::own_appends_are_hinted_at,
            appending::a_damaged_row_fails_its_own_command_alone,
            reading::bundles_are_found_now_by_revision_and_by_time,
            reading::a_bundle_that_contradicts_its_digest_is_corrupt,
            reading::pages_stay_stable_while_rows_change,
            reading::lists_are_filtered_by_state,
            reading::instances_are_listed_in_the_order_of_registration,
            reading::history_includes_deleted_and_re_registered_certificates,
            reading::trust_changes_are_read_by_revision,
            reading::twins_with_the_same_key_are_named,
            reading::what_was_just_committed_is_there_without_a_query,
            reading::old_replies_are_pruned,
            reading::the_publisher_lease_has_one_holder,
            reading::the_log_has_one_identity,
            receipts::brokers_are_what_their_receipts_fold_to,
            receipts::each_broker_comes_with_the_digest_of_the_log,
            receipts::news_are_hinted_at_and_signs_of_life_are_not,
            receipts::many_replicas_take_receipts_of_the_same_brokers_at_once,
            receipts::brokers_of_all_instances_are_listed_in_pages_and_forgotten_by_age,
            receipts::batches_and_fleets_are_bounded,
            searching::a_search_finds_what_a_look_at_every_row_finds,
            searching::a_search_is_bounded,
            tree::hashes_are_read_without_gaps,
            tree::tree_nodes_are_kept_once,
            refusals::refusals_are_listed_newest_first,
            refusals::refusals_are_bounded,
            ground::a_read_from_a_row_proves_that_the_row_is_there,
            ground::nothing_is_appended_to_a_log_that_this_process_knows_further,
            ground::nothing_is_appended_to_another_log_of_the_same_length,
            ground::what_was_read_by_another_process_is_remembered,
            ground::a_look_beside_appends_finds_nothing_lost,
            ground::stored_evidence_halts_every_process_for_as_long_as_it_contradicts,
            ground::evidence_that_nobody_signed_halts_nothing,
            ground::evidence_that_the_log_bears_out_is_not_stored,
            ground::evidence_of_a_later_epoch_halts,
            ground::a_flood_of_forged_evidence_slows_nothing_and_hides_nothing,
            ground::batches_in_memory_are_forgotten_with_the_log,
            epochs::an_epoch_begins_with_what_was_lost_in_force_again,
            epochs::a_begin_is_refused_where_the_ground_has_moved,
            epochs::a_begin_that_fails_leaves_nothing,
            epochs::numbers_of_epochs_rise_above_all_that_is_known,
            epochs::a_begin_is_believed_by_its_signature_place_and_number,
            epochs::three_epochs_are_one_log,
            epochs::what_was_lost_with_an_epoch_is_not_told,
            checking::a_healthy_log_verifies_clean,
            checking::a_changed_payload_is_named_by_its_position,
            checking::a_removed_row_is_named_by_its_position,
            checking::two_swapped_rows_are_named_by_their_positions,
            checking::a_cut_tail_is_told_by_the_read_model,
            checking::an_unknown_event_stops_the_fold_and_says_so,
            checking::an_edited_read_model_is_named_by_row_and_field,
            checking::missing_and_surplus_rows_are_named,
            checking::rebuild_restores_an_edited_read_model,
            checking::rebuild_goes_on_beside_appends,
            checking::rebuild_refuses_a_damaged_log,
            checking::after_random_commands_the_read_model_is_the_folded_log,
        }
    };
    ($fixture:ty: $($module:ident::$promise:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let fixture = <$fixture as $crate::contract::Fixture>::create().await;
                $crate::contract::$module::$promise(&fixture).await;
            }
        )+
    };
}
