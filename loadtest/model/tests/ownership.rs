//! The model explored: no order of steps breaks a rule, and whatever is broken on purpose is found.

use sluice_ownership::runs::{self, ANYTHING};
use sluice_ownership::{Kind, Model, Mutation, Rule, explore};

#[test]
fn no_order_of_steps_breaks_a_rule() {
    for (name, model) in runs::quick() {
        let explored = explore(&model).unwrap_or_else(|broke| panic!("{name}: {broke}"));
        println!("{name}: {explored:?}");
        assert_eq!(explored.stuck, 0, "{name}: a volume that can never be served again");
        // Far fewer would mean that processes no longer meet.
        assert!(explored.states > 100_000, "{name}: only {} states", explored.states);
    }
}

/// Who is kept out by a lock is never refused anything.
const IS_REFUSED: [Kind; 2] = [Kind::Block, Kind::Object];
const ALL: [Kind; 3] = [Kind::File, Kind::Block, Kind::Object];

/// On each of these kinds, one of the rules is seen to be broken.
#[expect(clippy::print_stdout, reason = "the test's own output, from a function that tests share")]
fn is_seen(mutation: Mutation, kinds: &[Kind], rules: &[Rule]) {
    for kind in kinds {
        let model = Model { kind: *kind, claims: 2, mutation: Some(mutation), ..ANYTHING };
        match explore(&model) {
            Ok(explored) => panic!("{mutation:?} on {kind:?} goes unseen: {explored:?}"),
            Err(broke) => {
                println!("{mutation:?} on {kind:?}: {:?}, {} steps", broke.rule, broke.way.len());
                assert!(rules.contains(&broke.rule), "{broke}");
            }
        }
    }
}

#[test]
fn a_claim_that_leaves_the_epoch_is_seen() {
    let rules = [Rule::OneOwnerAnEpoch, Rule::AcknowledgedIsKept];
    is_seen(Mutation::ClaimsWithoutEpoch, &ALL, &rules);
}

#[test]
fn a_device_that_is_not_fenced_is_seen() {
    is_seen(Mutation::DoesNotFence, &ALL, &[Rule::HighWatermark, Rule::AcknowledgedIsKept]);
}

#[test]
fn a_log_that_is_read_before_the_fence_is_seen() {
    is_seen(Mutation::ReadsBeforeFence, &ALL, &[Rule::HighWatermark, Rule::AcknowledgedIsKept]);
}

#[test]
fn a_take_without_a_manifest_is_seen() {
    is_seen(Mutation::DoesNotAnnounce, &ALL, &[Rule::NoOlderManifest]);
}

#[test]
fn a_manifest_over_one_that_was_not_loaded_is_seen() {
    is_seen(Mutation::AnnouncesOverUnread, &ALL, &[Rule::Contiguous]);
}

#[test]
fn a_trim_before_its_commit_is_seen() {
    is_seen(Mutation::TrimsBeforeCommit, &ALL, &[Rule::TrimmedAfterCommit]);
}

#[test]
fn a_commit_before_its_segment_is_seen() {
    is_seen(Mutation::CommitsBeforePut, &ALL, &[Rule::WholeObjects]);
}

#[test]
fn an_acknowledgement_before_the_device_has_it_is_seen() {
    is_seen(Mutation::AcknowledgesInFlight, &ALL, &[Rule::AcknowledgedIsKept]);
}

#[test]
fn a_zombie_that_acknowledges_after_the_fence_is_seen() {
    is_seen(Mutation::ZombieAcknowledges, &IS_REFUSED, &[Rule::AcknowledgedIsKept]);
}

#[test]
fn a_high_watermark_that_goes_back_is_seen() {
    is_seen(Mutation::ForgetsHighWatermark, &ALL, &[Rule::HighWatermark]);
}
