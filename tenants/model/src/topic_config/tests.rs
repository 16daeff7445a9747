use proptest::prelude::*;

use super::*;
use crate::config::ConfigEntry;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn refusal(pairs: &[(&str, &str)]) -> String {
    TopicConfig::new(&map(pairs), &TopicDefaults::default()).unwrap_err().to_string()
}

fn accepted(pairs: &[(&str, &str)]) -> TopicConfig {
    TopicConfig::new(&map(pairs), &TopicDefaults::default()).unwrap()
}

#[test]
fn the_table_is_sorted_and_its_defaults_pass_their_own_checks() {
    assert!(KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
    for key in KEYS {
        assert!(key.parse(key.default).is_ok(), "{}", key.name);
        assert!(!key.doc.contains("  "), "{}", key.name);
    }
}

#[test]
fn defaults_are_kafkas() {
    let config = TopicConfig::default();
    assert_eq!(config.retention_ms, Some(604_800_000));
    assert_eq!(config.retention_bytes, None);
    assert_eq!(config.max_message_bytes, 1_048_588);
    assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: false });
    assert_eq!(config.timestamp_type, TimestampType::CreateTime);
    assert_eq!(config.timestamp_before_max_ms, i64::MAX as u64);
    assert_eq!(config.timestamp_after_max_ms, 3_600_000);
    assert_eq!(config.compression, Compression::Producer);
    assert_eq!(config.min_cleanable_dirty_ratio, 0.5);
}

#[test]
fn values_act() {
    let config = accepted(&[
        ("retention.ms", " -1 "),
        ("retention.bytes", "1000"),
        ("cleanup.policy", "compact , delete"),
        ("message.timestamp.type", "LogAppendTime"),
        ("compression.type", "zstd"),
        ("compression.zstd.level", "-7"),
        ("min.cleanable.dirty.ratio", "1"),
    ]);
    assert_eq!(config.retention_ms, None);
    assert_eq!(config.retention_bytes, Some(1000));
    assert_eq!(config.cleanup, CleanupPolicy { delete: true, compact: true });
    assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
    assert_eq!(config.compression, Compression::Zstd(-7));
    assert_eq!(config.min_cleanable_dirty_ratio, 1.0);
    // KIP-1161: an empty policy keeps records for ever.
    let kept = accepted(&[("cleanup.policy", "")]).cleanup;
    assert_eq!(kept, CleanupPolicy { delete: false, compact: false });
}

#[test]
fn refusals_say_what_is_wrong() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "retention.ms",
            "x",
            "Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        (
            "retention.ms",
            "-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "max.message.bytes",
            "3000000000",
            "Invalid value 3000000000 for configuration max.message.bytes: Not a number of type INT",
        ),
        (
            "preallocate",
            "1",
            "Invalid value 1 for configuration preallocate: Expected value to be either true or false",
        ),
        ("nonsense", "1", "Unknown topic config name: nonsense"),
        (
            "message.timestamp.type",
            "createtime",
            "Invalid value createtime for configuration message.timestamp.type: String must be one of: \
             CreateTime, LogAppendTime",
        ),
    ];
    for (name, value, text) in cases {
        assert_eq!(refusal(&[(name, value)]), *text);
    }
    for (name, value) in [
        ("segment.bytes", "1024"),
        ("cleanup.policy", "compact,compact"),
        ("cleanup.policy", "compact,"),
        ("min.cleanable.dirty.ratio", "1.01"),
        ("min.cleanable.dirty.ratio", "-0.1"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("compression.gzip.level", "0"),
        ("compression.lz4.level", "18"),
        ("compression.lz4.level", "0"),
        ("min.insync.replicas", "0"),
        ("max.compaction.lag.ms", "0"),
        ("leader.replication.throttled.replicas", "*,1:2"),
        ("leader.replication.throttled.replicas", "1:"),
        ("remote.storage.enable", "TRUE"),
        ("local.retention.ms", "-3"),
    ] {
        assert!(refusal(&[(name, value)]).starts_with("Invalid value"), "{name}={value}");
    }
    let conflict = refusal(&[("min.compaction.lag.ms", "11"), ("max.compaction.lag.ms", "10")]);
    assert!(conflict.contains("min.compaction.lag.ms (11) > max.compaction.lag.ms (10)"));
    assert!(refusal(&[("cleanup.policy", &"x".repeat(1 << 20))]).len() < 300);
    accepted(&[("leader.replication.throttled.replicas", "1:2,3:4")]);
    accepted(&[("follower.replication.throttled.replicas", "*")]);
}

#[test]
fn topic_then_operator_then_kafka() {
    let operator = TopicDefaults::new(map(&[("retention.ms", "5000")])).unwrap();
    assert_eq!(TopicConfig::new(&map(&[]), &operator).unwrap().retention_ms, Some(5000));
    let own = map(&[("retention.ms", " 7 ")]);
    assert_eq!(TopicConfig::new(&own, &operator).unwrap().retention_ms, Some(7));

    let find = |entries: Vec<ConfigEntry>, name: &str| {
        entries.into_iter().find(|entry| entry.name == name).unwrap()
    };
    let entry = find(describe(&own, &operator).collect(), "retention.ms");
    assert_eq!((entry.value.as_str(), entry.source.code(), entry.kind.code()), ("7", 1, 5));
    assert!(!entry.is_default());
    let places: Vec<_> = entry.synonyms.iter().map(|s| (s.name, s.value.as_str())).collect();
    assert_eq!(places, [("retention.ms", "7"), ("log.retention.ms", "5000")]);

    let entry = find(describe(&map(&[]), &operator).collect(), "retention.ms");
    assert_eq!((entry.value.as_str(), entry.source.code()), ("5000", 4));
    assert!(entry.is_default());
    let plain = TopicDefaults::default();
    let entry = find(describe(&map(&[]), &plain).collect(), "max.message.bytes");
    assert_eq!((entry.value.as_str(), entry.source.code()), ("1048588", 5));
    assert_eq!(entry.synonyms.len(), 1);
    assert_eq!(describe(&map(&[]), &plain).count(), KEYS.len());
}

#[test]
fn operators_defaults_are_checked() {
    assert!(TopicDefaults::new(map(&[("retention.ms", "soon")])).is_err());
    assert!(TopicDefaults::new(map(&[("no.such.key", "1")])).is_err());
    // Each is good alone; with the operator's default the topic's own value is not.
    let operator = TopicDefaults::new(map(&[("max.compaction.lag.ms", "10")])).unwrap();
    assert!(TopicConfig::new(&map(&[("min.compaction.lag.ms", "11")]), &operator).is_err());
}

#[test]
fn what_is_stored_never_stops_a_topic_from_loading() {
    let stored = map(&[("retention.ms", "soon"), ("of.another.version", "1"), ("segment.ms", "9")]);
    let config = TopicConfig::from_stored(&stored, &TopicDefaults::default());
    assert_eq!((config.retention_ms, config.segment_ms), (Some(604_800_000), 9));
}

proptest! {
    #[test]
    fn any_text_is_accepted_or_refused_and_described(at in 0..KEYS.len(), text in "\\PC{0,12}") {
        let overrides = map(&[(KEYS[at].name, &text)]);
        let defaults = TopicDefaults::default();
        let accepted = TopicConfig::new(&overrides, &defaults).is_ok();
        let entry = describe(&overrides, &defaults).nth(at).unwrap();
        if accepted {
            // What is reported means the same when it is set again, as tools do that copy configs.
            let again = map(&[(KEYS[at].name, &entry.value)]);
            prop_assert_eq!(
                TopicConfig::new(&again, &defaults).unwrap(),
                TopicConfig::new(&overrides, &defaults).unwrap()
            );
        }
    }
}
