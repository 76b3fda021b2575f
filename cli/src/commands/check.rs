//! `check`: validates a configuration without a controller. What a controller's and an agent's configuration may say,
//! their own programs know best.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use tokio::process::Command;
use tucano_api::{service::ServiceConfig, settings::parse};

use crate::{Error, args::Global, output};

pub(super) async fn run(global: &Global, file: &Path) -> Result<(), Error> {
    let text = fs::read_to_string(file).map_err(Error::file("read", file))?;
    let kind = match program_for(&text) {
        Some(program) => {
            ask(program, file).await?;
            program
        }
        None => {
            parse::<ServiceConfig>(&file.display().to_string(), &text)?;
            "tucano deploy"
        }
    };
    let file = file.display();
    if global.json {
        let answer = serde_json::json!({ "file": file.to_string(), "fit_for": kind });
        return output::data(&answer.to_string());
    }
    output::data(&format!("{file} is fit for {kind}"))
}

/// Which program's configuration a text is, by the key that it cannot lack.
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

async fn ask(name: &'static str, file: &Path) -> Result<(), Error> {
    let Some(program) = companion(name) else {
        let message = format!(
            "{name} is neither next to `tucano` nor on the PATH, and only it can check {}",
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
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Refused(said.trim().to_owned()))
}

/// A program of the same release: next to this one, or else on the PATH.
pub(crate) fn companion(name: &str) -> Option<PathBuf> {
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
    fn configurations_are_told_apart_by_their_keys() {
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
