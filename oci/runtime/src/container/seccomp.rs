//! The specification's seccomp section, compiled to BPF. Answers that depend on the number alone are a search tree of ours; those
//! that depend on arguments are seccompiler's, whose programs know one action each: the tree leads to them, and a call passes
//! through all of them, the strictest first.

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
    /// Notification where it cannot work.
    #[error("SCMP_ACT_NOTIFY {0}")]
    Notify(&'static str),
    /// A filter that cannot be compiled.
    #[error("the filter cannot be compiled: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// A filter that the kernel refuses.
    #[error("the kernel refuses the filter: {0}")]
    Install(#[from] std::io::Error),
}

const NO_DEFAULT: Error = Error::Notify("cannot be the default action");

/// Filters ready to be installed.
#[derive(Debug)]
pub(crate) struct Filters {
    programs: Vec<BpfProgram>,
    /// The one that somebody listens to.
    listened: Option<BpfProgram>,
    flags: libc::c_ulong,
    listener_flags: libc::c_ulong,
}

/// What happens to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Here(SeccompAction),
    /// Whoever listens decides.
    Elsewhere,
}

/// Stands for a notification, which seccompiler does not know, until a program is compiled: of a filter for notifications alone,
/// so that it is no other answer of it.
const STAND_IN: SeccompAction = SeccompAction::Trace(u16::MAX as u32);

/// Conditions by number: any of them; none where it has no condition.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Instructions that a program may have (`BPF_MAXINSNS` of `<linux/bpf_common.h>`).
const LENGTH_LIMIT: usize = 4096;

/// The section's rules by what they answer.
#[derive(Debug)]
struct Sorted {
    default: SeccompAction,
    /// What does not get the default answer.
    allowed: Rules,
    /// What gets this one instead of being allowed.
    restricted: Vec<(Answer, Rules)>,
}

impl Sorted {
    fn of(section: &LinuxSeccomp) -> Result<Self, Error> {
        let default = answer(section.default_action(), section.default_errno_ret());
        let allow = Answer::Here(SeccompAction::Allow);
        let mut allowed = Rules::new();
        let mut restricted: Vec<(Answer, Rules)> = Vec::new();
        for call in section.syscalls().iter().flatten() {
            let wanted = answer(call.action(), call.errno_ret());
            let conditional = call.args().as_ref().is_some_and(|args| !args.is_empty());
            // What has an answer of its own must pass the filter of the default answer.
            if wanted != default {
                add(&mut allowed, call)?;
            }
            // The default answer, under conditions, is an exception from what is allowed otherwise.
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
            Answer::Here(default) => Ok(Self {
                default,
                allowed,
                restricted,
            }),
            Answer::Elsewhere => Err(NO_DEFAULT),
        }
    }

    /// Numbers whose answer depends on arguments.
    fn conditional(&self) -> BTreeSet<i64> {
        let all = self.restricted.iter().map(|(_, rules)| rules);
        all.chain([&self.allowed])
            .flatten()
            .filter(|(_, conditions)| !conditions.is_empty())
            .map(|(number, _)| *number)
            .collect()
    }

    /// The strictest answer to each number that has none of its own elsewhere; the later one of two that are as strict.
    fn answers(&self, elsewhere: &BTreeSet<i64>) -> BTreeMap<u32, u32> {
        let numbers = self.allowed.keys().chain(elsewhere);
        let mut answers: BTreeMap<u32, u32> =
            numbers.map(|number| (unsigned(*number), ALLOW)).collect();
        for (answer, rules) in &self.restricted {
            let Answer::Here(action) = answer else {
                continue;
            };
            let action = u32::from(action.clone());
            for number in rules.keys().filter(|number| !elsewhere.contains(number)) {
                let other = answers.entry(unsigned(*number)).or_insert(ALLOW);
                if strictness(action) <= strictness(*other) {
                    *other = action;
                }
            }
        }
        answers
    }
}

/// The kernel compares answers without their data, as signed numbers: the least is the strictest.
fn strictness(answer: u32) -> i32 {
    (answer & libc::SECCOMP_RET_ACTION_FULL).cast_signed()
}

/// As the kernel compares it.
fn unsigned(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Filters {
    /// Compiles the section. System calls that this architecture does not have are skipped, as profiles name those of all.
    pub(crate) fn compile(section: &LinuxSeccomp) -> Result<Self, Error> {
        check_notification(section)?;
        let (flags, listener_flags) = flags(section);
        let mut filters = Self {
            programs: Vec::new(),
            listened: None,
            flags,
            listener_flags,
        };
        filters.add(Sorted::of(section)?)?;
        Ok(filters)
    }

    fn add(&mut self, sorted: Sorted) -> Result<(), Error> {
        let conditional = sorted.conditional();
        let answers = sorted.answers(&conditional);
        let default = sorted.default;
        let only = |rules: Rules| -> Rules {
            let of_them = |number: &i64| conditional.contains(number);
            rules
                .into_iter()
                .filter(|(number, _)| of_them(number))
                .collect()
        };
        let mut others = Vec::new();
        if default != SeccompAction::Allow && !conditional.is_empty() {
            let program = program(only(sorted.allowed), default.clone(), SeccompAction::Allow)?;
            others.push((default.clone(), program));
        }
        for (wanted, rules) in sorted.restricted {
            match wanted {
                Answer::Here(action) => {
                    let rules = only(rules);
                    if !rules.is_empty() {
                        let program = program(rules, SeccompAction::Allow, action.clone())?;
                        others.push((action, program));
                    }
                }
                Answer::Elsewhere => self.listened = Some(notifying(rules)?),
            }
        }
        if others.is_empty() && default == SeccompAction::Allow && answers.values().all(is_allow) {
            return Ok(());
        }
        self.programs = put_together(default.into(), answers, &conditional, by_strictness(others))?;
        Ok(())
    }

    /// Installs them, for this process and all that come from it; gives the descriptor that tells of notifications.
    pub(crate) fn install(&self) -> Result<Option<OwnedFd>, Error> {
        for program in &self.programs {
            sys::install_filter(program, self.flags)?;
        }
        let flags = self.flags | self.listener_flags;
        let listened = self.listened.as_ref();
        let listener = listened.map(|program| sys::install_listener(program, flags));
        Ok(listener.transpose()?)
    }
}

fn is_allow(answer: &u32) -> bool {
    *answer == ALLOW
}

/// As the kernel looks at filters of their own: the strictest answer counts, of several as strict the newest one's.
fn by_strictness(mut programs: Vec<(SeccompAction, BpfProgram)>) -> Vec<BpfProgram> {
    programs.reverse();
    programs.sort_by_key(|(answer, _)| strictness(answer.clone().into()));
    programs.into_iter().map(|(_, program)| program).collect()
}

/// One program of all, which the kernel prepares once and runs once for each call; or a stack of them, where it would be longer
/// than the kernel takes.
fn put_together(
    default: u32,
    mut answers: BTreeMap<u32, u32>,
    conditional: &BTreeSet<i64>,
    others: Vec<BpfProgram>,
) -> Result<Vec<BpfProgram>, Error> {
    let numbers: Vec<_> = conditional.iter().map(|one| unsigned(*one)).collect();
    if !others.is_empty() {
        answers.extend(numbers.iter().map(|number| (*number, tree::ELSEWHERE)));
    }
    let whole = searched(default, &answers, &others)?;
    if whole.len() <= LENGTH_LIMIT {
        return Ok(vec![whole]);
    }
    answers.extend(numbers.iter().map(|number| (*number, ALLOW)));
    let oldest_first = others.into_iter().rev();
    let mut stack: Vec<_> = oldest_first
        .map(|program| tree::only(&numbers, ALLOW, program))
        .collect();
    // The last one: it need not allow the installation of others. What those answer, it leaves to them.
    stack.push(searched(default, &answers, &[])?);
    Ok(stack)
}

/// A whole program of the search tree and what it leads to.
fn searched(
    default: u32,
    answers: &BTreeMap<u32, u32>,
    others: &[BpfProgram],
) -> Result<BpfProgram, Error> {
    let mut program = architecture()?;
    program.extend(tree::search(default, answers, others));
    Ok(program)
}

/// Without anyone to notify, or where the runtime itself could not go on to tell whom, there is no notification.
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

/// A filter that tells of these calls.
fn notifying(rules: Rules) -> Result<BpfProgram, Error> {
    const RETURN: u16 = 0x06;
    let stand_in = u32::from(STAND_IN);
    let mut program = program(rules, SeccompAction::Allow, STAND_IN)?;
    for instruction in &mut program {
        if instruction.code == RETURN && instruction.k == stand_in {
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

/// What kills whoever calls as on another architecture: all of a filter without rules but its last instruction, an answer.
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
            // No condition: whatever else is said of it, it matches.
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

/// Conditions on different arguments must all hold. On one and the same, any of them, as other runtimes have it.
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

fn answer(wanted: LinuxSeccompAction, errno: Option<u32>) -> Answer {
    Answer::Here(match wanted {
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
        LinuxSeccompAction::ScmpActNotify => return Answer::Elsewhere,
    })
}

/// Of all filters, and of the one that is listened to.
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
            // One thread has nothing to synchronise.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => {}
        }
    }
    (all, listener)
}

#[cfg(test)]
mod tests;
