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
}
