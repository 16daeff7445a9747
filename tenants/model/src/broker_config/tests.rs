use super::*;
use crate::topic_config;

fn map(pairs: &[(&str, &str)]) -> Set {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn refusal(pairs: &[(&str, &str)], all_brokers: bool) -> String {
    check(&map(pairs), &Set::new(), all_brokers).unwrap_err().to_string()
}

#[test]
fn the_tables_are_sorted_disjoint_and_good() {
    assert!(table::INERT.windows(2).all(|pair| pair[0].key.name < pair[1].key.name));
    for inert in table::INERT {
        let key = &inert.key;
        assert!(key.parse(key.default).is_ok(), "{}", key.name);
        assert!(table::of_topics(key.name).is_none(), "{}", key.name);
        assert!(!table::is_fixed(key.name), "{}", key.name);
    }
    for key in topic_config::KEYS {
        let Some(name) = key.server_name else { continue };
        assert!(super::key(name).is_some_and(|found| found.default == key.default));
        assert!(!table::is_fixed(name), "{name}");
    }
}

#[test]
fn what_kafka_changes_dynamically_is_taken_and_what_is_the_operators_is_not() {
    let good = [
        ("log.retention.ms", " 5 "),
        ("log.cleanup.policy", "compact,delete"),
        ("background.threads", "9"),
        ("sasl.kerberos.min.time.before.relogin", "58000"),
        ("leader.replication.throttled.rate", "1000"),
        ("of.a.plugin", "anything"),
    ];
    check(&map(&good), &Set::new(), false).unwrap();
    let text = refusal(&[("process.roles", "x"), ("listeners", "y"), ("log.roll.ms", "1")], false);
    assert_eq!(text, "Cannot update these configs dynamically: [listeners, process.roles]");
    for name in ["log.dirs", "max.connections", "listener.name.a.ssl.keystore.location"] {
        assert!(refusal(&[(name, "1")], false).starts_with("Cannot update"), "{name}");
    }
    assert_eq!(
        refusal(&[("log.retention.ms", "abc")], false),
        "Invalid value abc for configuration log.retention.ms: Not a number of type LONG"
    );
}

#[test]
fn some_are_of_one_broker_alone() {
    let pair = [("sasl.kerberos.min.time.before.relogin", "58000")];
    check(&map(&pair), &Set::new(), false).unwrap();
    assert!(refusal(&pair, true).contains("at default cluster level"));
    check(&map(&[("log.retention.ms", "5")]), &Set::new(), true).unwrap();
}

#[test]
fn threads_are_halved_or_doubled_at_most() {
    let threads = |now: &str, before: &[(&str, &str)]| {
        check(&map(&[("background.threads", now)]), &map(before), false)
    };
    for (now, good) in [("4", false), ("5", true), ("20", true), ("21", false), ("0", false)] {
        assert_eq!(threads(now, &[]).is_ok(), good, "{now}");
    }
    threads("40", &[("background.threads", "20")]).unwrap();
    threads("9223372036854775807", &[("background.threads", "20")]).unwrap_err();
}

#[test]
fn everything_has_a_bound() {
    let many = |count| (0..count).map(|i| (format!("p{i}"), String::new())).collect::<Set>();
    check(&many(MAX_BROKER_CONFIGS), &Set::new(), false).unwrap();
    check(&many(MAX_BROKER_CONFIGS + 1), &Set::new(), false).unwrap_err();
    let long_name = "n".repeat(MAX_CONFIGURED_NAME_BYTES + 1);
    assert!(refusal(&[(&long_name, "1")], false).len() < 300);
    let long_value = "v".repeat(MAX_CONFIG_VALUE_BYTES + 1);
    assert!(refusal(&[("of.a.plugin", &long_value)], false).len() < 300);
    assert!(refusal(&[("log.cleanup.policy", &long_value)], false).len() < 300);
}

#[test]
fn the_broker_reports_its_own_first_then_what_is_set_on_all_then_the_default() {
    let cluster = map(&[("background.threads", "8"), ("log.cleaner.threads", "2")]);
    let broker = map(&[("background.threads", " 9 "), ("log.retention.ms", "5")]);
    let entries: Vec<_> = describe(&cluster, &broker).collect();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name, entry.value.as_str())).collect();
    assert_eq!(names, [("background.threads", "9"), ("log.cleaner.threads", "2")]);
    let places: Vec<_> =
        entries[0].synonyms.iter().map(|s| (s.value.as_str(), s.source.code())).collect();
    assert_eq!(places, [("9", 2), ("8", 3), ("10", 5)]);
    assert_eq!(entries[1].source.code(), 3);
}
