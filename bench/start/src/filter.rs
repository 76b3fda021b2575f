//! Filters of the floor, for the system calls that the bundle allows regardless of arguments: as a list of
//! comparisons, and as a search tree.

use std::{collections::BTreeSet, str::FromStr};

use anyhow::{Context, Result};
use oci_spec::runtime::{LinuxSeccompAction, Spec};
use syscalls::Sysno;

/// Instructions of classic BPF (`<linux/bpf_common.h>`): load a word, jump if equal or not less, return.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `<linux/seccomp.h>`.
const ALLOW: u32 = 0x7fff_0000;
const ERRNO_EPERM: u32 = 0x0005_0001;

/// Code, jumps and operand, in the kernel's layout.
type Instruction = (u16, u8, u8, u32);

/// Numbers of the system calls that the bundle allows.
pub(crate) fn listed(spec: &Spec) -> Result<BTreeSet<u32>> {
    let section = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().clone());
    let section = section.context("the bundle has no filter")?;
    Ok(section
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow)
        .flat_map(|rule| rule.names().clone())
        .filter_map(|name| Some(Sysno::from_str(&name).ok()?.id() as u32))
        .collect())
}

/// One comparison for each number.
pub(crate) fn list(allowed: &BTreeSet<u32>) -> Result<Vec<u8>> {
    let mut program = vec![(LOAD, 0, 0, 0)];
    for number in allowed {
        program.push((IF_EQUAL, 0, 1, *number));
        program.push((RETURN, 0, 0, ALLOW));
    }
    program.push((RETURN, 0, 0, ERRNO_EPERM));
    Ok(bytes(&program))
}

/// Runs of neighbours, found by bisection.
pub(crate) fn tree(allowed: &BTreeSet<u32>) -> Result<Vec<u8>> {
    // First number of each run and the number after it.
    let mut changes = Vec::new();
    for number in allowed {
        if changes.last() == Some(number) {
            changes.pop();
        } else {
            changes.push(*number);
        }
        changes.push(number + 1);
    }
    let mut program = vec![(LOAD, 0, 0, 0)];
    branch(&changes, 0, &mut program)?;
    Ok(bytes(&program))
}

/// `before` is the number of changes below the first of these.
fn branch(changes: &[u32], before: usize, program: &mut Vec<Instruction>) -> Result<()> {
    if changes.is_empty() {
        let answer = if before % 2 == 1 { ALLOW } else { ERRNO_EPERM };
        program.push((RETURN, 0, 0, answer));
        return Ok(());
    }
    let middle = changes.len() / 2;
    let at = program.len();
    program.push((IF_NOT_LESS, 0, 0, changes[middle]));
    branch(&changes[..middle], before, program)?;
    program[at].1 = u8::try_from(program.len() - at - 1).context("a tree too large")?;
    branch(&changes[middle + 1..], before + middle + 1, program)
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (code, yes, no, operand) in program {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*yes, *no]);
        bytes.extend(operand.to_ne_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests;
