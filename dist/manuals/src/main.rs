//! Writes what is generated from the programs' own definitions: manual pages of each, the shells' completions of `tucano`, and
//! the reference of the book.
//!
//! `tucano_manuals DIRECTORY` fills `DIRECTORY/man` and `DIRECTORY/completions`; `tucano_manuals --reference DIRECTORY` writes
//! the pages of `docs/reference`.

mod reference;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod messages;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments
        .next()
        .context("usage: tucano_manuals [--reference] DIRECTORY")?;
    if first != "--reference" {
        return write_all(&PathBuf::from(first));
    }
    let directory = arguments
        .next()
        .context("usage: tucano_manuals --reference DIRECTORY")?;
    reference::write_all(&PathBuf::from(directory))
}

fn write_all(directory: &Path) -> anyhow::Result<()> {
    let (pages, completions) = (directory.join("man"), directory.join("completions"));
    for directory in [&pages, &completions] {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    for daemon in daemons() {
        write_page(&pages, daemon, "8")?;
    }
    let mut tucano = tucano_cli::args::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut tucano, "tucano", &completions)
            .with_context(|| format!("cannot write the completions for {shell}"))?;
    }
    // Such as tucano-deploy(1), with the options of every command.
    tucano.build();
    write_subcommands(&pages, &tucano)?;
    write_page(&pages, tucano_cli::args::command(), "1")
}

/// A page for each command below, such as tucano-deploy(1) and tucano-secret-set(1).
fn write_subcommands(directory: &Path, command: &Command) -> anyhow::Result<()> {
    for command in command.get_subcommands() {
        if command.get_name() != "help" {
            write_page(directory, command.clone(), "1")?;
            write_subcommands(directory, command)?;
        }
    }
    Ok(())
}

/// The programs for root.
pub(crate) fn daemons() -> [Command; 4] {
    [
        tucano_ctl::arguments::Arguments::command(),
        tucano_balancer::settings::Settings::command(),
        tucano_agent::arguments::Arguments::command(),
        tucano_oci_runtime::arguments::Arguments::command().name("tucano_oci"),
    ]
}

fn write_page(directory: &Path, command: Command, section: &str) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let path = directory.join(format!("{name}.{section}"));
    let mut page = Vec::new();
    Man::new(command)
        .section(section)
        .manual("Tucano")
        .source(concat!("Tucano ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .and_then(|()| fs::write(&path, &page))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;

    #[test]
    fn every_program_and_every_command_has_its_page() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path()).unwrap();
        let page =
            |name: &str| fs::read_to_string(directory.path().join("man").join(name)).unwrap();
        assert!(page("tucano_ctld.8").contains("SIGHUP reloads"));
        assert!(page("tucano_balancerd.8").contains("\\-\\-follow"));
        assert!(page("tucano_agentd.8").contains("\\-\\-cgroup"));
        assert!(page("tucano_oci.8").contains("create"));
        assert!(page("tucano.1").contains("Runs services on your own machines"));
        assert!(page("tucano-deploy.1").contains("\\-\\-image"));
        assert!(page("tucano-deploy.1").contains("\\-\\-token\\-file"));
    }

    #[test]
    fn shells_complete_commands_and_options() {
        let directory = tempfile::tempdir().unwrap();
        write_all(directory.path()).unwrap();
        for name in ["tucano.bash", "_tucano", "tucano.fish"] {
            let text = fs::read_to_string(directory.path().join("completions").join(name)).unwrap();
            for word in ["deploy", "scale", "token-file"] {
                assert!(text.contains(word), "{name}: {word}");
            }
        }
    }
}
