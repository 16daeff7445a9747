//! Runs with many tenants against the null server.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::sync::watch;

use crate::null_server::{Lie, NullServer};
use crate::tests::{Counted, Fixed, KEEP_BYTES, options};
use crate::{Account, Error, Options, Report, page, run, summary};

const NOISY: &str = "
description = 'four quiet tenants, first alone and then beside a noisy one'
duration = '1s'
[records]
size = '200B'
[topic]
partitions = 2
[produce]
linger = '5ms'
[[produce.stage]]
name = 'alone'
duration = '600ms'
[[produce.stage]]
name = 'beside'
duration = '600ms'
[consume]
[[tenants.class]]
name = 'quiet'
count = 4
rate = '250/s'
[[tenants.class]]
name = 'noisy'
count = 1
rate = '2000/s'
stages = ['beside']
";

async fn load(workload: &str, accounts: &str, lie: Lie) -> Result<Report, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = NullServer::lying(address, KEEP_BYTES, lie).await.expect("listens");
    let options = Options {
        accounts: if accounts.is_empty() {
            Vec::new()
        } else {
            Account::parse(accounts).expect("accounts")
        },
        ..options(workload, &server)
    };
    let serving = tokio::spawn(server.serve());
    let (_go_on, interrupt) = watch::channel(false);
    let report = run(options, &Fixed, &Counted::default(), interrupt, |_| {}).await;
    serving.abort();
    report
}

/// The null server wants a password that is the name.
fn accounts(count: usize, password: &str) -> String {
    let one =
        |index| format!("[[tenant]]\nname = 't{index}'\nusername = 'u'\npassword = '{password}'\n");
    (0..count).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_has_its_rate_and_its_figures() {
    for accounts in [String::new(), accounts(5, "u")] {
        let report = load(NOISY, &accounts, Lie::None).await.expect("a report");
        assert!(report.verification.is_passed(), "{:?}", report.verification);
        let [alone, beside] = &report.measured().collect::<Vec<_>>()[..] else { panic!("two") };
        assert_eq!((alone.offered, beside.offered), (Some(1000.0), Some(3000.0)));
        let [quiet, noisy] = &alone.tenants[..] else { panic!("two classes") };
        assert_eq!((quiet.name.as_str(), quiet.tenants, noisy.tenants), ("quiet", 4, 1));
        assert!(noisy.written.records == 0 && noisy.produce.is_none(), "{noisy:?}");
        for (phase, quiet) in [(alone, quiet), (beside, &beside.tenants[0])] {
            let due = 1000.0 * phase.seconds;
            let produce = quiet.produce.as_ref().expect("latencies");
            assert!((produce.count as f64 - due).abs() < due / 10.0, "{due} {}", produce.count);
            let end_to_end = quiet.end_to_end.as_ref().expect("latencies").count;
            // A record at the edge may count here for one and there for the other.
            assert!(
                end_to_end.abs_diff(produce.count) < produce.count / 10,
                "{end_to_end} {}",
                produce.count
            );
            let worst = quiet.worst.as_ref().expect("one is");
            assert!(worst.produce_p99 >= Some(produce.p50), "{worst:?}");
            let named = if accounts.is_empty() { "quiet-" } else { "t" };
            assert!(worst.tenant.starts_with(named), "{worst:?}");
            let records: u64 = phase.tenants.iter().map(|class| class.written.records).sum();
            assert_eq!(records, phase.written.records);
        }
        assert!(beside.tenants[1].written.records > 600, "{:?}", beside.tenants[1]);
        assert!(summary::text(&report).contains("quiet (4)"), "{}", summary::text(&report));
        assert!(page::report(&report).expect("a page").contains("quiet"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_another_tenant_is_foreign() {
    let workload = "description = 'x'\nduration = '300ms'\n[topic]\npartitions = 1\n[records]\nsize = '100B'\n\
                    [produce]\nrate = '2000/s'\nproducers = 2\n[consume]\n[tenants]\ncount = 3\n";
    let clean = load(workload, "", Lie::None).await.expect("a report").verification;
    assert!(clean.is_passed() && clean.acknowledged > 500, "{clean:?}");
    let proof = load(workload, "", Lie::Mix).await.expect("a report").verification;
    assert!(proof.findings.foreign > 0 && proof.findings.lost > 0, "{proof:?}");
    assert_eq!(proof.findings.foreign, proof.findings.lost);
}

#[tokio::test]
async fn credentials_must_be_right_and_enough() {
    let refused = load(NOISY, &accounts(5, "wrong"), Lie::None).await.expect_err("refused");
    assert!(refused.to_string().contains("authenticating"), "{refused}");
    let few = load(NOISY, &accounts(4, "u"), Lie::None).await.expect_err("too few");
    assert!(matches!(few, Error::Accounts { there: 4, wanted: 5 }), "{few}");
}
