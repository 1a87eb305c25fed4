//! What `doctor` says of this process: who gets at its memory, and what carries SM4 out.

use super::super::super::output::Words;
use super::Findings;
use crate::keys::suite::sm4::Engine;
use crate::memory::Protection;

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
    } else if protection.host_swaps {
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
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn swap_is_doubtful_unless_memory_is_locked() {
        let marks = |is_closed, is_locked, host_swaps| {
            let mut findings = Findings::default();
            check_memory(Protection { is_closed, is_locked, host_swaps }, &mut findings);
            findings.0.iter().map(|line| line.mark).collect::<Vec<_>>()
        };
        assert_eq!(marks(true, false, false), [Mark::Good]);
        assert_eq!(marks(true, true, true), [Mark::Good]);
        assert_eq!(marks(true, false, true), [Mark::Doubtful]);
        assert_eq!(marks(false, false, false), [Mark::Doubtful]);
        assert_eq!(marks(false, false, true), [Mark::Doubtful, Mark::Doubtful]);
    }
}
