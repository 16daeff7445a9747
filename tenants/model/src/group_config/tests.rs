use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    GroupSettings::new(&map(pairs), &GroupDefaults::default()).unwrap_err().to_string()
}

#[test]
fn the_table_is_sorted_and_its_defaults_pass_their_own_checks() {
    assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
    GroupSettings::new(&BTreeMap::new(), &GroupDefaults::default()).unwrap();
    for bounds in BOUNDS {
        assert!(key(bounds.name).is_some(), "{}", bounds.name);
    }
}

#[test]
fn defaults_are_kafkas() {
    let settings = GroupSettings::default();
    let times = MemberTimes {
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        assignment_interval_ms: 1_000,
    };
    assert_eq!(settings.consumer, times);
    assert_eq!(settings.share.times, times);
    assert_eq!(settings.streams.times, times);
    assert_eq!(settings.share.auto_offset_reset, OffsetReset::Latest);
    assert_eq!(settings.share.delivery_count_limit, 5);
    assert_eq!(settings.share.partition_max_record_locks, 2_000);
    assert_eq!(settings.share.record_lock_duration_ms, 30_000);
    assert!(!settings.share.read_committed && settings.share.renew_acknowledge);
    assert_eq!(settings.streams.initial_rebalance_delay_ms, 3_000);
    assert_eq!(settings.streams.num_standby_replicas, 0);
}

/// Texts as Apache Kafka 4.3.0 answered them.
#[test]
fn refusals_are_worded_as_kafkas() {
    for (name, value, text) in [
        ("nope", "1", "Unknown group config name: nope"),
        (
            "consumer.session.timeout.ms",
            "5000",
            "consumer.session.timeout.ms must be greater than or equal to \
             group.consumer.min.session.timeout.ms",
        ),
        (
            "consumer.session.timeout.ms",
            "0",
            "Invalid value 0 for configuration consumer.session.timeout.ms: Value must be at least 1",
        ),
        (
            "share.delivery.count.limit",
            "11",
            "share.delivery.count.limit must be less than or equal to \
             group.share.max.delivery.count.limit",
        ),
        (
            "share.auto.offset.reset",
            "by_duration:-P1D",
            "Invalid value by_duration:-P1D for configuration share.auto.offset.reset: Invalid value \
             `by_duration:-P1D` for configuration share.auto.offset.reset. The value must be either \
             'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
        ),
        (
            "streams.num.standby.replicas",
            "3",
            "streams.num.standby.replicas must be less than or equal to \
             group.streams.max.standby.replicas",
        ),
    ] {
        assert_eq!(refusal(&[(name, value)]), text);
    }
}

#[test]
fn a_session_outlasts_a_heartbeat() {
    let defaults = GroupDefaults::new(map(&[("share.session.timeout.ms", "8000")])).unwrap();
    let slow = map(&[("share.heartbeat.interval.ms", "8000")]);
    let refused = GroupSettings::new(&slow, &defaults).unwrap_err().to_string();
    assert_eq!(
        refused,
        "share.session.timeout.ms must be greater than share.heartbeat.interval.ms"
    );
}

#[test]
fn the_operators_defaults_widen_the_bounds() {
    let session = "consumer.session.timeout.ms";
    let heartbeat = "consumer.heartbeat.interval.ms";
    let quick = GroupDefaults::new(map(&[(session, "6000"), (heartbeat, "1000")])).unwrap();
    assert_eq!(GroupSettings::from_stored(&map(&[]), &quick).consumer.session_timeout_ms, 6_000);
    assert!(GroupSettings::new(&map(&[(session, "7000")]), &quick).is_ok());
    assert!(GroupSettings::new(&map(&[(session, "5999")]), &quick).is_err());
    assert!(GroupDefaults::new(map(&[(session, "1000"), (heartbeat, "1000")])).is_err());
    assert!(GroupDefaults::new(map(&[("no.such.key", "1")])).is_err());
}

#[test]
fn what_is_stored_never_stops_a_group() {
    let stored = map(&[
        ("consumer.session.timeout.ms", "1"),
        ("share.delivery.count.limit", "1000"),
        ("share.isolation.level", "sideways"),
        ("of.another.version", "1"),
    ]);
    let settings = GroupSettings::from_stored(&stored, &GroupDefaults::default());
    assert_eq!(settings.consumer.session_timeout_ms, 45_000);
    assert_eq!(settings.share.delivery_count_limit, 10);
    assert!(!settings.share.read_committed);
}

/// What Apache Kafka 4.3.0 shows for the same questions.
#[test]
fn places_are_told_as_kafka_tells_them() {
    let plain = GroupDefaults::default();
    let entry = |overrides: &[(&str, &str)], defaults: &GroupDefaults, name: &str| {
        let entries: Vec<_> = describe(&map(overrides), defaults).collect();
        entries.into_iter().find(|entry| entry.name == name).unwrap()
    };
    let places = |entry: &ConfigEntry| -> Vec<(&str, String, i8)> {
        entry.synonyms.iter().map(|s| (s.name, s.value.clone(), s.source.code())).collect()
    };
    let session = "consumer.session.timeout.ms";
    let unset = entry(&[], &plain, session);
    assert_eq!((unset.value.as_str(), unset.source.code()), ("45000", 5));
    let server = "group.consumer.session.timeout.ms";
    assert_eq!(places(&unset), [(server, "45000".to_owned(), 5)]);
    let set = entry(&[(session, " 50000 ")], &plain, session);
    assert_eq!((set.value.as_str(), set.source.code()), ("50000", 8));
    assert_eq!(places(&set), [(session, "50000".to_owned(), 8), (server, "45000".to_owned(), 5)]);
    let operator = GroupDefaults::new(map(&[(session, "46000")])).unwrap();
    let by_operator = entry(&[], &operator, session);
    assert_eq!((by_operator.value.as_str(), by_operator.source.code()), ("46000", 4));
    let reset = "share.auto.offset.reset";
    assert_eq!(places(&entry(&[], &plain, reset)), [(reset, "latest".to_owned(), 5)]);
    let set = entry(&[(reset, "earliest")], &plain, reset);
    assert_eq!(places(&set), [(reset, "earliest".to_owned(), 8)]);
}
