//! Persistent reservations of a block device, through the kernel's ioctls (`linux/pr.h`), which speak to
//! SCSI, NVMe and device-mapper devices alike. One type of reservation only: write exclusive, registrants
//! only. One host is the holder; every host with a registration may write, every other is refused.
//!
//! Each call is one command to the device and blocks until it is answered: not for the threads of a
//! runtime. What a claim does with them, in which order, is decided by who calls.
//!
//! There is no way here to take a registration back: the kernel makes of a new key of zero an
//! unregistration on SCSI, but on NVMe a registration under the key zero, which nobody can replace.
//!
//! What always holds: only a zero is success. Drivers answer failures with positive numbers too (24 for
//! a conflict, 2 for a SCSI check condition), and not the same in every release of Linux.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// `enum pr_type`: write exclusive, registrants only.
const WRITE_EXCLUSIVE_REG_ONLY: u32 = 3;

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum ReservationError {
    /// The device knows the command and refuses it: the key that was named is not registered, this host
    /// is not, or another one holds the reservation.
    #[error("reservation conflict")]
    Conflict,
    /// There are no reservations here: a device without them, a partition, or not a block device.
    #[error("no persistent reservations here: {0}")]
    Unsupported(io::Error),
    /// This process may not use them: needs CAP_SYS_ADMIN on older kernels, and the whole device.
    #[error("not allowed to use persistent reservations: {0}")]
    Forbidden(io::Error),
    /// The device failed, with this status of its own; what it has done is not known.
    #[error("the device answered a reservation command with status {0:#x}")]
    Status(i32),
    /// The kernel could not bring the command to its end; what the device has done is not known.
    #[error("a reservation command failed: {0}")]
    Io(io::Error),
}

/// Registers `key` for this host, which must have no registration.
pub fn register(device: impl AsFd, key: u64) -> Result<(), ReservationError> {
    command(device, 200, Registration { old_key: 0, new_key: key, flags: 0, pad: 0 })
}

/// Registers `key` for this host in place of `old`, which must be its registration.
pub fn replace(device: impl AsFd, old: u64, key: u64) -> Result<(), ReservationError> {
    command(device, 200, Registration { old_key: old, new_key: key, flags: 0, pad: 0 })
}

/// Takes the reservation if nobody holds it; also succeeds if this host does already. Registered under
/// `key` before.
pub fn reserve(device: impl AsFd, key: u64) -> Result<(), ReservationError> {
    command(device, 201, Reservation { key, kind: WRITE_EXCLUSIVE_REG_ONLY, flags: 0 })
}

/// Removes every registration under `victim` and waits until the commands of those hosts have ended or
/// were aborted: when it has succeeded, no write of theirs can land any more. If one of them held the
/// reservation it passes to this host in the same instant. Registered under `key` before.
/// [`ReservationError::Conflict`] if nobody has registered `victim`.
pub fn preempt_and_abort(device: impl AsFd, key: u64, victim: u64) -> Result<(), ReservationError> {
    let kind = WRITE_EXCLUSIVE_REG_ONLY;
    // "old" is one's own key and "new" the victim's, against what the names suggest.
    command(device, 204, Preemption { old_key: key, new_key: victim, kind, flags: 0 })
}

/// `struct pr_registration`.
#[repr(C)]
struct Registration {
    old_key: u64,
    new_key: u64,
    flags: u32,
    pad: u32,
}

/// `struct pr_reservation`.
#[repr(C)]
struct Reservation {
    key: u64,
    kind: u32,
    flags: u32,
}

/// `struct pr_preempt`.
#[repr(C)]
struct Preemption {
    old_key: u64,
    new_key: u64,
    kind: u32,
    flags: u32,
}

/// One ioctl of group `p` that reads a `T` and answers with a status.
struct Command<T> {
    number: u8,
    argument: T,
}

// SAFETY: the opcode is `_IOW('p', number, T)` as in linux/pr.h for the three structures above, which
// `command` alone pairs with numbers; the kernel reads a `T` behind the pointer, which lives as long as
// `self`, and writes nothing.
unsafe impl<T> Ioctl for Command<T> {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<T>(b'p', self.number)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(&mut self.argument).cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

fn command<T>(device: impl AsFd, number: u8, argument: T) -> Result<(), ReservationError> {
    // SAFETY: a command of linux/pr.h with the structure that belongs to it, as `Command` promises. A
    // file that is no block device answers such a number with ENOTTY.
    judge(unsafe { ioctl(device, Command { number, argument }) })
}

/// What an ioctl's answer means.
fn judge(answer: rustix::io::Result<i32>) -> Result<(), ReservationError> {
    match answer {
        Ok(0) => Ok(()),
        // 0x18 is SCSI's status, and the kernel's own since it translates (6.4); 6.1 sets the bit above.
        // 0x83 is NVMe's, perhaps with its flags "more" and "do not retry".
        Ok(0x18 | 0x118 | 0x83 | 0x2083 | 0x4083 | 0x6083) => Err(ReservationError::Conflict),
        Ok(status) => Err(ReservationError::Status(status)),
        // EBADE: the block layer's word for a conflict.
        Err(Errno::BADE) => Err(ReservationError::Conflict),
        Err(error @ (Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS)) => {
            Err(ReservationError::Unsupported(error.into()))
        }
        Err(error @ (Errno::PERM | Errno::ACCESS)) => {
            Err(ReservationError::Forbidden(error.into()))
        }
        Err(error) => Err(ReservationError::Io(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        // _IOW('p', 200, 24 bytes), ('p', 201, 16 bytes), ('p', 204, 24 bytes).
        assert_eq!(opcode::write::<Registration>(b'p', 200), 0x4018_70c8);
        assert_eq!(opcode::write::<Reservation>(b'p', 201), 0x4010_70c9);
        assert_eq!(opcode::write::<Preemption>(b'p', 204), 0x4018_70cc);
    }

    #[test]
    fn only_a_zero_is_success() {
        assert!(judge(Ok(0)).is_ok());
        for conflict in [24, 280, 0x83, 0x4083] {
            assert!(matches!(judge(Ok(conflict)), Err(ReservationError::Conflict)), "{conflict}");
        }
        for status in [1, 2, 8, 0x10000, 0xe0000, -1] {
            let judged = judge(Ok(status));
            assert!(matches!(judged, Err(ReservationError::Status(s)) if s == status), "{status}");
        }
        assert!(matches!(judge(Err(Errno::BADE)), Err(ReservationError::Conflict)));
        assert!(matches!(judge(Err(Errno::OPNOTSUPP)), Err(ReservationError::Unsupported(_))));
        assert!(matches!(judge(Err(Errno::PERM)), Err(ReservationError::Forbidden(_))));
        assert!(matches!(judge(Err(Errno::IO)), Err(ReservationError::Io(_))));
    }

    #[test]
    fn a_file_has_no_reservations() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let refused = [
            register(&file, 1),
            replace(&file, 1, 2),
            reserve(&file, 1),
            preempt_and_abort(&file, 1, 2),
        ];
        for answer in refused {
            assert!(matches!(answer, Err(ReservationError::Unsupported(_))), "{answer:?}");
        }
    }
}
