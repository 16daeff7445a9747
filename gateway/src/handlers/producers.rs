//! InitProducerId: ids for producers, with and without transactions.

use std::sync::Arc;

use sluice_wire::ErrorCode;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::context::Context;
use crate::gateway::Core;

/// From this version on clients know PRODUCER_FENCED (KIP-588).
const FENCED_FROM: i16 = 4;

/// See the module.
pub(crate) async fn init_producer_id(
    core: &Arc<Core>,
    ctx: &Context,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    // Both or neither: who the producer was.
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return failed(ErrorCode::InvalidRequest);
    }
    match core.backend.init_producer_id(&ctx.caller, request).await {
        Ok(given) => InitProducerIdResponse {
            producer_id: given.producer_id,
            producer_epoch: given.producer_epoch,
            ..Default::default()
        },
        Err(ErrorCode::ProducerFenced) if ctx.version < FENCED_FROM => {
            failed(ErrorCode::InvalidProducerEpoch)
        }
        Err(code) => failed(code),
    }
}

fn failed(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code: code.code(), producer_epoch: -1, ..Default::default() }
}
