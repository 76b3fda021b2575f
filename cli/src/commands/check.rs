//! `check`: validates a configuration without a controller. The configurations of controller and agent are validated by
//! their own programs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use crate::{Error, args::Global, image::config_files, output};

pub(super) async fn run(global: &Global, file: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(file).map_err(Error::input("read", file))?;
    let kind = match program_for(&text) {
        Some(program) => {
            check_by(program, file).await?;
            program
        }
        None => {
            config_files::parse(file, text)?;
            "tucano deploy"
        }
    };
    let file = file.display();
    if global.json {
        let answer = serde_json::json!({ "file": file.to_string(), "fit_for": kind });
        return output::data(&answer.to_string());
    }
    output::data(&format!("{file} is valid for {kind}"))
}

/// The program that a configuration is for: each has a key that it must contain.
fn program_for(text: &str) -> Option<&'static str> {
    let table: toml::Table = text.parse().ok()?;
    if table.contains_key("topology") {
        Some("tucano_ctld")
    } else if table.contains_key("controller") {
        Some("tucano_agentd")
    } else {
        None
    }
}

async fn check_by(name: &'static str, file: &Path) -> Result<(), Error> {
    let Some(program) = find_program(name) else {
        let message = format!(
            "{} is checked by {name}, which is neither in the directory of `tucano` nor on the PATH",
            file.display()
        );
        return Err(Error::Usage(message));
    };
    let output = Command::new(&program)
        .arg("--config")
        .arg(file)
        .arg("--check")
        .output()
        .await;
    let output = output.map_err(|source| Error::Program { program, source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Error::InvalidProgramConfig(message.trim().to_owned()))
}

/// A program of the same release: in the directory of this one, or else on the PATH.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = own
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(env::split_paths(&path));
    directories
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_configuration_follows_from_its_keys() {
        assert_eq!(
            program_for("[[topology]]\nkind = \"ctl\""),
            Some("tucano_ctld")
        );
        assert_eq!(
            program_for("controller = \"http://10.0.0.1:7070\""),
            Some("tucano_agentd")
        );
        assert_eq!(program_for("name = \"hello\""), None);
        assert_eq!(program_for("{ \"name\": 1 }"), None);
    }
}
