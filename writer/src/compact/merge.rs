//! Carrying out a plan: runs of small extents become one extent each, in one new segment.

use object_store::ObjectStore;
use sluice_format::segment::Piece;
use sluice_format::{Replacement, StreamKey, TransactionSection};

use super::Failed;
use super::blocks::Blocks;
use super::output::{Target, nothing, piece_of};
use super::pace::Pace;
use super::plan::{Plan, Run};
use crate::commit::Change;

/// What becomes one extent.
type Output = (StreamKey, Vec<Piece>, TransactionSection);

/// Reads what is planned, puts the new segment, and gives the change that names it. Memory: the plan's
/// bytes once, and one read.
pub(super) async fn merge(
    plan: &Plan,
    target: &Target<'_>,
    bucket: &dyn ObjectStore,
    pace: &Pace,
) -> Result<Change, Failed> {
    let mut extents: Vec<Output> = Vec::new();
    let mut runs: Vec<&Run> = Vec::new();
    let mut segments = Vec::new();
    let mut replacements = Vec::new();
    for run in &plan.runs {
        // Two runs of one stream are two extents, which one segment cannot have.
        if extents.last().is_some_and(|(stream, ..)| *stream == run.stream) {
            put(&mut extents, &mut runs, target, &mut segments, &mut replacements).await?;
        }
        let (pieces, section) = content(run, target, bucket, pace).await?;
        extents.push((run.stream, pieces, section));
        runs.push(run);
    }
    put(&mut extents, &mut runs, target, &mut segments, &mut replacements).await?;
    replacements.sort_by_key(|replacement| (replacement.stream, replacement.base_offset));
    Ok(Change::Compact { segments, replacements, cleaned: None })
}

async fn put(
    extents: &mut Vec<Output>,
    runs: &mut Vec<&Run>,
    target: &Target<'_>,
    segments: &mut Vec<(sluice_format::SegmentId, u64)>,
    replacements: &mut Vec<Replacement>,
) -> Result<(), Failed> {
    let written = target.write(std::mem::take(extents)).await?;
    segments.push((written.id, written.len));
    for (run, (stream, extent)) in runs.drain(..).zip(written.extents) {
        replacements.push(Replacement {
            stream,
            base_offset: extent.base_offset,
            end_offset: extent.end_offset,
            replaced: run.extents.iter().map(|extent| extent.segment).collect(),
            extents: vec![extent],
        });
    }
    Ok(())
}

/// All that a run's extents hold: batches, aborted transactions, and the producers as of its end. Where
/// an extent has no block, the piece before or after covers its offsets.
async fn content(
    run: &Run,
    target: &Target<'_>,
    bucket: &dyn ObjectStore,
    pace: &Pace,
) -> Result<(Vec<Piece>, TransactionSection), Failed> {
    let mut out: Vec<Piece> = Vec::new();
    let mut section = TransactionSection::default();
    let mut at = run.extents[0].base_offset;
    for extent in &run.extents {
        let mut blocks = Blocks::new(target.keys, extent);
        while let Some((block, read)) = blocks.next(bucket).await? {
            let mut piece = piece_of(block);
            piece.base_offset = at;
            at = piece.end_offset;
            out.push(piece);
            pace.spent(read).await?;
        }
        let TransactionSection { aborted, producers } = blocks.section(bucket).await?;
        section.aborted.extend(aborted);
        section.producers = producers;
        if let Some(last) = out.last_mut() {
            last.end_offset = extent.end_offset;
            at = extent.end_offset;
        }
    }
    let last = &run.extents[run.extents.len() - 1];
    if out.is_empty() {
        out.push(nothing(at, last.end_offset, last.leader_epoch));
    }
    Ok((out, section))
}
