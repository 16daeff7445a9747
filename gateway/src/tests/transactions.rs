//! InitProducerId and the requests of transactional producers: what is checked before the coordinator,
//! and how answers differ by version.

use sluice_model::TenantId;
use sluice_wire::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use sluice_wire::messages::add_partitions_to_txn_request as add;
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use sluice_wire::messages::end_txn_request::EndTxnRequest;
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::list_transactions_request::ListTransactionsRequest;
use sluice_wire::{ErrorCode, Str};

use super::client::{Client, batch, produce};
use super::{NODE, Server};

const OTHER: TenantId = TenantId(9);

fn init(id: Option<&str>, producer_id: i64, producer_epoch: i16) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: id.map(Into::into),
        transaction_timeout_ms: 1_000,
        producer_id,
        producer_epoch,
    }
}

async fn begin(client: &mut Client, id: &str) -> i64 {
    let answer = client.call(&init(Some(id), -1, -1), 5).await;
    assert_eq!(answer.error_code, 0);
    answer.producer_id
}

fn topics(topics: &[(&str, &[i32])]) -> Vec<add::AddPartitionsToTxnTopic> {
    let topic = |(name, partitions): &(&str, &[i32])| add::AddPartitionsToTxnTopic {
        name: Str::from(*name),
        partitions: partitions.to_vec(),
    };
    topics.iter().map(topic).collect()
}

fn add_one(
    producer_id: i64,
    epoch: i16,
    named: &[(&str, &[i32])],
) -> add::AddPartitionsToTxnRequest {
    add::AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: "tx".into(),
        v3_and_below_producer_id: producer_id,
        v3_and_below_producer_epoch: epoch,
        v3_and_below_topics: topics(named),
        ..Default::default()
    }
}

#[tokio::test]
async fn producer_ids_with_and_without_transactions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = client.call(&init(None, -1, -1), 5).await;
    let second = client.call(&init(None, -1, -1), 0).await;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    assert_ne!(first.producer_id, second.producer_id);
    assert_eq!(client.call(&init(Some("tx"), -1, -1), 5).await.error_code, 0);
    for (request, version, error) in [
        (init(None, 5, -1), 5, ErrorCode::InvalidRequest),
        (init(None, -1, 5), 5, ErrorCode::InvalidRequest),
        (init(Some(""), -1, -1), 5, ErrorCode::InvalidRequest),
        (init(Some("tx"), i64::MAX, 1), 4, ErrorCode::ProducerFenced),
        (init(Some("tx"), i64::MAX, 1), 3, ErrorCode::InvalidProducerEpoch),
    ] {
        let response = client.call(&request, version).await;
        let answered = (response.error_code, response.producer_id, response.producer_epoch);
        assert_eq!(answered, (error.code(), -1, -1));
    }
}

#[tokio::test]
async fn all_partitions_of_a_transaction_are_added_or_none() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2).await;
    let producer_id = begin(&mut client, "tx").await;
    let missing = ErrorCode::UnknownTopicOrPartition.code();
    let skipped = ErrorCode::OperationNotAttempted.code();
    for (named, epoch, version, expected) in [
        (&[("t", &[0, 1][..])][..], 0, 3, vec![0, 0]),
        (&[("t", &[0, 2]), ("u", &[0])], 0, 3, vec![skipped, missing, missing]),
        (&[("t", &[0])], 5, 2, vec![ErrorCode::ProducerFenced.code()]),
        (&[("t", &[0])], 5, 1, vec![ErrorCode::InvalidProducerEpoch.code()]),
        (&[("t", &[-1])], 0, 0, vec![missing]),
    ] {
        let answer = client.call(&add_one(producer_id, epoch, named), version).await;
        let topics = answer.results_by_topic_v3_and_below;
        let codes: Vec<i16> = topics
            .iter()
            .flat_map(|topic| topic.results_by_partition.iter().map(|p| p.partition_error_code))
            .collect();
        assert_eq!(codes, expected);
    }
}

#[tokio::test]
async fn several_transactions_in_one_request_are_answered_each_for_itself() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 3).await;
    let producer_id = begin(&mut client, "tx").await;
    let one = |id: &str, producer_id, verify_only, partitions: &[i32]| {
        add::AddPartitionsToTxnTransaction {
            transactional_id: id.into(),
            producer_id,
            producer_epoch: 0,
            verify_only,
            topics: topics(&[("t", partitions)]),
        }
    };
    let mapping = ErrorCode::InvalidProducerIdMapping.code();
    let abortable = ErrorCode::TransactionAbortable.code();
    let request = add::AddPartitionsToTxnRequest {
        transactions: vec![
            one("tx", producer_id, false, &[0]),
            one("tx", producer_id, true, &[0, 1]),
            one("other", producer_id, false, &[0]),
        ],
        ..Default::default()
    };
    for version in [4, 5] {
        let answer = client.call(&request, version).await;
        assert_eq!(answer.error_code, 0);
        let codes: Vec<(&str, Vec<i16>)> = answer
            .results_by_transaction
            .iter()
            .map(|result| {
                let partitions = &result.topic_results[0].results_by_partition;
                let codes = partitions.iter().map(|p| p.partition_error_code).collect();
                (&*result.transactional_id, codes)
            })
            .collect();
        let expected = [("tx", vec![0]), ("tx", vec![0, abortable]), ("other", vec![mapping])];
        assert_eq!(codes, expected);
    }
}

#[tokio::test]
async fn ends_tell_the_next_epoch_from_version_5_on() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let producer_id = begin(&mut client, "tx").await;
    let end = |producer_epoch| EndTxnRequest {
        transactional_id: "tx".into(),
        producer_id,
        producer_epoch,
        committed: true,
    };
    for (version, next) in [(0, (-1, -1)), (4, (-1, -1)), (5, (producer_id, 1))] {
        let answer = client.call(&end(0), version).await;
        assert_eq!(answer.error_code, 0);
        assert_eq!((answer.producer_id, answer.producer_epoch), next);
    }
    for (version, code) in [
        (1, ErrorCode::InvalidProducerEpoch),
        (2, ErrorCode::ProducerFenced),
        (5, ErrorCode::ProducerFenced),
    ] {
        assert_eq!(client.call(&end(9), version).await.error_code, code.code());
    }
    let offsets = AddOffsetsToTxnRequest {
        transactional_id: "tx".into(),
        producer_id,
        producer_epoch: 0,
        group_id: "g".into(),
    };
    for version in 0..=4 {
        assert_eq!(client.call(&offsets, version).await.error_code, 0);
    }
}

#[tokio::test]
async fn descriptions_name_the_tenants_topics_and_no_one_elses() {
    let server = Server::with(|_| {}, &[TenantId::OPEN, OTHER]).await;
    let mut client = server.client_of(0).await;
    let mut other = server.client_of(1).await;
    client.create_topic("t", 2).await;
    other.create_topic("t", 2).await;
    let producer_id = begin(&mut client, "tx").await;
    client.call(&add_one(producer_id, 0, &[("t", &[1, 0])]), 3).await;
    let describe = DescribeTransactionsRequest { transactional_ids: vec!["tx".into()] };
    let found = &client.call(&describe, 0).await.transaction_states[0];
    assert_eq!(found.error_code, 0);
    assert_eq!((&*found.topics[0].topic, &found.topics[0].partitions[..]), ("t", &[0, 1][..]));
    // Another tenant with the same names, and even the producer id, reaches nothing.
    let absent = &other.call(&describe, 0).await.transaction_states[0];
    assert_eq!(absent.error_code, ErrorCode::TransactionalIdNotFound.code());
    let listed = other.call(&ListTransactionsRequest::default(), 2).await;
    assert!(listed.transaction_states.is_empty());
    let added = other.call(&add_one(producer_id, 0, &[("t", &[0])]), 3).await;
    let code = added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code;
    assert_eq!(code, ErrorCode::InvalidProducerIdMapping.code());
    let end = EndTxnRequest {
        transactional_id: "tx".into(),
        producer_id,
        producer_epoch: 0,
        committed: false,
    };
    let code = other.call(&end, 4).await.error_code;
    assert_eq!(code, ErrorCode::InvalidProducerIdMapping.code());
    let listed = client.call(&ListTransactionsRequest::default(), 1).await;
    assert_eq!(listed.transaction_states.len(), 1);
}

#[tokio::test]
async fn a_batch_of_a_transaction_needs_a_transactional_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let mut records = bytes::BytesMut::from(&batch(1, b"x")[..]);
    records[22] |= 0x10;
    let mut request = produce("t", 0, -1, records.freeze());
    for version in [9, 12] {
        let answer = client.call(&request, version).await;
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, ErrorCode::TransactionalIdAuthorizationFailed.code());
    }
    request.transactional_id = Some("tx".into());
    let answer = client.call(&request, 12).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn coordinators_of_transactions_are_found_and_their_version_is_told() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let find = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["tx".into()],
        ..Default::default()
    };
    let found = &client.call(&find, 6).await.coordinators[0];
    assert_eq!((found.error_code, found.node_id), (0, NODE.0));
    let find = FindCoordinatorRequest { key: "tx".into(), key_type: 1, ..Default::default() };
    assert_eq!(client.call(&find, 1).await.node_id, NODE.0);
    let ask = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    };
    for (version, supported, finalized) in [(2, 0, 0), (3, 0, 1), (4, 1, 1)] {
        let answer = client.call(&ask, version).await;
        let is_ours = |name: &Str| &**name == "transaction.version";
        let told = answer.supported_features.iter().filter(|f| is_ours(&f.name));
        assert_eq!(told.count(), supported, "version {version}");
        let told = answer.finalized_features.iter().filter(|f| is_ours(&f.name));
        let levels: Vec<i16> = told.map(|feature| feature.max_version_level).collect();
        assert_eq!(levels, vec![2; finalized], "version {version}");
        // Clients believe no features without an epoch.
        assert_eq!(answer.finalized_features_epoch >= 0, version >= 3);
    }
}
