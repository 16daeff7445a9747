//! Users, passwords and certificates.

use std::path::Path;
use std::process::Command;

use sluice_catalog::store::{StoreError, Txn};

use super::server::Etcd;
use super::{committed, open, options};
use crate::{EtcdOptions, Tls, User};

fn user(name: &str, password: &str) -> Option<User> {
    Some(User { name: name.to_owned(), password: password.to_owned() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_known_again_after_a_restart_and_no_other_gets_in() {
    let mut etcd = Etcd::start(1).await;
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "add", "sluice:tiger"],
        &["role", "add", "sluice"],
        &["role", "grant-permission", "--prefix=true", "sluice", "readwrite", "/sluice/test/"],
        &["user", "grant-role", "sluice", "sluice"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.ctl(arguments);
    }
    let known = EtcdOptions { user: user("sluice", "tiger"), ..options(etcd.endpoints()) };
    let store = open(&known);
    let first = committed(&store, Txn::new().put("/a", "1")).await;
    let mut watch = store.watch("", first).await.unwrap();
    // etcd forgets its tokens; both the next change and the next watch need new ones.
    etcd.kill(0);
    etcd.restart(0);
    assert!(watch.next().await.is_err());
    let mut watch = store.watch("", first).await.unwrap();
    let second = loop {
        // The first try may be what finds the connection gone.
        if store.commit(Txn::new().if_unchanged("/a", first).put("/a", "2")).await.is_ok() {
            break store.get("/a").await.unwrap().unwrap().mod_revision;
        }
    };
    assert_eq!(watch.next().await.unwrap().revision, second);
    let lease = store.grant_lease(super::REQUEST).await.unwrap();
    assert_eq!(store.keep_alive(lease).await, Ok(()));
    assert_eq!(store.revoke_lease(lease).await, Ok(()));

    let short = std::time::Duration::from_secs(2);
    for (name, wrong) in [
        ("no user", EtcdOptions { user: None, ..known.clone() }),
        ("password", EtcdOptions { user: user("sluice", "lion"), ..known.clone() }),
        ("prefix", EtcdOptions { prefix: "/sluice/other/".to_owned(), ..known.clone() }),
    ] {
        let refused = open(&EtcdOptions { request_timeout: short, ..wrong }).get("/a").await;
        let Err(StoreError::Unavailable(why)) = refused else { panic!("{name}: {refused:?}") };
        assert!(why.contains("etcdserver: "), "etcd's own reason: {why}");
        assert!(!why.contains("lion"), "{why}");
    }
}

/// An authority, and two certificates by it: for servers on loopback and for a client.
fn certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
        done";
    let output = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl runs: apt-get install openssl: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name);
    let argument = |name: &str, value: &str| format!("--{name}={}", file(value).display());
    let mut etcd = Etcd::prepare(
        1,
        "https",
        &[
            argument("cert-file", "server.pem"),
            argument("key-file", "server.key"),
            argument("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".to_owned(),
        ],
    );
    etcd.start_all();
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    let tls = Tls {
        authorities: read("ca.pem"),
        identity: Some((read("client.pem"), read("client.key"))),
    };
    let right = EtcdOptions { tls: Some(tls.clone()), ..options(etcd.endpoints()) };
    let store = open(&right);
    committed(&store, Txn::new().put("/a", "1")).await;

    std::fs::create_dir(file("other")).unwrap();
    certificates(&file("other"));
    let short = std::time::Duration::from_secs(2);
    // With TLS 1.3 etcd says what it misses when the handshake is over on our side: that it closes the connection may be
    // seen before.
    let missed = ["ertificate", "connection closed"].as_slice();
    for (name, wrong, why) in [
        ("no certificate", Tls { identity: None, ..tls.clone() }, missed),
        ("authority", Tls { authorities: read("other/ca.pem"), ..tls.clone() }, &missed[..1]),
    ] {
        let wrong = EtcdOptions { tls: Some(wrong), request_timeout: short, ..right.clone() };
        let refused = open(&wrong).get("/a").await;
        let Err(StoreError::Unavailable(told)) = refused else { panic!("{name}: {refused:?}") };
        assert!(why.iter().any(|why| told.contains(why)), "{name}: {told}");
    }
}
