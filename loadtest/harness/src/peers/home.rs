//! What `loadtest/peers/install` has installed, and what is missing.

use std::path::{Path, PathBuf};

use super::plan::Kind;
use crate::servers::in_path;

/// The directory that `loadtest/peers/install` fills.
#[derive(Clone, Debug)]
pub struct Home(PathBuf);

/// What prepares the machine.
const INSTALL: &str = "loadtest/peers/install";

impl Home {
    /// A directory, which may be empty or not there.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Where it is when nobody says otherwise: in the user's cache.
    pub fn of_user() -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        Self(cache.unwrap_or_default().join("sluice-peers"))
    }

    /// The directory of Kafka's jars.
    pub fn kafka_jars(&self) -> PathBuf {
        self.0.join("kafka/lib")
    }

    /// The S3 server.
    pub fn store(&self) -> PathBuf {
        self.0.join("versitygw/bin/versitygw")
    }

    /// Tansu.
    pub fn tansu(&self) -> PathBuf {
        self.0.join("tansu/bin/tansu")
    }

    /// What a server of this kind lacks here, with what gets it; none if it can be started.
    pub fn lacks(&self, kind: Kind, with_store: bool) -> Option<String> {
        let file = |path: PathBuf, what: &str, part: &str| {
            let missing = format!("{what} is not installed: run {INSTALL} {part}");
            (!path.exists()).then_some(missing)
        };
        let store = || {
            let missing = file(self.store(), "the S3 server", "s3")?;
            let other = if kind.needs_store() { "" } else { ", or leave it out with --no-store" };
            Some(format!("{missing}{other}"))
        };
        match kind {
            Kind::Other => None,
            Kind::Kafka | Kind::KafkaFlush => match in_path("java") {
                None => Some("java is not installed: install a Java 17 runtime".to_owned()),
                Some(_) => file(self.kafka_jars(), "Apache Kafka", "kafka"),
            },
            Kind::Tansu | Kind::SluiceObject if !with_store => {
                Some("it cannot run with --no-store".to_owned())
            }
            Kind::Tansu => store().or_else(|| file(self.tansu(), "Tansu", "tansu")),
            Kind::SluiceBlock if losetup().is_none() || !rustix::process::geteuid().is_root() => {
                Some("it needs losetup (util-linux), and root to use it".to_owned())
            }
            Kind::SluiceFile | Kind::SluiceBlock | Kind::SluiceObject => {
                if with_store {
                    store()
                } else {
                    None
                }
            }
        }
    }
}

/// The program that makes loop devices; it is not in everybody's `PATH`.
pub(super) fn losetup() -> Option<PathBuf> {
    let beside = ["/usr/sbin/losetup", "/sbin/losetup"].map(Path::new);
    in_path("losetup").or_else(|| beside.into_iter().find(|path| path.exists()).map(Path::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_gets_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let home = Home::new(directory.path().to_owned());
        let tansu = home.lacks(Kind::Tansu, true).expect("nothing is there");
        assert!(tansu.contains("loadtest/peers/install s3"), "{tansu}");
        let store = home.store();
        std::fs::create_dir_all(store.parent().expect("a parent")).expect("made");
        std::fs::write(&store, "").expect("written");
        let tansu = home.lacks(Kind::Tansu, true).expect("it is still missing");
        assert!(tansu.contains("loadtest/peers/install tansu"), "{tansu}");
        assert_eq!(home.lacks(Kind::SluiceFile, true), None);
        assert_eq!(home.lacks(Kind::Other, true), None);
        let empty = Home::new(directory.path().join("empty"));
        assert_eq!(empty.lacks(Kind::SluiceFile, false), None);
        assert!(empty.lacks(Kind::SluiceObject, false).is_some());
        let file = empty.lacks(Kind::SluiceFile, true).expect("no store");
        assert!(file.ends_with("--no-store"), "{file}");
    }
}
