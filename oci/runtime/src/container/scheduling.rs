//! Scheduling of a process: execution domain, scheduling policy, I/O priority, memory policy, CPU affinity. Fields
//! that the specification omits cost no system call.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process,
    Scheduler, Spec,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{
    channel::{Failure, Step},
    sys::{self, Scheduling},
};

/// Maximum number of a CPU or memory node, plus one.
const NUMBER_LIMIT: usize = CpuSet::MAX_CPU;

/// Execution domains (`sys/personality.h`).
const PER_LINUX: i32 = 0;
const PER_LINUX32: i32 = 8;

/// Applies the settings. Called before the process changes its ids, which could forbid it.
pub(crate) fn apply(spec: &Spec, process: &Process) -> Result<(), Failure> {
    let linux = spec.linux().as_ref();
    if let Some(personality) = linux.and_then(|linux| linux.personality().as_ref()) {
        let domain = match personality.domain() {
            LinuxPersonalityDomain::PerLinux => PER_LINUX,
            LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
        };
        sys::set_personality(domain).step("personality")?;
    }
    if let Some(policy) = linux.and_then(|linux| linux.memory_policy().as_ref()) {
        let (mode, nodes) = memory_policy(policy).step("memoryPolicy")?;
        sys::set_memory_policy(mode, &nodes).step("memoryPolicy")?;
    }
    if let Some(scheduler) = process.scheduler() {
        sys::set_scheduler(&scheduling(scheduler).step("scheduler")?)
            .map_err(|error| format!("{:?}: {error}", scheduler.policy()))
            .step("scheduler")?;
    }
    if let Some(priority) = process.io_priority() {
        sys::set_io_priority(io_priority(priority)).step("ioPriority")?;
    }
    Ok(())
}

/// Restricts this process to a list of CPUs, such as `0-2,5`.
pub(crate) fn pin(cpus: &str) -> Result<(), Failure> {
    const STEP: &str = "execCPUAffinity";
    let mut set = CpuSet::new();
    for cpu in numbers(cpus).step(STEP)? {
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| format!("{cpus}: {error}"))
        .step(STEP)
}

/// Lifts the caller's CPU affinity: the cgroup's cpuset is what limits a container.
pub(crate) fn reset_affinity() {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // A process that has lost all of its CPUs meanwhile runs where the kernel puts it.
    sched_setaffinity(None, &all).ok();
}

/// Checks the settings of a process.
pub(crate) fn check(process: &Process) -> Result<(), String> {
    if let Some(wanted) = process.scheduler() {
        scheduling(wanted).map_err(|error| format!("process.scheduler: {error}"))?;
    }
    if let Some(wanted) = process.io_priority()
        && !(0..8).contains(&wanted.priority())
    {
        return Err("process.ioPriority.priority is from 0 to 7".into());
    }
    let affinity = process.exec_cpu_affinity().as_ref();
    let lists = affinity.map(|all| [all.initial(), all.cpu_affinity_final()]);
    lists
        .into_iter()
        .flatten()
        .flatten()
        .try_for_each(|list| numbers(list).map(drop))
        .map_err(|error| format!("process.execCPUAffinity: {error}"))
}

/// Checks the settings of a specification.
pub(crate) fn check_spec(spec: &Spec) -> Result<(), String> {
    let linux = spec.linux().as_ref();
    let personality = linux.and_then(|linux| linux.personality().as_ref());
    let flags = personality.and_then(|wanted| wanted.flags().as_ref());
    if let Some(flag) = flags.and_then(|flags| flags.first()) {
        return Err(format!("linux.personality has an unknown flag {flag:?}"));
    }
    linux
        .and_then(|linux| linux.memory_policy().as_ref())
        .map_or(Ok(()), |policy| memory_policy(policy).map(drop))
        .map_err(|error| format!("linux.memoryPolicy: {error}"))
}

fn scheduling(wanted: &Scheduler) -> Result<Scheduling, String> {
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => libc::SCHED_DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err("no kernel has SCHED_ISO".into());
        }
    };
    let flags = wanted.flags().iter().flatten().map(|flag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01_u64,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02_u64,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04_u64,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08_u64,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10_u64,
        // The specification has no fields for the values, which are zero then.
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    });
    let priority = wanted.priority().unwrap_or_default();
    Ok(Scheduling {
        size: size_of::<Scheduling>() as u32,
        policy: policy.cast_unsigned(),
        flags: flags.fold(0, |all, flag| all | flag),
        nice: wanted.nice().unwrap_or_default(),
        priority: u32::try_from(priority).map_err(|_| format!("a priority of {priority}"))?,
        runtime: wanted.runtime().unwrap_or_default(),
        deadline: wanted.deadline().unwrap_or_default(),
        period: wanted.period().unwrap_or_default(),
        ..Scheduling::default()
    })
}

/// Argument of ioprio_set(2).
fn io_priority(wanted: &LinuxIOPriority) -> i32 {
    const CLASS_SHIFT: i32 = 13;
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << CLASS_SHIFT | i32::try_from(wanted.priority()).unwrap_or_default()
}

/// Mode with flags, and the node mask, for set_mempolicy(2).
fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<(i32, Vec<u64>), String> {
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => libc::MPOL_DEFAULT,
        MemoryPolicyModeType::MpolPreferred => libc::MPOL_PREFERRED,
        MemoryPolicyModeType::MpolBind => libc::MPOL_BIND,
        MemoryPolicyModeType::MpolInterleave => libc::MPOL_INTERLEAVE,
        MemoryPolicyModeType::MpolLocal => libc::MPOL_LOCAL,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().map(|flag| match flag {
        MemoryPolicyFlagType::MpolFStaticNodes => libc::MPOL_F_STATIC_NODES,
        MemoryPolicyFlagType::MpolFRelativeNodes => libc::MPOL_F_RELATIVE_NODES,
        MemoryPolicyFlagType::MpolFNumaBalancing => libc::MPOL_F_NUMA_BALANCING,
    });
    let nodes = numbers(wanted.nodes().as_deref().unwrap_or_default())?;
    let words = nodes.last().map_or(0, |highest| highest / 64 + 1);
    let mut bits = vec![0_u64; words];
    for node in nodes {
        bits[node / 64] |= 1 << (node % 64);
    }
    Ok((flags.fold(mode, |all, flag| all | flag), bits))
}

/// Parses a list such as `0-2,5`.
fn numbers(list: &str) -> Result<BTreeSet<usize>, String> {
    let wrong = |part: &str| format!("{part:?} is not a list of numbers below {NUMBER_LIMIT}");
    let mut all = BTreeSet::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let number: Option<usize> = text.trim().parse().ok();
            number
                .filter(|number| *number < NUMBER_LIMIT)
                .ok_or_else(|| wrong(part))
        };
        all.extend(number(first)?..=number(last)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
