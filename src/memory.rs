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
    /// What the host does with memory.
    pub host: HostMemory,
}

/// What a host may do with the memory of its processes, as far as it can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostMemory {
    /// It swaps to a disk or file; swap in compressed memory alone does not count.
    pub swaps: bool,
    /// It can write all memory, locked or not, to a swap that is not known to be encrypted, and be switched off.
    pub hibernates_in_clear: bool,
    /// Any process of a user may debug any other one of the same user (`kernel.yama.ptrace_scope = 0`).
    pub lets_debug: bool,
}

impl HostMemory {
    /// From the host's own files, by their paths; what cannot be read is empty.
    fn of(text: &dyn Fn(&str) -> String) -> Self {
        let table = text("/proc/swaps");
        let is_clear = |device: &str| {
            // Only device-mapper devices can say that they are encrypted; a file lies on a device that nobody names here.
            let name = device.strip_prefix("/dev/").unwrap_or_default();
            !text(&format!("/sys/class/block/{name}/dm/uuid")).starts_with("CRYPT-")
        };
        let disk = text("/sys/power/disk");
        let can_hibernate = !disk.trim().is_empty() && !disk.contains("[disabled]");
        Self {
            swaps: swap_devices(&table).next().is_some(),
            hibernates_in_clear: can_hibernate && swap_devices(&table).any(is_clear),
            lets_debug: text("/proc/sys/kernel/yama/ptrace_scope").trim() == "0",
        }
    }
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
            host: HostMemory::of(&text),
        }
    }
}

/// Whether `/proc/self/status` shows locked memory.
fn locks_memory(status: &str) -> bool {
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    locked.and_then(|line| line.split_whitespace().next()).is_some_and(|kilobytes| kilobytes != "0")
}

/// What `/proc/swaps` names but compressed memory.
fn swap_devices(table: &str) -> impl Iterator<Item = &str> {
    let named = table.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    named.filter(|device| !device.starts_with("/dev/zram"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_on_disk_counts_and_compressed_memory_does_not() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        let swaps = |table: &str| swap_devices(table).next().is_some();
        let with = |lines: &str| swaps(&format!("{head}{lines}"));
        assert!(!swaps("") && !with("") && !with("/dev/zram0 partition 4 0 100\n"));
        assert!(with("/dev/zram0 partition 4 0 100\n/dev/vda2 partition 4 0 -2\n") && with("/swapfile file 4 0 -2\n"));
    }

    #[test]
    fn a_host_that_writes_memory_to_a_clear_disk_or_lets_it_be_debugged_is_told() {
        let host = |disk: &str, swaps: &str, uuid: &str, scope: &str| {
            HostMemory::of(&|path| match path {
                "/proc/swaps" => format!("Filename Type Size Used Priority\n{swaps}"),
                "/sys/power/disk" => disk.to_owned(),
                "/sys/class/block/dm-1/dm/uuid" => uuid.to_owned(),
                "/proc/sys/kernel/yama/ptrace_scope" => scope.to_owned(),
                _ => String::new(),
            })
        };
        let (able, off) = ("[platform] shutdown reboot suspend test_resume\n", "[disabled]\n");
        let (plain, mapped) = ("/dev/vda2 partition 4 0 -2\n", "/dev/dm-1 partition 4 0 -2\n");
        for (disk, swaps, uuid, expected) in [
            (able, plain, "", true),
            (able, "/swapfile file 4 0 -2\n", "", true),
            (able, mapped, "LVM-abc\n", true),
            (able, mapped, "CRYPT-LUKS2-abc\n", false),
            (able, &format!("{mapped}{plain}")[..], "CRYPT-LUKS2-abc\n", true),
            (able, "/dev/zram0 partition 4 0 100\n", "", false),
            (able, "", "", false),
            (off, plain, "", false),
            // It cannot be read in many containers: nothing is said of what is not known.
            ("", plain, "", false),
        ] {
            assert_eq!(host(disk, swaps, uuid, "1\n").hibernates_in_clear, expected, "{disk}{swaps}{uuid}");
        }
        let scopes = ["0\n", "1\n", "2\n", ""].map(|scope| host(off, "", "", scope).lets_debug);
        assert_eq!(scopes, [true, false, false, false]);
        assert_eq!(host("", "", "", ""), HostMemory::default());
    }

    #[test]
    fn locked_memory_is_seen() {
        assert!(locks_memory("Name:\tx\nVmLck:\t    5120 kB\n"));
        assert!(!locks_memory("VmLck:\t       0 kB\n") && !locks_memory(""));
    }
}
