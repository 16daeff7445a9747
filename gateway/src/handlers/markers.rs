//! WriteTxnMarkers: the coordinator of transactions ends one in streams of this node. Only nodes ask for it.

use std::sync::Arc;

use sluice_wire::ErrorCode;
use sluice_wire::messages::write_txn_markers_request::WriteTxnMarkersRequest;
use sluice_wire::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
};

use super::resolve;
use crate::backend::EndMarker;
use crate::context::Context;
use crate::gateway::Core;

/// See the module.
pub(crate) async fn write_txn_markers(
    core: &Arc<Core>,
    ctx: &Context,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for asked in request.markers {
        let marker = EndMarker {
            producer_id: asked.producer_id,
            producer_epoch: asked.producer_epoch,
            coordinator_epoch: asked.coordinator_epoch,
            commit: asked.transaction_result,
        };
        let mut topics = Vec::with_capacity(asked.topics.len());
        for topic in asked.topics {
            let found = resolve::by_name(core, ctx, &topic.name);
            let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
            for partition_index in topic.partition_indexes {
                let ended = match resolve::stream_of(&found, partition_index) {
                    Ok(stream) => core.backend.end_in_stream(stream, marker).await,
                    Err(code) => Err(code),
                };
                let error_code = ended.err().unwrap_or(ErrorCode::None).code();
                partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
            }
            topics.push(WritableTxnMarkerTopicResult { name: topic.name, partitions });
        }
        markers.push(WritableTxnMarkerResult { producer_id: asked.producer_id, topics });
    }
    WriteTxnMarkersResponse { markers }
}
