//! A block device of the test's own: a loop device over a file, written past the page cache. Making one takes
//! the rights of root.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Detached when it is dropped.
pub(crate) struct LoopDevice {
    backing: tempfile::NamedTempFile,
    node: PathBuf,
}

impl LoopDevice {
    /// Whether this process may make loop devices. Says why not, once.
    pub(crate) fn are_possible() -> bool {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        *POSSIBLE.get_or_init(|| match Self::attach(1 << 20) {
            Ok(_) => true,
            Err(why) => {
                eprintln!("SKIPPED: tests of volumes on block devices need a loop device: {why}");
                false
            }
        })
    }

    /// A device full of zeros.
    pub(crate) fn new(size_bytes: u64) -> Self {
        Self::attach(size_bytes).unwrap()
    }

    fn attach(size_bytes: u64) -> Result<Self, String> {
        let backing = tempfile::NamedTempFile::new().unwrap();
        backing.as_file().set_len(size_bytes).unwrap();
        let made = Command::new("losetup")
            .args(["--find", "--show", "--direct-io=on"])
            .arg(backing.path())
            .output()
            .map_err(|error| format!("no losetup: {error}"))?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).trim().to_owned());
        }
        let node = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        Ok(Self { backing, node })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.node
    }

    pub(crate) fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        self.backing.as_file().read_exact_at(&mut out, offset).unwrap();
        out
    }

    pub(crate) fn poke(&self, offset: u64, bytes: &[u8]) {
        self.backing.as_file().write_all_at(bytes, offset).unwrap();
        self.backing.as_file().sync_data().unwrap();
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Detached when its last user is gone. What cannot be detached stays until the machine restarts.
        drop(Command::new("losetup").arg("--detach").arg(&self.node).status());
    }
}
