//! InitProducerId, for producers without transactions.

use std::sync::Arc;

use sluice_wire::ErrorCode;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::context::Context;
use crate::gateway::Core;

/// From this version on clients know PRODUCER_FENCED (KIP-588).
const FENCED_FROM: i16 = 4;

/// See the module. Transactions are not served yet: who asks for one is told so with the code that
/// every client takes as final, instead of one that it would retry for ever.
pub(crate) async fn init_producer_id(
    core: &Arc<Core>,
    ctx: &Context,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let mut answer = match &request.transactional_id {
        Some(id) if id.is_empty() => failed(ErrorCode::InvalidRequest),
        Some(_) => failed(ErrorCode::TransactionalIdAuthorizationFailed),
        None if (request.producer_id == -1) != (request.producer_epoch == -1) => {
            failed(ErrorCode::InvalidRequest)
        }
        None => core.backend.init_producer_id(&ctx.caller, request).await,
    };
    if ctx.version < FENCED_FROM && answer.error_code == ErrorCode::ProducerFenced.code() {
        answer.error_code = ErrorCode::InvalidProducerEpoch.code();
    }
    answer
}

fn failed(code: ErrorCode) -> InitProducerIdResponse {
    InitProducerIdResponse { error_code: code.code(), producer_epoch: -1, ..Default::default() }
}
