//! A search tree in BPF for verdicts that depend on the number alone. When a filter is installed, the kernel runs it
//! for every number to find those that are always allowed; a list of comparisons would dominate the start of a
//! container.

use std::collections::BTreeMap;

use seccompiler::sock_filter;

use super::ALLOW;

/// Classic BPF (`<linux/bpf_common.h>`): load a word, jump, jump if not less, return.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offset of the number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// Placeholder verdict for numbers that other programs decide; the kernel has no such verdict.
pub(super) const FALL_THROUGH: u32 = 1;

/// Verdicts of numbers that are not listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlisted {
    pub(super) verdict: u32,
    /// The first number that is newer than the list, and the verdict from there on.
    pub(super) newer: Option<(u32, u32)>,
}

/// Looks up the number and returns its verdict. Numbers with [`FALL_THROUGH`] pass through the other programs; the
/// first that does not allow the call decides.
pub(super) fn search(
    unlisted: Unlisted,
    verdicts: &BTreeMap<u32, u32>,
    others: &[Vec<sock_filter>],
) -> Vec<sock_filter> {
    let mut program = vec![instruction(LOAD, NUMBER)];
    program.extend(branch(&runs(unlisted, verdicts)));
    redirect_to_end(&mut program, FALL_THROUGH);
    for (index, other) in others.iter().enumerate() {
        let mut other = other.clone();
        if index + 1 < others.len() {
            redirect_to_end(&mut other, ALLOW);
        }
        program.extend(other);
    }
    program
}

/// Replaces returns of this verdict by jumps to the end of the program.
fn redirect_to_end(program: &mut [sock_filter], verdict: u32) {
    let end = program.len();
    let is_answer = |one: &sock_filter| one.code == RETURN && one.k == verdict;
    for (at, one) in program.iter_mut().enumerate() {
        if is_answer(one) {
            *one = instruction(JUMP, distance(at, end));
        }
    }
}

/// Applies a program to these numbers alone; returns `otherwise` for others.
pub(super) fn only(numbers: &[u32], otherwise: u32, program: Vec<sock_filter>) -> Vec<sock_filter> {
    let mut all = vec![instruction(LOAD, NUMBER)];
    for number in numbers {
        // A match skips the jump to the next comparison.
        all.push(sock_filter {
            jf: 1,
            ..instruction(IF_EQUAL, *number)
        });
        all.push(instruction(JUMP, 0));
    }
    let begin = all.len() + 1;
    for (at, one) in all
        .iter_mut()
        .enumerate()
        .filter(|(_, one)| one.code == JUMP)
    {
        one.k = distance(at, begin);
    }
    all.push(instruction(RETURN, otherwise));
    all.extend(program);
    all
}

/// First number and verdict of each run of neighbours with the same verdict.
fn runs(unlisted: Unlisted, verdicts: &BTreeMap<u32, u32>) -> Vec<(u32, u32)> {
    let default = unlisted.verdict;
    let mut runs = vec![(0, default)];
    let mut begin = |number, verdict| match runs.last_mut() {
        Some(last) if last.1 == verdict => {}
        // The last run is empty.
        Some(last) if last.0 == number => last.1 = verdict,
        _ => runs.push((number, verdict)),
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            begin(next, default);
        }
        begin(*number, *verdict);
        next = number + 1;
    }
    begin(next, default);
    if let Some((first, verdict)) = unlisted.newer {
        begin(first.max(next), verdict);
    }
    runs
}

fn branch(runs: &[(u32, u32)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = runs {
        return vec![instruction(RETURN, *verdict)];
    }
    let (below, above) = runs.split_at(runs.len() / 2);
    fork(above[0].0, branch(below), branch(above))
}

/// Branches to numbers below and from `number` on.
fn fork(number: u32, below: Vec<sock_filter>, above: Vec<sock_filter>) -> Vec<sock_filter> {
    let compare = instruction(IF_NOT_LESS, number);
    let mut program = match u8::try_from(below.len()) {
        Ok(jt) => vec![sock_filter { jt, ..compare }],
        Err(_) => vec![
            sock_filter { jf: 1, ..compare },
            instruction(JUMP, distance(0, below.len() + 1)),
        ],
    };
    program.extend(below);
    program.extend(above);
    program
}

/// Jump offset. Programs are far shorter than u32.
fn distance(at: usize, to: usize) -> u32 {
    u32::try_from(to - at - 1).unwrap_or(u32::MAX)
}

fn instruction(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests;
