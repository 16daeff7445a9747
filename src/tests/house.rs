//! The rules of the house that no compiler checks: dependencies point one way, versions stand in the
//! root manifest, every crate takes the workspace's lints, and the top level stays as the owner set it.
//! The manifests are read as cargo reads them; nothing is built or resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate may know of the others, in tests as well. A line that is missing here is a
/// decision to be taken: the crates below are ordered so that each knows only earlier ones.
const MAY_KNOW: &[(&str, &[&str])] = &[
    // The leaves know nobody.
    ("sluice-model", &[]),
    ("sluice-wire", &[]),
    ("sluice-format", &[]),
    ("sluice-device", &[]),
    // The next ones know leaves.
    ("sluice-bucket", &["sluice-model"]),
    ("sluice-volume", &["sluice-model", "sluice-wire", "sluice-format", "sluice-device"]),
    ("sluice-catalog", &["sluice-model", "sluice-wire", "sluice-format"]),
    // A backend knows the contract; of the others only the wiring knows it.
    ("sluice-catalog-etcd", &["sluice-model", "sluice-catalog"]),
    // Runs in the virtual machine of loadtest/fencing.
    ("sluice-fencing", &["sluice-model", "sluice-device", "sluice-volume"]),
    // A model of what the others do. It is compared with them by readers.
    ("sluice-ownership", &[]),
    // Writer, reader and tenants never know each other. A reader serves from the bucket alone: it
    // has no use for volumes and the catalog.
    (
        "sluice-writer",
        &[
            "sluice-model",
            "sluice-wire",
            "sluice-format",
            "sluice-bucket",
            "sluice-volume",
            "sluice-catalog",
        ],
    ),
    // Who has which volume: it drives a writer by what the catalog says, and never meets clients.
    (
        "sluice-cluster",
        &[
            "sluice-model",
            "sluice-wire",
            "sluice-format",
            "sluice-volume",
            "sluice-catalog",
            "sluice-writer",
        ],
    ),
    ("sluice-reader", &["sluice-model", "sluice-wire", "sluice-format", "sluice-bucket"]),
    ("sluice-tenants", &["sluice-model", "sluice-catalog"]),
    // The gateway reaches writers and readers through `backend::Backend` only, and so has no use for
    // what lies on volumes and in the bucket.
    ("sluice-gateway", &["sluice-model", "sluice-wire", "sluice-catalog", "sluice-tenants"]),
    // The load harness meets servers on the network only, as a client does.
    ("sluice-loadtest", &["sluice-model", "sluice-wire"]),
    // The wiring sees all.
    (
        "sluice",
        &[
            "sluice-model",
            "sluice-wire",
            "sluice-format",
            "sluice-bucket",
            "sluice-volume",
            "sluice-catalog",
            "sluice-catalog-etcd",
            "sluice-writer",
            "sluice-cluster",
            "sluice-reader",
            "sluice-tenants",
            "sluice-gateway",
            "sluice-loadtest",
        ],
    ),
    // The simulation sees all that it simulates.
    (
        "sluice-sim",
        &[
            "sluice-model",
            "sluice-wire",
            "sluice-format",
            "sluice-volume",
            "sluice-catalog",
            "sluice-writer",
            "sluice-cluster",
            "sluice-reader",
        ],
    ),
];

/// Crates without I/O, clock, runtime or log: what is not here they may not use outside of tests.
/// Serialization, checksums, compression and pattern matching are computations.
const PURE: &[(&str, &[&str])] = &[
    ("sluice-model", &["regex", "serde", "thiserror"]),
    (
        "sluice-wire",
        &["bytes", "crc-fast", "flate2", "lz4_flex", "snap", "thiserror", "twox-hash", "zstd"],
    ),
    ("sluice-format", &["bytes", "crc-fast", "serde", "thiserror"]),
];

/// The directories of the top level.
const TOP_LEVEL: &[&str] =
    &["src", "gateway", "writer", "reader", "tenants", "loadtest", "deploy", "docs", ".ci"];

/// What work leaves behind; .gitignore has them.
const LEFT_BEHIND: &[&str] =
    &[".git", ".venv", ".pytest_cache", "__pycache__", "sluice-data", "target"];

fn workspace() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}

/// The packages of this repository that `package` names in any section of its manifest.
fn neighbours<'a>(package: &'a Package, all: &BTreeSet<&str>) -> Vec<&'a str> {
    let names = package.dependencies.iter().map(|dependency| dependency.name.as_str());
    names.filter(|name| all.contains(name)).collect()
}

#[test]
fn dependencies_point_one_way() {
    let metadata = workspace();
    let all: BTreeSet<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let table: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let named: BTreeSet<&str> = table.keys().copied().collect();
    assert_eq!(all, named, "every crate of the workspace, and no other, has a line in MAY_KNOW");
    for package in &metadata.packages {
        for neighbour in neighbours(package, &all) {
            assert!(
                table[package.name.as_str()].contains(&neighbour),
                "{} may not know {neighbour}: dependencies point one way",
                package.name
            );
        }
    }
}

#[test]
fn the_table_itself_points_one_way() {
    let mut earlier = BTreeSet::new();
    for (name, known) in MAY_KNOW {
        for neighbour in *known {
            assert!(earlier.contains(neighbour), "{name} stands before {neighbour}");
        }
        earlier.insert(*name);
    }
    let knows = |name: &str, other: &str| {
        MAY_KNOW.iter().any(|(crate_name, known)| *crate_name == name && known.contains(&other))
    };
    let parts = ["sluice-writer", "sluice-reader", "sluice-tenants"];
    for (a, b) in parts.iter().flat_map(|a| parts.iter().map(move |b| (a, b))) {
        assert!(!knows(a, b), "{a} and {b} never know each other");
    }
}

#[test]
fn pure_crates_have_no_runtime_clock_or_log() {
    let metadata = workspace();
    for (name, allowed) in PURE {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == *name).expect(name);
        let used = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
        for dependency in used {
            assert!(
                allowed.contains(&dependency.name.as_str()),
                "{name} is pure and uses {}: is that a computation?",
                dependency.name
            );
        }
    }
}

#[test]
fn versions_and_lints_come_from_the_root() {
    for package in workspace().packages {
        let text = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        let manifest: toml::Table = text.parse().expect("TOML");
        let lints = manifest.get("lints");
        let takes_lints = lints
            .and_then(|lints| lints.get("workspace"))
            .is_some_and(|inherited| inherited.as_bool() == Some(true));
        // The one leaf that may use unsafe code has lints of its own, which see to how it does.
        let may_be_unsafe = package.name.as_str() == "sluice-device";
        assert!(takes_lints || may_be_unsafe, "{} has `lints.workspace = true`", package.name);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, dependency) in dependencies {
                let inherited = dependency.get("workspace").and_then(toml::Value::as_bool);
                assert_eq!(
                    inherited,
                    Some(true),
                    "{} has {name} with `workspace = true`: versions stand in the root manifest",
                    package.name
                );
            }
        }
    }
}

#[test]
fn the_top_level_is_as_the_owner_set_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(root).expect("the root") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a UTF-8 name");
        if entry.path().is_dir() {
            assert!(
                TOP_LEVEL.contains(&name.as_str()) || LEFT_BEHIND.contains(&name.as_str()),
                "{name}/: shared code is a leaf crate inside the directory whose concept it is"
            );
        }
    }
}

/// `path::name` in backticks, where the path is that of a file.
fn named_tests(document: &str) -> Vec<(&str, &str)> {
    let quoted = document.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|text| text.rsplit_once("::"));
    named.filter(|(path, _)| path.ends_with(".rs") || path.ends_with(".py")).collect()
}

#[test]
fn the_tests_that_the_guarantees_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/guarantees.md")).expect("guarantees.md");
    let named = named_tests(&document);
    assert!(named.len() > 30, "only {} tests are named", named.len());
    for (path, name) in named {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_else(|_| panic!("no {path}"));
        let function = ["fn {}(", "fn {}<", "def {}("]
            .iter()
            .any(|form| text.contains(&form.replace("{}", name)));
        assert!(function, "{path} has no test {name}: docs/guarantees.md promises it");
    }
    for number in (1..=7).chain([9, 10]) {
        assert!(document.contains(&format!("\n## {number}. ")), "invariant {number} has a section");
    }
}
