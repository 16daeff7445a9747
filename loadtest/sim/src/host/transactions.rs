//! The steps of transactional producers at the writer that is their coordinator too, in the order in which
//! the gateway's backend takes them.

use std::collections::BTreeSet;

use bytes::Bytes;
use sluice_model::{StreamId, TenantId};
use sluice_wire::ErrorCode;
use sluice_writer::Writer;
use sluice_writer::transaction::{Claim, Participants};

use super::writer::APPEND;
use super::{Done, Identity, Step};

/// Takes one step; may take as long as the writer's own bounds say.
pub(super) async fn take(writer: &Writer, step: Step) -> Result<Done, ErrorCode> {
    let coordinator = writer.transactions();
    match step {
        Step::Init { id, timeout_ms } => {
            let name = name(id);
            let given = coordinator.init_producer(TenantId::OPEN, &name, timeout_ms, None).await?;
            Ok(Done::Is(given.0, given.1))
        }
        Step::Add { by, streams } => {
            coordinator.add(claim(by, &name(by.id)), only(streams), false).await?;
            Ok(Done::Added)
        }
        Step::Write { by, stream, batch } => write(writer, by, stream, &batch).await,
        Step::End { by, commit } => {
            let next = coordinator.end(claim(by, &name(by.id)), commit, by.is_new).await?;
            let (producer_id, epoch) = next.unwrap_or((by.producer_id, by.epoch));
            Ok(Done::Is(producer_id, epoch))
        }
    }
}

async fn write(
    writer: &Writer,
    by: Identity,
    stream: StreamId,
    batch: &Bytes,
) -> Result<Done, ErrorCode> {
    let verified = writer.unverified(stream, batch, by.is_new).map_err(|error| error.code())?;
    let appended = match verified {
        None => writer.append(stream, batch, APPEND).await,
        Some(unverified) => {
            let name = name(by.id);
            let coordinator = writer.transactions();
            // Held until the batch is handed over and a little longer: this producer sends one at a time.
            let _turn = coordinator.turn(TenantId::OPEN, &name).await;
            let asked = only(BTreeSet::from([stream]));
            if by.is_new {
                coordinator.add(claim(by, &name), asked, true).await?;
            } else if !coordinator.missing(claim(by, &name), &asked).await?.is_empty() {
                return Err(ErrorCode::InvalidTxnState);
            }
            writer.append_verified(stream, batch, APPEND, unverified).await
        }
    };
    appended.map(|done| Done::At(done.base_offset)).map_err(|error| error.code())
}

fn name(id: u32) -> String {
    format!("transactional-{id}")
}

fn claim(by: Identity, transactional_id: &str) -> Claim<'_> {
    Claim {
        tenant: TenantId::OPEN,
        transactional_id,
        producer_id: by.producer_id,
        producer_epoch: by.epoch,
    }
}

fn only(streams: BTreeSet<StreamId>) -> Participants {
    Participants { streams, ..Participants::default() }
}
