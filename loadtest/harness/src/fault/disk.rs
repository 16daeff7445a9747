//! Filling the file system of a server's data, and only one that was made for that.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Left free: a file system without a byte refuses what has nothing to do with data.
const LEFT_BYTES: u64 = 64 << 10;
/// The least that is allocated at a time when room gets scarce.
const LEAST_BYTES: u64 = 4 << 10;
const NAME: &str = "sluice-loadtest-fill";

/// What fills a file system for a while. Dropping it frees the room.
#[derive(Debug)]
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    /// Where the file system of `data` begins, if it was made for nothing else than that and the server's `log`.
    ///
    /// # Errors
    /// Words for the user: why it is not filled.
    pub fn find(data: &Path, log: &Path) -> Result<PathBuf, String> {
        let advice = "give the server's data a file system of its own, such as `mount -t tmpfs -o size=4g tmpfs DIR`";
        let told = |error: std::io::Error| format!("{}: {error}", data.display());
        let data = data.canonicalize().map_err(told)?;
        let device = |path: &Path| path.metadata().map(|of| of.dev());
        let own = device(&data).map_err(told)?;
        let root = data.ancestors().take_while(|path| device(path).is_ok_and(|other| other == own));
        let root = root.last().unwrap_or(&data).to_path_buf();
        if root.parent().is_none() {
            return Err(format!(
                "fill-disk would fill this machine's own file system: {advice}, and --data DIR"
            ));
        }
        let entries = root.read_dir().map_err(told)?;
        for entry in entries {
            let path = entry.map_err(told)?.path();
            let is_own = data.starts_with(&path) || data == root || log == path;
            if !is_own && !path.ends_with("lost+found") && !path.ends_with(NAME) {
                return Err(format!(
                    "fill-disk would fill {}, which holds other things ({}): {advice}, and --data DIR",
                    root.display(),
                    path.display()
                ));
            }
        }
        Ok(root)
    }

    /// Fills the file system that begins at `root`, but for a little.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn fill(root: &Path) -> std::io::Result<Self> {
        let filler = Self { path: root.join(NAME) };
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&filler.path)?;
        let mut len = 0;
        let mut step = free_bytes(root)?.saturating_sub(LEFT_BYTES);
        while step >= LEAST_BYTES {
            match fallocate(&file, FallocateFlags::empty(), len, step) {
                Ok(()) => {
                    len += step;
                    step = free_bytes(root)?.saturating_sub(LEFT_BYTES);
                }
                // What is free is not all for us, or is kept for the file system's own books.
                Err(Errno::NOSPC) => step /= 2,
                Err(Errno::OPNOTSUPP) => return write_all(file, step).map(|()| filler),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filler)
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Nothing else can be done; the next fill begins with the same file.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn free_bytes(root: &Path) -> std::io::Result<u64> {
    let of = statvfs(root)?;
    // What is kept for the administrator is free for him.
    let blocks = if rustix::process::geteuid().is_root() { of.f_bfree } else { of.f_bavail };
    Ok(blocks * of.f_frsize)
}

/// Where nothing can be allocated without being written.
fn write_all(mut file: File, bytes: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(zeros.len() as u64) as usize;
        match file.write(&zeros[..piece]) {
            Ok(written) => left -= written as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_others_use_is_not_filled() {
        let directory = tempfile::tempdir().expect("a directory");
        let _beside = tempfile::tempdir().expect("another one");
        let refused = Filler::find(directory.path(), Path::new("/no/log"))
            .expect_err("it is the machine's own");
        assert!(refused.contains("--data DIR"), "{refused}");
        let refused =
            Filler::find(Path::new("/no/such"), Path::new("/no/log")).expect_err("it is not there");
        assert!(refused.contains("/no/such"), "{refused}");
    }

    /// A small file system of memory, and its end.
    struct Mounted(tempfile::TempDir);

    impl Mounted {
        /// None where it cannot be mounted: by others than root, and in some containers.
        fn new() -> Option<Self> {
            let directory = tempfile::tempdir().expect("a directory");
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(directory.path());
            let output = mount.output().ok()?;
            output.status.success().then(|| Self(directory))
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            let umount = std::process::Command::new("umount").arg(self.0.path()).status();
            assert!(umount.is_ok_and(|status| status.success()), "{:?} stays mounted", self.0);
        }
    }

    #[test]
    fn a_file_system_that_was_made_for_it_is_filled_and_emptied() {
        let Some(mounted) = Mounted::new() else {
            // Seen with --nocapture, and in the log of whoever runs it so.
            eprintln!("SKIPPED: nothing is filled: mounting a tmpfs needs root");
            return;
        };
        let root = mounted.0.path().canonicalize().expect("it is there");
        let (data, log) = (root.join("data"), root.join("data.log"));
        std::fs::create_dir(&data).expect("made");
        std::fs::write(&log, "started").expect("written");
        assert_eq!(Filler::find(&data, &log), Ok(root.clone()));
        let write = |kib: usize| std::fs::write(data.join("wal"), vec![7; kib << 10]);
        write(1024).expect("there is room for a MiB");
        std::fs::remove_file(data.join("wal")).expect("it is there");
        let filler = Filler::fill(&root).expect("filled");
        let left = free_bytes(&root).expect("told");
        assert!(left <= LEFT_BYTES, "{left}");
        let full = write(1024).expect_err("there is no room for a MiB");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        drop(filler);
        write(1024).expect("there is room again");
        // Whatever else is there keeps it from being filled.
        std::fs::write(root.join("thesis"), "").expect("written");
        let refused = Filler::find(&data, &log).expect_err("it holds other things");
        assert!(refused.contains("holds other things") && refused.contains("thesis"), "{refused}");
    }
}
