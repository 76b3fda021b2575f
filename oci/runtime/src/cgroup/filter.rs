//! Compiles device rules to an eBPF program, which is how v2 implements them: the kernel runs it for each device
//! access of the cgroup's processes and allows the access if it returns 1 (kernel documentation, "cgroup-v2", "Device
//! controller").
//!
//! The program evaluates the rules from the last to the first and tracks the access types that are still undecided. A
//! rule that allows removes its types, until none is left; a rule that denies any of them ends the evaluation.

use super::devices::{Kind, Rule};
use crate::sys::Instruction;

/// Registers: the return value, the context, and the program's variables.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const UNDECIDED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `struct bpf_cgroup_dev_ctx`: access in the upper and type in the lower half of a word, then major and minor number.
const ACCESS_AND_KIND_OFFSET: i16 = 0;
const MAJOR_OFFSET: i16 = 4;
const MINOR_OFFSET: i16 = 8;

/// Opcodes (`<linux/bpf_common.h>`, `<linux/bpf.h>`), 32-bit except for the jumps, whose operands are positive then: a
/// device number has at most 20 bits.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_NOT_EQUAL: u8 = 0x55;
const JUMP_IF_ANY_BIT: u8 = 0x45;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// Compiles the rules.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load(UNDECIDED, ACCESS_AND_KIND_OFFSET),
        with(SHIFT_RIGHT, UNDECIDED, 16),
        load(KIND, ACCESS_AND_KIND_OFFSET),
        with(AND, KIND, 0xffff),
        load(MAJOR, MAJOR_OFFSET),
        load(MINOR, MINOR_OFFSET),
    ];
    program.extend(rules.iter().rev().flat_map(compile_rule));
    program.extend(answer(false));
    program
}

/// Compiles one rule: conditions that jump behind it if they do not hold, then its decision.
fn compile_rule(rule: &Rule) -> Vec<Instruction> {
    let conditions: Vec<_> = [
        (KIND, rule.kind.map(|kind: Kind| kind as u32)),
        (MAJOR, rule.major),
        (MINOR, rule.minor),
    ]
    .into_iter()
    .filter_map(|(register, value)| Some((register, value?)))
    .collect();
    let decision = if rule.allow {
        allow(rule.access.0)
    } else {
        deny(rule.access.0)
    };
    let count = conditions.len();
    let behind = |index: usize| (count - index - 1 + decision.len()) as i16;
    conditions
        .iter()
        .enumerate()
        .map(|(index, (register, value))| jump(JUMP_IF_NOT_EQUAL, *register, *value, behind(index)))
        .chain(decision.iter().copied())
        .collect()
}

fn allow(access: u32) -> Vec<Instruction> {
    let [positive, exit] = answer(true);
    vec![
        with(AND, UNDECIDED, !access),
        jump(JUMP_IF_NOT_EQUAL, UNDECIDED, 0, 2),
        positive,
        exit,
    ]
}

fn deny(access: u32) -> Vec<Instruction> {
    let [negative, exit] = answer(false);
    vec![
        jump(JUMP_IF_ANY_BIT, UNDECIDED, access, 1),
        jump(JUMP, 0, 0, 2),
        negative,
        exit,
    ]
}

fn answer(allowed: bool) -> [Instruction; 2] {
    [with(MOVE, ANSWER, u32::from(allowed)), with(EXIT, 0, 0)]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: register | CONTEXT << 4,
        offset,
        immediate: 0,
    }
}

fn with(code: u8, register: u8, operand: u32) -> Instruction {
    jump(code, register, operand, 0)
}

fn jump(code: u8, register: u8, operand: u32, offset: i16) -> Instruction {
    Instruction {
        code,
        registers: register,
        offset,
        immediate: operand.cast_signed(),
    }
}

#[cfg(test)]
mod tests;
