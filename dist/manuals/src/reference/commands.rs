//! The command lines, from their definitions.

use std::fmt::Write as _;

use clap::{Arg, Command};

use super::keys::wrapped;
use crate::daemons;

const HEAD: &str = "\
# Commands

`tucano --help`, and `tucano <command> --help`, show the same in a terminal; so do `man tucano` and
`man tucano-<command>`.

";

pub(super) fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut tucano = tucano_cli::args::command();
    tucano.build();
    describe(&mut text, &tucano, 2, "tucano");
    if let Some(codes) = tucano.get_after_help() {
        write!(text, "```text\n{codes}\n```\n\n").ok();
    }
    for command in tucano.get_subcommands().filter(|it| !it.is_hide_set()) {
        if command.get_name() != "help" {
            describe(
                &mut text,
                command,
                3,
                &format!("tucano {}", command.get_name()),
            );
        }
    }
    for mut daemon in daemons() {
        daemon.build();
        let name = daemon.get_name().to_owned();
        describe(&mut text, &daemon, 2, &name);
        for command in daemon.get_subcommands().filter(|it| !it.is_hide_set()) {
            if command.get_name() != "help" {
                describe(
                    &mut text,
                    command,
                    3,
                    &format!("{name} {}", command.get_name()),
                );
            }
        }
    }
    text
}

/// A heading, what the command does, its arguments and its own options.
fn describe(text: &mut String, command: &Command, level: usize, name: &str) {
    // Writing into a text cannot fail.
    write!(text, "{} {name}\n\n", "#".repeat(level)).ok();
    let about = command.get_long_about().or_else(|| command.get_about());
    for paragraph in about
        .map(ToString::to_string)
        .unwrap_or_default()
        .split("\n\n")
    {
        write!(text, "{}\n\n", wrapped(paragraph)).ok();
    }
    let arguments: Vec<String> = command
        .get_arguments()
        .filter(|argument| is_own(argument, level))
        .map(line)
        .collect();
    if !arguments.is_empty() {
        write!(text, "{}\n\n", arguments.join("\n")).ok();
    }
}

/// Options of every command are described once, at the program itself.
fn is_own(argument: &Arg, level: usize) -> bool {
    let is_usual = ["help", "version"].contains(&argument.get_id().as_str());
    !argument.is_hide_set() && !is_usual && (level == 2 || !argument.is_global_set())
}

fn line(argument: &Arg) -> String {
    let values: Vec<String> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let takes_value = argument.get_action().takes_values();
    let values = if takes_value {
        values.join(" ")
    } else {
        String::new()
    };
    let name = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    let name = format!("{name} {values}");
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut facts: Vec<String> = Vec::new();
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    if takes_value && !defaults.is_empty() {
        facts.push(format!("default: {}", defaults.join(" ")));
    }
    if let Some(variable) = argument.get_env() {
        facts.push(format!("environment: {}", variable.to_string_lossy()));
    }
    let facts = if facts.is_empty() {
        String::new()
    } else {
        format!(" [{}]", facts.join("; "))
    };
    let text = wrapped(&format!("- `{}`: {help}{facts}", name.trim()));
    text.replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_a_heading() {
        let page = page();
        for heading in [
            "## tucano\n",
            "### tucano deploy\n",
            "## tucano_ctld\n",
            "## tucano_balancerd\n",
            "## tucano_agentd\n",
            "## tucano_oci\n",
        ] {
            assert!(page.contains(heading), "{heading}");
        }
        assert!(page.contains("Exit codes:"), "{page}");
    }
}
