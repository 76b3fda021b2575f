//! Compiles the specification's seccomp section to BPF. Verdicts that depend on the system call number alone form a
//! search tree. Verdicts that depend on arguments come from seccompiler, whose programs have one action each; the tree
//! leads to them, and a call passes through all of them, the strictest first.

mod tree;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    os::fd::OwnedFd,
    str::FromStr,
};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use syscalls::Sysno;

use crate::sys;

/// Why a seccomp section cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// SCMP_ACT_NOTIFY where it cannot work.
    #[error("SCMP_ACT_NOTIFY {0}")]
    Notify(&'static str),
    /// The filter cannot be compiled.
    #[error("the filter cannot be compiled: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refuses the filter.
    #[error("the kernel refuses the filter: {0}")]
    Install(#[from] std::io::Error),
}

const NO_DEFAULT: Error = Error::Notify("cannot be the default action");

/// Compiled filters.
#[derive(Debug)]
pub(crate) struct Filters {
    programs: Vec<BpfProgram>,
    /// The filter with notifications.
    notifying: Option<BpfProgram>,
    flags: libc::c_ulong,
    listener_flags: libc::c_ulong,
    /// Whether a process can wait for its start under them.
    permits_waiting: bool,
}

/// System calls of a process that waits for its start and executes its program then.
const WAITING_CALLS: [&str; 9] = [
    "accept4", "brk", "close", "execve", "mmap", "mremap", "munmap", "read", "write",
];

/// What happens to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Static(SeccompAction),
    /// The listener decides.
    Notify,
}

/// Placeholder for a notification, which seccompiler does not support. It is replaced after compilation; no other
/// verdict uses this value.
const NOTIFY_PLACEHOLDER: SeccompAction = SeccompAction::Trace(u16::MAX as u32);

/// Conditions by number, of which any must hold; an empty list always matches.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Maximum length of a program (`BPF_MAXINSNS` of `<linux/bpf_common.h>`).
const LENGTH_LIMIT: usize = 4096;

/// The rules of a section by verdict.
#[derive(Debug)]
struct RuleSet {
    default: SeccompAction,
    /// Rules that do not get the default verdict.
    allowed: Rules,
    /// Rules whose verdict is neither the default nor `allow`.
    restricted: Vec<(Verdict, Rules)>,
    /// The highest number that the section names, if its names are a list of what is permitted: its author did
    /// not know later system calls.
    highest: Option<u32>,
}

impl RuleSet {
    fn of(section: &LinuxSeccomp) -> Result<Self, Error> {
        let default = verdict(section.default_action(), section.default_errno_ret());
        let allow = Verdict::Static(SeccompAction::Allow);
        let mut allowed = Rules::new();
        let mut restricted: Vec<(Verdict, Rules)> = Vec::new();
        for call in section.syscalls().iter().flatten() {
            let wanted = verdict(call.action(), call.errno_ret());
            let conditional = call.args().as_ref().is_some_and(|args| !args.is_empty());
            // A call with its own verdict must pass the filter of the default verdict.
            if wanted != default {
                add(&mut allowed, call)?;
            }
            // A conditional rule with the default verdict is an exception from what is allowed otherwise.
            if wanted != allow && (wanted != default || conditional) {
                match restricted.iter_mut().find(|(other, _)| *other == wanted) {
                    Some((_, rules)) => add(rules, call)?,
                    None => {
                        let mut rules = Rules::new();
                        add(&mut rules, call)?;
                        restricted.push((wanted, rules));
                    }
                }
            }
        }
        match default {
            Verdict::Static(default) => Ok(Self {
                highest: highest(section, &default),
                default,
                allowed,
                restricted,
            }),
            Verdict::Notify => Err(NO_DEFAULT),
        }
    }

    /// Whether a call is allowed whatever its arguments are.
    fn permits(&self, name: &str) -> bool {
        let Some(number) = number(name) else {
            return false;
        };
        let is_listed = self.allowed.get(&number).is_some_and(Vec::is_empty);
        let mut restricted = self.restricted.iter();
        (is_listed || self.default == SeccompAction::Allow)
            && !restricted.any(|(_, rules)| rules.contains_key(&number))
    }

    /// Verdicts of system calls that the section does not name. Programs try new system calls and fall back to older
    /// ones on ENOSYS only, so that is what calls get that are newer than the section.
    fn unlisted(&self) -> tree::Unlisted {
        let enosys = SeccompAction::Errno(libc::ENOSYS as u32);
        let newer = self.highest.and_then(|number| number.checked_add(1));
        tree::Unlisted {
            verdict: self.default.clone().into(),
            newer: newer.map(|number| (number, enosys.into())),
        }
    }

    /// Numbers whose verdict depends on arguments.
    fn conditional(&self) -> BTreeSet<i64> {
        let all = self.restricted.iter().map(|(_, rules)| rules);
        all.chain([&self.allowed])
            .flatten()
            .filter(|(_, conditions)| !conditions.is_empty())
            .map(|(number, _)| *number)
            .collect()
    }

    /// The strictest verdict for each number that does not depend on arguments; the later one of equally strict ones.
    fn verdicts(&self, conditional: &BTreeSet<i64>) -> BTreeMap<u32, u32> {
        let numbers = self.allowed.keys().chain(conditional);
        let mut verdicts: BTreeMap<u32, u32> =
            numbers.map(|number| (unsigned(*number), ALLOW)).collect();
        for (verdict, rules) in &self.restricted {
            let Verdict::Static(action) = verdict else {
                continue;
            };
            let action = u32::from(action.clone());
            for number in rules.keys().filter(|number| !conditional.contains(number)) {
                let other = verdicts.entry(unsigned(*number)).or_insert(ALLOW);
                if strictness(action) <= strictness(*other) {
                    *other = action;
                }
            }
        }
        verdicts
    }
}

/// None where the default verdict lets unknown calls through.
fn highest(section: &LinuxSeccomp, default: &SeccompAction) -> Option<u32> {
    let permissive = matches!(
        default,
        SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace(_)
    );
    let calls = section.syscalls().iter().flatten().filter(|_| !permissive);
    let names = calls.flat_map(|call| call.names());
    names.filter_map(|name| number(name)).map(unsigned).max()
}

/// The kernel compares verdicts as signed numbers without their data; the smallest is the strictest.
fn strictness(verdict: u32) -> i32 {
    (verdict & libc::SECCOMP_RET_ACTION_FULL).cast_signed()
}

/// As the kernel compares numbers.
fn unsigned(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Filters {
    /// Compiles a section. System calls of other architectures are skipped: profiles list those of every architecture.
    pub(crate) fn compile(section: &LinuxSeccomp) -> Result<Self, Error> {
        check_notification(section)?;
        let (flags, listener_flags) = flags(section);
        let mut filters = Self {
            programs: Vec::new(),
            notifying: None,
            flags,
            listener_flags,
            permits_waiting: false,
        };
        filters.add(RuleSet::of(section)?)?;
        Ok(filters)
    }

    fn add(&mut self, rules: RuleSet) -> Result<(), Error> {
        let conditional = rules.conditional();
        let verdicts = rules.verdicts(&conditional);
        self.permits_waiting = WAITING_CALLS.iter().all(|name| rules.permits(name));
        let unlisted = rules.unlisted();
        let default = rules.default;
        let only = |rules: Rules| -> Rules {
            let of_them = |number: &i64| conditional.contains(number);
            rules
                .into_iter()
                .filter(|(number, _)| of_them(number))
                .collect()
        };
        let mut others = Vec::new();
        if default != SeccompAction::Allow && !conditional.is_empty() {
            let program = program(only(rules.allowed), default.clone(), SeccompAction::Allow)?;
            others.push((default.clone(), program));
        }
        for (wanted, rules) in rules.restricted {
            match wanted {
                Verdict::Static(action) => {
                    let rules = only(rules);
                    if !rules.is_empty() {
                        let program = program(rules, SeccompAction::Allow, action.clone())?;
                        others.push((action, program));
                    }
                }
                Verdict::Notify => self.notifying = Some(notify_program(rules)?),
            }
        }
        if others.is_empty() && default == SeccompAction::Allow && verdicts.values().all(is_allow) {
            return Ok(());
        }
        self.programs = assemble(unlisted, verdicts, &conditional, by_strictness(others))?;
        Ok(())
    }

    /// Whether there are notifications, and a process can wait for its start under the filters.
    pub(crate) fn notify_and_permit_waiting(&self) -> bool {
        self.notifying.is_some() && self.permits_waiting
    }

    /// Installs the filters for this process and its descendants; returns the notification descriptor.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, Error> {
        for program in &self.programs {
            sys::install_filter(program, self.flags)?;
        }
        let flags = self.flags | self.listener_flags;
        let notifying = self.notifying.as_ref();
        let listener = notifying.map(|program| sys::install_listener(program, flags));
        Ok(listener.transpose()?)
    }
}

fn is_allow(verdict: &u32) -> bool {
    *verdict == ALLOW
}

/// The order of separate filters in the kernel: the strictest verdict wins, of equally strict ones that of the newest
/// filter.
fn by_strictness(mut programs: Vec<(SeccompAction, BpfProgram)>) -> Vec<BpfProgram> {
    programs.reverse();
    programs.sort_by_key(|(verdict, _)| strictness(verdict.clone().into()));
    programs.into_iter().map(|(_, program)| program).collect()
}

/// Assembles one program, which is cheaper for the kernel than several; a stack of programs if one would exceed the
/// maximum length.
fn assemble(
    unlisted: tree::Unlisted,
    mut verdicts: BTreeMap<u32, u32>,
    conditional: &BTreeSet<i64>,
    others: Vec<BpfProgram>,
) -> Result<Vec<BpfProgram>, Error> {
    let numbers: Vec<_> = conditional.iter().map(|one| unsigned(*one)).collect();
    if !others.is_empty() {
        verdicts.extend(numbers.iter().map(|number| (*number, tree::FALL_THROUGH)));
    }
    let whole = searched(unlisted, &verdicts, &others)?;
    if whole.len() <= LENGTH_LIMIT {
        return Ok(vec![whole]);
    }
    verdicts.extend(numbers.iter().map(|number| (*number, ALLOW)));
    let oldest_first = others.into_iter().rev();
    let mut stack: Vec<_> = oldest_first
        .map(|program| tree::only(&numbers, ALLOW, program))
        .collect();
    // Installed last, because it need not allow the installation of others. It allows the numbers that the others
    // decide.
    stack.push(searched(unlisted, &verdicts, &[])?);
    Ok(stack)
}

/// The search tree followed by the programs that it leads to.
fn searched(
    unlisted: tree::Unlisted,
    verdicts: &BTreeMap<u32, u32>,
    others: &[BpfProgram],
) -> Result<BpfProgram, Error> {
    let mut program = architecture()?;
    program.extend(tree::search(unlisted, verdicts, others));
    Ok(program)
}

/// Refuses notifications without a listener, and on `write`, which the runtime needs to report the descriptor.
fn check_notification(section: &LinuxSeccomp) -> Result<(), Error> {
    let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if is_notify(section.default_action()) {
        return Err(NO_DEFAULT);
    }
    let calls = section.syscalls().iter().flatten();
    let notified: Vec<_> = calls.filter(|call| is_notify(call.action())).collect();
    if !notified.is_empty() && section.listener_path().is_none() {
        return Err(Error::Notify("needs a listenerPath"));
    }
    if notified
        .iter()
        .any(|call| call.names().iter().any(|name| name == "write"))
    {
        return Err(Error::Notify("cannot be the action of write"));
    }
    Ok(())
}

/// A filter that notifies of these calls.
fn notify_program(rules: Rules) -> Result<BpfProgram, Error> {
    const RETURN: u16 = 0x06;
    let placeholder = u32::from(NOTIFY_PLACEHOLDER);
    let mut program = program(rules, SeccompAction::Allow, NOTIFY_PLACEHOLDER)?;
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == placeholder {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, Error> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, otherwise, matched, architecture)?.try_into()?)
}

/// The check of the architecture: an empty filter without its last instruction.
fn architecture() -> Result<BpfProgram, Error> {
    let mut program = program(
        Rules::new(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )?;
    program.pop();
    Ok(program)
}

fn add(rules: &mut Rules, call: &LinuxSyscall) -> Result<(), Error> {
    let conditions = conditions(call.args().as_deref().unwrap_or_default())?;
    for number in call.names().iter().filter_map(|name| number(name)) {
        match rules.entry(number) {
            Entry::Vacant(place) => {
                place.insert(conditions.clone());
            }
            // An unconditional rule overrides conditions.
            Entry::Occupied(mut others) if conditions.is_empty() => others.get_mut().clear(),
            Entry::Occupied(others) if others.get().is_empty() => {}
            Entry::Occupied(mut others) => others.get_mut().extend(conditions.iter().cloned()),
        }
    }
    Ok(())
}

fn number(name: &str) -> Option<i64> {
    Some(i64::from(Sysno::from_str(name).ok()?.id()))
}

/// Conditions on different arguments must all hold; of conditions on one argument, any must hold, as in other
/// runtimes.
fn conditions(args: &[LinuxSeccompArg]) -> Result<Vec<SeccompRule>, Error> {
    let repeated = (0..args.len()).any(|index| {
        args[..index]
            .iter()
            .any(|other| other.index() == args[index].index())
    });
    let each: Vec<_> = args.iter().map(condition).collect::<Result<_, _>>()?;
    if each.is_empty() {
        return Ok(Vec::new());
    }
    if repeated {
        return each
            .into_iter()
            .map(|one| Ok(SeccompRule::new(vec![one])?))
            .collect();
    }
    Ok(vec![SeccompRule::new(each)?])
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition, Error> {
    let (operator, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(arg.value()),
            arg.value_two().unwrap_or_default(),
        ),
    };
    let index = u8::try_from(arg.index()).unwrap_or(u8::MAX);
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Qword,
        operator,
        value,
    )?)
}

fn verdict(wanted: LinuxSeccompAction, errno: Option<u32>) -> Verdict {
    Verdict::Static(match wanted {
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActErrno => {
            SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32))
        }
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(errno.unwrap_or_default()),
        LinuxSeccompAction::ScmpActNotify => return Verdict::Notify,
    })
}

/// Flags of every filter, and of the notifying one.
fn flags(section: &LinuxSeccomp) -> (libc::c_ulong, libc::c_ulong) {
    let (mut all, mut listener) = (0, 0);
    for flag in section.flags().iter().flatten() {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => all |= libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                all |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                listener |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            }
            // The process has one thread.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
        }
    }
    (all, listener)
}

#[cfg(test)]
mod tests;
