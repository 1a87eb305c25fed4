//! What the process does so that keys do not leave its memory.
//!
//! A key lives in a box of its own and is wiped when dropped. Copies that no type can reach are dealt with here: core dumps and
//! debuggers are shut out, stack frames in which keys were computed are overwritten, and memory is locked against swapping if the
//! host lets the process lock all of it. It is best effort; nothing that is certified rests on it.
//!
//! Memory that not even the host's root can read (`memfd_secret`) is not used: it has to be mapped and pointed into, which no crate
//! offers without unsafe code at its caller or a C library behind it. Unsafe code stays in one module, where a safe twin
//! computes the same; there is no such twin for where a key lies.

use std::path::Path;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit,
};

/// Bytes that [`wipe_stack`] overwrites: more than sealing, opening and deriving take, measured with margin.
const WIPED_STACK_BYTES: usize = 12 * 1024;

/// Overwrites the stack below the caller's frame, in which the functions that it called have left what they computed with.
#[inline(never)]
pub fn wipe_stack() {
    let area = [0_u8; WIPED_STACK_BYTES];
    zeroize::optimization_barrier(&area);
}

/// Shuts out core dumps and debuggers of the same user, and locks all memory if the host allows as much as the process wants. To be
/// called once, before any key is opened. Failures are not reported here but by [`Protection::look`].
pub fn protect() {
    // A system-call filter may forbid what has been done already.
    if getrlimit(Resource::Core).maximum != Some(0) {
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Under a limit, some later allocation would fail; without one, locking is the operator's wish.
    if getrlimit(Resource::Memlock).current.is_none() {
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    }
}

/// How well this process's memory is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// Neither core dumps nor debuggers of the same user get at it.
    pub is_closed: bool,
    /// All of it is locked into memory.
    pub is_locked: bool,
    /// The host swaps to a disk or file; swap in compressed memory alone does not count.
    pub host_swaps: bool,
}

impl Protection {
    /// Looks at this process and its host.
    #[must_use]
    pub fn look() -> Self {
        let text = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let is_closed = getrlimit(Resource::Core).current == Some(0)
            && dumpable_behavior().is_ok_and(|behavior| behavior == DumpableBehavior::NotDumpable);
        Self {
            is_closed,
            is_locked: getrlimit(Resource::Memlock).current.is_none() && locks_memory(&text("/proc/self/status")),
            host_swaps: swaps(&text("/proc/swaps")),
        }
    }
}

/// Whether `/proc/self/status` shows locked memory.
fn locks_memory(status: &str) -> bool {
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    locked.and_then(|line| line.split_whitespace().next()).is_some_and(|kilobytes| kilobytes != "0")
}

/// Whether `/proc/swaps` names anything but compressed memory.
fn swaps(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty() && !line.starts_with("/dev/zram"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_on_disk_counts_and_compressed_memory_does_not() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let with = |lines: &str| swaps(&format!("{head}{lines}"));
        assert!(!swaps("") && !with("") && !with("/dev/zram0 partition 4 0 100\n"));
        assert!(with("/dev/zram0 partition 4 0 100\n/dev/vda2 partition 4 0 -2\n") && with("/swapfile file 4 0 -2\n"));
    }

    #[test]
    fn locked_memory_is_seen() {
        assert!(locks_memory("Name:\tx\nVmLck:\t    5120 kB\n"));
        assert!(!locks_memory("VmLck:\t       0 kB\n") && !locks_memory(""));
    }
}
