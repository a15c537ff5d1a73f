//! Which system calls a provider may make: a filter that the kernel applies to it and to everything it starts.
//!
//! Providers are programs of others, written in any language, so this is a list of what is refused and not of what is allowed:
//! calls that reach into other processes (limits, scheduling, memory), calls with a long record of errors in the kernel, calls
//! for administrators, and everything newer than the calls this file knows. A refused call fails with `EPERM`; what programs
//! probe for and replace by an older call (`clone3`, unknown numbers) fails with `ENOSYS`.
//!
//! A filter sees the numbers in a call and no memory behind a pointer. So `clone3` cannot be judged, and a process can only be
//! told from others by its number.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

use crate::error::{Error, Result};

/// What the translator is told, and the kernel's name (`AUDIT_ARCH_…`) for this program's calls. The translator knows no
/// 32-bit ARM, whose calls have the same layout as the others'; its name is written into the finished filter there.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: (TargetArch, u32) = (TargetArch::x86_64, 0xC000_003E);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: (TargetArch, u32) = (TargetArch::aarch64, 0xC000_00B7);
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: (TargetArch, u32) = (TargetArch::riscv64, 0xC000_00F3);
#[cfg(target_arch = "arm")]
const ARCHITECTURE: (TargetArch, u32) = (TargetArch::x86_64, 0x4000_0028);

/// Place of the instruction that compares that name, and number of instructions before the first that looks at the call.
const ARCHITECTURE_CHECK: (usize, usize) = (1, 3);

/// The first number that this file does not know. Since Linux 5.1 new calls have the same number on all processors; calls of
/// x86's other numbering (x32), which would pass by everything below, are far above it.
const FIRST_UNKNOWN: u32 = 470;

/// Where 32-bit ARM has its own calls, such as `cacheflush`, which every program needs.
const ARM_PRIVATE: u32 = 0x000F_0000;

/// `open_tree_attr` and `file_setattr`, which the C library's headers do not name yet.
const OPEN_TREE_ATTR: i64 = 467;
const FILE_SETATTR: i64 = 469;

/// Refused whatever is asked.
const REFUSED: &[libc::c_long] = &[
    // Into the memory, descriptors and time of other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_perf_event_open,
    // Around the filter, or a long way into the kernel.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Other views of the file system and other name spaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR as libc::c_long,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // For administrators of the machine.
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    FILE_SETATTR as libc::c_long,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Shared memory, queues and semaphores of System V stay when everything the provider started has ended.
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
];

/// Calls whose first argument is the process (or thread) that is changed, 0 for the caller.
const OF_A_PROCESS: &[libc::c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setattr,
];

/// Calls that send a signal to the process in their first argument.
const SIGNALS: &[libc::c_long] =
    &[libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_pidfd_open];

/// Name spaces that `clone` could make.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// `which` of `setpriority` for one process; the C libraries do not agree on its type.
const PRIO_PROCESS: u32 = 0;

/// `which` of `ioprio_set` for one process.
const IOPRIO_WHO_PROCESS: u32 = 1;

/// The family of sockets that are TCP by another name.
const AF_SMC: libc::c_int = 43;

/// `TIOCSTI` and `TIOCLINUX`, as numbers: the C libraries do not agree on the type of a request.
const TERMINAL_INPUT: [u32; 2] = [0x5412, 0x541C];

/// `FS_IOC_FSSETXATTR`, and `FS_IOC_SETFLAGS` as 64-bit and 32-bit programs write it: with either the owner of a
/// directory takes what is made in it out of its project, and so out of its quota.
const FILE_ATTRIBUTES: [u32; 3] = [0x401C_5820, 0x4008_6602, 0x4004_6602];

/// Multipath TCP, which Landlock's rules for TCP do not cover.
const IPPROTO_MPTCP: u32 = 262;

/// Processes and threads that one filter protects from signals. Each takes about 60 instructions, and the kernel takes 4096 in a
/// filter.
const PROTECTED_PER_FILTER: usize = 50;

/// What depends on the provider and on the kernel.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The process itself: its number stays when the provider takes its place.
    pub own: i32,
    /// Processes and threads of the host and the supervisor, which may get no signal. Empty where Landlock sees to that for
    /// everything outside of the provider.
    pub protected: &'a [i32],
    /// Whether code may not be written at run time, and the kernel has no other way to forbid it.
    pub no_new_code: bool,
    /// Whether connections are restricted by Landlock's rules for TCP: what would go past these is refused.
    pub tcp: bool,
    /// Whether the supervisor must be able to count what the provider uses: it may not hide in `/proc`.
    pub visible: bool,
}

/// Filters this process, for ever.
///
/// # Errors
/// The kernel refuses.
pub fn apply(wanted: &Wanted<'_>) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| Error::internal(format!("cannot filter its system calls: {cause}"));
    // The last filter that refuses decides with what error; this one is about programs that look for older ways.
    let probed = BTreeMap::from([(number(libc::SYS_clone3), Vec::new())]);
    let refused = rules(wanted).map_err(|cause| failed(&cause))?;
    let signals = wanted.protected.chunks(PROTECTED_PER_FILTER).map(signals).collect::<Outcome<Vec<_>>>();
    let signals = signals.map_err(|cause| failed(&cause))?.into_iter().map(|rules| (rules, libc::EPERM));
    for (rules, errno) in [(probed, libc::ENOSYS), (refused, libc::EPERM)].into_iter().chain(signals) {
        let program = program(rules, errno.unsigned_abs()).map_err(|cause| failed(&cause))?;
        apply_filter(&program).map_err(|cause| failed(&cause))?;
    }
    Ok(())
}

#[allow(clippy::useless_conversion, reason = "the type of a call's number is narrower on 32-bit processors")]
fn number(call: libc::c_long) -> i64 {
    i64::from(call)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Outcome<T> = std::result::Result<T, seccompiler::BackendError>;

fn program(rules: Rules, errno: u32) -> Outcome<BpfProgram> {
    let (target, name) = ARCHITECTURE;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), target)?;
    let mut program = BpfProgram::try_from(filter)?;
    let (compares, before) = ARCHITECTURE_CHECK;
    program[compares].k = name;
    program.splice(before..before, unknown_calls());
    Ok(program)
}

/// Instructions that answer calls from [`FIRST_UNKNOWN`] on with `ENOSYS`.
fn unknown_calls() -> [sock_filter; 4] {
    let load = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap_or_default();
    let at_least = u16::try_from(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K).unwrap_or_default();
    let answer = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
    let private = if cfg!(target_arch = "arm") { ARM_PRIVATE } else { u32::MAX };
    [
        sock_filter { code: load, jt: 0, jf: 0, k: 0 },
        sock_filter { code: at_least, jt: 2, jf: 0, k: private },
        sock_filter { code: at_least, jt: 0, jf: 1, k: FIRST_UNKNOWN },
        sock_filter { code: answer, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs() },
    ]
}

/// One rule: all of these (argument, comparison, value) hold.
fn all(conditions: &[(u8, Op, u32)]) -> Outcome<SeccompRule> {
    let condition =
        |(argument, op, value): &(u8, Op, u32)| SeccompCondition::new(*argument, Dword, op.clone(), u64::from(*value));
    SeccompRule::new(conditions.iter().map(condition).collect::<Outcome<_>>()?)
}

/// One rule: the argument has all of these bits.
fn has(argument: u8, bits: u32) -> Outcome<SeccompRule> {
    all(&[(argument, Op::MaskedEq(u64::from(bits)), bits)])
}

/// Refuses signals to `protected`.
fn signals(protected: &[i32]) -> Outcome<Rules> {
    let targets = protected.iter().flat_map(|id| [*id, -*id]).chain([-1]);
    let spared = targets.map(|id| all(&[(0, Op::Eq, id.cast_unsigned())])).collect::<Outcome<Vec<_>>>()?;
    let mut rules: Rules = SIGNALS.iter().map(|call| (number(*call), spared.clone())).collect();
    // By a descriptor, or by the number of any thread: nothing in the call tells whose it is.
    rules.insert(number(libc::SYS_pidfd_send_signal), Vec::new());
    rules.insert(number(libc::SYS_tkill), spared);
    Ok(rules)
}

fn rules(wanted: &Wanted<'_>) -> Outcome<Rules> {
    let mut rules: Rules = REFUSED.iter().map(|call| (number(*call), Vec::new())).collect();
    let mut add = |call: libc::c_long, more: Vec<SeccompRule>| rules.entry(number(call)).or_default().extend(more);
    // Negative numbers are compared as the kernel passes them on.
    let own = wanted.own.cast_unsigned();
    let another = |argument| vec![(argument, Op::Ne, 0), (argument, Op::Ne, own)];
    for call in OF_A_PROCESS {
        add(*call, vec![all(&another(0))?]);
    }
    for (call, one_process) in [(libc::SYS_setpriority, PRIO_PROCESS), (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS)] {
        add(call, vec![all(&[(0, Op::Ne, one_process)])?, all(&another(1))?]);
    }
    add(libc::SYS_clone, NAMESPACES.map(|kind| has(0, kind.cast_unsigned())).into_iter().collect::<Outcome<_>>()?);
    // Typing into a terminal that somebody else reads; leaving the quota (by `file_setattr` too).
    let requests = TERMINAL_INPUT.into_iter().chain(FILE_ATTRIBUTES);
    add(libc::SYS_ioctl, requests.map(|request| all(&[(1, Op::Eq, request)])).collect::<Outcome<_>>()?);
    if wanted.visible {
        let hide = [(0, Op::Eq, libc::PR_SET_DUMPABLE.cast_unsigned()), (1, Op::Eq, 0)];
        add(libc::SYS_prctl, vec![all(&hide)?]);
    }
    if wanted.tcp {
        let tcp = |protocol| all(&[(2, Op::Eq, protocol)]);
        let family = |family: libc::c_int| all(&[(0, Op::Eq, family.cast_unsigned())]);
        let sctp = libc::IPPROTO_SCTP.cast_unsigned();
        add(libc::SYS_socket, vec![tcp(IPPROTO_MPTCP)?, tcp(sctp)?, family(AF_SMC)?, family(libc::AF_VSOCK)?]);
        // Data in the first packet connects without `connect`.
        let fast_open = libc::MSG_FASTOPEN.cast_unsigned();
        add(libc::SYS_sendto, vec![has(3, fast_open)?]);
        add(libc::SYS_sendmsg, vec![has(2, fast_open)?]);
        add(libc::SYS_sendmmsg, vec![has(3, fast_open)?]);
    }
    if wanted.no_new_code {
        let (write, execute) = (libc::PROT_WRITE.cast_unsigned(), libc::PROT_EXEC.cast_unsigned());
        add(MMAP, vec![has(2, write | execute)?]);
        for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            add(call, vec![has(2, execute)?]);
        }
    }
    Ok(rules)
}

#[cfg(target_arch = "arm")]
const MMAP: libc::c_long = libc::SYS_mmap2;
#[cfg(not(target_arch = "arm"))]
const MMAP: libc::c_long = libc::SYS_mmap;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_filter_fits_and_begins_with_its_architecture() {
        let protected: Vec<i32> = (100..).take(PROTECTED_PER_FILTER).collect();
        let form = |rest| Wanted { own: 7, protected: &protected, no_new_code: rest, tcp: rest, visible: rest };
        for rules in [rules(&form(false)), rules(&form(true)), signals(&protected)] {
            let program = program(rules.unwrap(), 1).unwrap();
            assert_eq!(program[1].k, ARCHITECTURE.1);
            assert_eq!(program[3].k, 0, "the number of the call is loaded first");
            assert!(program.len() < 4096, "{}", program.len());
        }
    }
}
