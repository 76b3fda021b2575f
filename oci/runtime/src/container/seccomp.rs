//! The specification's seccomp section, compiled to BPF. seccompiler's filters know one action each, so several are
//! stacked: the kernel runs all and takes the strictest answer.

use std::{collections::BTreeMap, os::fd::OwnedFd, str::FromStr};

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

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Filters {
    /// Compiles the section. System calls that this architecture does not have are skipped, as profiles name those of all.
    pub(crate) fn compile(section: &LinuxSeccomp) -> Result<Self, Error> {
        check_notification(section)?;
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
        let mut programs = Vec::new();
        let mut listened = None;
        // The kernel asks the newest filter first, and on equal strictness its answer counts.
        if let Answer::Here(default) = default
            && default != SeccompAction::Allow
        {
            programs.push(program(allowed, default, SeccompAction::Allow)?);
        }
        for (wanted, rules) in restricted {
            match wanted {
                Answer::Here(action) => {
                    programs.push(program(rules, SeccompAction::Allow, action)?);
                }
                Answer::Elsewhere => listened = Some(notifying(rules)?),
            }
        }
        let (flags, listener_flags) = flags(section);
        Ok(Self {
            programs,
            listened,
            flags,
            listener_flags,
        })
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

/// Without anyone to notify, or where the runtime itself could not go on to tell whom, there is no notification.
fn check_notification(section: &LinuxSeccomp) -> Result<(), Error> {
    let is_notify = |action| action == LinuxSeccompAction::ScmpActNotify;
    if is_notify(section.default_action()) {
        return Err(Error::Notify("cannot be the default action"));
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

fn add(rules: &mut Rules, call: &LinuxSyscall) -> Result<(), Error> {
    let conditions = conditions(call.args().as_deref().unwrap_or_default())?;
    for number in call.names().iter().filter_map(|name| number(name)) {
        match (rules.get_mut(&number), conditions.is_empty()) {
            // No condition: whatever else is said of it, it matches.
            (_, true) => {
                rules.insert(number, Vec::new());
            }
            (Some(others), false) if others.is_empty() => {}
            (Some(others), false) => others.extend(conditions.clone()),
            (None, false) => {
                rules.insert(number, conditions.clone());
            }
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
mod tests {
    use super::*;

    fn compiled(text: &str) -> Result<Filters, Error> {
        Filters::compile(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn each_action_has_a_filter_of_its_own() {
        let filters = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
                {"names":["read","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
                {"names":["reboot"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#,
        )
        .unwrap();
        assert_eq!(filters.programs.len(), 3);
    }

    #[test]
    fn a_list_of_what_is_denied_needs_no_default_filter() {
        let filters = compiled(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                {"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}"#,
        )
        .unwrap();
        assert_eq!(filters.programs.len(), 1);
        let nothing = compiled(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        assert!(nothing.programs.is_empty());
    }

    #[test]
    fn no_condition_wins_over_conditions() {
        let call = |text: &str| -> LinuxSyscall { serde_json::from_str(text).unwrap() };
        let conditional = call(
            r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":0,"value":1,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"},
                {"index":0,"value":3,"op":"SCMP_CMP_EQ"}]}"#,
        );
        let plain = call(r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW"}"#);
        let clone = number("clone").unwrap();
        let mut rules = Rules::new();
        add(&mut rules, &conditional).unwrap();
        assert_eq!(rules[&clone].len(), 2);
        add(&mut rules, &plain).unwrap();
        add(&mut rules, &conditional).unwrap();
        assert!(rules[&clone].is_empty());
    }

    #[test]
    fn notification_has_a_filter_that_somebody_listens_to() {
        let filters = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/run/agent","syscalls":[
                {"names":["read"],"action":"SCMP_ACT_ALLOW"},
                {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        )
        .unwrap();
        assert_eq!(filters.programs.len(), 1);
        let program = filters.listened.unwrap();
        let answers = |wanted: u32| program.iter().filter(|one| one.k == wanted).count();
        assert_eq!(answers(libc::SECCOMP_RET_USER_NOTIF), 1);
        assert_eq!(answers(u32::from(STAND_IN)), 0);
    }

    #[test]
    fn notification_that_cannot_work_is_refused() {
        for (section, why) in [
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/x"}"#,
                "default",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
                    {"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
                "listenerPath",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[
                    {"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
                "write",
            ),
        ] {
            let error = compiled(section).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
