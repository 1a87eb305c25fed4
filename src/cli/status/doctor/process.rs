//! What `doctor` says of this process: who gets at its memory, and what carries SM4 out.

use super::super::super::output::Words;
use super::Findings;
use crate::keys::suite::sm4::Engine;
use crate::memory::{HostMemory, Protection};

/// The memory in which keys are, and the cipher of sensitive data.
pub fn check_process(protection: Protection, findings: &mut Findings) {
    check_memory(protection, findings);
    let engine = Engine::best().name();
    findings.good("sm4", format!("by {engine}, in constant time"), format!("由 {engine} 执行，耗时与密钥无关"));
}

fn check_memory(protection: Protection, findings: &mut Findings) {
    if !protection.is_closed {
        findings.doubtful(
            "memory",
            Words::new("core dumps or debuggers can get at the keys", "核心转储或调试器可以接触到密钥"),
            Words::new(
                "see why the host refuses RLIMIT_CORE 0 or PR_SET_DUMPABLE 0",
                "请检查主机为何拒绝 RLIMIT_CORE 0 或 PR_SET_DUMPABLE 0",
            ),
        );
    }
    if protection.is_locked {
        findings.good("memory", "locked: it is never swapped", "已锁定，不会被换出");
    } else if protection.host.swaps {
        findings.doubtful(
            "memory",
            Words::new(
                "this host swaps to disk, and keys may be swapped with the rest",
                "本机会把内存换出到磁盘，密钥可能随之写入",
            ),
            Words::new(
                "run the agent by the shipped systemd unit (no swap, memory locked), or encrypt the swap",
                "请用随附的 systemd 单元运行代理（不换出、锁定内存），或加密交换区",
            ),
        );
    } else if protection.is_closed {
        findings.good("memory", "no core dumps; the host does not swap to disk", "无核心转储；本机不换出到磁盘");
    }
    check_host(protection.host, findings);
}

/// What the host may do with all memory, locked or not.
fn check_host(host: HostMemory, findings: &mut Findings) {
    if host.hibernates_in_clear {
        findings.doubtful(
            "memory",
            Words::new(
                "this host can hibernate to a swap that is not known to be encrypted: keys in use would lie on its disk",
                "本机可休眠到未确认加密的交换区：使用中的密钥会写入磁盘",
            ),
            Words::new(
                "switch hibernation off (`nohibernate` on the kernel's command line), or encrypt the swap with dm-crypt",
                "请关闭休眠（内核参数 `nohibernate`），或用 dm-crypt 加密交换区",
            ),
        );
    }
    if host.lets_debug {
        findings.doubtful(
            "memory",
            Words::new(
                "any process of a user may debug that user's others here (kernel.yama.ptrace_scope = 0); the agent itself \
                 shuts them out, what starts it does not",
                "本机允许同一用户的进程互相调试（kernel.yama.ptrace_scope = 0）；代理自身已拒绝，但启动它的程序没有",
            ),
            Words::new("set `sysctl kernel.yama.ptrace_scope=1`", "请执行 `sysctl kernel.yama.ptrace_scope=1`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn swap_is_doubtful_unless_memory_is_locked() {
        let marks = |is_closed, is_locked, swaps| {
            let mut findings = Findings::default();
            let host = HostMemory { swaps, ..HostMemory::default() };
            check_memory(Protection { is_closed, is_locked, host }, &mut findings);
            findings.0.iter().map(|line| line.mark).collect::<Vec<_>>()
        };
        assert_eq!(marks(true, false, false), [Mark::Good]);
        assert_eq!(marks(true, true, true), [Mark::Good]);
        assert_eq!(marks(true, false, true), [Mark::Doubtful]);
        assert_eq!(marks(false, false, false), [Mark::Doubtful]);
        assert_eq!(marks(false, false, true), [Mark::Doubtful, Mark::Doubtful]);
    }

    #[test]
    fn locked_memory_does_not_excuse_hibernation_or_debuggers() {
        let said = |host| {
            let mut findings = Findings::default();
            check_memory(Protection { is_closed: true, is_locked: true, host }, &mut findings);
            findings.0.iter().map(|line| line.mark).collect::<Vec<_>>()
        };
        let host = HostMemory::default();
        assert_eq!(said(host), [Mark::Good]);
        assert_eq!(said(HostMemory { hibernates_in_clear: true, ..host }), [Mark::Good, Mark::Doubtful]);
        assert_eq!(said(HostMemory { lets_debug: true, ..host }), [Mark::Good, Mark::Doubtful]);
    }
}
