//! Command lines that containers are started by, by the hundred: to describe all other commands first would take longer than to
//! understand one of these.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::{Arguments, Command, Create, ExecIn, Global, Own, Run, Supervise};

#[derive(Parser)]
struct Usual {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: UsualCommand,
}

#[derive(Subcommand)]
enum UsualCommand {
    Create(Create),
    Run(Run),
    Supervise(Supervise),
    ExecIn(ExecIn),
}

impl Arguments {
    /// What this command line means, if it is one of the usual ones and nothing is wrong with it. The first word is the program.
    pub fn usual(words: &[OsString]) -> Option<Self> {
        let mut names = words.iter().filter_map(|word| word.to_str());
        if !names.any(UsualCommand::has_subcommand) {
            return None;
        }
        let Usual { global, command } = Usual::try_parse_from(words).ok()?;
        let command = match command {
            UsualCommand::Create(create) => Command::Create(create),
            UsualCommand::Run(run) => Command::Run(run),
            UsualCommand::Supervise(supervise) => Command::Own(Own::Supervise(supervise)),
            UsualCommand::ExecIn(exec) => Command::Own(Own::ExecIn(exec)),
        };
        Some(Self { global, command })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn usual(line: &str) -> Option<Arguments> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Arguments::usual(&words)
    }

    #[test]
    fn the_usual_ones_are_commands_as_all_others_are() {
        Arguments::command().debug_assert();
        Usual::command().debug_assert();
        let (all, usual) = (Arguments::command(), Usual::command());
        let names: Vec<_> = all.get_subcommands().map(clap::Command::get_name).collect();
        let mut usual = usual.get_subcommands().map(clap::Command::get_name);
        assert!(usual.all(|name| names.contains(&name)), "{names:?}");
    }

    #[test]
    fn one_of_them_is_understood_and_whatever_else_is_left() {
        let run = usual("tucano_oci --root /x run -b /bundle box").unwrap();
        assert_eq!(run.global.root.to_str(), Some("/x"));
        assert!(matches!(run.command, Command::Run(run) if run.id == "box"));
        let supervise = usual("tucano_oci supervise /home").unwrap();
        assert!(matches!(supervise.command, Command::Own(Own::Supervise(_))));
        // The first is a container of that name, the second lacks one, and the others say more than this.
        for line in [
            "kill run",
            "run",
            "run --help",
            "run --nope box",
            "state box",
        ] {
            assert!(usual(&format!("tucano_oci {line}")).is_none(), "{line}");
        }
    }
}
