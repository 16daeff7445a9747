//! SASL and delegation tokens.

use crate::table::message;

message! {
    /// Chooses a SASL mechanism.
    mod sasl_handshake_request, versions 0..=1;

    SaslHandshakeRequest {
        mechanism: Str;
    }
}

message! {
    /// The mechanisms offered.
    mod sasl_handshake_response, versions 0..=1;

    SaslHandshakeResponse {
        error_code: i16;
        mechanisms: Vec<Str>;
    }
}

message! {
    /// Brings one message of the SASL exchange.
    mod sasl_authenticate_request, versions 0..=2, flexible 2..;

    SaslAuthenticateRequest {
        auth_bytes: Bytes;
    }
}

message! {
    /// The server's next message of the exchange.
    mod sasl_authenticate_response, versions 0..=2, flexible 2..;

    SaslAuthenticateResponse {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        auth_bytes: Bytes;
        session_lifetime_ms: i64 [1.., else ignore];
    }
}

message! {
    /// Asks for a delegation token.
    mod create_delegation_token_request, versions 1..=3, flexible 2..;

    CreateDelegationTokenRequest {
        owner_principal_type: Option<Str> [3..] = Some(Str::default());
        owner_principal_name: Option<Str> [3..] = Some(Str::default());
        renewers: Vec<CreatableRenewers>;
        max_lifetime_ms: i64;
    }
    CreatableRenewers {
        principal_type: Str;
        principal_name: Str;
    }
}

message! {
    /// The token.
    mod create_delegation_token_response, versions 1..=3, flexible 2..;

    CreateDelegationTokenResponse {
        error_code: i16;
        principal_type: Str;
        principal_name: Str;
        token_requester_principal_type: Str [3..];
        token_requester_principal_name: Str [3..];
        issue_timestamp_ms: i64;
        expiry_timestamp_ms: i64;
        max_timestamp_ms: i64;
        token_id: Str;
        hmac: Bytes;
        throttle_time_ms: i32;
    }
}

message! {
    /// Lengthens the life of a delegation token.
    mod renew_delegation_token_request, versions 1..=2, flexible 2..;

    RenewDelegationTokenRequest {
        hmac: Bytes;
        renew_period_ms: i64;
    }
}

message! {
    /// When the token now expires.
    mod renew_delegation_token_response, versions 1..=2, flexible 2..;

    RenewDelegationTokenResponse {
        error_code: i16;
        expiry_timestamp_ms: i64;
        throttle_time_ms: i32;
    }
}

message! {
    /// Ends a delegation token, now or later.
    mod expire_delegation_token_request, versions 1..=2, flexible 2..;

    ExpireDelegationTokenRequest {
        hmac: Bytes;
        expiry_time_period_ms: i64;
    }
}

message! {
    /// When the token now expires.
    mod expire_delegation_token_response, versions 1..=2, flexible 2..;

    ExpireDelegationTokenResponse {
        error_code: i16;
        expiry_timestamp_ms: i64;
        throttle_time_ms: i32;
    }
}

message! {
    /// Asks for the delegation tokens of owners.
    mod describe_delegation_token_request, versions 1..=3, flexible 2..;

    DescribeDelegationTokenRequest {
        owners: Option<Vec<DescribeDelegationTokenOwner>> = Some(Vec::new());
    }
    DescribeDelegationTokenOwner {
        principal_type: Str;
        principal_name: Str;
    }
}

message! {
    /// The tokens.
    mod describe_delegation_token_response, versions 1..=3, flexible 2..;

    DescribeDelegationTokenResponse {
        error_code: i16;
        tokens: Vec<DescribedDelegationToken>;
        throttle_time_ms: i32;
    }
    DescribedDelegationToken {
        principal_type: Str;
        principal_name: Str;
        token_requester_principal_type: Str [3..];
        token_requester_principal_name: Str [3..];
        issue_timestamp: i64;
        expiry_timestamp: i64;
        max_timestamp: i64;
        token_id: Str;
        hmac: Bytes;
        renewers: Vec<DescribedDelegationTokenRenewer>;
    }
    DescribedDelegationTokenRenewer {
        principal_type: Str;
        principal_name: Str;
    }
}

message! {
    /// Asks which SCRAM credentials users have.
    mod describe_user_scram_credentials_request, versions 0..=0, flexible 0..;

    DescribeUserScramCredentialsRequest {
        users: Option<Vec<UserName>> = Some(Vec::new());
    }
    UserName {
        name: Str;
    }
}

message! {
    /// The mechanisms and iterations, never the secrets.
    mod describe_user_scram_credentials_response, versions 0..=0, flexible 0..;

    DescribeUserScramCredentialsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        results: Vec<DescribeUserScramCredentialsResult>;
    }
    DescribeUserScramCredentialsResult {
        user: Str;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        credential_infos: Vec<CredentialInfo>;
    }
    CredentialInfo {
        mechanism: i8;
        iterations: i32;
    }
}

message! {
    /// Sets and deletes SCRAM credentials.
    mod alter_user_scram_credentials_request, versions 0..=0, flexible 0..;

    AlterUserScramCredentialsRequest {
        deletions: Vec<ScramCredentialDeletion>;
        upsertions: Vec<ScramCredentialUpsertion>;
    }
    ScramCredentialDeletion {
        name: Str;
        mechanism: i8;
    }
    ScramCredentialUpsertion {
        name: Str;
        mechanism: i8;
        iterations: i32;
        salt: Bytes;
        salted_password: Bytes;
    }
}

message! {
    /// What became of each user.
    mod alter_user_scram_credentials_response, versions 0..=0, flexible 0..;

    AlterUserScramCredentialsResponse {
        throttle_time_ms: i32;
        results: Vec<AlterUserScramCredentialsResult>;
    }
    AlterUserScramCredentialsResult {
        user: Str;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}
