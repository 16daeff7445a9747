//! Kafka's error codes: which exist, whether a client may retry, and our words for them.
//!
//! Numbers and the retriable property are those of Kafka 4.3.0; the texts are ours.

use std::fmt;

macro_rules! error_codes {
    ($($name:ident = $code:literal $(($retry:ident))?, $text:literal;)*) => {
        /// What went wrong, as a Kafka client understands it. Fields of messages hold plain `i16`s.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $text] $name = $code,)*
        }

        impl ErrorCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code with this number; [`ErrorCode::UnknownServerError`] for one we do not know,
            /// as clients do.
            pub const fn from_code(code: i16) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::UnknownServerError,
                }
            }

            /// Whether Kafka's clients try again by themselves, perhaps after new metadata.
            pub const fn retriable(self) -> bool {
                match self {
                    $(Self::$name => error_codes!(@retriable $($retry)?),)*
                }
            }

            /// What to tell a client's user.
            pub const fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
    (@retriable) => { false };
    (@retriable retriable) => { true };
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is [`ErrorCode::None`].
    pub const fn is_none(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for ErrorCode {}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> Self {
        error.code()
    }
}

error_codes! {
    UnknownServerError = -1, "the server failed in a way it did not foresee";
    None = 0, "no error";
    OffsetOutOfRange = 1, "the offset lies outside the partition's log";
    CorruptMessage = 2 (retriable), "a record batch is damaged or malformed";
    UnknownTopicOrPartition = 3 (retriable), "no such topic or partition";
    InvalidFetchSize = 4, "the fetch size is not valid";
    LeaderNotAvailable = 5 (retriable), "the partition has no leader at the moment";
    NotLeaderOrFollower = 6 (retriable), "this broker does not serve the partition; refresh metadata";
    RequestTimedOut = 7 (retriable), "the request took longer than its time limit";
    BrokerNotAvailable = 8, "the broker is not available";
    ReplicaNotAvailable = 9 (retriable), "the replica is not available";
    MessageTooLarge = 10, "a record batch is larger than the topic's max.message.bytes";
    StaleControllerEpoch = 11, "the controller has moved";
    OffsetMetadataTooLarge = 12, "the metadata of a committed offset is too long";
    NetworkException = 13 (retriable), "the connection broke before the answer came";
    CoordinatorLoadInProgress = 14 (retriable), "the coordinator is still loading its state";
    CoordinatorNotAvailable = 15 (retriable), "the coordinator is not available";
    NotCoordinator = 16 (retriable), "this broker is not the coordinator; look it up again";
    InvalidTopicException = 17, "the topic name is not valid, or the topic may not be used so";
    RecordListTooLarge = 18, "the records are larger than a segment may be";
    NotEnoughReplicas = 19 (retriable), "the write cannot be made durable at the moment";
    NotEnoughReplicasAfterAppend = 20 (retriable), "the write was made but is not durable yet";
    InvalidRequiredAcks = 21, "acks must be 0, 1 or -1 (all)";
    IllegalGeneration = 22, "the group's generation is another one; rejoin";
    InconsistentGroupProtocol = 23, "the member shares no assignment protocol with the group";
    InvalidGroupId = 24, "the group id is not valid";
    UnknownMemberId = 25, "the group has no such member";
    InvalidSessionTimeout = 26, "the session timeout is outside the allowed range";
    RebalanceInProgress = 27, "the group is rebalancing; rejoin";
    InvalidCommitOffsetSize = 28, "the offset commit is too large";
    TopicAuthorizationFailed = 29, "access to the topic is denied";
    GroupAuthorizationFailed = 30, "access to the group is denied";
    ClusterAuthorizationFailed = 31, "the operation on the cluster is denied";
    InvalidTimestamp = 32, "a record's timestamp is outside the accepted range";
    UnsupportedSaslMechanism = 33, "the SASL mechanism is not offered";
    IllegalSaslState = 34, "the request does not fit the state of the SASL exchange";
    UnsupportedVersion = 35, "the version of the request is not supported";
    TopicAlreadyExists = 36, "a topic of this name exists";
    InvalidPartitions = 37, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "the replication factor is not valid";
    InvalidReplicaAssignment = 39, "the replica assignment is not valid";
    InvalidConfig = 40, "a configuration value is not valid";
    NotController = 41 (retriable), "this broker is not the controller";
    InvalidRequest = 42, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, "only record batches of format 2 are accepted";
    PolicyViolation = 44, "a policy of the server forbids this";
    OutOfOrderSequenceNumber = 45, "the producer's sequence number leaves a gap";
    DuplicateSequenceNumber = 46, "the producer's sequence number was used before";
    InvalidProducerEpoch = 47, "a newer producer epoch exists";
    InvalidTxnState = 48, "the transaction's state does not allow this";
    InvalidProducerIdMapping = 49, "the producer id is not that of the transactional id";
    InvalidTransactionTimeout = 50, "the transaction timeout is longer than allowed";
    ConcurrentTransactions = 51 (retriable), "another operation on the transaction is under way";
    TransactionCoordinatorFenced = 52, "the transaction has a newer coordinator";
    TransactionalIdAuthorizationFailed = 53, "access to the transactional id is denied";
    SecurityDisabled = 54, "security features are turned off";
    OperationNotAttempted = 55, "not tried, since another part of the request failed";
    KafkaStorageError = 56 (retriable), "storage failed; the operation may be tried again";
    LogDirNotFound = 57, "no such log directory";
    SaslAuthenticationFailed = 58, "authentication failed";
    UnknownProducerId = 59, "nothing is known of the producer id";
    ReassignmentInProgress = 60, "the partition is being reassigned";
    DelegationTokenAuthDisabled = 61, "delegation tokens are turned off";
    DelegationTokenNotFound = 62, "no such delegation token";
    DelegationTokenOwnerMismatch = 63, "the principal neither owns nor may renew the token";
    DelegationTokenRequestNotAllowed = 64, "delegation tokens cannot be requested on this connection";
    DelegationTokenAuthorizationFailed = 65, "access to the delegation token is denied";
    DelegationTokenExpired = 66, "the delegation token has expired";
    InvalidPrincipalType = 67, "the principal type is not supported";
    NonEmptyGroup = 68, "the group has members";
    GroupIdNotFound = 69, "no such group";
    FetchSessionIdNotFound = 70 (retriable), "no such fetch session";
    InvalidFetchSessionEpoch = 71 (retriable), "the fetch session's epoch is another one";
    ListenerNotFound = 72 (retriable), "the leader has no such listener";
    TopicDeletionDisabled = 73, "topics cannot be deleted here";
    FencedLeaderEpoch = 74 (retriable), "the leader epoch is an old one; refresh metadata";
    UnknownLeaderEpoch = 75 (retriable), "the leader epoch is newer than this broker knows";
    UnsupportedCompressionType = 76, "the compression type is not supported";
    StaleBrokerEpoch = 77, "the broker's epoch has changed";
    OffsetNotAvailable = 78 (retriable), "the offset is not certain yet";
    MemberIdRequired = 79, "join again with the member id given";
    PreferredLeaderNotAvailable = 80 (retriable), "the preferred leader is not available";
    GroupMaxSizeReached = 81, "the group has as many members as it may have";
    FencedInstanceId = 82, "another member has taken over the group.instance.id";
    EligibleLeadersNotAvailable = 83 (retriable), "no replica may become leader at the moment";
    ElectionNotNeeded = 84 (retriable), "the partition needs no election";
    NoReassignmentInProgress = 85, "the partition is not being reassigned";
    GroupSubscribedToTopic = 86, "the group is subscribed to the topic";
    InvalidRecord = 87, "a record breaks a rule of the topic";
    UnstableOffsetCommit = 88 (retriable), "an offset commit waits for its transaction";
    ThrottlingQuotaExceeded = 89 (retriable), "a quota is used up; try again later";
    ProducerFenced = 90, "a newer producer uses the same transactional id";
    ResourceNotFound = 91, "no such resource";
    DuplicateResource = 92, "the request names a resource twice";
    UnacceptableCredential = 93, "the credential does not meet the rules";
    InconsistentVoterSet = 94, "the voter sets differ";
    InvalidUpdateVersion = 95, "the feature cannot be set to this version";
    FeatureUpdateFailed = 96, "the features could not be updated";
    PrincipalDeserializationFailure = 97, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, "no such snapshot";
    PositionOutOfRange = 99, "the position lies outside the snapshot";
    UnknownTopicId = 100 (retriable), "no topic has this id";
    DuplicateBrokerRegistration = 101, "the broker id is in use";
    BrokerIdNotRegistered = 102, "no such broker";
    InconsistentTopicId = 103 (retriable), "the topic has another id";
    InconsistentClusterId = 104, "the cluster has another id";
    TransactionalIdNotFound = 105, "no such transactional id";
    FetchSessionTopicIdError = 106 (retriable), "the fetch session mixes topic ids and names";
    IneligibleReplica = 107, "a replica may not be in sync";
    NewLeaderElected = 108, "the partition has a new leader";
    OffsetMovedToTieredStorage = 109, "the offset has left the log for tiered storage";
    FencedMemberEpoch = 110, "the member's epoch is fenced; rejoin with no partitions";
    UnreleasedInstanceId = 111, "another member still holds the instance id";
    UnsupportedAssignor = 112, "the server has no such assignor";
    StaleMemberEpoch = 113, "the member's epoch is old; try again after the next heartbeat";
    MismatchedEndpointType = 114, "the request went to an endpoint of another type";
    UnsupportedEndpointType = 115, "the endpoint type is not supported";
    UnknownControllerId = 116, "no such controller";
    UnknownSubscriptionId = 117, "the telemetry subscription is unknown or old";
    TelemetryTooLarge = 118, "the telemetry is larger than accepted";
    InvalidRegistration = 119, "the broker's registration is not valid";
    TransactionAbortable = 120, "the transaction failed; abort it and go on";
    InvalidRecordState = 121, "the record's state does not allow this acknowledgement";
    ShareSessionNotFound = 122 (retriable), "no such share session";
    InvalidShareSessionEpoch = 123 (retriable), "the share session's epoch is another one";
    FencedStateEpoch = 124, "the share group's state has another epoch";
    InvalidVoterKey = 125, "the voter's key is another one";
    DuplicateVoter = 126, "the voter exists";
    VoterNotFound = 127, "no such voter";
    InvalidRegularExpression = 128, "the regular expression is not valid";
    RebootstrapRequired = 129, "start again from the bootstrap servers";
    StreamsInvalidTopology = 130, "the topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "the topology's epoch is not valid";
    StreamsTopologyFenced = 132, "a newer topology exists";
    ShareSessionLimitReached = 133 (retriable), "there are as many share sessions as there may be";
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn numbers_go_both_ways_without_gaps() {
        let codes: Vec<i16> = ErrorCode::ALL.iter().map(|error| error.code()).collect();
        assert_eq!(codes, (-1..=133).collect::<Vec<i16>>());
        for &error in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(error.code()), error);
        }
        assert_eq!(ErrorCode::from_code(9999), ErrorCode::UnknownServerError);
    }

    #[test]
    fn clients_retry_what_kafka_says() {
        let retriable: Vec<i16> =
            ErrorCode::ALL.iter().filter(|e| e.retriable()).map(|e| e.code()).collect();
        // Errors whose exception is a RetriableException in Kafka 4.3.0.
        let kafka = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83,
            84, 88, 89, 100, 103, 106, 122, 123, 133,
        ];
        assert_eq!(retriable, kafka);
    }
}
