//! Access control lists and client quotas.

use crate::table::message;

message! {
    /// Asks for the access control entries that fit a filter.
    mod describe_acls_request, versions 1..=3, flexible 2..;

    DescribeAclsRequest {
        resource_type_filter: i8;
        resource_name_filter: Option<Str> = Some(Str::default());
        pattern_type_filter: i8 = 3;
        principal_filter: Option<Str> = Some(Str::default());
        host_filter: Option<Str> = Some(Str::default());
        operation: i8;
        permission_type: i8;
    }
}

message! {
    /// The entries.
    mod describe_acls_response, versions 1..=3, flexible 2..;

    DescribeAclsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        resources: Vec<DescribeAclsResource>;
    }
    DescribeAclsResource {
        resource_type: i8;
        resource_name: Str;
        pattern_type: i8 = 3;
        acls: Vec<AclDescription>;
    }
    AclDescription {
        principal: Str;
        host: Str;
        operation: i8;
        permission_type: i8;
    }
}

message! {
    /// Adds access control entries.
    mod create_acls_request, versions 1..=3, flexible 2..;

    CreateAclsRequest {
        creations: Vec<AclCreation>;
    }
    AclCreation {
        resource_type: i8;
        resource_name: Str;
        resource_pattern_type: i8 = 3;
        principal: Str;
        host: Str;
        operation: i8;
        permission_type: i8;
    }
}

message! {
    /// What became of each entry.
    mod create_acls_response, versions 1..=3, flexible 2..;

    CreateAclsResponse {
        throttle_time_ms: i32;
        results: Vec<AclCreationResult>;
    }
    AclCreationResult {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}

message! {
    /// Deletes the access control entries that fit filters.
    mod delete_acls_request, versions 1..=3, flexible 2..;

    DeleteAclsRequest {
        filters: Vec<DeleteAclsFilter>;
    }
    DeleteAclsFilter {
        resource_type_filter: i8;
        resource_name_filter: Option<Str> = Some(Str::default());
        pattern_type_filter: i8 = 3;
        principal_filter: Option<Str> = Some(Str::default());
        host_filter: Option<Str> = Some(Str::default());
        operation: i8;
        permission_type: i8;
    }
}

message! {
    /// The entries deleted.
    mod delete_acls_response, versions 1..=3, flexible 2..;

    DeleteAclsResponse {
        throttle_time_ms: i32;
        filter_results: Vec<DeleteAclsFilterResult>;
    }
    DeleteAclsFilterResult {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        matching_acls: Vec<DeleteAclsMatchingAcl>;
    }
    DeleteAclsMatchingAcl {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        resource_type: i8;
        resource_name: Str;
        pattern_type: i8 = 3;
        principal: Str;
        host: Str;
        operation: i8;
        permission_type: i8;
    }
}

message! {
    /// Asks for the quotas of users, client ids and addresses.
    mod describe_client_quotas_request, versions 0..=1, flexible 1..;

    DescribeClientQuotasRequest {
        components: Vec<ComponentData>;
        strict: bool;
    }
    ComponentData {
        entity_type: Str;
        match_type: i8;
        r#match: Option<Str> = Some(Str::default());
    }
}

message! {
    /// The quotas.
    mod describe_client_quotas_response, versions 0..=1, flexible 1..;

    DescribeClientQuotasResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        entries: Option<Vec<EntryData>> = Some(Vec::new());
    }
    EntryData {
        entity: Vec<EntityData>;
        values: Vec<ValueData>;
    }
    EntityData {
        entity_type: Str;
        entity_name: Option<Str> = Some(Str::default());
    }
    ValueData {
        key: Str;
        value: f64;
    }
}

message! {
    /// Sets and removes quotas.
    mod alter_client_quotas_request, versions 0..=1, flexible 1..;

    AlterClientQuotasRequest {
        entries: Vec<EntryData>;
        validate_only: bool;
    }
    EntryData {
        entity: Vec<EntityData>;
        ops: Vec<OpData>;
    }
    EntityData {
        entity_type: Str;
        entity_name: Option<Str> = Some(Str::default());
    }
    OpData {
        key: Str;
        value: f64;
        remove: bool;
    }
}

message! {
    /// What became of each entity.
    mod alter_client_quotas_response, versions 0..=1, flexible 1..;

    AlterClientQuotasResponse {
        throttle_time_ms: i32;
        entries: Vec<EntryData>;
    }
    EntryData {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        entity: Vec<EntityData>;
    }
    EntityData {
        entity_type: Str;
        entity_name: Option<Str> = Some(Str::default());
    }
}
