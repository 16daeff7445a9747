//! Tests over the whole of loading: precedence, refusals, and the views of the table.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::keys::KEYS;
use super::load::{Invalid, Origin, is_service_link};
use super::values::{BucketUrl, VolumeSize};
use super::{Config, Loaded, Sources, load, reference, show};

fn file(text: &str) -> Sources {
    Sources { file: Some((PathBuf::from("s.toml"), text.to_owned())), ..Sources::default() }
}

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment =
        pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Sources { environment, ..Sources::default() }
}

#[track_caller]
fn right(sources: Sources) -> Loaded {
    load(sources).expect("a right configuration")
}

#[track_caller]
fn problems(sources: Sources) -> Vec<String> {
    let Invalid(problems) = load(sources).expect_err("a wrong configuration");
    problems
}

/// The one problem of the sources.
#[track_caller]
fn problem(sources: Sources) -> String {
    let problems = problems(sources);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().expect("one")
}

#[test]
fn defaults_are_right_and_within_their_bounds() {
    let loaded = right(Sources::default());
    assert_eq!(loaded.config.kafka.listen, SocketAddr::from(([127, 0, 0, 1], 9092)));
    assert_eq!(loaded.config.bucket_url(), BucketUrl::Directory("./sluice-data/bucket".into()));
    let mut config = Config::default();
    for key in KEYS {
        let field = (key.field)(&mut config);
        let text = field.show();
        field.set(&text, key.bounds).expect(key.name);
        assert_eq!(field.show(), text, "{}", key.name);
    }
}

#[test]
fn names_are_unique_and_sections_stand_together() {
    let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    let variables: BTreeSet<_> = KEYS.iter().map(super::keys::Key::variable).collect();
    assert_eq!((names.len(), variables.len()), (KEYS.len(), KEYS.len()));
    assert!(!variables.iter().any(|name| is_service_link(name)));
    let mut sections: Vec<_> = KEYS.iter().map(super::keys::Key::section).collect();
    sections.dedup();
    let distinct: BTreeSet<_> = sections.iter().collect();
    assert_eq!(distinct.len(), sections.len(), "{sections:?}");
}

#[test]
fn every_key_is_its_own_field() {
    // A row whose `field` names another key's field would go unnoticed by all else.
    let mut config = Config::default();
    let fields: BTreeSet<_> =
        KEYS.iter().map(|key| std::ptr::from_mut((key.field)(&mut config)).addr()).collect();
    assert_eq!(fields.len(), KEYS.len());
}

#[test]
fn a_file_sets_values_of_every_kind() {
    let loaded = right(file(
        "node_id = 7\n\
         [kafka]\n\
         advertised = '[::1]:19092'\n\
         idle_timeout = \"90s\"\n\
         max_frame_bytes = 1048576\n\
         [topics]\n\
         auto_create = false\n\
         [topics.defaults]\n\
         retention.ms = 60000\n\
         \"cleanup.policy\" = \"compact,delete\"\n\
         [volumes]\n\
         size = \"256MiB\"\n\
         [bucket]\n\
         url = \"s3://logs/prod/eu\"\n",
    ));
    let config = &loaded.config;
    assert_eq!(config.node_id, 7);
    assert_eq!(config.kafka.advertised.as_ref().map(|a| a.host.as_str()), Some("::1"));
    assert_eq!(config.kafka.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.kafka.max_frame_bytes, 1 << 20);
    assert!(!config.topics.auto_create);
    let defaults: Vec<_> =
        config.topics.defaults.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(defaults, [("cleanup.policy", "compact,delete"), ("retention.ms", "60000")]);
    assert_eq!(config.volumes.size, VolumeSize::Bytes(256 << 20));
    let s3 = BucketUrl::S3 { bucket: "logs".to_owned(), prefix: "prod/eu".to_owned() };
    assert_eq!(config.bucket_url(), s3);
    assert_eq!(loaded.origins["node_id"], Origin::File("s.toml".into(), 1));
    assert_eq!(loaded.origins["bucket.url"], Origin::File("s.toml".into(), 14));
}

#[test]
fn each_source_goes_over_the_one_before() {
    let mut sources = file("data_dir = '/f'\nnode_id = 2\ntail_cache_bytes = '2MiB'\n");
    sources.environment =
        environment(&[("SLUICE_DATA_DIR", "/e"), ("SLUICE_NODE_ID", "3"), ("PATH", "/bin")])
            .environment;
    sources.flags = vec![("data_dir", "--data", "/flag".to_owned())];
    let loaded = right(sources);
    assert_eq!(loaded.config.data_dir, Path::new("/flag"));
    assert_eq!(loaded.config.node_id, 3);
    assert_eq!(loaded.config.tail_cache_bytes, 2 << 20);
    assert_eq!(loaded.origins["data_dir"], Origin::Flag("--data"));
    assert_eq!(loaded.origins["node_id"], Origin::Variable("SLUICE_NODE_ID".to_owned()));
}

#[test]
fn every_key_is_an_environment_variable() {
    for key in KEYS {
        let mut config = Config::default();
        let value = (key.field)(&mut config).show();
        let loaded = right(environment(&[(&key.variable(), &value)]));
        assert_eq!(loaded.origins[key.name], Origin::Variable(key.variable()));
    }
    let defaults = "retention.ms=60000;cleanup.policy=compact,delete";
    let config = right(environment(&[("SLUICE_TOPICS_DEFAULTS", defaults)])).config;
    assert_eq!(config.topics.defaults["cleanup.policy"], "compact,delete");
}

#[test]
fn bad_values_are_refused_with_key_place_value_and_what_is_allowed() {
    assert_eq!(
        problem(file("[upload]\n\nsegment_bytes = '10 parsecs'\n")),
        "upload.segment_bytes (s.toml:3) is \"10 parsecs\"; \
         it must be a size from 64KiB to 1GiB, such as 64MiB"
    );
    assert_eq!(
        problem(environment(&[("SLUICE_UPLOAD_MAX_AGE", "10")])),
        "upload.max_age (environment SLUICE_UPLOAD_MAX_AGE) is \"10\"; \
         it must be a time from 100ms to 1d with its unit (ms, s, m, h, d), such as 10s"
    );
    let flags = vec![("kafka.listen", "--kafka", "9092".to_owned())];
    assert_eq!(
        problem(Sources { flags, ..Sources::default() }),
        "kafka.listen (--kafka) is \"9092\"; \
         it must be an IP address and a port, such as 127.0.0.1:9092 or [::1]:9092"
    );
    assert_eq!(
        problem(file("node_id = [1]")),
        "node_id (s.toml:1) is an array; it must be a whole number from 0 to 2147483647"
    );
}

#[test]
fn values_out_of_kind_or_bounds_are_refused() {
    for (name, value) in [
        ("NODE_ID", "-1"),
        ("NODE_ID", "2147483648"),
        ("DATA_DIR", ""),
        ("TAIL_CACHE_BYTES", "1023KiB"),
        ("KAFKA_LISTEN", "example.com:9092"),
        ("KAFKA_ADVERTISED", "example.com"),
        ("KAFKA_ADVERTISED", "example.com:0"),
        ("KAFKA_ADVERTISED", "http://example.com:9092"),
        ("KAFKA_ADVERTISED", "::1:9092"),
        ("KAFKA_MAX_CONNECTIONS", "0"),
        ("TOPICS_AUTO_CREATE", "yes"),
        ("TOPICS_DEFAULTS", "retention.ms"),
        ("TOPICS_DEFAULTS", "retention.ms=1;retention.ms=2"),
        ("TOPICS_DEFAULTS", "retention.ms=soon"),
        ("TOPICS_DEFAULTS", "retention.milliseconds=5"),
        ("VOLUMES_SIZE", "big"),
        ("BUCKET_URL", "gs://bucket"),
        ("BUCKET_URL", "s3://B"),
        ("BUCKET_URL", "s3://bucket/a/../b"),
        ("BUCKET_URL", "file:"),
        ("BUCKET_REGION", "eu central"),
        ("LOG_LEVEL", "inof"),
        ("LOG_LEVEL", "info,sluice_writer"),
        ("LOG_FORMAT", "xml"),
    ] {
        let variable = format!("SLUICE_{name}");
        let problem = problem(environment(&[(&variable, value)]));
        assert!(problem.contains(&variable), "{name}={value}: {problem}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let mut sources = file("nod_id = 1\nnode_id = 'one'\n[kafka]\nlisten = 'x'\n");
    sources.environment = environment(&[("SLUICE_HTTP_LISTEN", "y")]).environment;
    let problems = problems(sources);
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn unknown_keys_are_refused_without_their_value() {
    assert_eq!(
        problem(file("[upload]\nmax_aeg = 'S3CRET'\n")),
        "upload.max_aeg (s.toml:2) is not a key; \
         [upload] has upload.segment_bytes, upload.max_age, upload.max_age_idle, upload.in_flight"
    );
    assert_eq!(
        problem(environment(&[("SLUICE_NODEID", "S3CRET")])),
        "SLUICE_NODEID (environment SLUICE_NODEID) is not a key; `sluice config show` lists all"
    );
    let problem = problem(file("[bucket]\nsecret_access_key = 'S3CRET'\n"));
    assert!(problem.contains("AWS_SECRET_ACCESS_KEY in the environment"), "{problem}");
    assert!(!problem.contains("S3CRET"));
}

#[test]
fn secrets_in_urls_and_in_broken_files_are_not_printed() {
    for text in [
        "[bucket]\nurl = 's3://key:S3CRET@bucket'\n",
        "[bucket]\nendpoint = 'https://key:S3CRET@host'\n",
        "[catalog]\netcd.endpoints = 'https://user:S3CRET@host:2379'\n",
        "[catalog]\netcd.user = 'user:S3CRET'\n",
        "[bucket]\nsecret_access_key = S3CRET\n",
        "[bucket]\nsecret_access_key = 'S3CRET\n",
    ] {
        let problem = problem(file(text));
        assert!(problem.contains("s.toml:2"), "{problem}");
        assert!(!problem.contains("S3CRET"), "{problem}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (text, key, says) in [
        (
            "[kafka]\nlisten = '0.0.0.0:9092'\nallow_unauthenticated_remote = true\n",
            "kafka.listen (s.toml:2)",
            "set kafka.advertised",
        ),
        (
            "[kafka]\nlisten = '10.1.2.3:9092'\n",
            "kafka.listen (s.toml:2)",
            "set kafka.allow_unauthenticated_remote to true",
        ),
        (
            "[kafka]\nbuffer_budget_bytes = '64MiB'\n",
            "kafka.buffer_budget_bytes (s.toml:2)",
            "at least kafka.max_frame_bytes, 100MiB",
        ),
        ("[http]\nlisten = '127.0.0.1:9092'\n", "http.listen (s.toml:2)", "as kafka.listen is"),
        (
            "[volumes]\nsize = '64MiB'\n",
            "volumes.size (s.toml:2)",
            "four times upload.segment_bytes, 32MiB",
        ),
        (
            "[bucket]\nurl = 's3://bucket'\nendpoint = 'http://127.0.0.1:8333'\n",
            "bucket.endpoint (s.toml:3)",
            "set bucket.allow_http",
        ),
        (
            "[bucket]\nendpoint = 'https://s3.example.com'\n",
            "bucket.endpoint (s.toml:2)",
            "set bucket.url",
        ),
        (
            "[bucket]\nchecksum = 'none'\nsign_bodies = 'never'\n",
            "bucket.sign_bodies (s.toml:3)",
            "bucket.checksum is none",
        ),
        ("[catalog]\nstore = 'etcd'\n", "catalog.etcd.endpoints (default)", "name etcd's members"),
        (
            "[catalog]\netcd.endpoints = 'http://127.0.0.1:2379'\n",
            "catalog.etcd.endpoints (s.toml:2)",
            "is for catalog.store = etcd",
        ),
        (
            "[catalog]\nstore = 'etcd'\netcd.endpoints = 'https://a:2379'\n",
            "catalog.etcd.ca_file (default)",
            "needs",
        ),
        (
            "[catalog]\nstore = 'etcd'\netcd.endpoints = 'http://127.0.0.1:2379'\netcd.user = 'u'\n",
            "catalog.etcd.user (s.toml:4)",
            "belong together",
        ),
        (
            "[catalog]\nstore = 'etcd'\netcd.endpoints = 'http://a:2379'\netcd.user = 'u'\n\
             etcd.password_file = 'p'\n",
            "catalog.etcd.password_file (s.toml:5)",
            "without TLS",
        ),
        (
            "[groups]\nmin_session_timeout = '1h'\n",
            "groups.min_session_timeout (s.toml:2)",
            "longer than groups.max_session_timeout",
        ),
    ] {
        let problem = problem(file(text));
        assert!(problem.starts_with(key) && problem.contains(says), "{problem}");
    }
}

#[test]
fn bodies_are_signed_where_nothing_else_would_notice_a_change() {
    let signs = |text: &str| right(file(text)).config.signs_bodies();
    let plain =
        "[bucket]\nurl = 's3://bucket'\nendpoint = 'http://127.0.0.1:8333'\nallow_http = true\n";
    let tls =
        "[bucket]\nurl = 's3://bucket'\nendpoint = 'https://s3.example.com'\nallow_http = true\n";
    assert!(signs(plain));
    assert!(!signs(tls));
    assert!(!signs("[bucket]\nurl = 's3://bucket'\n"), "AWS, without an endpoint: always TLS");
    // The endpoint may then be the environment's, and plain.
    assert!(signs("[bucket]\nurl = 's3://bucket'\nallow_http = true\n"));
    assert!(!signs(&format!("{plain}sign_bodies = 'never'\n")));
    assert!(signs(&format!("{tls}sign_bodies = 'always'\n")));
}

#[test]
fn variables_of_others_are_passed_over() {
    right(environment(&[
        ("SLUICE_CONFIG", "elsewhere"),
        ("SLUICE_BIN", "target/release/sluice"),
        ("SLUICE_SERVICE_HOST", "10.0.0.1"),
        ("SLUICE_KAFKA_SERVICE_PORT_KAFKA", "9092"),
        ("SLUICE_KAFKA_PORT", "tcp://10.0.0.1:9092"),
        ("SLUICE_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("NODE_ID", "x"),
    ]));
    problem(environment(&[("SLUICE_PORT_NUMBER", "1")]));
}

#[test]
fn what_is_shown_reads_back_to_the_same() {
    let mut sources = file(
        "data_dir = 'a \"quoted\" \\ path'\n[topics]\ndefaults = { 'retention.ms' = 60000 }\n\
         [bucket]\nurl = 's3://logs/p'\n",
    );
    sources.environment = environment(&[("SLUICE_NODE_ID", "9")]).environment;
    let loaded = right(sources);
    let secrets = [("AWS_SECRET_ACCESS_KEY", "S3CRET"), ("AWS_REGION", "eu-west-1")]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let shown = show(&loaded, &secrets);
    assert!(shown.contains("# environment SLUICE_NODE_ID\n"), "{shown}");
    assert!(shown.contains("# s.toml:1\n") && shown.contains("# default\n"), "{shown}");
    assert!(shown.contains("# environment AWS_SECRET_ACCESS_KEY is ****\n"), "{shown}");
    assert!(shown.contains("# environment AWS_REGION is eu-west-1\n"), "{shown}");
    assert!(!shown.contains("S3CRET"));
    let again = right(file(&shown));
    assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config));
}

#[test]
fn the_reference_is_current() {
    let committed = include_str!("../../docs/configuration.md");
    assert!(committed == reference(), "docs/configuration.md is not current: run `make docs`");
}

#[test]
fn what_is_said_of_a_cluster_fits_together() {
    let etcd = "[catalog]\nstore = 'etcd'\n[catalog.etcd]\nendpoints = 'http://127.0.0.1:2379'\n";
    let with = |rest: &str| file(&format!("{etcd}{rest}"));
    let listens = "[cluster]\nlisten = '127.0.0.1:9190'\n";
    right(with(listens));
    assert!(problem(file(listens)).contains("catalog.store = etcd"));
    assert!(problem(file("roles = 'writer'\n")).starts_with("roles"));
    let apart = format!("roles = 'gateway'\n{etcd}");
    assert!(problem(file(&apart)).starts_with("cluster.listen"));
    let roles = right(file(&format!("{apart}{listens}"))).config.roles.0;
    assert!(roles.gateway && !roles.writer);
    for wrong in ["", "reader", "gateway,broker"] {
        let named = problem(file(&format!("roles = '{wrong}'\n{etcd}{listens}")));
        assert!(named.starts_with("roles"), "{named}");
    }
    // Whoever can connect would be believed to be a node.
    let open = "[cluster]\nlisten = '10.0.0.1:9190'\n";
    assert!(problem(with(open)).contains("cluster.ca_file"));
    right(with(&format!("{open}allow_plaintext = true\n")));
    let certificates = "ca_file = 'a'\ncert_file = 'b'\nkey_file = 'c'\n";
    right(with(&format!("{open}{certificates}")));
    assert!(problem(with(&format!("{open}ca_file = 'a'\ncert_file = 'b'\n"))).contains("key_file"));
    let wildcard = format!("[cluster]\nlisten = '0.0.0.0:9190'\n{certificates}");
    assert!(problem(with(&wildcard)).contains("cluster.advertised"));
    assert!(problem(with("[cluster]\nlisten = '127.0.0.1:9092'\n")).contains("another listener"));
}

#[test]
fn the_examples_of_the_documents_are_right() {
    let document = include_str!("../../docs/operations.md");
    let examples: Vec<_> = document
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|text| text.contains("node_id"))
        .collect();
    assert_eq!(examples.len(), 2, "a gateway and a writer");
    for example in examples {
        right(file(example));
    }
}
